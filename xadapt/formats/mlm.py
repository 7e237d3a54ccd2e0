"""Masked language modelling: tokens of raw text, a part of them hidden, to be predicted from the rest."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from xadapt.data import Rows
from xadapt.formats.features import IGNORED, Features
from xadapt.formats.masking import Masking
from xadapt.models.heads import MaskedLanguageHead
from xadapt.tasks import Task


class MlmFormat:
    """One line an example, `<s> text </s>`; a line that exceeds max_length becomes several features, none of it lost.

    What is hidden is drawn anew whenever a feature enters a batch, from the seed, the step and the feature alone
    (`masking.Masking`); dev features are hidden the same way each time.
    """

    def encode(self, rows: Rows, task: Task, tokenizer: PreTrainedTokenizerFast, max_length: int) -> Features:
        texts = list(rows.columns["text"])
        encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        room = max_length - 2
        ids, row = [], []
        for i, pieces in enumerate(encoded):
            for at in range(0, len(pieces), room):
                ids.append([tokenizer.cls_token_id, *pieces[at : at + room], tokenizer.sep_token_id])
                row.append(i)
        masking = Masking(tokenizer.mask_token_id, len(tokenizer), tuple(sorted(tokenizer.all_special_ids)))
        return Features(ids, ids, row, masking=masking)

    def head(self, hidden_size: int, task: Task, dropout: float) -> nn.Module:
        return MaskedLanguageHead(hidden_size)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum of the cross-entropies the head has found, 0 where nothing is predicted."""
        return logits[..., 0].sum()

    def units(self, labels: Tensor) -> int:
        return int((labels != IGNORED).sum())

    def decode(self, logits: Sequence[Tensor], features: Features, rows: Rows) -> list[list[tuple[float, bool]]]:
        """For each row its hidden tokens: cross-entropy, and whether the likeliest token is the true one."""
        found: list[list[tuple[float, bool]]] = [[] for _ in range(len(rows))]
        for scores, row in zip(logits, features.row, strict=True):
            hidden = scores[scores[:, 1] >= 0]
            found[row] += [(loss, right > 0) for loss, right in hidden.tolist()]
        return found

    def confidence(self, logits: Sequence[Tensor], features: Features, rows: Rows) -> list[float]:
        """The mean probability of each row's hidden tokens."""
        tokens = [torch.tensor([loss for loss, _ in row]) for row in self.decode(logits, features, rows)]
        return [float(torch.exp(-losses).mean()) if len(losses) else 0.0 for losses in tokens]

    def references(self, rows: Rows) -> list[None]:
        """Nothing: what is right is decided where the tokens are hidden."""
        return [None] * len(rows)
