"""Single texts or pairs to one of n labels, read off the first token's hidden state."""

from torch import nn
from transformers import PreTrainedTokenizerFast

from xadapt.data import Rows
from xadapt.formats.features import Features, OneLabelARow
from xadapt.models.heads import ClassificationHead
from xadapt.tasks import Task


class ClassificationFormat(OneLabelARow):
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
