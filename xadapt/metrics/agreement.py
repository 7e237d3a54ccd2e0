"""Precision, recall and F1 from three counts."""

from dataclasses import dataclass

from xadapt.metrics.sums import Sums


@dataclass(frozen=True)
class Agreement:
    """How many units were found, how many are true, and how many of them are the same.

    precision, recall and f1 are in points, and 0 where their denominator is, as in XTREME's scorer and seqeval.
    """

    common: int
    found: int
    true: int

    @property
    def sums(self) -> Sums:
        """The three counts, which add up over blocks."""
        return self.common, self.found, self.true

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
        return f1(self.sums)


def f1(sums: Sums) -> float:
    """F1 of the summed counts of an Agreement, in points."""
    common, found, true = sums
    return float(200 * common / (found + true)) if common else 0.0
