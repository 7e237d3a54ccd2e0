"""A mirror folder: Parquet files by dataset, config and split, in our layout or as downloaded from the hub."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from xadapt.data.parquet import complete_shards, read_parquet
from xadapt.data.rows import Rows
from xadapt.errors import UserError
from xadapt.tasks import Task
from xadapt.tasks.spec import Split


class MirrorSource:
    """Reads `<root>/<dataset>/<config>/<split>.parquet`, or hub shards below `<root>/<owner>/<dataset>/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = str(root)

    def identity(self, task: Task, lang: str, split: Split) -> str:
        files = self._files(task, lang, split)
        return "sha256:" + "+".join(_file_hash(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files)

    def load(self, task: Task, lang: str, split: Split, *, limit: int | None = None) -> Rows:
        files = self._files(task, lang, split)
        return read_parquet(task, lang, split, files, identity=self.identity(task, lang, split), limit=limit)

    def count(self, task: Task, lang: str, split: Split) -> int | None:
        import pyarrow.parquet as pq

        try:
            return sum(int(pq.ParquetFile(file).metadata.num_rows) for file in self._files(task, lang, split))
        except (OSError, ValueError):  # said in full where the rows are read
            return None

    def languages(self, task: Task) -> list[str]:
        # that the splits in a folder are whole is checked, loudly, where they are read; so is a mirror without any
        there = [lang for lang in task.languages if any(folder.is_dir() for folder in self._folders(task, lang))]
        return there or list(task.languages)

    def _folders(self, task: Task, lang: str) -> tuple[Path, Path]:
        """Where the language lies in our layout and in the hub's."""
        return self.root / task.mirror_folder(lang), self.root / task.hub.dataset / task.hub_config(lang)

    def _files(self, task: Task, lang: str, split: Split) -> Sequence[Path]:
        names = task.splits.get(split, ())
        ours, hub = self._folders(task, lang)
        for name in names:
            if (ours / f"{name}.parquet").is_file():
                return [ours / f"{name}.parquet"]
            if shards := complete_shards(hub, name):
                return shards
        looked = " or ".join(f"{name}.parquet" for name in names)
        raise UserError(
            f"the mirror '{self.root}' has no {split} split of task '{task.name}' for '{lang}': looked for {looked} "
            f"in {ours} and for the hub's shards in {hub}. {_remedy(ours, task, hub)}"
        )


def _remedy(folder: Path, task: Task, hub: Path) -> str:
    existing = folder
    while not existing.is_dir() and existing != existing.parent:
        existing = existing.parent
    inside = sorted(p.name for p in existing.iterdir())[:12]
    fetch = f"hf download {task.hub.dataset} --repo-type dataset --local-dir {hub.parent}"
    return f"'{existing}' holds: {', '.join(inside) or 'nothing'}. `{fetch}` fetches it."


@lru_cache(maxsize=4096)
def _file_hash(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
