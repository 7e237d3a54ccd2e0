"""Prediction heads of our own, outside every adapter library, so that all regimes share them."""

from torch import Tensor, nn


class ClassificationHead(nn.Module):
    """XLM-R's sentence head: dropout, dense, tanh, dropout, projection of the first token.

    Takes hidden states [batch, tokens, hidden], gives logits [batch, labels]. The same as
    `XLMRobertaClassificationHead` of transformers, weights drawn as there (normal, 0.02).
    """

    first_token_only = True

    def __init__(self, hidden_size: int, num_labels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.out_proj = nn.Linear(hidden_size, num_labels)
        _initialise(self)

    def forward(self, hidden: Tensor) -> Tensor:
        pooled = self.dense(self.dropout(hidden[:, 0])).tanh()
        logits: Tensor = self.out_proj(self.dropout(pooled))
        return logits


class TaggingHead(nn.Module):
    """Dropout and one projection a token: hidden states [batch, tokens, hidden] to [batch, tokens, labels]."""

    def __init__(self, hidden_size: int, num_labels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Linear(hidden_size, num_labels)
        _initialise(self)

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.out_proj(self.dropout(hidden))
        return logits


class SpanHead(nn.Module):
    """One projection a token to two logits, start and end: [batch, tokens, hidden] to [batch, tokens, 2]."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.qa_outputs = nn.Linear(hidden_size, 2)
        _initialise(self)

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.qa_outputs(hidden)
        return logits


class ChoiceHead(nn.Module):
    """A score for each choice from its first token: [batch * choices, tokens, hidden] to [batch, choices].

    The sentence head of classification with one output, as XLM-R has no pooler of its own; the choices of a row
    stand one after the other.
    """

    first_token_only = True

    def __init__(self, hidden_size: int, num_choices: int, dropout: float) -> None:
        super().__init__()
        self.num_choices = num_choices
        self.score = ClassificationHead(hidden_size, 1, dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.score(hidden).view(-1, self.num_choices)
        return logits


def _initialise(head: nn.Module) -> None:
    for module in head.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
