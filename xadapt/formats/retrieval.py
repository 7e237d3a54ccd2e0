"""Sentence pairs for retrieval: two lists of texts, no head, no training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from xadapt.data import Rows
from xadapt.formats.features import Features, WithoutTraining
from xadapt.tasks import Task


class RetrievalFormat(WithoutTraining):
    """Encodes each sentence alone; feature i < n is row i's foreign sentence, feature n + i its English one."""

    def encode(self, rows: Rows, task: Task, tokenizer: PreTrainedTokenizerFast, max_length: int) -> Features:
        texts = [*rows.columns["source"], *rows.columns["target"]]
        encoding = tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=False)
        return Features(encoding["input_ids"], None, [*range(len(rows)), *range(len(rows))])

    def decode(self, logits: Sequence[Tensor], features: Features, rows: Rows) -> list[int]:
        """For each English sentence the index of its nearest foreign one, from normalised sentence vectors."""
        nearest: list[int] = _similarity(logits, len(rows)).argmax(dim=1).tolist()
        return nearest

    def confidence(self, logits: Sequence[Tensor], features: Features, rows: Rows) -> list[float]:
        """The cosine of each English sentence with its nearest foreign one."""
        cosines: list[float] = _similarity(logits, len(rows)).amax(dim=1).tolist()
        return cosines

    def references(self, rows: Rows) -> Sequence[Any]:
        return range(len(rows))


def _similarity(vectors: Sequence[Tensor], rows: int) -> Tensor:
    """Cosines [English, foreign] of all pairs."""
    stacked = torch.stack(list(vectors))
    return stacked[rows:] @ stacked[:rows].T
