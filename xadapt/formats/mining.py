"""Mining translations out of two large sets of sentences (BUCC): exact search, ratio margin, a threshold from dev."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from xadapt import interruption
from xadapt.data import Rows
from xadapt.formats.features import Features, WithoutTraining
from xadapt.memory import out_of_memory, release_memory
from xadapt.tasks import Task

NEIGHBOURS, CHUNK, KEYS = 4, 2048, 16384

Pair = tuple[str, str]


@dataclass(frozen=True)
class Mined:
    """Candidate pairs of one split, best first: margin, id of the foreign sentence, id of the English one."""

    margins: list[float]
    pairs: list[Pair]


class MiningFormat(WithoutTraining):
    """Every sentence encoded alone; the rows of one language hold both sides of the splits `validation` and `test`.

    Candidates of test are kept from the threshold on that is best for F1 on validation (BUCC 2018, as XTREME's
    `bucc2018` scores it).
    """

    def encode(self, rows: Rows, task: Task, tokenizer: PreTrainedTokenizerFast, max_length: int) -> Features:
        texts = list(rows.columns["text"])
        encoding = tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=False)
        return Features(encoding["input_ids"], None, range(len(rows)))

    def decode(self, logits: Sequence[Tensor], features: Features, rows: Rows) -> list[Pair]:
        """The pairs of ids of test whose margin reaches the threshold, best first."""
        return [pair for pair, _ in self.mined(logits, rows)]

    def confidence(self, logits: Sequence[Tensor], features: Features, rows: Rows) -> list[float]:
        """The margin of each pair."""
        return [margin for _, margin in self.mined(logits, rows)]

    def mined(self, logits: Sequence[Tensor], rows: Rows) -> list[tuple[Pair, float]]:
        """What `decode` and `confidence` give, of one search."""
        dev, test = (_mined(logits, rows, split) for split in ("validation", "test"))
        threshold = best_threshold(dev, _gold(rows, "validation"))
        return [(pair, margin) for pair, margin in zip(test.pairs, test.margins, strict=True) if margin >= threshold]

    def references(self, rows: Rows) -> list[Pair]:
        """The gold pairs of test."""
        return _gold(rows, "test")


def best_threshold(mined: Mined, gold: Sequence[Pair]) -> float:
    """The margin that is best for F1: midway between the last candidate worth keeping and the next.

    Infinite where no candidate is right. Source: LASER's `bucc.py`, which XTREME calls.
    """
    wanted, right, best, threshold = set(gold), 0, 0.0, float("inf")
    for at, pair in enumerate(mined.pairs):
        right += pair in wanted
        f1 = 2 * right / (at + 1 + len(wanted))
        if f1 > best:
            following = mined.margins[at + 1] if at + 1 < len(mined.pairs) else mined.margins[at]
            best, threshold = f1, (mined.margins[at] + following) / 2
    return threshold


def mine(foreign: Tensor, english: Tensor, *, k: int = NEIGHBOURS) -> list[tuple[float, int, int]]:
    """Pairs (margin, foreign, english) of rows of two matrices of unit vectors, best first, each row in one at most.

    The margin of a pair is its cosine over the mean of both sides' average cosine with their k nearest. Each row's
    best among its k nearest is a candidate, from both sides; then greedily by margin. Exact; memory grows with the
    number of rows, not with its square. Source: Artetxe and Schwenk 2019, Margin-based Parallel Corpus Mining.
    """
    k = min(k, len(foreign), len(english))
    forward, backward = nearest(foreign, english, k=k), nearest(english, foreign, k=k)
    mean = {"foreign": forward[0].mean(dim=1), "english": backward[0].mean(dim=1)}
    found = []
    for (cosines, at), own, other, swap in (
        (forward, mean["foreign"], mean["english"], False), (backward, mean["english"], mean["foreign"], True)
    ):  # fmt: skip
        margins = cosines / ((own[:, None] + other[at]) / 2)
        best = margins.max(dim=1)
        theirs = at.gather(1, best.indices[:, None])[:, 0].tolist()
        pairs = zip(theirs, range(len(at)), strict=True) if swap else zip(range(len(at)), theirs, strict=True)
        found += [(margin, i, j) for margin, (i, j) in zip(best.values.tolist(), pairs, strict=True)]
    return list(_greedy(found))


def nearest(queries: Tensor, keys: Tensor, *, k: int) -> tuple[Tensor, Tensor]:
    """Cosines and row numbers [queries, k] of the k nearest keys; CHUNK queries meet KEYS keys at a time."""
    found = [_nearest(chunk, keys, k) for chunk in torch.split(queries, CHUNK)]
    return torch.cat([cosines for cosines, _ in found]), torch.cat([at for _, at in found])


def _nearest(queries: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Of one tile after the other, smaller ones for as long as memory does not suffice."""
    size = KEYS
    while (found := _in_tiles(queries, keys, k, size)) is None:
        release_memory()
        size //= 2
    return found


def _in_tiles(queries: Tensor, keys: Tensor, k: int, size: int) -> tuple[Tensor, Tensor] | None:
    interruption.check()
    try:
        return _searched(queries, keys, k, size)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error) or size <= k:
            raise
        return None


def _searched(queries: Tensor, keys: Tensor, k: int, size: int) -> tuple[Tensor, Tensor]:
    best, at = queries.new_empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.long, device=queries.device)
    for number, chunk in enumerate(torch.split(keys, size)):
        top = (queries @ chunk.T).topk(min(k, len(chunk)), dim=1)
        best, at = torch.cat([best, top.values], dim=1), torch.cat([at, top.indices + number * size], dim=1)
        kept = best.topk(min(k, best.shape[1]), dim=1)
        best, at = kept.values, at.gather(1, kept.indices)
    return best, at


def _greedy(candidates: list[tuple[float, int, int]]) -> Iterator[tuple[float, int, int]]:
    foreign: set[int] = set()
    english: set[int] = set()
    for margin, i, j in sorted(set(candidates), key=lambda found: (-found[0], found[1], found[2])):
        if i not in foreign and j not in english:
            foreign.add(i)
            english.add(j)
            yield margin, i, j


def _mined(vectors: Sequence[Tensor], rows: Rows, split: str) -> Mined:
    sides = [_side(rows, split, side) for side in ("foreign", "english")]
    matrices = [torch.stack([vectors[at] for at in side]) for side in sides]
    names = [[rows.columns["id"][at] for at in side] for side in sides]
    found = mine(*matrices)
    return Mined([margin for margin, _, _ in found], [(names[0][i], names[1][j]) for _, i, j in found])


def _gold(rows: Rows, split: str) -> list[Pair]:
    """The gold pairs; a foreign sentence may have several, joined by spaces."""
    return [(name, to) for name, gold in _of(rows, split, "id", "gold") for to in gold.split()]


def _side(rows: Rows, split: str, side: str) -> list[int]:
    """The rows of one side whose sentence stands there once: XTREME leaves the others out of its candidates."""
    found: dict[str, list[int]] = {}
    for at, (of, where, text) in enumerate(zip(*(rows.columns[c] for c in ("split", "side", "text")), strict=True)):
        if (of, where) == (split, side):
            found.setdefault(text, []).append(at)
    return [at for (at, *others) in found.values() if not others]


def _of(rows: Rows, split: str, *fields: str) -> Iterator[tuple[str, ...]]:
    for of, *values in zip(*(rows.columns[field] for field in ("split", *fields)), strict=True):
        if of == split:
            yield tuple(values)
