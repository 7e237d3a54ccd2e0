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
Input = Annotated[
    str, typer.Option("--input", metavar="FILE", help="Rows as .jsonl, .csv or .parquet; '-' reads stdin.")
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", help="jsonl, csv or parquet, where the input's name does not say it; of stdin default jsonl."
    ),
]
Output = Annotated[
    str, typer.Option("--output", metavar="FILE", help=".jsonl, .csv or .parquet, by the name; '-' prints JSON lines.")
]
Backbone = Annotated[str | None, typer.Option(help="The encoder, where it no longer lies where the training found it.")]
Lang = Annotated[
    str | None,
    typer.Option(
        help="The language of rows that do not say theirs in a field `lang`, to be put beside each prediction."
    ),
]
Head = Annotated[str | None, typer.Option("--task", help="Whose head, of a model trained on several tasks.")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32 or bfloat16; default the training's.")]


def predict(
    artefact: Artefact, rows: Input, output: Output = "-", kind: Format = None, backbone: Backbone = None,
    lang: Lang = None, task: Head = None, dtype: Dtype = None,
) -> None:  # fmt: skip
    """Predict a user's own rows with a trained model: labels by name, tags, or answers.

    Each has a confidence; labels have the probability of every class, too, and tags one a word. A row's `id` is echoed.
    """
    from xadapt.analysis.own_predictions import check_output, prediction_sink
    from xadapt.evaluation.own_records import kind_of
    from xadapt.evaluation.own_rows import check_lang, read_own_rows
    from xadapt_cli.console import quiet_libraries

    check_lang(lang)
    read_as = kind_of(rows, kind)
    check_output(output)
    _check_apart(rows, output)
    quiet_libraries()
    from xadapt.study.predict import open_trained

    trained, done = open_trained(artefact, backbone=backbone, task=task, dtype=dtype), 0
    with ExitStack() as opened:
        stream: BinaryIO = sys.stdin.buffer if rows == "-" else opened.enter_context(open(rows, "rb"))
        write = opened.enter_context(prediction_sink(output))
        for block in read_own_rows(stream, trained.task, name="stdin" if rows == "-" else rows, kind=read_as):
            write(trained.predict(block, lang=lang or ""))
            done += len(block)
    typer.echo(f"predicted {done} rows" + (f": {output}" if output != "-" else ""), err=True)


def _check_apart(rows: str, output: str) -> None:
    """UserError for an input that is no file, or that the output would replace."""
    if rows != "-" and not Path(rows).is_file():
        raise UserError(f"--input '{rows}': no such file; give a .jsonl, .csv or .parquet file, or '-'")
    if "-" not in (rows, output) and Path(rows).resolve() == Path(output).resolve():
        raise UserError(f"--output '{output}' is the input itself; choose another name")
