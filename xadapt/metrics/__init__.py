"""One function a metric: predictions and references in, points from 0 to 100 out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from xadapt.errors import unknown
from xadapt.metrics.accuracy import accuracy, word_accuracy
from xadapt.metrics.chunks import span_f1
from xadapt.metrics.masked import masked_accuracy, perplexity
from xadapt.metrics.mining import mining_f1
from xadapt.metrics.span import exact_match, mlqa_exact_match, mlqa_f1, span_overlap_f1
from xadapt.metrics.tag_f1 import legacy_tag_f1


class MetricFunction(Protocol):
    """What a metric is called with: one prediction and one reference a row, the label names, the language."""

    def __call__(
        self, predictions: Sequence[Any], references: Sequence[Any], labels: Sequence[str], *, lang: str = "en"
    ) -> float: ...


@dataclass(frozen=True)
class Metric:
    """A metric's function and its version, which changes whenever a value may."""

    function: MetricFunction
    version: int


METRICS: dict[tuple[str, str], Metric] = {
    ("classification", "accuracy"): Metric(accuracy, 1),
    ("choice", "accuracy"): Metric(accuracy, 1),
    ("retrieval", "accuracy"): Metric(accuracy, 1),
    ("tagging", "accuracy"): Metric(word_accuracy, 1),
    ("tagging", "f1"): Metric(legacy_tag_f1, 1),
    ("tagging", "span_f1"): Metric(span_f1, 1),
    ("span", "exact_match"): Metric(exact_match, 1),
    ("span", "f1"): Metric(span_overlap_f1, 1),
    ("span", "mlqa_exact_match"): Metric(mlqa_exact_match, 1),
    ("span", "mlqa_f1"): Metric(mlqa_f1, 1),
    ("mining", "f1"): Metric(mining_f1, 1),
    ("mlm", "accuracy"): Metric(masked_accuracy, 1),
    ("mlm", "perplexity"): Metric(perplexity, 1),
}


def get_metric(format_name: str, metric: str) -> Metric:
    """The metric of this name for a format's predictions."""
    if (format_name, metric) not in METRICS:
        valid = [name for of, name in METRICS if of == format_name]
        raise unknown("metric", metric, valid, place=f"a task of format {format_name}")
    return METRICS[format_name, metric]


__all__ = ["METRICS", "Metric", "MetricFunction", "get_metric"]
