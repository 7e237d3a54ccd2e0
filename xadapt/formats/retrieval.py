"""Sentence pairs for retrieval: two lists of texts, no head, no training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from xadapt.data import Rows
from xadapt.formats.features import Features
from xadapt.tasks import Task


class RetrievalFormat:
    """Encodes each sentence alone; feature i < n is row i's foreign sentence, feature n + i its English one."""

    def encode(self, rows: Rows, task: Task, tokenizer: PreTrainedTokenizerFast, max_length: int) -> Features:
        texts = [*rows.columns["source"], *rows.columns["target"]]
        encoding = tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=False)
        return Features(encoding["input_ids"], None, [*range(len(rows)), *range(len(rows))])

    def head(self, hidden_size: int, task: Task, dropout: float) -> None:
        return None

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        raise AssertionError("retrieval has no training")

    def units(self, labels: Tensor) -> int:
        raise AssertionError("retrieval has no training")

    def decode(self, logits: Sequence[Tensor], features: Features, rows: Rows) -> list[int]:
        """For each English sentence the index of its nearest foreign one, from normalised sentence vectors."""
        vectors = torch.stack(list(logits))
        foreign, english = vectors[: len(rows)], vectors[len(rows) :]
        nearest: list[int] = (english @ foreign.T).argmax(dim=1).tolist()
        return nearest

    def references(self, rows: Rows) -> Sequence[Any]:
        return range(len(rows))
