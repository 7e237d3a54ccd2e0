"""A metric: predictions and references in, sums out, which add up over blocks and come to points from 0 to 100."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from xadapt.errors import unknown
from xadapt.metrics.accuracy import accuracy_sums, word_accuracy_sums
from xadapt.metrics.agreement import f1
from xadapt.metrics.chunks import span_f1_sums
from xadapt.metrics.masked import masked_accuracy_sums, masked_loss_sums, perplexity
from xadapt.metrics.mining import mining_f1_sums
from xadapt.metrics.span import exact_match_sums, mlqa_exact_match_sums, mlqa_f1_sums, span_overlap_f1_sums
from xadapt.metrics.sums import Sums, added, share
from xadapt.metrics.tag_f1 import legacy_tag_f1_sums


class Count(Protocol):
    """What a metric adds up: one prediction and one reference a row, the label names, the language in, sums out."""

    def __call__(
        self, predictions: Sequence[Any], references: Sequence[Any], labels: Sequence[str], *, lang: str = "en"
    ) -> Sums: ...


@dataclass(frozen=True)
class Metric:
    """What a metric adds up, the points that its sums come to, and its version, which changes whenever a value may.

    The sums of a language's blocks, `added`, are the language's. meaning is for people.
    """

    sums: Count
    points: Callable[[Sums], float]
    version: int
    meaning: str

    def function(
        self, predictions: Sequence[Any], references: Sequence[Any], labels: Sequence[str], *, lang: str = "en"
    ) -> float:
        """The metric of whole lists."""
        return self.points(self.sums(predictions, references, labels, lang=lang))


_TAG_F1 = Metric(
    legacy_tag_f1_sums, f1, 1, "micro F1 of runs of equal tags, as XTREME scores udpos; f1 and pos_f1 are one"
)
METRICS: dict[tuple[str, str], Metric] = {
    ("classification", "accuracy"): Metric(accuracy_sums, share, 1, "share of examples that are right"),
    ("choice", "accuracy"): Metric(accuracy_sums, share, 1, "share of examples that are right"),
    ("retrieval", "accuracy"): Metric(accuracy_sums, share, 1, "share of sentences whose translation is found"),
    ("tagging", "accuracy"): Metric(word_accuracy_sums, share, 1, "share of words that are tagged right"),
    ("tagging", "f1"): _TAG_F1,
    ("tagging", "pos_f1"): _TAG_F1,
    ("tagging", "span_f1"): Metric(
        span_f1_sums, f1, 1, "micro F1 of spans as seqeval counts them, which f1 means of labels B-, I- (also E-, S-)"
    ),
    ("span", "exact_match"): Metric(
        exact_match_sums, share, 1, "share of answers equal to a gold one, by SQuAD's rules"
    ),
    ("span", "f1"): Metric(span_overlap_f1_sums, share, 1, "mean F1 of the words of answer and gold, by SQuAD's rules"),
    ("span", "mlqa_exact_match"): Metric(
        mlqa_exact_match_sums, share, 1, "share of answers equal to a gold one, by MLQA's rules of seven languages"
    ),
    ("span", "mlqa_f1"): Metric(
        mlqa_f1_sums, share, 1, "mean F1 of the words of answer and gold, by MLQA's rules of seven languages"
    ),
    ("mining", "f1"): Metric(mining_f1_sums, f1, 1, "F1 of the pairs that are found"),
    ("mlm", "accuracy"): Metric(masked_accuracy_sums, share, 1, "share of hidden tokens that are predicted right"),
    ("mlm", "perplexity"): Metric(
        masked_loss_sums, perplexity, 1, "exp of the mean cross-entropy of the hidden tokens; lower is better"
    ),
}


def get_metric(format_name: str, metric: str) -> Metric:
    """The metric of this name for a format's predictions."""
    if (format_name, metric) not in METRICS:
        valid = [name for of, name in METRICS if of == format_name]
        raise unknown("metric", metric, valid, place=f"metrics of a task of format {format_name}")
    return METRICS[format_name, metric]


__all__ = ["METRICS", "Metric", "Sums", "added", "get_metric"]
