"""What the labels of a tagging task say: spans by prefixes, or a tag a word; and which F1 is meant by the name f1."""

import re
from collections.abc import Sequence

from xadapt.errors import UserError, short
from xadapt.tasks.spec import Task

_OUTSIDE = "O"
_PREFIXED = re.compile(r"[BIES]-.+")  # what seqeval counts by; L-, U- and M- of other schemes it takes for tags
_BEGINS = re.compile(r"[BI]-.+")
_SEEMS_TO = re.compile(r"[BI][-_].+", re.IGNORECASE)
_REMEDY = "pos_f1 for XTREME's F1 of runs of equal tags, or accuracy for the share of words"


def tagging_metrics(task: Task) -> tuple[str, ...]:
    """The metrics of a user's tagging task under the names of what is computed: f1 of labels that mark spans is span_f1.

    Raises UserError where the labels do not say which F1 is meant, and for a span_f1 without spans.
    """
    if task.format != "tagging" or not {"f1", "span_f1"} & set(task.metrics):
        return task.metrics
    if task.open_labels:
        if "f1" in task.metrics:
            raise UserError(f"metrics: 'f1' of labels that are not listed: give span_f1 (labels B-, I-), {_REMEDY}")
        return task.metrics
    spans = _mark_spans(task.labels)
    if "span_f1" in task.metrics and not spans:
        raise UserError(
            f"metrics: 'span_f1' needs labels B- and I-, which {_some(task.labels)} are not: give {_REMEDY}"
        )
    return tuple(dict.fromkeys("span_f1" if spans and name == "f1" else name for name in task.metrics))


def with_labels(task: Task, labels: Sequence[str]) -> Task:
    """A task with open labels, now that its rows say which there are; UserError for a span_f1 without spans."""
    if "span_f1" in task.metrics and not _mark_spans(labels):
        raise UserError(
            f"task '{task.name}': metrics: 'span_f1' needs labels B- and I-, which {_some(labels)} are not: give {_REMEDY}"
        )
    return task.model_copy(update={"labels": tuple(labels)})


def _mark_spans(labels: Sequence[str]) -> bool:
    """Whether all labels are of the schemes IOB or IOBES; UserError where some alone are."""
    others = [label for label in labels if label != _OUTSIDE and not _PREFIXED.fullmatch(label)]
    if not any(map(_SEEMS_TO.fullmatch, labels)):
        return False
    if others:
        raise UserError(
            f"metrics: F1 of spans counts labels B-, I-, E-, S- and O, and label {short(others[0])} is none of them: "
            f"rename it (`aliases` maps a source's own names, such as L-PER to E-PER and U-PER to S-PER), or give "
            f"{_REMEDY}"
        )
    return any(map(_BEGINS.fullmatch, labels))


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:3]) + (", .." if len(labels) > 3 else "")
