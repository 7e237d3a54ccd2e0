"""The Source protocol and the three places rows come from; torch-free, so that plans can name data."""

from pathlib import Path
from typing import Protocol

from xadapt.data.rows import Rows, canonical_rows
from xadapt.errors import UserError
from xadapt.tasks import Task
from xadapt.tasks.spec import Split


class Source(Protocol):
    """Where rows come from.

    name is what the user typed. identity names the content of a split (it enters stage keys, so it changes
    whenever a row may have changed) without loading it. load returns the first `limit` rows, or all.
    count is the number of rows if it can be told without loading them; languages are those of the task's that
    the source has. All raise UserError when the split
    cannot be had.
    """

    name: str

    def identity(self, task: Task, lang: str, split: Split) -> str: ...

    def load(self, task: Task, lang: str, split: Split, *, limit: int | None = None) -> Rows: ...

    def count(self, task: Task, lang: str, split: Split) -> int | None: ...

    def languages(self, task: Task) -> list[str]: ...


class EmbeddedSource:
    """The compositional suite that ships with xadapt: synthetic, for demonstration and tests."""

    name = "embedded"

    def identity(self, task: Task, lang: str, split: Split) -> str:
        from xadapt.data.suite import suite_identity

        return f"embedded:{suite_identity()}/{task.name}/{lang}/{split}"

    def load(self, task: Task, lang: str, split: Split, *, limit: int | None = None) -> Rows:
        from xadapt.data.suite import suite_rows

        # the suite follows the hub's split names: tatoeba's test pairs lie in `validation` there
        name = "validation" if task.format == "retrieval" else split
        try:
            rows = suite_rows(task.name, lang, name, limit=limit)
        except ValueError as error:
            raise UserError(f"the embedded suite: {error}") from error
        raw = {column: [row[column] for row in rows] for column in task.columns.values()}
        place = f"embedded suite {task.name}/{lang}/{name}"
        return canonical_rows(task, lang, split, raw, identity=self.identity(task, lang, split), place=place)

    def count(self, task: Task, lang: str, split: Split) -> int | None:
        from xadapt.data.suite import suite_size

        return suite_size(task.name, "validation" if task.format == "retrieval" else split)

    def languages(self, task: Task) -> list[str]:
        from xadapt.data.suite import languages

        return [lang for lang in task.languages if lang in languages()]


def open_source(data: str) -> Source:
    """The source a `--data` value means: `hub`, `embedded`, or the path of a mirror folder.

    Raises UserError if it is none of these.
    """
    from xadapt.data.hub import HubSource
    from xadapt.data.mirror import MirrorSource

    if data == "hub":
        return HubSource()
    if data == "embedded":
        return EmbeddedSource()
    if Path(data).is_dir():
        return MirrorSource(Path(data))
    raise UserError(
        f"--data '{data}' is no folder; give 'hub', 'embedded', or an existing mirror folder "
        "laid out as <dataset>/<config>/<split>.parquet"
    )
