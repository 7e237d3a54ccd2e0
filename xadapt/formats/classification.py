"""Single texts or pairs to one of n labels, read off the first token's hidden state."""

from torch import nn
from transformers import PreTrainedTokenizerFast

from xadapt.data import Rows
from xadapt.formats.features import Features, OneLabelARow, encode_pairs
from xadapt.models.heads import ClassificationHead
from xadapt.tasks import Task


class ClassificationFormat(OneLabelARow):
    """Classification as in `run_xnli.py`: `<s> A </s>`, or `<s> A </s></s> B </s>` with the longer text truncated first."""

    def encode(self, rows: Rows, task: Task, tokenizer: PreTrainedTokenizerFast, max_length: int) -> Features:
        first, second = rows.columns["text_a"], rows.columns.get("text_b")
        if second is None:
            ids = tokenizer(list(first), truncation=True, max_length=max_length, return_attention_mask=False)[
                "input_ids"
            ]
        else:
            ids = encode_pairs(tokenizer, first, second, max_length)
        return Features(ids, list(rows.columns["label"]), range(len(rows)))

    def head(self, hidden_size: int, task: Task, dropout: float) -> nn.Module:
        return ClassificationHead(hidden_size, len(task.labels), dropout)
