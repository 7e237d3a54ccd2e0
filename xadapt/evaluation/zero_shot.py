"""Predict and score a task in all its languages with one loaded model."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from xadapt.data import Rows
from xadapt.data.ragged import Ragged
from xadapt.formats import FORMATS, Features
from xadapt.formats.cache import encoded
from xadapt.metrics import get_metric
from xadapt.tasks import Task
from xadapt.training.prediction import predict_logits

Predictor = Callable[[Features], list[Tensor]]


# Rows encoded, sorted by length and predicted together; the logits of no more are ever held.
BLOCK = 4096


@dataclass(frozen=True)
class LanguageResult:
    """One language's predictions and their scores.

    values maps each metric of the task to points; n counts what the headline metric averages over (rows,
    or gold pairs); ids name the rows as their source does, or by number. confidence is the format's own, one value
    a prediction. collapsed
    says that every prediction is the same label although the references are not. skipped and stand_in are the rows'.
    """

    lang: str
    n: int
    values: dict[str, float]
    collapsed: bool
    ids: Sequence[str]
    predictions: Sequence[Any]
    references: Sequence[Any]
    confidence: Sequence[float]
    skipped: int = 0
    stand_in: str = ""


@dataclass
class _Language:
    """A language whose rows are being predicted, block by block."""

    rows: Rows
    done: int = 0
    predictions: list[Any] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)


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
    task: Task, languages: Iterable[tuple[str, Rows]], predict: Predictor, tokenizer: PreTrainedTokenizerFast, *,
    max_length: int, block: int = BLOCK, token_cache: Path | None = None,
) -> Iterator[LanguageResult]:  # fmt: skip
    """Score every language; `block` rows of all of them are predicted together, sorted by length.

    languages is read as it is needed, so that a generator keeps no more rows in memory than a block spans. A
    retrieval task's language is never cut: each sentence is compared with all. token_cache keeps the encoded rows.
    """
    form = FORMATS[task.format]
    open_languages: dict[str, _Language] = {}
    for parts in _blocks(languages, block, whole=not task.trains):
        found = [
            encoded(form, part, task, tokenizer, max_length=max_length, folder=token_cache) for _, part, _ in parts
        ]
        logits = predict(_joined(found))
        at = 0
        for (lang, part, rows), features in zip(parts, found, strict=True):
            mine = logits[at : at + len(features)]
            at += len(features)
            state = open_languages.setdefault(lang, _Language(rows))
            state.predictions += form.decode(mine, features, part)
            state.confidence += form.confidence(mine, features, part)
            state.done += len(part)
            if state.done == len(rows):
                yield _scored(task, lang, open_languages.pop(lang))
    assert not open_languages


def _blocks(languages: Iterable[tuple[str, Rows]], size: int, *, whole: bool) -> Iterator[list[tuple[str, Rows, Rows]]]:
    """Runs of about `size` rows as (language, part of its rows, all its rows)."""
    block: list[tuple[str, Rows, Rows]] = []
    room = size
    for lang, rows in languages:
        at = 0
        while at < len(rows):
            stop = len(rows) if whole else min(len(rows), at + room)
            block.append((lang, rows[at:stop], rows))
            room -= stop - at
            at = stop
            if room <= 0:
                yield block
                block, room = [], size
    if block:
        yield block


def score_language(task: Task, lang: str, rows: Rows, features: Features, logits: Sequence[Tensor]) -> LanguageResult:
    """Decode one language's logits and compute the task's metrics."""
    form = FORMATS[task.format]
    decoded = form.decode(logits, features, rows), form.confidence(logits, features, rows)
    return _scored(task, lang, _Language(rows, len(rows), *map(list, decoded)))


def _scored(task: Task, lang: str, found: _Language) -> LanguageResult:
    rows, predictions = found.rows, found.predictions
    references = FORMATS[task.format].references(rows)
    labels = rows.labels or task.labels  # open labels come with the rows
    values = {
        metric: get_metric(task.format, metric).function(predictions, references, labels, lang=lang)
        for metric in task.metrics
    }
    collapsed = task.trains and _distinct(predictions) == 1 < _distinct(references)
    ids = rows.columns.get("id") or [str(i) for i in range(len(rows))]
    return LanguageResult(
        lang, len(references), values, collapsed, ids, predictions, references, found.confidence, rows.skipped,
        rows.stand_in,
    )  # fmt: skip


def _joined(parts: Sequence[Features]) -> Features:
    return Features(
        Ragged.joined([Ragged.of(part.input_ids) for part in parts]), None, [row for part in parts for row in part.row],
        sequences=parts[0].sequences,
    )  # fmt: skip


def _distinct(values: Sequence[Any]) -> int:
    """Number of distinct labels among ids or lists of ids."""
    return len({label for value in values for label in (value if isinstance(value, list) else [value])})
