"""Accuracy, over examples or over words."""

from collections.abc import Sequence

from xadapt.metrics.sums import Sums


def accuracy_sums(
    predictions: Sequence[int | str], references: Sequence[int | str], labels: Sequence[str] = (), *, lang: str = "en"
) -> Sums:
    """How many predictions are equal to the reference, and how many there are."""
    assert len(predictions) == len(references)
    return sum(p == r for p, r in zip(predictions, references, strict=True)), len(references)


def word_accuracy_sums(
    predictions: Sequence[Sequence[int]], references: Sequence[Sequence[int]], labels: Sequence[str] = (), *,
    lang: str = "en",
) -> Sums:  # fmt: skip
    """How many words are tagged right, and how many there are, over all sentences together."""
    pairs = [pair for p, r in zip(predictions, references, strict=True) for pair in zip(p, r, strict=True)]
    return sum(p == r for p, r in pairs), len(pairs)
