"""Accuracy, over examples or over words."""

from collections.abc import Sequence


def accuracy(
    predictions: Sequence[int | str], references: Sequence[int | str], labels: Sequence[str] = (), *, lang: str = "en"
) -> float:
    """Share of predictions equal to the reference, in points."""
    assert len(predictions) == len(references)
    return 100 * sum(p == r for p, r in zip(predictions, references, strict=True)) / len(references)


def word_accuracy(
    predictions: Sequence[Sequence[int]], references: Sequence[Sequence[int]], labels: Sequence[str] = (), *,
    lang: str = "en",
) -> float:  # fmt: skip
    """Share of words tagged right, in points, over all sentences together."""
    pairs = [pair for p, r in zip(predictions, references, strict=True) for pair in zip(p, r, strict=True)]
    return 100 * sum(p == r for p, r in pairs) / len(pairs)
