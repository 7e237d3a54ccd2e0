"""Predict and score a task in all its languages with one loaded model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from xadapt.data import Rows
from xadapt.formats import FORMATS, Features
from xadapt.metrics import get_metric
from xadapt.tasks import Task
from xadapt.training.prediction import predict_logits

Predictor = Callable[[Features], list[Tensor]]


@dataclass(frozen=True)
class LanguageResult:
    """One language's predictions and their scores.

    values maps each metric of the task to points; n counts what the headline metric averages over (rows).
    collapsed says that every prediction is the same label although the references are not.
    """

    lang: str
    n: int
    values: dict[str, float]
    collapsed: bool
    predictions: Sequence[Any]
    references: Sequence[Any]


def model_predictor(
    model: nn.Module, *, pad_token_id: int, token_budget: int, device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> Predictor:  # fmt: skip
    """A predictor that runs a TaskModel."""

    def predict(features: Features) -> list[Tensor]:
        return predict_logits(
            model, features, pad_token_id=pad_token_id, token_budget=token_budget, device=device, progress=progress
        )

    return predict


def evaluate_languages(
    task: Task, rows_by_lang: Mapping[str, Rows], predict: Predictor, tokenizer: PreTrainedTokenizerFast, *,
    max_length: int,
) -> Iterator[LanguageResult]:  # fmt: skip
    """Score every language; all are encoded first and predicted together, sorted by length across languages."""
    form = FORMATS[task.format]
    encoded = {lang: form.encode(rows, task, tokenizer, max_length) for lang, rows in rows_by_lang.items()}
    logits = predict(_joined(list(encoded.values())))
    at = 0
    for lang, rows in rows_by_lang.items():
        features = encoded[lang]
        yield score_language(task, lang, rows, features, logits[at : at + len(features)])
        at += len(features)


def score_language(task: Task, lang: str, rows: Rows, features: Features, logits: Sequence[Tensor]) -> LanguageResult:
    """Decode one language's logits and compute the task's metrics."""
    form = FORMATS[task.format]
    predictions, references = form.decode(logits, features, rows), form.references(rows)
    values = {
        metric: get_metric(task.format, metric).function(predictions, references, task.labels)
        for metric in task.metrics
    }
    collapsed = task.trains and _distinct(predictions) == 1 < _distinct(references)
    return LanguageResult(lang, len(rows), values, collapsed, predictions, references)


def _joined(parts: Sequence[Features]) -> Features:
    return Features(
        [ids for part in parts for ids in part.input_ids], None, [row for part in parts for row in part.row]
    )


def _distinct(values: Sequence[Any]) -> int:
    """Number of distinct labels among ids or lists of ids."""
    return len({label for value in values for label in (value if isinstance(value, list) else [value])})
