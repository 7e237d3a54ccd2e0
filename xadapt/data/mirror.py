"""A mirror folder: Parquet files by dataset, config and split, in our layout or as downloaded from the hub."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shlex import quote

from xadapt.data.bucc import mining_columns, mining_files, read_mining_files
from xadapt.data.ccgbank import ccg_files, read_ccg
from xadapt.data.files import content_hash
from xadapt.data.hub import fetch_names
from xadapt.data.manifest import check_complete
from xadapt.data.parquet import ParquetRows, complete_shards, count_rows, read_parquet
from xadapt.data.pieces import read_pieces
from xadapt.data.raw_text import raw_text_files, read_raw_text
from xadapt.data.rows import PIECE, Rows, canonical_rows
from xadapt.data.splits import Share, merge, shares, stand_in
from xadapt.errors import UserError
from xadapt.tasks import Task
from xadapt.tasks.spec import Part, Split, fill


class MirrorSource:
    """Reads `<root>/<dataset>/<config>/<split>.parquet`, or hub shards below `<root>/<owner>/<dataset>/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = str(root)

    def identity(self, task: Task, lang: str, split: Split) -> str:
        found = [self._find(task, part, lang, split) for part in task.parts_in(lang)]
        hashes = [content_hash(files) + share.suffix for files, share, _ in found]
        return "sha256:" + "+".join(hashes)

    def load(self, task: Task, lang: str, split: Split, *, limit: int | None = None) -> Rows:
        identity, loaded, used = self.identity(task, lang, split), [], []
        for part in task.parts_in(lang):
            files, share, prefix = self._find(task, part, lang, split)
            used.append((part, share))
            if files[0].suffix == ".txt":
                loaded.append(read_raw_text(task, lang, split, files[0], identity=identity, limit=limit))
                continue
            if files[0].suffix != ".parquet":
                loaded.append(read_ccg(task, lang, split, files, identity=identity, limit=limit))
                continue
            if len(files) == 3 and files == mining_files(files[0].parent, lang):
                raw = mining_columns(read_mining_files(files))
                columns = {task.columns[field]: values for field, values in raw.items()}
                place = str(files[0].parent)
                loaded.append(canonical_rows(task, lang, split, columns, identity=identity, place=place, limit=limit))
                continue
            loaded.append(
                read_parquet(task, lang, split, files, identity=identity, limit=limit, share=share, id_prefix=prefix)
            )
        counts = [self._count(task, part, lang, split) for part in task.parts_in(lang)] if len(loaded) > 1 else [0]
        return replace(merge(loaded, counts, limit=limit), stand_in=stand_in(used, split))

    def pieces(
        self, task: Task, lang: str, split: Split, *, limit: int | None = None, size: int = PIECE
    ) -> Iterator[Rows]:
        identity, part = self.identity(task, lang, split), task.parts_in(lang)[0]
        files, share, prefix = self._find(task, part, lang, split)
        return read_pieces(
            task, lang, split, part, files, identity=identity, limit=limit, size=size, share=share,
            id_prefix=prefix, load=lambda: self.load(task, lang, split, limit=limit),
        )  # fmt: skip

    def check(self, task: Task, lang: str, split: Split) -> None:
        for part in task.parts_in(lang):
            files, _, prefix = self._find(task, part, lang, split)
            # of three files for mining each has other columns, and text files are read at once where they are used
            if files[0].suffix == ".parquet" and not files[0].name.startswith("mining_"):
                ParquetRows(task, lang, split, "", files).check(id_prefix=prefix)
            elif files[0].suffix == ".parquet":
                count_rows(files)

    def count(self, task: Task, lang: str, split: Split) -> int | None:
        try:
            if any(self._find(task, part, lang, split)[2] for part in task.parts_in(lang)):
                return None  # which rows are the language's only their ids say
            return sum(self._count(task, part, lang, split) for part in task.parts_in(lang))
        except (OSError, ValueError):  # said in full where the rows are read
            return None

    def languages(self, task: Task) -> list[str]:
        # that the splits in a folder are whole is checked, loudly, where they are read; so is a mirror without any
        there = [
            lang for lang in task.languages if any(folder.is_dir() for folder in self._folders(task.parts[0], lang))
        ]
        return there or list(task.languages)

    def _folders(self, part: Part, lang: str) -> tuple[Path, Path]:
        """Where the language lies in our layout and in the hub's."""
        hub, ours = part.hub, self.root / fill(part.mirror, lang)
        return ours, self.root / hub.dataset / fill(hub.config, lang) if hub.dataset else ours

    def _count(self, task: Task, part: Part, lang: str, split: Split) -> int:
        files, share, _ = self._find(task, part, lang, split)
        if files[0].suffix != ".parquet":
            raise ValueError("the sentences of a text file are not counted without reading it")
        files = files[:2] if files[0].name.startswith("mining_") else files
        start, stop = share.bounds(count_rows(files))
        return stop - start

    def _find(self, task: Task, part: Part, lang: str, split: Split) -> tuple[list[Path], Share, str]:
        """The files of the first of a split's names that is there, the share of them, and the ids to keep."""
        ours, hub = self._folders(part, lang)
        if task.format == "mining" and (files := mining_files(ours, lang)) and not _has_sides(ours, split):
            return files, Share((split,)), ""
        wanted = shares(part, split)
        for share in wanted:
            if all((ours / f"{name}.parquet").is_file() for name in share.names):
                return [ours / f"{name}.parquet" for name in share.names], share, ""
            if part.hub.dataset:
                check_complete(self.root / part.hub.dataset, f"{self._fetch(task, lang)} completes it.")
            shards = [complete_shards(hub, name) for name in share.names]
            if broken := [name for name, found in zip(share.names, shards, strict=True) if _begun(hub, name, found)]:
                raise UserError(
                    f"{hub} has some shards of the split {broken[0]} but not all; {self._fetch(task, lang)} completes it"
                )
            if all(shards):
                return [file for files in shards for file in files], share, fill(part.hub.id_prefix, lang)
        find_texts = ccg_files if task.open_labels else raw_text_files if task.format == "mlm" else None
        if find_texts and (texts := find_texts(ours, split)):
            return texts, Share((split,)), ""
        looked = " or ".join(" and ".join(f"{name}.parquet" for name in share.names) for share in wanted)
        if part.hub.elsewhere:
            raise UserError(
                f"the mirror '{self.root}' has no {split} split of task '{task.name}' in {ours}: {part.hub.elsewhere}. "
                f"{_nearest(ours)}"
            )
        raise UserError(
            f"the mirror '{self.root}' has no {split} split of task '{task.name}' for '{lang}': looked for {looked} "
            f"in {ours} and for the hub's shards in {hub}. {_nearest(ours)}{f' {self._fetch(task, lang)} fetches it.' if part.hub.dataset else ''}"
        )

    def _fetch(self, task: Task, lang: str) -> str:
        only = f" --languages {lang}" if len(task.languages) > 1 else ""
        name = fetch_names(task).replace(task.name, task.name if lang in task.languages else f"{task.name}@{lang}", 1)
        return f"`xadapt fetch --tasks {name}{only} --to {quote(str(self.root))}`"


def _begun(folder: Path, name: str, complete: list[Path]) -> bool:
    return not complete and any(folder.glob(f"{name}-*-of-*.parquet"))


def _has_sides(folder: Path, split: Split) -> bool:
    """Whether a split has a file of its own; google/xtreme's bucc18 has one of that name with the gold pairs alone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = folder / f"{split}.parquet"
    try:
        return file.is_file() and "side" in pq.read_schema(file).names
    except (pa.ArrowException, OSError):  # said in full where the rows are read
        return True


def _nearest(folder: Path) -> str:
    existing = folder
    while not existing.is_dir() and existing != existing.parent:
        existing = existing.parent
    inside = sorted(p.name for p in existing.iterdir())[:12]
    return f"'{existing}' holds: {', '.join(inside) or 'nothing'}."
