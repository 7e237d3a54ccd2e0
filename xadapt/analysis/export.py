"""Scores to files, each written whole or not at all, and texts that are safe to show."""

import csv
import io
import os
import unicodedata
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # every command loads this module for `visible`, and only those that have scores their class
    from xadapt.analysis.records import Score

UNSAFE_IN_SPREADSHEETS = ("=", "+", "-", "@", "\t", "\r", "\n")
HIDDEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}


def write_csv(scores: "Sequence[Score]", path: Path | str) -> None:
    """Write scores as CSV, atomically; text a spreadsheet would run gets a leading apostrophe."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    columns, rows = _flat(scores)
    writer.writerow(columns)
    writer.writerows([csv_cell(row[name]) for name in columns] for row in rows)
    write_atomically(path, out.getvalue().encode())


def write_parquet(scores: "Sequence[Score]", path: Path | str) -> None:
    """Write scores as Parquet, one typed column a field, atomically; numbers of several types as text."""
    import pyarrow as pa
    from pyarrow import parquet

    from xadapt.analysis.records import Score

    kinds: dict[object, object] = {str: pa.string(), float: pa.float64(), float | None: pa.float64(), bool: pa.bool_()}
    columns, rows = _flat(scores)
    types = {name: kinds.get(field.annotation, pa.int64()) for name, field in Score.model_fields.items()}
    for name in columns:
        if name not in types:
            types[name] = _one_type([row[name] for row in rows], kinds, pa.int64())
            if types[name] == pa.string():
                for row in rows:
                    row[name] = None if row[name] is None else str(row[name])
    schema = pa.schema([(name, types[name]) for name in columns])
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), sink)
    write_atomically(path, sink.getvalue().to_pybytes())


def _flat(scores: "Sequence[Score]") -> tuple[list[str], list[dict[str, Any]]]:
    """The columns of scores, and each as a mapping: the fields, and what differs between them under its own name."""
    from xadapt.analysis.records import Score

    fields = [name for name in Score.model_fields if name != "numbers"]
    named = sorted({name for score in scores for name in score.numbers})
    rows = [
        score.model_dump(exclude={"numbers"}) | {name: score.numbers.get(name) for name in named} for score in scores
    ]
    return [*fields, *named], rows


def _one_type(values: Sequence[object], kinds: Mapping[object, object], whole: object) -> object:
    """What a column of plain values is: of one type, of numbers, or text."""
    found = {type(value) for value in values if value is not None}
    if found == {int, float}:
        return kinds[float]
    return kinds.get(found.pop(), whole) if len(found) == 1 else kinds[str]


def write_atomically(path: Path | str, data: bytes) -> None:
    """Write a file whole or not at all, making its folder if need be; raises OSError."""
    with appearing(path) as partial:
        partial.write_bytes(data)


@contextmanager
def appearing(path: Path | str) -> Iterator[Path]:
    """Where to write a file that is there, whole, at the end or not at all, its folder with it; raises OSError."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def visible(text: str) -> str:
    """The text with control, bidirectional and other invisible characters written as escapes."""
    return "".join(_escaped(char) if unicodedata.category(char) in HIDDEN else char for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


def csv_cell(value: object) -> object:
    """A value as a cell: text that a spreadsheet would run gets a leading apostrophe."""
    if isinstance(value, str) and value.startswith(UNSAFE_IN_SPREADSHEETS):
        return "'" + value
    return value
