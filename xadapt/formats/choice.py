"""One of several texts that continues or answers a prompt: the choices of a row are scored side by side."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from xadapt.data import Rows
from xadapt.formats.features import Features
from xadapt.models.heads import ChoiceHead
from xadapt.tasks import Task


class ChoiceFormat:
    """Multiple choice as in `run_swag.py`: `<s> prompt </s></s> stem choice </s>` for each choice, one softmax a row."""

    def encode(self, rows: Rows, task: Task, tokenizer: PreTrainedTokenizerFast, max_length: int) -> Features:
        prompts, choices = [], []
        columns = (rows.columns[field] for field in ("prompt", "stem", "choices"))
        for prompt, stem, texts in zip(*columns, strict=True):
            prompts += [prompt] * len(texts)
            choices += [f"{stem} {text}" if stem else text for text in texts]
        encoding = tokenizer(
            prompts, choices, truncation="longest_first", max_length=max_length, return_attention_mask=False
        )
        labels = list(rows.columns["label"])
        return Features(encoding["input_ids"], labels, range(len(rows)), sequences=len(task.labels))

    def head(self, hidden_size: int, task: Task, dropout: float) -> nn.Module:
        return ChoiceHead(hidden_size, len(task.labels), dropout)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits.float(), labels, reduction="sum")

    def units(self, labels: Tensor) -> int:
        return labels.numel()

    def decode(self, logits: Sequence[Tensor], features: Features, rows: Rows) -> list[int]:
        """One index of a choice a row."""
        predicted: list[int] = torch.stack(list(logits)).argmax(dim=-1).tolist()
        return predicted

    def confidence(self, logits: Sequence[Tensor], features: Features, rows: Rows) -> list[float]:
        """The probability of each row's predicted choice."""
        best: list[float] = torch.stack(list(logits)).softmax(dim=-1).amax(dim=-1).tolist()
        return best

    def references(self, rows: Rows) -> list[int]:
        return list(rows.columns["label"])
