"""Single texts or pairs to one of n labels, read off the first token's hidden state."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from xadapt.data import Rows
from xadapt.formats.features import Features
from xadapt.models.heads import ClassificationHead
from xadapt.tasks import Task


class ClassificationFormat:
    """Classification as in `run_xnli.py`: `<s> A </s>`, or `<s> A </s></s> B </s>` with the longer text truncated first."""

    def encode(self, rows: Rows, task: Task, tokenizer: PreTrainedTokenizerFast, max_length: int) -> Features:
        second = rows.columns.get("text_b")
        encoding = tokenizer(
            list(rows.columns["text_a"]),
            None if second is None else list(second),
            truncation="longest_first",
            max_length=max_length,
            return_attention_mask=False,
        )
        return Features(encoding["input_ids"], list(rows.columns["label"]), range(len(rows)))

    def head(self, hidden_size: int, task: Task, dropout: float) -> nn.Module:
        return ClassificationHead(hidden_size, len(task.labels), dropout)

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
