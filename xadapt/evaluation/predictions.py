"""Predictions as a Parquet file, one row an example, to be read before an accuracy is believed."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xadapt.evaluation.zero_shot import LanguageResult
from xadapt.tasks import Task

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("language", "id", "prediction", "gold")] + [("score", pa.float32())]
)


class PredictionFile:
    """Writes language after language: language, id, prediction and gold as text, score.

    Labels stand by name, tags joined by spaces, golden answers by bars; score is the format's confidence.
    """

    def __init__(self, path: Path, task: Task) -> None:
        self.task = task
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd")

    def __enter__(self) -> "PredictionFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.close()

    def write(self, result: LanguageResult) -> None:
        """Append one language."""
        ids, predictions, golds, scores = self._mined(result) if self.task.format == "mining" else (
            result.ids, result.predictions, result.references, result.confidence
        )  # fmt: skip
        columns: Sequence[Sequence[Any]] = (
            [result.lang] * len(ids), ids, [self._text(value) for value in predictions],
            [self._text(value) for value in golds], scores,
        )  # fmt: skip
        arrays = [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)]
        self._writer.write_table(pa.table(arrays, schema=SCHEMA))

    def _mined(self, result: LanguageResult) -> tuple[list[str], list[str], list[str], list[float | None]]:
        """Every foreign sentence that was paired or should have been, with both English ids."""
        found = {name: (to, score) for (name, to), score in zip(result.predictions, result.confidence, strict=True)}
        gold = dict(result.references)
        ids = sorted(set(found) | set(gold))
        pairs = [found.get(name, ("", None)) for name in ids]
        return ids, [to for to, _ in pairs], [gold.get(name, "") for name in ids], [score for _, score in pairs]

    def _text(self, value: Any) -> str:
        labels = self.task.labels
        if not labels:
            return " | ".join(map(str, value)) if isinstance(value, list) else str(value)
        return " ".join(labels[label] for label in value) if isinstance(value, list) else labels[value]
