"""Score a submission in XTREME's layout as XTREME's own scorer does; torch-free.

A task is the plain mean over its languages, English included; question answering takes the mean of exact match and
F1. The overall number is the plain mean of the nine tasks; groups are shown and do not enter it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean

from xadapt.errors import UserError, unknown
from xadapt.evaluation.submission_files import (
    SUBMISSION_TASKS,
    SubmissionTask,
    find_files,
    find_tasks,
    read_gold_answers,
    read_lines,
    read_pairs,
    read_predicted_answers,
)
from xadapt.metrics import get_metric
from xadapt.metrics.agreement import Agreement
from xadapt.metrics.chunks import chunk_agreement
from xadapt.metrics.mining import pair_agreement
from xadapt.metrics.tag_f1 import legacy_prefixed
from xadapt.tasks.scoring import XTREME_GROUPS, score_metrics

Values = Mapping[str, float]


@dataclass(frozen=True)
class LanguageScore:
    """One language's metrics, in points, and how many of its questions have no prediction and score 0."""

    values: Values
    unanswered: int = 0


@dataclass(frozen=True)
class TaskScore:
    """A task's scores in each of its languages."""

    task: SubmissionTask
    languages: Mapping[str, LanguageScore]

    @property
    def averages(self) -> dict[str, float]:
        """The plain mean of each metric over the languages, in points."""
        scores = self.languages.values()
        return {metric: fmean(score.values[metric] for score in scores) for metric in self.task.metrics}

    @property
    def score(self) -> float:
        """The task's one number: accuracy, F1, or the mean of exact match and F1, in points."""
        averages, metrics = self.averages, self.task.metrics
        return fmean(averages[metric] for metric in score_metrics(metrics[0], metrics))

    @property
    def whole(self) -> bool:
        """Whether these are all of the task's languages."""
        return set(self.languages) == set(self.task.languages)

    @property
    def unanswered(self) -> int:
        """Number of questions without a prediction, over all languages."""
        return sum(score.unanswered for score in self.languages.values())


@dataclass(frozen=True)
class SubmissionScore:
    """The scores of the tasks a submission has or that were asked for, in XTREME's order.

    XTREME's means, of groups and of all, are there where each of their tasks is, over all of its languages.
    """

    tasks: Mapping[str, TaskScore]

    @property
    def missing(self) -> list[str]:
        """The tasks that are not scored."""
        return [name for name in SUBMISSION_TASKS if name not in self.tasks]

    @property
    def cut(self) -> dict[str, list[str]]:
        """The languages of each task that is scored on some of its languages alone."""
        return {name: list(task.languages) for name, task in self.tasks.items() if not task.whole}

    @property
    def groups(self) -> dict[str, float | None]:
        """Each group's mean over its tasks, in points; None where one of them is missing or cut."""
        return {group: self._mean(names) for group, names in XTREME_GROUPS.items()}

    @property
    def overall(self) -> float | None:
        """The plain mean of the nine tasks, in points; None where one of them is missing or cut."""
        return self._mean(list(SUBMISSION_TASKS))

    def _mean(self, names: Sequence[str]) -> float | None:
        if any(name not in self.tasks or not self.tasks[name].whole for name in names):
            return None
        return fmean(self.tasks[name].score for name in names)


def score_submission(
    predictions: Path | str, *, labels: Path | str, tasks: Collection[str] = (), languages: Collection[str] = ()
) -> SubmissionScore:
    """Score every task that a folder of predictions has, or some tasks, on all of their languages or on some.

    Both folders are in XTREME's layout (see submission_files). Tasks that have none of the languages are left out. Raises
    UserError, with file and line where there is one, for whatever is missing, misaligned, unreadable or unknown, and for
    labels that are placeholders. Source: google-research/xtreme, evaluate.py, with seqeval 0.0.12 for udpos; for panx
    0.0.12 and 1.2.2 agree.
    """
    found = find_tasks(Path(predictions), tasks)
    known = {lang: None for task in found for lang in task.languages}
    for lang in languages:
        if lang not in known:
            raise unknown("language", lang, known, place="--languages")
    chosen = [task for task in found if not languages or set(languages) & set(task.languages)]
    files = {
        task.name: [
            find_files(Path(folder), task, role=role, languages=languages)
            for folder, role in ((predictions, "predictions"), (labels, "labels"))
        ]
        for task in chosen
    }
    return SubmissionScore({task.name: _score_task(task, *files[task.name]) for task in chosen})


def _score_task(task: SubmissionTask, predictions: Mapping[str, Path], labels: Mapping[str, Path]) -> TaskScore:
    score = _SCORERS[task.kind]
    return TaskScore(task, {lang: score(task, lang, path, labels[lang]) for lang, path in predictions.items()})


def _score_labels(task: SubmissionTask, lang: str, predictions: Path, labels: Path) -> LanguageScore:
    references = read_lines(labels, task, gold=True)
    found = read_lines(predictions, task, gold=False)
    _check_aligned(found, references, predictions, labels)
    return LanguageScore({"accuracy": get_metric("classification", "accuracy").function(found, references, ())})


def _score_tags(task: SubmissionTask, lang: str, predictions: Path, labels: Path) -> LanguageScore:
    references = read_lines(labels, task, gold=True)
    found = read_lines(predictions, task, gold=False)
    _check_aligned(found, references, predictions, labels)
    ours, theirs = _sentences(found, task), _sentences(references, task)
    return LanguageScore(_values(chunk_agreement(ours, theirs)))


def _score_pairs(task: SubmissionTask, lang: str, predictions: Path, labels: Path) -> LanguageScore:
    references, found = read_pairs(labels, lang, gold=True), read_pairs(predictions, lang, gold=False)
    return LanguageScore(_values(pair_agreement(found, references)))


def _score_answers(task: SubmissionTask, lang: str, predictions: Path, labels: Path) -> LanguageScore:
    gold = read_gold_answers(labels, task)
    predicted = read_predicted_answers(predictions, questions=gold)
    found, references = [predicted.get(question) for question in gold], list(gold.values())
    rules = "mlqa_" if task.name == "mlqa" else ""
    values = {
        metric: get_metric("span", rules + metric).function(found, references, (), lang=lang) for metric in task.metrics
    }
    return LanguageScore(values, unanswered=found.count(None))


_SCORERS: dict[str, Callable[[SubmissionTask, str, Path, Path], LanguageScore]] = {
    "labels": _score_labels, "tags": _score_tags, "pairs": _score_pairs, "answers": _score_answers,
}  # fmt: skip


def _values(agreement: Agreement) -> Values:
    return {"f1": agreement.f1, "precision": agreement.precision, "recall": agreement.recall}


def _check_aligned(found: Sequence[str], references: Sequence[str], predictions: Path, labels: Path) -> None:
    """Refuse files that do not answer line by line; sentences must end on the same lines."""
    for number, (ours, theirs) in enumerate(zip(found, references, strict=False), start=1):
        if bool(ours) != bool(theirs):
            here, there = ("a tag", "a sentence's end") if ours else ("a sentence's end", "a tag")
            raise UserError(f"{predictions}, line {number}: {here}, but {there} in '{labels}'; keep its sentences")
    if len(found) != len(references):
        line = min(len(found), len(references)) + 1
        raise UserError(
            f"{predictions}, line {line}: {len(found)} lines, but {len(references)} in '{labels}'; write one a line there"
        )


def _sentences(lines: Sequence[str], task: SubmissionTask) -> list[list[str]]:
    """Tags by sentence, as chunk tags: udpos has none and takes seqeval 0.0.12's reading of a raw tag."""
    sentences = [list(group) for tagged, group in groupby(lines, key=bool) if tagged]
    return [[legacy_prefixed(tag) for tag in tags] for tags in sentences] if task.name == "udpos" else sentences
