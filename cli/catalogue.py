"""`xadapt tasks` and `xadapt languages`: what there is to train and evaluate."""

import json
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xadapt.analysis.export import visible
from xadapt.languages import LANGUAGES, Language
from xadapt_cli.options import Backbone, Data, TaskFile

if TYPE_CHECKING:
    from xadapt.tasks import Task
    from xadapt.tasks.spec import HubSource

tasks_app = typer.Typer(help="List the tasks, or show one.", invoke_without_command=True)
_WIDE = 120  # columns of a terminal in which the longest key leaves room beside it
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@tasks_app.callback(invoke_without_command=True)
def tasks(context: typer.Context, as_json: Json = False, task_file: TaskFile = None) -> None:
    """List intermediate and target tasks with their sources."""
    _add(task_file)
    if context.invoked_subcommand:
        return
    from xadapt.tasks import TASKS

    if as_json:
        typer.echo(json.dumps([_task_record(task) for task in TASKS.values()], indent=1))
        return
    from rich.table import Table

    table = Table("task", "role", "format", "languages", "metrics", "hub data set", "revision", box=None)
    for task in TASKS.values():
        hub, revision = task.hub, _revision(task.hub, 16) if task.hub.dataset else ""
        count = str(len(task.languages))
        table.add_row(
            task.name, task.role, task.format, count, ", ".join(task.metrics), hub.dataset or "none", revision
        )
    _print(table)
    typer.echo("\nxadapt tasks show TASK tells more; xadapt train-intermediate --task mnli trains one.")


@tasks_app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="The task's name.", metavar="TASK")],
    as_json: Json = False, task_file: TaskFile = None,
) -> None:  # fmt: skip
    """Show one task: data, labels, languages, starting numbers, notes."""
    from xadapt.tasks import get_task

    _add(task_file)
    task = get_task(name, place="TASK")
    if as_json:
        typer.echo(json.dumps(_task_record(task), indent=1))
        return
    from rich.table import Table

    table = Table(box=None, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in _facts(task):
        table.add_row(key, value)
    _print(table)


@tasks_app.command("schema")
def schema(as_json: Json = False) -> None:
    """List every key of a task file: what may stand there, what without it, what it means."""
    from xadapt.tasks.schema import task_keys

    if as_json:
        typer.echo(json.dumps([key.record for key in task_keys()], indent=1))
        return
    from rich.table import Table
    from rich.text import Text

    from xadapt_cli.console import stdout_console

    table = Table(box=None)
    table.add_column("key", overflow="fold", no_wrap=stdout_console().width > _WIDE)
    for name in ("value", "default", "meaning"):
        table.add_column(name, overflow="fold")
    for key in task_keys():
        table.add_row(*map(Text, key.record.values()))  # as text, for `[]` is markup to rich
    _print(table)


@tasks_app.command("check")
def check(
    file: Annotated[str, typer.Argument(help="The task file (YAML), or a task's name.", metavar="FILE")],
    data: Data = "hub", backbone: Backbone = "embedded",
) -> None:  # fmt: skip
    """Try a task out: read every row of every split and language, then train one step and score on a few of them."""
    from xadapt.data import open_source
    from xadapt.tasks import TASKS
    from xadapt.tasks.user import add_task_file

    task = TASKS[file] if file in TASKS else add_task_file(file)
    from xadapt.models.backbone import Backbone as Encoder
    from xadapt.study.check import check_task
    from xadapt_cli.console import quiet_libraries

    quiet_libraries()

    for finding in check_task(task, open_source(data), Encoder(backbone)):
        typer.echo(visible(f"{finding.did}: {finding.found}"))
    verb = "train-intermediate" if task.role == "intermediate" else "evaluate"
    own = f" --task-file {quote(file)}" if task.own else ""
    typer.echo(f"next: xadapt {verb} --task {task.name}{own} --data {quote(data)} --backbone {quote(backbone)}")


def languages(as_json: Json = False) -> None:
    """List the forty languages with family, branch, script and the tasks that have them."""
    if as_json:
        typer.echo(json.dumps([_language_record(language) for language in LANGUAGES.values()], indent=1))
        return
    from rich.table import Table

    table = Table("code", "language", "ISO 639-3", "family", "branch", "script", "in pre-training", "tasks", box=None)
    for language in LANGUAGES.values():
        seen = "yes" if language.seen_in_pretraining else "no"
        record = _language_record(language)
        table.add_row(
            language.code, language.name, language.iso3, language.family, language.branch or "-", language.script, seen,
            ", ".join(record["tasks"]),
        )  # fmt: skip
    _print(table)


def _add(file: str | None) -> None:
    """Make the task of a file known, if one is given."""
    if file:
        from xadapt.tasks.user import add_task_file

        add_task_file(file)


def _facts(task: "Task") -> list[tuple[str, str]]:
    from xadapt.metrics import get_metric

    numbers = [
        f"{regime}: learning_rate {o.learning_rate:g}, {o.num_train_epochs} epochs, batch {o.per_device_train_batch_size}"
        for regime, o in task.optimisation.items()
    ]
    facts = [
        ("task", f"{task.name} (version {task.version}), {task.role}, {task.format}"),
        ("what", task.description),
        ("languages", f"{len(task.languages)}: {' '.join(task.languages)}"),
        ("trains on", _trains_on(task)),
        ("labels", ", ".join(task.labels) or ("those of the training rows" if task.open_labels else "-")),
        *((f"metric {name}", get_metric(task.format, name).meaning) for name in task.metrics),
        ("hub", _hub(task)),
        ("mirror", f"{task.mirror}/<split>.parquet"),
        ("columns", ", ".join(f"{field} = {column}" for field, column in task.columns.items())),
        ("licence", task.hub.licence or "not stated"),
        ("max_seq_length", str(task.max_seq_length)),
    ]
    facts += [("start from", line) for line in numbers]
    return [*facts, *(("note", note) for note in task.notes), ("cite", task.citation or "-")]


def _trains_on(task: "Task") -> str:
    from xadapt.tasks.catalogue import train_task_of

    if not task.trains:
        return "nothing"
    others = [lang for lang in train_task_of(task).train_languages if lang != "en"]
    more = f"; --train-language: {' '.join(others)}" if others else ""
    return f"{task.train_task}, English{more}"


def _hub(task: "Task") -> str:
    hub = task.hub
    if not hub.dataset:
        return f"none. {hub.elsewhere}".strip()
    return f"{hub.dataset}, config {hub.config}, revision {_revision(hub)}"


def _revision(hub: "HubSource", digits: int = 40) -> str:
    """The commit that a spec pins, or its branch and what that was at its first use here."""
    from xadapt.data.hub import repository_of
    from xadapt.data.hub_record import kept_commit

    first = kept_commit(repository_of(hub))
    since = f"here at {first[:digits]}" if first else "fixed at its first use"
    return hub.revision[:digits] if hub.revision else f"{hub.branch}, {since}"


def _task_record(task: "Task") -> dict[str, Any]:
    return task.model_dump(mode="json")


def _language_record(language: Language) -> dict[str, Any]:
    from xadapt.tasks import TASKS

    having = [task.name for task in TASKS.values() if language.code in task.languages]
    return {
        "code": language.code, "name": language.name, "iso3": language.iso3, "family": language.family,
        "branch": language.branch, "script": language.script, "seen_in_pretraining": language.seen_in_pretraining,
        "tasks": having,
    }  # fmt: skip


def _print(renderable: object) -> None:
    from xadapt_cli.console import stdout_console

    stdout_console().print(renderable)
