"""The Source protocol and the places rows come from; torch-free, so that plans can name data."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from xadapt.data.rows import PIECE, Rows, canonical_rows
from xadapt.data.splits import Share, shares
from xadapt.errors import UserError, unknown
from xadapt.tasks import Task
from xadapt.tasks.spec import Split


class Source(Protocol):
    """Where rows come from.

    name is what the user typed. identity names the content of a split (it enters stage keys, so it changes
    whenever a row may have changed) without loading it. load returns the first `limit` rows, or all; pieces gives the
    same rows in runs of at most `size`, whose `skipped` add up. Parquet files are read piece by piece; text files,
    which are held whole in any case, several data sets together, mining and the suite are loaded and cut.
    check says what can be told to be wrong before any row is needed: a missing file, one that is no Parquet, another
    column; text files are read. count is the number of rows if it can be told without loading them; languages are those of the task's that
    the source has. All raise UserError when the split cannot be had, pieces where it comes to what is wrong.
    """

    name: str

    def identity(self, task: Task, lang: str, split: Split) -> str: ...

    def load(self, task: Task, lang: str, split: Split, *, limit: int | None = None) -> Rows: ...

    def pieces(
        self, task: Task, lang: str, split: Split, *, limit: int | None = None, size: int = PIECE
    ) -> Iterator[Rows]: ...

    def check(self, task: Task, lang: str, split: Split) -> None: ...

    def count(self, task: Task, lang: str, split: Split) -> int | None: ...

    def languages(self, task: Task) -> list[str]: ...


class EmbeddedSource:
    """The compositional suite that ships with xadapt: synthetic, for demonstration and tests."""

    name = "embedded"

    def identity(self, task: Task, lang: str, split: Split) -> str:
        from xadapt.data.suite import suite_identity, task_languages

        having = task_languages(task.name, _suite_split(task, split)[0])
        if lang not in having:
            raise unknown("language", lang, having, place=f"the embedded suite's {split} split of {task.name}")
        return f"embedded:{suite_identity()}/{task.name}/{lang}/{split}"

    def load(self, task: Task, lang: str, split: Split, *, limit: int | None = None) -> Rows:
        from xadapt.data.suite import suite_rows

        name, first, stop = _suite_split(task, split)
        last = stop if limit is None else min(stop, first + limit)
        try:
            rows = suite_rows(task.name, lang, name, limit=last)[first:]
        except ValueError as error:
            raise UserError(f"the embedded suite: {error}") from error
        raw = {column: [row[column] for row in rows] for column in task.source_columns}
        place = f"embedded suite {task.name}/{lang}/{name}"
        return canonical_rows(task, lang, split, raw, identity=self.identity(task, lang, split), place=place)

    def pieces(
        self, task: Task, lang: str, split: Split, *, limit: int | None = None, size: int = PIECE
    ) -> Iterator[Rows]:
        return self.load(task, lang, split, limit=limit).pieces(size)

    def check(self, task: Task, lang: str, split: Split) -> None:
        """Nothing: what can be wrong is seen in making the identity."""

    def count(self, task: Task, lang: str, split: Split) -> int | None:
        _, first, stop = _suite_split(task, split)
        return stop - first

    def languages(self, task: Task) -> list[str]:
        from xadapt.data.suite import task_languages

        having = task_languages(task.name, _suite_split(task, "test")[0])
        return [lang for lang in task.languages if lang in having]


def _suite_split(task: Task, split: Split) -> tuple[str, int, int]:
    """The suite's name of a split (the hub's, which tatoeba keeps in `validation`) and the rows of it that are meant."""
    from xadapt.data.suite import suite_size

    error: ValueError | None = None
    for share in [*shares(task.parts[0], split), Share((split,))]:  # anli's rounds are one split here
        try:
            return share.names[0], *share.bounds(suite_size(task.name, share.names[0]))
        except ValueError as missing:
            error = error or missing
    raise UserError(f"the embedded suite: {error or f'{task.name} has no {split} split'}") from error


def whole_path(data: str) -> str:
    """A `--data` value that means the same from every working folder."""
    prefix, colon, folder = data.partition(":")
    if prefix == "xtreme" and colon and folder:
        return f"xtreme:{Path(folder).expanduser().absolute()}"
    return data if data in ("hub", "embedded") else str(Path(data).absolute())


def open_source(data: str, *, commits: Mapping[str, str] | None = None, newest: bool = False) -> Source:
    """The source a `--data` value means: `hub`, `embedded`, `xtreme:` and a folder, or a mirror folder.

    commits are those at which branches of the hub are to be read, by `datasets/<owner>/<name>@<branch>`; with
    newest, others are read at what they are now, and not at what they were at their first use.

    Raises UserError if it is none of these.
    """
    from xadapt.data.hub import HubSource
    from xadapt.data.mirror import MirrorSource
    from xadapt.data.xtreme_layout import XtremeSource

    if data == "hub":
        return HubSource(commits or {}, newest=newest)
    if data == "embedded":
        return EmbeddedSource()
    prefix, colon, folder = data.partition(":")
    if prefix == "xtreme" and colon:
        if not (root := Path(folder).expanduser()).is_dir() or not folder:
            raise UserError(
                f"--data '{data}': '{folder}' is no folder; give the `download/` that XTREME's scripts make"
            )
        return XtremeSource(root)
    if Path(data).is_dir():
        return MirrorSource(Path(data))
    raise UserError(
        f"--data '{data}' is no folder; give 'hub', 'embedded', 'xtreme:FOLDER', or an existing mirror folder "
        "laid out as <dataset>/<config>/<split>.parquet"
    )
