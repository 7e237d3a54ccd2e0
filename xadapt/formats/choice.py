"""One of several texts that continues or answers a prompt: the choices of a row are scored side by side."""

from torch import nn
from transformers import PreTrainedTokenizerFast

from xadapt.data import Rows
from xadapt.formats.features import Features, OneLabelARow, encode_pairs
from xadapt.models.heads import ChoiceHead
from xadapt.tasks import Task


class ChoiceFormat(OneLabelARow):
    """Multiple choice as in `run_swag.py`: `<s> prompt </s></s> stem choice </s>` for each choice, one softmax a row."""

    def encode(self, rows: Rows, task: Task, tokenizer: PreTrainedTokenizerFast, max_length: int) -> Features:
        prompts, choices = [], []
        columns = (rows.columns[field] for field in ("prompt", "stem", "choices"))
        for prompt, stem, texts in zip(*columns, strict=True):
            prompts += [prompt] * len(texts)
            choices += [f"{stem} {text}" if stem else text for text in texts]
        ids = encode_pairs(tokenizer, prompts, choices, max_length)
        return Features(ids, list(rows.columns["label"]), range(len(rows)), sequences=len(task.labels))

    def head(self, hidden_size: int, task: Task, dropout: float) -> nn.Module:
        return ChoiceHead(hidden_size, len(task.labels), dropout)
