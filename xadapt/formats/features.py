"""What every format produces and the protocol it follows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from xadapt.data import Rows
from xadapt.tasks import Task

IGNORED = -100


@dataclass(frozen=True)
class Features:
    """Encoded rows, unpadded.

    input_ids holds `sequences` lists of token ids (specials included) a feature, one after the other; labels one
    int a feature, or one int a token with IGNORED where nothing is predicted, or nothing; row says which row each
    feature came from (a long row may give several). offsets, where decoding needs them, hold for each token the
    characters of the row it covers and whether no other feature of the row shows it in more context, or None.
    """

    input_ids: Sequence[Sequence[int]]
    labels: Sequence[int] | Sequence[Sequence[int]] | None
    row: Sequence[int]
    sequences: int = 1
    offsets: Sequence[Sequence[tuple[int, int, bool] | None]] | None = None

    def __len__(self) -> int:
        return len(self.input_ids) // self.sequences

    @property
    def lengths(self) -> list[int]:
        """Padded tokens of each feature: its longest sequence times their number."""
        n = self.sequences
        if n == 1:
            return [len(ids) for ids in self.input_ids]
        return [n * max(map(len, self.input_ids[at : at + n])) for at in range(0, len(self.input_ids), n)]


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


def collate(features: Features, indices: Sequence[int], pad_token_id: int) -> dict[str, Tensor]:
    """Pad the chosen features to their longest: input_ids, attention_mask [sequences, tokens], labels if any."""
    n = features.sequences
    chosen = [features.input_ids[at] for i in indices for at in range(n * i, n * (i + 1))]
    width = max(map(len, chosen))
    ids = torch.full((len(chosen), width), pad_token_id, dtype=torch.long)
    mask = torch.zeros((len(chosen), width), dtype=torch.long)
    for row, tokens in enumerate(chosen):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    batch = {"input_ids": ids, "attention_mask": mask}
    if features.labels is not None:
        batch["labels"] = _pad_labels([features.labels[i] for i in indices], width)
    return batch


def _pad_labels(labels: Sequence[int | Sequence[int]], width: int) -> Tensor:
    rows = [[*label, *[IGNORED] * (width - len(label))] if isinstance(label, Sequence) else label for label in labels]
    return torch.tensor(rows, dtype=torch.long)
