"""Metrics of masked language modelling, over the hidden tokens of all rows."""

import math
from collections.abc import Sequence
from statistics import fmean

Tokens = Sequence[Sequence[tuple[float, bool]]]


def masked_accuracy(predictions: Tokens, references: object, labels: object, *, lang: str = "en") -> float:
    """Share of hidden tokens whose likeliest prediction is right, in points; 0 without any."""
    right = [correct for row in predictions for _, correct in row]
    return 100 * fmean(right) if right else 0.0


def perplexity(predictions: Tokens, references: object, labels: object, *, lang: str = "en") -> float:
    """exp of the mean cross-entropy of the hidden tokens; not in points, lower is better."""
    losses = [loss for row in predictions for loss, _ in row]
    return math.exp(min(fmean(losses), 700)) if losses else math.inf
