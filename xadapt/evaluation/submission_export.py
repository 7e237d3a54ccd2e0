"""Finished evaluations as a submission: predictions in XTREME's layout, what `xadapt score` and XTREME's scorer read."""

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xadapt.errors import UserError
from xadapt.evaluation.submission_files import SUBMISSION_TASKS, SubmissionTask
from xadapt.tasks import Task

Line = Mapping[str, Any]  # one row of a predictions file: language, id, prediction, gold, score


def export_predictions(task: Task, predictions: Path, folder: Path) -> list[Path]:
    """Write `<folder>/<task>/test-<lang>.tsv` or `.json` of one evaluation's predictions file; the files.

    Raises UserError for a task that XTREME does not have.
    """
    import pyarrow.parquet as pq

    if task.name not in SUBMISSION_TASKS:
        raise UserError(f"task '{task.name}' is none of XTREME's nine ({', '.join(SUBMISSION_TASKS)})")
    layout, names = SUBMISSION_TASKS[task.name], {name: alias for alias, name in task.aliases.items()}
    by_language: dict[str, list[Line]] = {}
    for batch in pq.ParquetFile(predictions).iter_batches():
        for line in batch.to_pylist():
            by_language.setdefault(line["language"], []).append(line)
    written = []
    for lang, lines in by_language.items():
        path = folder / task.name / f"test-{lang}{layout.suffix}"
        _write(path, _content(layout, lines, names))
        written.append(path)
    return written


def _content(layout: SubmissionTask, lines: Sequence[Line], names: Mapping[str, str]) -> str:
    if layout.kind == "answers":
        return json.dumps({line["id"]: line["prediction"] for line in lines}, ensure_ascii=False, indent=1) + "\n"
    return "".join(f"{text}\n" for text in _texts(layout, lines, names))


def _texts(layout: SubmissionTask, lines: Sequence[Line], names: Mapping[str, str]) -> Iterator[str]:
    for line in lines:
        prediction = line["prediction"]
        if layout.kind == "tags":
            yield from (*prediction.split(" "), "")
        elif layout.kind == "labels":
            yield names.get(prediction, prediction)
        elif prediction:
            yield f"{line['id']}\t{prediction}"


def _write(path: Path, content: str) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    partial.write_text(content, encoding="utf-8", newline="\n")
    os.replace(partial, path)
