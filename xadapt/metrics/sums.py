"""What metrics add up over the blocks of a language; no number depends on how its rows are cut into blocks."""

from collections.abc import Iterable
from fractions import Fraction
from math import isfinite

Sums = tuple[int | float | Fraction, ...]


def added(one: Sums, other: Sums) -> Sums:
    """The sums of two blocks together."""
    return tuple(a + b for a, b in zip(one, other, strict=True))


def exact_sum(values: Iterable[float]) -> Fraction | float:
    """The sum without rounding, so that sums of parts add up to it; infinite or not a number where a value is."""
    return sum((Fraction(value) if isfinite(value) else value for value in values), start=Fraction())


def share(sums: Sums) -> float:
    """The first sum over the second, in points; 0 where there is nothing."""
    right, total = sums
    return float(100 * right / total) if total else 0.0
