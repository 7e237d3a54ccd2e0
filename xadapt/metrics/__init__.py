"""One function a metric: predictions and references in, points from 0 to 100 out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from xadapt.metrics.accuracy import accuracy, word_accuracy
from xadapt.metrics.tag_f1 import legacy_tag_f1


@dataclass(frozen=True)
class Metric:
    """A metric's function and its version, which changes whenever a value may."""

    function: Callable[[Sequence[Any], Sequence[Any], Sequence[str]], float]
    version: int


METRICS: dict[tuple[str, str], Metric] = {
    ("classification", "accuracy"): Metric(accuracy, 1),
    ("retrieval", "accuracy"): Metric(accuracy, 1),
    ("tagging", "accuracy"): Metric(word_accuracy, 1),
    ("tagging", "f1"): Metric(legacy_tag_f1, 1),
}


def get_metric(format_name: str, metric: str) -> Metric:
    """The metric of this name for a format's predictions."""
    return METRICS[format_name, metric]


__all__ = ["METRICS", "Metric", "get_metric"]
