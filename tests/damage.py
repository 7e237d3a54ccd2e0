"""What may be wrong with data, how a Parquet file comes to it, and a check that a matrix of such cells has no gap."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xadapt.errors import UserError

Columns = dict[str, Any]
Do = Callable[[Path, Columns], object]
AT = 2  # the row that is damaged

# what may befall a table, and what a text file
KINDS = (
    "no rows", "no bytes", "cut off", "not UTF-8", "byte order mark", "CRLF", "NUL", "megabyte", "surrogate",
    "blank text", "nothing", "missing column", "another type", "missing label", "unknown label", "misaligned",
    "bad reference", "duplicate",
)  # fmt: skip
TEXT_KINDS = (
    "no rows", "no bytes", "cut off", "not UTF-8", "byte order mark", "CRLF", "NUL", "megabyte", "surrogate",
    "blank text", "missing label", "unknown label", "misaligned", "bad reference", "duplicate",
    "no last newline", "blank lines", "too few columns", "too many columns", "another form",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One damage: what is done, and the parts of the message it is answered with, or that what is read is `reads`."""

    kind: str
    form: str
    do: Callable[..., Any]
    named: tuple[str, ...] = ()
    reads: Any = None

    @property
    def harmless(self) -> bool:
        return not self.named

    def __str__(self) -> str:
        return f"{self.form}-{self.kind}-{'-'.join(self.named) or 'read'}".replace("/", ":")[:80]


def check_matrix(
    cells: Iterable[Cell], impossible: Mapping[tuple[str, str], str], *, kinds: Collection[str], forms: Collection[str]
) -> None:
    """Every kind has a cell in every form, or a reason why it cannot exist: (kind, form) or (kind, "*")."""
    there = {(cell.kind, cell.form) for cell in cells}
    excused = {(kind, form) for kind in kinds for form in forms if {(kind, form), (kind, "*")} & set(impossible)}
    assert there | excused == {(kind, form) for kind in kinds for form in forms}
    assert not there & excused, "a cell that is said not to exist"
    assert {kind for kind, _ in impossible} <= set(kinds)


def refused(load: Callable[[], object], *parts: str) -> str:
    """The message of the UserError that loading raises; it holds the parts and is short, whatever the value was."""
    with pytest.raises(UserError) as caught:
        load()
    message = str(caught.value)
    assert [part for part in parts if part not in message] == [], message
    assert len(message) < 1500
    return message


# ---- what is done to the columns of a good file


def write(path: Path, columns: Columns) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def put(column: str, change: Any, row: int = AT) -> Do:
    """One value replaced, or what a function makes of it."""

    def do(path: Path, columns: Columns) -> None:
        values = list(columns[column])
        values[row] = change(values[row]) if callable(change) else change
        write(path, columns | {column: values})

    return do


def every(column: str, value: Any, kind: pa.DataType | None = None) -> Do:
    """A whole column of one value, since a column has one type."""
    return lambda path, columns: write(path, columns | {column: pa.array([value] * len(columns[column]), kind)})


def undecodable(column: str) -> Do:
    def do(path: Path, columns: Columns) -> None:
        encoded = [text.encode() for text in columns[column]]
        encoded[AT] = b"caf\xe9"
        write(path, columns | {column: pa.array(encoded).view(pa.string())})

    return do


def without(column: str) -> Do:
    return lambda path, columns: write(path, {name: values for name, values in columns.items() if name != column})


def no_rows(path: Path, columns: Columns) -> None:
    pq.write_table(pa.table(columns).slice(0, 0), write(path, columns))


def written_as(change: Callable[[bytes], bytes]) -> Do:
    return lambda path, columns: path.write_bytes(change(write(path, columns).read_bytes()))
