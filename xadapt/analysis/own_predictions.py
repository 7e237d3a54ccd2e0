"""Predictions of a user's own rows, as JSON lines or CSV; torch-free."""

import csv
import io
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xadapt.analysis.export import csv_cell, growing_file


@dataclass(frozen=True)
class OwnPrediction:
    """One row's prediction: a label by name, a list of tags, or an answer; confidence is the format's own."""

    id: str | int
    prediction: str | list[str]
    confidence: float


Write = Callable[[Sequence[OwnPrediction]], None]


@contextmanager
def prediction_sink(output: str, *, lang: str | None) -> Iterator[Write]:
    """What writes blocks of predictions to a file, whole or not at all, or at once to stdout (`-`).

    A row becomes an object with id, language if given, prediction and confidence; in a .csv file tags are joined by
    spaces and text that a spreadsheet would run gets a leading apostrophe. Raises OSError.
    """
    given = {} if lang is None else {"language": lang}
    if output == "-":
        yield lambda block: _print("".join(_json_line(found, given) for found in block))
        return
    with growing_file(output) as write:
        if Path(output).suffix.lower() != ".csv":
            yield lambda block: write("".join(_json_line(found, given) for found in block))
            return
        write(_csv_lines([["id", *given, "prediction", "confidence"]]))
        yield lambda block: write(_csv_lines(list(_fields(found, given).values()) for found in block))


def _fields(found: OwnPrediction, given: dict[str, str]) -> dict[str, Any]:
    confidence = round(found.confidence, 6) if math.isfinite(found.confidence) else None
    return {"id": found.id, **given, "prediction": found.prediction, "confidence": confidence}


def _json_line(found: OwnPrediction, given: dict[str, str]) -> str:
    return json.dumps(_fields(found, given), ensure_ascii=False) + "\n"


def _csv_lines(rows: Any) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerows([csv_cell(" ".join(v) if isinstance(v, list) else v) for v in row] for row in rows)
    return out.getvalue()


def _print(text: str) -> None:
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()
