"""How XTREME makes numbers of numbers: which metrics are a task's score, which tasks a group's and the overall one."""

from collections.abc import Collection
from typing import Literal, get_args

from xadapt.tasks.spec import FormatName
from xadapt.tasks.xtreme import XTREME_TASKS

Group = Literal["classification", "structured prediction", "question answering", "retrieval"]
_GROUP_OF: dict[FormatName, Group] = {
    "classification": "classification",
    "tagging": "structured prediction",
    "span": "question answering",
    "retrieval": "retrieval",
    "mining": "retrieval",
}
# The nine tasks by group, both in XTREME's order. A user's own task is in none.
XTREME_GROUPS: dict[Group, tuple[str, ...]] = {
    group: tuple(task.name for task in XTREME_TASKS if _GROUP_OF[task.format] == group) for group in get_args(Group)
}
_PAIRS = (("f1", "exact_match"), ("mlqa_f1", "mlqa_exact_match"))


def score_metrics(main: str, metrics: Collection[str]) -> tuple[str, ...]:
    """The metrics whose plain mean is a task's score: F1 and exact match of question answering, else the main one.

    metrics are all that the task has. A task's score is the plain mean of it over the languages, English included;
    the overall score is the plain mean over the nine tasks, and groups do not enter it. Source: Hu et al. 2020 and
    google-research/xtreme, evaluate.py.
    """
    for pair in _PAIRS:
        if main in pair and set(pair) <= set(metrics):
            return pair
    return (main,)


def score_name(metrics: tuple[str, ...]) -> str:
    """What tables call a score made of these metrics."""
    return "(exact match + F1) / 2" if metrics in _PAIRS else metrics[0]
