"""`xadapt score`: a submission in XTREME's layout, scored as XTREME scores it."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from xadapt.evaluation.submission import SubmissionScore, TaskScore

Predictions = Annotated[
    str, typer.Option(help="A folder with <task>/test-<lang>.tsv, .json for question answering.", metavar="DIR")
]
Labels = Annotated[str, typer.Option(help="The true labels, in the same layout.", metavar="DIR")]
Tasks = Annotated[str | None, typer.Option(help="These alone, joined by commas: a part.", metavar="NAMES")]
Languages = Annotated[str | None, typer.Option(help="These alone, joined by commas: a part.", metavar="CODES")]
ByLanguage = Annotated[bool, typer.Option("--by-language", help="Show every language, too.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]

METRICS = ("accuracy", "f1", "precision", "recall", "exact_match")


def score(
    predictions: Predictions, labels: Labels, tasks: Tasks = None, languages: Languages = None,
    by_language: ByLanguage = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Score predictions in XTREME's submission layout against labels: languages, tasks, groups, overall.

    Of a part, some tasks or languages, there is no overall score.
    """
    from xadapt.evaluation.submission import score_submission

    scored = score_submission(predictions, labels=labels, tasks=_names(tasks), languages=_names(languages))
    if as_json:
        typer.echo(json.dumps(_record(scored, by_language=by_language), indent=1))
        return
    from xadapt_cli.console import stdout_console
    from xadapt_cli.tables import common_shape, render_grid

    console, tables = stdout_console(), {"tasks: points, means over languages": _task_grid(scored)}
    if by_language:
        tables |= {f"{task.task.name} by language, points": _language_grid(task) for task in scored.tasks.values()}
    tables["groups: means of task scores"] = _group_grid(scored)
    shape = common_shape(list(tables.values()), console)
    for caption, grid in tables.items():
        render_grid(grid, caption, console, shape=shape)
    for line in _notes(scored):
        typer.echo(line)


def _names(text: str | None) -> list[str]:
    return [] if text is None else [name.strip() for name in text.split(",")]


def _task_grid(scored: "SubmissionScore") -> list[list[str]]:
    shown = [metric for metric in METRICS if any(metric in task.averages for task in scored.tasks.values())]
    grid = [["", "languages", "score", *map(_title, shown)]]
    for name, task in scored.tasks.items():
        averages = [_points(task.averages.get(metric)) for metric in shown]
        count = str(len(task.languages)) + ("" if task.whole else f" of {len(task.task.languages)}")
        grid.append([name, count, _points(task.score), *averages])
    return grid


def _language_grid(task: "TaskScore") -> list[list[str]]:
    metrics = task.task.metrics
    lines = [[lang, *(_points(score.values[metric]) for metric in metrics)] for lang, score in task.languages.items()]
    return [["", *map(_title, metrics)], *lines]


def _group_grid(scored: "SubmissionScore") -> list[list[str]]:
    lines = [[group, _points(value)] for group, value in scored.groups.items()]
    return [["", "score"], *lines, ["overall", _points(scored.overall)]]


def _notes(scored: "SubmissionScore") -> list[str]:
    notes = ["score: accuracy or f1; question answering: mean of exact match and f1; overall: mean of the nine tasks"]
    if scored.missing or scored.cut:
        lacking = [f"without {', '.join(scored.missing)}"] if scored.missing else []
        lacking += [f"{name} on {' '.join(languages)} alone" for name, languages in scored.cut.items()]
        notes.append(
            f"a part of a submission: {'; '.join(lacking)}; a group or overall needs all of its tasks and languages"
        )
    if "udpos" in scored.tasks:
        notes.append(f"udpos: f1 as seqeval {_seqeval()} counts raw tags, on which XTREME's published numbers rest")
    for name, task in scored.tasks.items():
        if task.unanswered:
            notes.append(f"{name}: questions without a prediction, which score 0: {task.unanswered}")
    return notes


def _record(scored: "SubmissionScore", *, by_language: bool) -> dict[str, Any]:
    tasks: dict[str, dict[str, Any]] = {}
    for name, task in scored.tasks.items():
        tasks[name] = {"score": task.score, **task.averages, "unanswered": task.unanswered}
        if by_language:
            tasks[name]["languages"] = {lang: dict(found.values) for lang, found in task.languages.items()}
    part = {"missing_tasks": scored.missing, "languages": scored.cut} if scored.missing or scored.cut else None
    means = {"groups": scored.groups, "overall": scored.overall}
    return {"tasks": tasks, **means, "part": part, "udpos_f1_as_seqeval": _seqeval()}


def _seqeval() -> str:
    from xadapt.metrics.tag_f1 import SEQEVAL_VERSION

    return SEQEVAL_VERSION


def _title(metric: str) -> str:
    return metric.replace("_", " ")


def _points(value: float | None) -> str:
    from xadapt.analysis.table import MISSING

    return MISSING if value is None else f"{value:.1f}"
