"""`xadapt predict`: a trained model on a user's own rows."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from xadapt.errors import UserError

Artefact = Annotated[
    str, typer.Argument(metavar="ARTEFACT", help="The folder of a training, as train-target's last lines name it.")
]
Input = Annotated[str, typer.Option("--input", metavar="FILE", help="Rows as .jsonl or .csv; '-' reads JSONL.")]
Output = Annotated[
    str, typer.Option("--output", metavar="FILE", help="JSON lines, or CSV where the name ends so; '-' prints them.")
]
Backbone = Annotated[str | None, typer.Option(help="The encoder, where it no longer lies where the training found it.")]
Lang = Annotated[str | None, typer.Option(help="The rows' language, to be put beside each prediction.")]
Head = Annotated[str | None, typer.Option("--task", help="Whose head, of a model trained on several tasks.")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32 or bfloat16; default the training's.")]


def predict(
    artefact: Artefact, rows: Input, output: Output = "-", backbone: Backbone = None, lang: Lang = None,
    task: Head = None, dtype: Dtype = None,
) -> None:  # fmt: skip
    """Predict a user's own rows with a trained model: labels by name, tags, or answers, each with a confidence."""
    from xadapt.analysis.own_predictions import prediction_sink
    from xadapt.evaluation.own_rows import check_lang, kind_of, read_own_rows
    from xadapt_cli.console import quiet_libraries

    check_lang(lang)
    kind = kind_of(rows)
    _check_apart(rows, output)
    quiet_libraries()
    from xadapt.study.predict import open_trained

    trained, done = open_trained(artefact, backbone=backbone, task=task, dtype=dtype), 0
    with ExitStack() as opened:
        stream: BinaryIO = sys.stdin.buffer if rows == "-" else opened.enter_context(open(rows, "rb"))
        write = opened.enter_context(prediction_sink(output, lang=lang))
        for block in read_own_rows(stream, trained.task, name="stdin" if rows == "-" else rows, kind=kind):
            write(trained.predict(block))
            done += len(block)
    typer.echo(f"predicted {done} rows" + (f": {output}" if output != "-" else ""), err=True)


def _check_apart(rows: str, output: str) -> None:
    """UserError for an input that is no file, or that the output would replace."""
    if rows != "-" and not Path(rows).is_file():
        raise UserError(f"--input '{rows}': no such file; give a .jsonl or .csv file, or '-'")
    if output != "-" and Path(output).is_dir():
        raise UserError(f"--output '{output}' is a folder; name a file in it")
    if "-" not in (rows, output) and Path(rows).resolve() == Path(output).resolve():
        raise UserError(f"--output '{output}' is the input itself; choose another name")
