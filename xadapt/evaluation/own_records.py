"""Records of a user's own file, as it holds them: JSON lines, CSV or Parquet, one after another; torch-free."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from xadapt.data.parquet import check_names
from xadapt.errors import UserError, short, unknown

Kind = Literal["jsonl", "csv", "parquet"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LARGEST_CELL = 2**31 - 1  # characters of a CSV cell
Record = tuple[str, Mapping[str, Any]]  # where it stands, and what it holds


def kind_of(path: str, given: str | None = None) -> Kind:
    """How a file is to be read: as given, else by its name, and JSON lines from stdin (`-`). UserError for another."""
    if given is not None and given not in KINDS:
        raise unknown("format", given, KINDS, place="--format")
    named = given or ("jsonl" if path == "-" else Path(path).suffix.lower().removeprefix("."))
    for kind in KINDS:
        if kind == named:
            return kind
    endings = ", ".join(f".{kind}" for kind in KINDS)
    raise UserError(f"--input '{path}': the name ends in none of {endings}; say with --format how to read it")


def read_records(lines: Iterable[bytes], *, name: str, kind: Kind) -> Iterator[Record]:
    """The records of a file's lines, which a Parquet file, read whole if it cannot be searched, is not cut into.

    Raises UserError naming line or row.
    """
    if kind == "parquet":
        return _parquet_records(lines, name)
    texts = _decoded(lines, name)
    return _csv_records(texts, name) if kind == "csv" else _json_records(texts, name)


def _decoded(lines: Iterable[bytes], name: str) -> Iterator[str]:
    """Lines as text, without a byte order mark."""
    for number, line in enumerate(lines, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{name}, line {number}: not UTF-8 (byte {line[error.start]:#04x}); write the file as UTF-8"
            ) from error


def _json_records(lines: Iterable[str], name: str) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{name}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place}: not JSON: {error}") from error
        if not isinstance(record, dict):
            raise UserError(f"{place}: {short(record)} is not an object; give field names and values")
        yield place, record


def _csv_records(lines: Iterable[str], name: str) -> Iterator[Record]:
    csv.field_size_limit(LARGEST_CELL)  # the module's own is a hundred thousand characters
    reader = csv.reader(lines, strict=True)
    header: list[str] | None = None
    begins = 1
    try:
        for cells in reader:
            if header is None and cells:
                header = cells
                if twice := next((cell for at, cell in enumerate(cells) if cell in cells[:at]), None):
                    raise UserError(f"{name}, line {begins}: column '{twice}' stands twice; remove one")
            elif header and cells:
                if len(cells) != len(header):
                    raise UserError(f"{name}, line {begins}: {len(cells)} cells, but the header has {len(header)}")
                yield f"{name}, line {begins}", dict(zip(header, cells, strict=True))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{name}, line {begins}: not CSV: {error}; quote cells that hold commas or line ends"
        ) from error


def _parquet_records(lines: Iterable[bytes], name: str) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream: BinaryIO | Any = lines
    if not (hasattr(lines, "seekable") and stream.seekable()):
        stream = io.BytesIO(b"".join(lines))
    row = 0
    try:
        parquet = pq.ParquetFile(stream)
        check_names(Path(name), parquet.schema_arrow.names)
        for batch in parquet.iter_batches(batch_size=1024):
            for record in batch.to_pylist():
                yield f"{name}, row {row}", record
                row += 1
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError, ArithmeticError) as error:  # also dates that Python does not have
        raise UserError(f"{name}, row {row}: not Parquet that can be read: {error}") from error
