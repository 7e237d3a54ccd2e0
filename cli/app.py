"""The `xadapt` command: its commands, and the one place where errors become messages and exit codes."""

import os
import sys

import typer

from xadapt.errors import UserError
from xadapt_cli import catalogue, exit_codes, export, fetch, import_module, predict, regimes, score, store, study, train

app = typer.Typer(
    name="xadapt",
    help="Train XLM-R on an English intermediate task, then a target, and evaluate zero-shot on XTREME's languages.",
    epilog="A first look without any download: xadapt run configs/demo.yaml\n\n"
    "Exit codes: 0 all is well, 1 something failed, 2 something given cannot be used, 75 stopped by a signal (the same "
    "command goes on), 130 interrupted before any stage ran, 141 whoever read the output has left",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
_LOOK, _TRAIN, _STUDY = "Look and fetch", "Train and evaluate", "Studies"
app.add_typer(catalogue.tasks_app, name="tasks", rich_help_panel=_LOOK)
app.command("languages", rich_help_panel=_LOOK)(catalogue.languages)
app.command("regimes", rich_help_panel=_LOOK)(regimes.regimes)
app.command("fetch", rich_help_panel=_LOOK)(fetch.fetch)
app.command("train-intermediate", rich_help_panel=_TRAIN)(train.train_intermediate)
app.command("fuse", rich_help_panel=_TRAIN)(train.fuse)
app.command("train-target", rich_help_panel=_TRAIN)(train.train_target)
app.command("evaluate", rich_help_panel=_TRAIN)(train.evaluate)
app.command("import", rich_help_panel=_TRAIN)(import_module.import_module)
app.command("predict", rich_help_panel=_TRAIN)(predict.predict)
app.command("score", rich_help_panel=_TRAIN)(score.score)
app.command("plan", rich_help_panel=_STUDY)(study.plan)
app.command("run", rich_help_panel=_STUDY)(study.run)
app.command("compare", rich_help_panel=_STUDY)(study.compare)
app.command("export", rich_help_panel=_STUDY)(export.export)
app.add_typer(store.store_app, name="store", rich_help_panel=_STUDY)


def _version(value: bool) -> None:
    if value:
        from xadapt import __version__

        typer.echo(f"xadapt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """Run the command; a UserError becomes its message and exit code 2, never a traceback.

    A reader of the output that leaves, as `head` does, ends it without a word.
    """
    code = _code()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = code or exit_codes.UNREAD
    if code == exit_codes.UNREAD:  # or Python would flush once more, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())  # type: ignore[union-attr]
    sys.exit(code)


def _code() -> int | str | None:
    try:
        app()
    except SystemExit as left:  # click and rich turn a broken pipe into one
        return exit_codes.UNREAD if isinstance(left.__context__, BrokenPipeError) else left.code
    except UserError as error:
        return _failed(str(error), exit_codes.USER)
    except KeyboardInterrupt:
        return _failed(
            "interrupted; finished stages are kept, the same command goes on from there", exit_codes.INTERRUPTED
        )
    except BrokenPipeError:
        return exit_codes.UNREAD
    except OSError as error:
        return _failed(str(error), exit_codes.FAILED)
    return 0


def _failed(message: str, code: int) -> int:
    from xadapt.analysis.export import visible

    typer.echo(f"error: {visible(message)}", err=True)
    return code
