"""Prediction heads of our own, outside every adapter library, so that all regimes share them."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Hidden tokens whose logits over the whole vocabulary are held at once (0.5 GB for XLM-R's 250,002 pieces).
TOKENS_AT_ONCE = 512


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


class MaskedLanguageHead(nn.Module):
    """XLM-R's language model head: dense, gelu, LayerNorm, projection onto the word embedding, which it shares.

    Takes hidden states [batch, tokens, hidden], the embedding [pieces, hidden] and the true tokens [batch, tokens],
    negative where none is hidden. A row of logits has as many numbers as there are pieces, so what it gives is what
    is needed of them: [batch, tokens, 2], the cross-entropy of the true token and whether it is the likeliest (1 or
    0), and 0 and -1 where none is hidden. The same as `XLMRobertaLMHead` of transformers.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.layer_norm = nn.LayerNorm(hidden_size, eps=1e-5)
        self.bias = nn.Parameter(torch.zeros(0))
        _initialise(self)

    def fit_to(self, embedding: nn.Embedding) -> None:
        """Give the head a bias for each piece of the vocabulary."""
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings))

    def forward(self, hidden: Tensor, embedding: Tensor, labels: Tensor) -> Tensor:
        chosen = labels >= 0
        states = self.layer_norm(nn.functional.gelu(self.dense(hidden[chosen])))
        scores = torch.tensor([0.0, -1.0], device=hidden.device).repeat(*labels.shape, 1)
        scores[chosen] = self._scored(states, embedding, labels[chosen])
        return scores

    def _scored(self, states: Tensor, embedding: Tensor, truth: Tensor) -> Tensor:
        """What many tokens' logits would hold is computed again in the backward pass instead."""
        if len(states) <= TOKENS_AT_ONCE:
            return self._score(states, embedding, truth)
        runs = zip(torch.split(states, TOKENS_AT_ONCE), torch.split(truth, TOKENS_AT_ONCE), strict=True)
        return torch.cat([checkpoint(self._score, run, embedding, true, use_reentrant=False) for run, true in runs])

    def _score(self, states: Tensor, embedding: Tensor, truth: Tensor) -> Tensor:
        logits = nn.functional.linear(states, embedding, self.bias).float()
        losses = nn.functional.cross_entropy(logits, truth, reduction="none")
        return torch.stack([losses, (logits.argmax(dim=-1) == truth).float()], dim=-1)


def _initialise(head: nn.Module) -> None:
    for module in head.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
