"""Predictions of a user's own rows, as JSON lines, CSV or Parquet; torch-free.

Data are written as they are: what a model answers or a user calls a row comes back the same from each of the three.
"""

import csv
import io
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xadapt.analysis.export import appearing
from xadapt.errors import UserError

ENDINGS = (".jsonl", ".csv", ".parquet")


@dataclass(frozen=True)
class OwnPrediction:
    """One row's prediction: a label by name, a list of tags, or an answer; confidence is the format's own.

    probabilities are those of all labels, which sum to 1, or, one a word, of each tag that is predicted; an answer has
    none. language is the row's, "" where it is not known.
    """

    id: str | int
    prediction: str | list[str]
    confidence: float
    language: str = ""
    probabilities: Mapping[str, float] | Sequence[float] | None = None


Write = Callable[[Sequence[OwnPrediction]], None]


def check_output(output: str) -> None:
    """UserError for a file whose ending names no format, or a folder."""
    if output != "-" and Path(output).is_dir():
        raise UserError(f"--output '{output}' is a folder; name a file in it")
    if output != "-" and Path(output).suffix.lower() not in ENDINGS:
        raise UserError(
            f"--output '{output}' ends in none of {', '.join(ENDINGS)}; choose one of them, or '-' to print"
        )


@contextmanager
def prediction_sink(output: str) -> Iterator[Write]:
    """What writes blocks of predictions to a file, whole or not at all, or at once to stdout (`-`), as JSON lines.

    A row becomes an object with id, language where it is known, prediction, confidence, and probabilities by label. The
    tables of .csv and .parquet have a column a label instead, `probability_<label>`, and always one for the language; in
    CSV tags and their probabilities are joined by spaces. Ids are texts in Parquet. Raises OSError.
    """
    if output == "-":
        yield lambda block: _print("".join(map(_json_line, block)))
        return
    with appearing(output) as path:
        if (kind := Path(output).suffix.lower()) == ".parquet":
            with _parquet_sink(path) as write:
                yield write
            return
        with open(path, "w", encoding="utf-8", newline="") as file:
            if kind == ".csv":
                yield _csv_sink(file)
            else:
                yield lambda block: file.writelines(map(_json_line, block))


def _csv_sink(file: io.TextIOBase) -> Write:
    writer, begun = csv.writer(file), False

    def write(block: Sequence[OwnPrediction]) -> None:
        nonlocal begun
        for row in map(_columns, block):
            if not begun:
                writer.writerow(row)
                begun = True
            writer.writerow([" ".join(map(str, value)) if isinstance(value, list) else value for value in row.values()])

    return write


@contextmanager
def _parquet_sink(path: Path) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer: Any = None

    def write(block: Sequence[OwnPrediction]) -> None:
        nonlocal writer
        rows = [_columns(found) | {"id": str(found.id)} for found in block]
        predicted = pa.list_(pa.string()) if isinstance(rows[0]["prediction"], list) else pa.string()
        schema = pa.schema(
            [("id", pa.string()), ("language", pa.string()), ("prediction", predicted)]
            + [
                (name, pa.list_(pa.float64()) if name == "probabilities" else pa.float64())
                for name in list(rows[0])[3:]
            ]
        )
        writer = writer or pq.ParquetWriter(path, schema, compression="zstd")
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))

    try:
        yield write
    finally:
        if writer:
            writer.close()


def _columns(found: OwnPrediction) -> dict[str, Any]:
    """A row of a table: id, language, prediction, then numbers."""
    row = {"id": found.id, "language": found.language, "prediction": found.prediction, "confidence": _confidence(found)}
    if isinstance(found.probabilities, Mapping):
        return row | {f"probability_{label}": value for label, value in found.probabilities.items()}
    return row if found.probabilities is None else row | {"probabilities": list(found.probabilities)}


def _json_line(found: OwnPrediction) -> str:
    fields: dict[str, Any] = {"id": found.id} | ({"language": found.language} if found.language else {})
    fields |= {"prediction": found.prediction, "confidence": _confidence(found)}
    if found.probabilities is not None:
        fields["probabilities"] = found.probabilities
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _confidence(found: OwnPrediction) -> float | None:
    return round(found.confidence, 6) if math.isfinite(found.confidence) else None


def _print(text: str) -> None:
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()
