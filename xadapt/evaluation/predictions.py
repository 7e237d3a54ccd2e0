"""Predictions as a Parquet file, one row an example, to be read before an accuracy is believed."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xadapt.evaluation.zero_shot import Predicted
from xadapt.tasks import Task

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("language", "id", "prediction", "gold")] + [("score", pa.float32())]
)


class PredictionFile:
    """Writes rows as they are predicted: language, id, prediction and gold as text, score.

    Labels stand by name, tags and the gold ids of a mined sentence joined by spaces, golden answers by bars; score is
    the format's confidence.
    """

    def __init__(self, path: Path, task: Task) -> None:
        self.task = task
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd")

    def __enter__(self) -> "PredictionFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the file, which is whole from here on."""
        self._writer.close()

    def write(self, found: Predicted) -> None:
        """Append some rows of one language."""
        ids, predictions, golds, scores = _mined(found) if self.task.format == "mining" else (
            found.ids, found.predictions, found.references, found.confidence
        )  # fmt: skip
        columns: Sequence[Sequence[Any]] = (
            [found.lang] * len(ids), ids, [self._text(value) for value in predictions],
            [self._text(value) for value in golds], scores,
        )  # fmt: skip
        arrays = [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)]
        self._writer.write_table(pa.table(arrays, schema=SCHEMA))

    def _text(self, value: Any) -> str:
        labels = self.task.labels
        if not labels:
            return " | ".join(map(str, value)) if isinstance(value, list) else str(value)
        return " ".join(labels[label] for label in value) if isinstance(value, list) else labels[value]


def _mined(found: Predicted) -> tuple[list[str], list[str], list[str], list[float | None]]:
    """Every foreign sentence that was paired or should have been, with the English ids of both; it may have several."""
    pairs = {name: (to, score) for (name, to), score in zip(found.predictions, found.confidence, strict=True)}
    gold: dict[str, list[str]] = {}
    for name, to in found.references:
        gold.setdefault(name, []).append(to)
    ids = sorted(set(pairs) | set(gold))
    ours = [pairs.get(name, ("", None)) for name in ids]
    return ids, [to for to, _ in ours], [" ".join(gold.get(name, [])) for name in ids], [score for _, score in ours]
