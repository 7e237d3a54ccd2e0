"""Metrics of masked language modelling, over the hidden tokens of all rows."""

import math
from collections.abc import Sequence

from xadapt.metrics.sums import Sums, exact_sum

Tokens = Sequence[Sequence[tuple[float, bool]]]


def masked_accuracy_sums(predictions: Tokens, references: object, labels: object, *, lang: str = "en") -> Sums:
    """How many hidden tokens' likeliest predictions are right, and how many tokens are hidden."""
    right = [correct for row in predictions for _, correct in row]
    return sum(right), len(right)


def masked_loss_sums(predictions: Tokens, references: object, labels: object, *, lang: str = "en") -> Sums:
    """The cross-entropies of the hidden tokens together, and how many tokens are hidden."""
    losses = [loss for row in predictions for loss, _ in row]
    return exact_sum(losses), len(losses)


def perplexity(sums: Sums) -> float:
    """exp of the mean cross-entropy of the hidden tokens; not in points, lower is better."""
    loss, tokens = sums
    return math.exp(min(float(loss) / tokens, 700)) if tokens else math.inf
