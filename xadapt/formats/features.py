"""What every format produces and the protocol it follows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from xadapt.data import Rows
from xadapt.data.ragged import Ragged
from xadapt.formats.masking import Masking
from xadapt.tasks import Task

IGNORED = -100


@dataclass(frozen=True)
class Features:
    """Encoded rows, unpadded.

    input_ids holds `sequences` lists of token ids (specials included) a feature, one after the other; labels one
    int a feature, or one int a token with IGNORED where nothing is predicted, or nothing; row says which row each
    feature came from (a long row may give several). offsets, where decoding needs them, hold for each token the
    characters of the row it covers and whether no other feature of the row shows it in more context, or None.
    masking hides tokens as features enter a batch; labels then are the true tokens.
    """

    input_ids: Sequence[Sequence[int]]
    labels: Sequence[int] | Sequence[Sequence[int]] | None
    row: Sequence[int]
    sequences: int = 1
    offsets: Sequence[Sequence[tuple[int, int, bool] | None]] | None = None
    masking: Masking | None = None

    def __len__(self) -> int:
        return len(self.input_ids) // self.sequences

    @cached_property
    def lengths(self) -> list[int]:
        """Padded tokens of each feature: its longest sequence times their number."""
        ids, n = self.input_ids, self.sequences
        each = ids.lengths if isinstance(ids, Ragged) else np.fromiter(map(len, ids), np.int64, len(ids))
        padded: list[int] = (n * each.reshape(-1, n).max(axis=1)).tolist()
        return padded


class Format(Protocol):
    """encode rows, make a head, compute the loss, decode logits.

    head takes hidden states [batch, tokens, hidden] and gives logits; None where the task has no training.
    loss is the SUM over predicted units, and units counts them, so that micro-batches of any cut add up to
    exactly the mean over the optimizer batch. decode turns the logits of each feature, in the features' order,
    into one prediction a row, to be compared with `references`; confidence gives each a number, higher for surer.
    """

    def encode(self, rows: Rows, task: Task, tokenizer: PreTrainedTokenizerFast, max_length: int) -> Features: ...

    def head(self, hidden_size: int, task: Task, dropout: float) -> nn.Module | None: ...

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor: ...

    def units(self, labels: Tensor) -> int: ...

    def decode(self, logits: Sequence[Tensor], features: Features, rows: Rows) -> Sequence[Any]: ...

    def confidence(self, logits: Sequence[Tensor], features: Features, rows: Rows) -> Sequence[float]: ...

    def references(self, rows: Rows) -> Sequence[Any]: ...


class OneLabelARow:
    """What formats share whose logits [batch, labels] choose one of the labels for each row."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits.float(), labels, reduction="sum")

    def units(self, labels: Tensor) -> int:
        return labels.numel()

    def decode(self, logits: Sequence[Tensor], features: Features, rows: Rows) -> list[int]:
        """One label id a row."""
        predicted: list[int] = torch.stack(list(logits)).argmax(dim=-1).tolist()
        return predicted

    def confidence(self, logits: Sequence[Tensor], features: Features, rows: Rows) -> list[float]:
        """The probability of each row's predicted label."""
        best: list[float] = torch.stack(list(logits)).softmax(dim=-1).amax(dim=-1).tolist()
        return best

    def probabilities(self, logits: Sequence[Tensor]) -> list[list[float]]:
        """The softmax of each row's logits, in double precision, so that they sum to 1."""
        found: list[list[float]] = torch.stack(list(logits)).double().softmax(dim=-1).tolist()
        return found

    def references(self, rows: Rows) -> list[int]:
        return list(rows.columns["label"])


class WithoutTraining:
    """What formats share that are scored straight from the encoder's sentence vectors."""

    def head(self, hidden_size: int, task: Task, dropout: float) -> None:
        return None

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        raise AssertionError("the format has no training")

    def units(self, labels: Tensor) -> int:
        raise AssertionError("the format has no training")


def encode_pairs(
    tokenizer: PreTrainedTokenizerFast, first: Sequence[str], second: Sequence[str], max_length: int
) -> list[list[int]]:
    """`<s> first </s></s> second </s>` in at most max_length tokens, of two long texts both cut, else the longer one.

    What the tokenizer's `longest_first` gives. That takes time and memory by the product of both texts' lengths: it
    makes a pair of every two pieces it has cut off.
    """
    ids = [
        tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)["input_ids"]
        for texts in (first, second)
    ]
    cls, sep, room = tokenizer.cls_token_id, tokenizer.sep_token_id, max_length - 4
    pairs = []
    for a, b in zip(*ids, strict=True):
        a_kept, b_kept = _kept_of_pair(len(a), len(b), room)
        pairs.append([cls, *a[:a_kept], sep, sep, *b[:b_kept], sep])
    return pairs


def _kept_of_pair(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens are kept of each of two texts where `room` are to be had for both."""
    if first + second <= room:
        return first, second
    if first > second:
        return _kept_of_pair(second, first, room)[::-1]
    short = min(first, room // 2)
    return short, room - short


def collate(
    features: Features, indices: Sequence[int], pad_token_id: int, *, draw: tuple[int, ...] = (0,)
) -> dict[str, Tensor]:
    """Pad the chosen features to their longest: input_ids, attention_mask [sequences, tokens], labels if any.

    What masking hides depends on `draw` and the feature, not on the batch it is in.
    """
    if features.masking:
        features, indices = _disguised(features, features.masking, indices, draw), range(len(indices))
    n = features.sequences
    ids, mask = _padded(features.input_ids, [at for i in indices for at in range(n * i, n * (i + 1))], pad_token_id)
    batch = {"input_ids": ids, "attention_mask": mask.long()}
    if features.labels is not None:
        batch["labels"] = _labels(features.labels, indices)
    return batch


def _disguised(features: Features, masking: Masking, indices: Sequence[int], draw: tuple[int, ...]) -> Features:
    """The chosen features with some tokens hidden; labels are the true tokens there."""
    ids, labels = [], []
    for i in indices:
        true = features.input_ids[i]
        seen, hidden = masking.disguise(true, (*draw, i))
        ids.append(seen.tolist())
        labels.append([token if chosen else IGNORED for token, chosen in zip(true, hidden, strict=True)])
    return Features(ids, labels, range(len(ids)))


def _padded(lists: Sequence[Sequence[int]], at: Sequence[int], fill: int) -> tuple[Tensor, Tensor]:
    if not isinstance(lists, Ragged):
        lists, at = Ragged.of([lists[i] for i in at]), range(len(at))
    values, mine = lists.padded(at, fill)
    return torch.from_numpy(values), torch.from_numpy(mine)


def _labels(labels: Sequence[int] | Sequence[Sequence[int]], indices: Sequence[int]) -> Tensor:
    """One a feature, or one a token, which ends where the tokens do."""
    if isinstance(labels[indices[0]], Sequence):
        return _padded(labels, indices, IGNORED)[0]  # type: ignore[arg-type]
    return torch.tensor([labels[i] for i in indices], dtype=torch.long)
