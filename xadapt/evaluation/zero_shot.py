"""Predict and score a task in all its languages with one loaded model."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, device, nn
from transformers import PreTrainedTokenizerFast

from xadapt.data import Rows
from xadapt.data.ragged import Ragged
from xadapt.data.rows import joined
from xadapt.evaluation.attention import AttentionMeans
from xadapt.formats import FORMATS, Features
from xadapt.formats.cache import encoded
from xadapt.formats.mining import MiningFormat
from xadapt.metrics import Sums, added, get_metric
from xadapt.tasks import Task
from xadapt.training.prediction import predict_logits

Predictor = Callable[[Features], list[Tensor]]
Languages = Iterable[tuple[str, Iterable[Rows]]]

# Rows encoded, sorted by length and predicted together; the rows and logits of no more are ever held.
BLOCK = 4096


@dataclass(frozen=True)
class Predicted:
    """Rows of one language that follow one another, decoded.

    ids name the rows as their source does, or by their number in the split before any was left out. predictions and
    references have one value a row, but pairs of ids in mining; confidence is the format's own, one value a prediction.
    """

    lang: str
    ids: Sequence[str]
    predictions: Sequence[Any]
    references: Sequence[Any]
    confidence: Sequence[float]


@dataclass(frozen=True)
class LanguageResult:
    """One language's scores.

    values maps each metric of the task to points; n counts what the headline metric averages over (rows,
    or gold pairs). collapsed says that every prediction is the same label although the references are not. skipped,
    repaired and stand_in are the rows'.
    """

    lang: str
    n: int
    values: dict[str, float]
    collapsed: bool
    skipped: int = 0
    stand_in: str = ""
    repaired: int = 0


@dataclass
class _Tally:
    """What is kept of a language's rows once they are predicted; its size does not depend on their number."""

    task: Task
    lang: str
    sums: dict[str, Sums] = field(default_factory=dict)
    rows: int = 0
    n: int = 0
    skipped: int = 0
    stand_in: str = ""
    repaired: int = 0
    predicted: set[Any] = field(default_factory=set)
    true: set[Any] = field(default_factory=set)

    def add(self, rows: Rows, features: Features, logits: Sequence[Tensor]) -> Predicted:
        """Decode and count the language's next rows."""
        found = decoded(self.task, self.lang, rows, features, logits, first=self.rows)
        labels = rows.labels or self.task.labels  # open labels come with the rows
        for name in self.task.metrics:
            metric = get_metric(self.task.format, name)
            sums = metric.sums(found.predictions, found.references, labels, lang=self.lang)
            self.sums[name] = added(self.sums[name], sums) if name in self.sums else sums
        self.rows, self.n = self.rows + len(rows), self.n + len(found.references)
        self.skipped, self.repaired = self.skipped + rows.skipped, self.repaired + rows.repaired
        self.stand_in = rows.stand_in
        _note(self.predicted, found.predictions)
        _note(self.true, found.references)
        return found

    def result(self) -> LanguageResult:
        values = {name: get_metric(self.task.format, name).points(sums) for name, sums in self.sums.items()}
        collapsed = self.task.trains and len(self.predicted) == 1 < len(self.true)
        return LanguageResult(self.lang, self.n, values, collapsed, self.skipped, self.stand_in, self.repaired)


def model_predictor(
    model: nn.Module, *, pad_token_id: int, token_budget: int, device: device,
    progress: Callable[[int], None] | None = None, watch: Callable[[Sequence[Sequence[int]], Tensor], None] | None = None,
) -> Predictor:  # fmt: skip
    """A predictor that runs a TaskModel; watch is told of every batch."""

    def predict(features: Features) -> list[Tensor]:
        return predict_logits(
            model, features, pad_token_id=pad_token_id, token_budget=token_budget, device=device, progress=progress,
            watch=watch,
        )  # fmt: skip

    return predict


def evaluate_languages(
    task: Task, languages: Languages, predict: Predictor, tokenizer: PreTrainedTokenizerFast, *, max_length: int,
    block: int = BLOCK, token_cache: Path | None = None, keep: Callable[[Predicted], object] = lambda predicted: None,
    attention: AttentionMeans | None = None,
) -> Iterator[LanguageResult]:  # fmt: skip
    """Score every language; `block` rows of all of them are predicted together, sorted by length.

    languages holds the rows of each in pieces of any size, read as they are needed: with generators no more of them is
    in memory than a block and a piece. keep is given what was predicted, in the rows' order; nothing else holds it. A
    retrieval task's language is never cut: each sentence is compared with all. token_cache keeps the encoded rows.
    attention, which the predictor shows every batch, is told whose rows these were.
    """
    form, tallies = FORMATS[task.format], dict[str, _Tally]()

    def predicted(parts: Sequence[tuple[str, Rows]]) -> None:
        found = [encoded(form, rows, task, tokenizer, max_length=max_length, folder=token_cache) for _, rows in parts]
        logits, at = predict(_joined(found)), 0
        for (lang, rows), features in zip(parts, found, strict=True):
            mine = logits[at : at + len(features)]
            if attention:
                attention.add(lang, range(at, at + len(features)))
            at += len(features)
            keep(tallies.setdefault(lang, _Tally(task, lang)).add(rows, features, mine))

    for parts, ended in _blocks(languages, block, whole=not task.trains):
        if parts:
            predicted(parts)
        for lang in ended:
            yield tallies.pop(lang).result()


def score_language(task: Task, lang: str, rows: Rows, features: Features, logits: Sequence[Tensor]) -> LanguageResult:
    """Decode one language's logits and compute the task's metrics."""
    tally = _Tally(task, lang)
    tally.add(rows, features, logits)
    return tally.result()


def decoded(
    task: Task, lang: str, rows: Rows, features: Features, logits: Sequence[Tensor], *, first: int = 0
) -> Predicted:
    """What the logits of each feature say of the rows; `first` is the number of the first, where they have none."""
    form = FORMATS[task.format]
    numbers = rows.numbers or range(first, first + len(rows))
    ids = rows.columns.get("id") or [str(number) for number in numbers]
    if isinstance(form, MiningFormat):
        mined = form.mined(logits, rows)  # the search takes minutes: one for both
        predictions: Sequence[Any] = [pair for pair, _ in mined]
        confidence: Sequence[float] = [margin for _, margin in mined]
    else:
        predictions, confidence = form.decode(logits, features, rows), form.confidence(logits, features, rows)
    return Predicted(lang, ids, predictions, form.references(rows), confidence)


class _Reader:
    """The pieces of one language, taken in runs of the length that is wanted."""

    def __init__(self, pieces: Iterable[Rows]) -> None:
        self._pieces = iter(pieces)
        self._left: Rows | None = None

    def more(self) -> bool:
        """Whether any rows are left."""
        while not self._left:
            self._left = next(self._pieces, None)
            if self._left is None:
                return False
        return True

    def take(self, most: int | None) -> Rows | None:
        """The next rows, all of them where `most` is None; None behind the last."""
        taken, room = [], sys.maxsize if most is None else most
        while room and (piece := self._left or next(self._pieces, None)):
            self._left = piece.behind(room) if len(piece) > room else None
            taken.append(piece[:room])
            room -= len(taken[-1])
        return joined(taken) if taken else None


def _blocks(languages: Languages, size: int, *, whole: bool) -> Iterator[tuple[list[tuple[str, Rows]], list[str]]]:
    """Runs of about `size` rows as (language, some of its rows), and the languages that have ended by then."""
    parts: list[tuple[str, Rows]] = []
    ended: list[str] = []
    room = size
    for lang, pieces in languages:
        reader = _Reader(pieces)
        while reader.more():
            if room <= 0:
                yield parts, ended
                parts, ended, room = [], [], size
            rows = reader.take(None if whole else room)
            assert rows is not None, "there are more"
            parts.append((lang, rows))
            room -= len(rows)
        ended.append(lang)
        if room <= 0:  # told at once: what has ended is not done again
            yield parts, ended
            parts, ended, room = [], [], size
    yield parts, ended


def _joined(parts: Sequence[Features]) -> Features:
    return Features(
        Ragged.joined([Ragged.of(part.input_ids) for part in parts]), None, [row for part in parts for row in part.row],
        sequences=parts[0].sequences,
    )  # fmt: skip


def _note(known: set[Any], values: Sequence[Any]) -> None:
    """Add labels among ids or lists of ids until there are two: more are not asked for."""
    for value in values:
        for label in value if isinstance(value, list) else [value]:
            if len(known) > 1:
                return
            known.add(label)
