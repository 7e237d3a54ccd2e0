"""Precision, recall and F1 from three counts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """How many units were found, how many are true, and how many of them are the same.

    precision, recall and f1 are in points, and 0 where their denominator is, as in XTREME's scorer and seqeval.
    """

    common: int
    found: int
    true: int

    @property
    def precision(self) -> float:
        """Share of what was found that is true."""
        return 100 * self.common / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """Share of what is true that was found."""
        return 100 * self.common / self.true if self.true else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of both."""
        return 200 * self.common / (self.found + self.true) if self.common else 0.0
