"""`xadapt fetch`: what tasks need, from the hub into a folder that works without a network."""

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from xadapt.errors import UserError
from xadapt_cli.options import TaskFile

if TYPE_CHECKING:
    from rich.console import Console

    from xadapt.data.manifest import Manifest
    from xadapt.tasks import Task
    from xadapt.tasks.catalogue import TrainingData

Tasks = Annotated[str, typer.Option(help="Tasks joined by commas; `xadapt tasks` lists them.", metavar="NAMES")]
To = Annotated[str, typer.Option("--to", help="The folder that `--data` reads afterwards.", metavar="DIR")]
Languages = Annotated[str | None, typer.Option(help="These and English only: codes joined by commas.", metavar="CODES")]
Backbone = Annotated[
    str | None, typer.Option(help="A hub id, fetched to DIR/models/<id>: config, tokenizer, safetensors.")
]
Verify = Annotated[bool, typer.Option("--verify", help="Fetch nothing: hash again what is there.")]
_LARGE = 10_000_000  # bytes of a file that is worth a line


def fetch(
    tasks: Tasks, to: To, languages: Languages = None, backbone: Backbone = None, task_file: TaskFile = None,
    verify: Verify = False,
) -> None:  # fmt: skip
    """Fetch the data of tasks, what they train on, and an encoder, for `--data DIR` without a network."""
    from xadapt.data.fetch import fetch_tasks, needs, verify_tasks
    from xadapt.models.fetch import fetch_backbone, model_folder, verify_backbone

    named, root = _tasks(tasks, task_file), _root(to)
    chosen = [data.task for data in named]
    wanted = needs(
        chosen, _names(languages, "--languages") if languages is not None else None,
        train_languages={data.task.train_task: data.langs for data in named if data.langs != ("en",)},
    )  # fmt: skip
    if backbone is not None:
        model_folder(root, backbone)  # refused before anything is fetched
    if verify:
        done = verify_tasks(root, wanted)
        done += [verify_backbone(root, backbone)] if backbone is not None else []
    else:
        watch = _console_watch()
        done = fetch_tasks(root, wanted, watch=watch)
        done += [fetch_backbone(root, backbone, watch=watch)] if backbone is not None else []
    for folder, manifest in done:
        typer.echo(_line(folder, manifest, "verified" if verify else "complete"))
    model = f" --backbone {quote(str(model_folder(root, backbone)))}" if backbone is not None else ""
    own = f" --task-file {quote(task_file)}" if task_file is not None else ""
    typer.echo(f"next: {_following(chosen)}{own} --data {quote(to)}{model}")


def _tasks(text: str, file: str | None) -> list["TrainingData"]:
    from xadapt.tasks.catalogue import get_training_data

    if file is not None:
        from xadapt.tasks.user import add_task_file

        add_task_file(file)
    return [get_training_data(name, place="--tasks") for name in _names(text, "--tasks")]


def _names(text: str, option: str) -> list[str]:
    from xadapt.languages import get_language

    names = [name.strip() for name in text.split(",")]
    return [get_language(name, place=option).code for name in names] if option == "--languages" else names


def _root(to: str) -> Path:
    root = Path(to)
    if not to or (root.exists() and not root.is_dir()):
        raise UserError(f"--to '{to}' is no folder; give one, it is made if it is not there")
    return root


def _line(folder: Path, manifest: "Manifest", state: str) -> str:
    from xadapt.analysis.export import visible

    return visible(
        f"{manifest.repository} at {manifest.commit}: {len(manifest.files)} files, {_megabytes(manifest.size)}, {state}, "
        f"licence: {manifest.licence} -> {folder}"
    )


def _following(tasks: Sequence["Task"]) -> str:
    first = next((task for task in tasks if task.role == "intermediate"), tasks[0])
    if first.role == "intermediate":
        return f"xadapt train-intermediate --task {first.name}"
    return f"xadapt {'train-target' if first.trains else 'evaluate'} --task {first.name}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _console_watch() -> "ConsoleWatch":
    from xadapt_cli.console import quiet_libraries, stderr_console

    quiet_libraries()
    return ConsoleWatch(stderr_console())


class ConsoleWatch:
    """Says on a console what is fetched: a line a repository, and one a large file."""

    def __init__(self, console: "Console") -> None:
        self.console = console

    def listed(self, repository: str, commit: str, files: int, size: int) -> None:
        to_fetch = f"{files} files, {_megabytes(size)} to fetch" if files else "all there"
        self._say(f"{repository} at {commit[:12]}: {to_fetch}")

    def coming(self, file: str, size: int) -> None:
        if size >= _LARGE:  # the library draws a bar on a terminal
            self._say(f"      {file}: {_megabytes(size)}")

    def paused(self, what: str, reason: str, seconds: float) -> None:
        self._say(f"      {what}: {reason}; asking again in {seconds:g} s")

    def waiting(self, repository: str) -> None:
        self._say(f"      another process fetches {repository} to the same folder, waiting")

    def _say(self, text: str) -> None:
        from xadapt.analysis.export import visible

        self.console.print(visible(text), markup=False, soft_wrap=True)
