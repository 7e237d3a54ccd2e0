"""`xadapt export`: predictions of a finished study in XTREME's submission layout."""

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from xadapt.errors import UserError, unknown
from xadapt_cli.options import Store

_ROW = ("regime", "composition", "intermediate", "seed", "point")


def export(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The study's name; `xadapt compare` shows them.")],
    xtreme: Annotated[str, typer.Option("--xtreme", metavar="DIR", help="Where <task>/test-<lang> files are written.")],
    regime: Annotated[str | None, typer.Option(help="Of the study's rows: full or adapter.")] = None,
    composition: Annotated[str | None, typer.Option(help="Of the study's rows: none, continue or stack.")] = None,
    intermediate: Annotated[str | None, typer.Option(help="Of the study's rows: the task behind.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the study's seeds, where it has several.")] = None,
    point: Annotated[
        str | None, typer.Option(help="Of a sweep: the values of the point, as its table shows them.")
    ] = None,
    store: Store = "runs",
) -> None:
    """Write one row of a study as an XTREME submission, to be scored here or by XTREME's own scorer."""
    from xadapt.evaluation.submission_export import export_predictions
    from xadapt.study.store import Store as Results
    from xadapt.tasks.user import task_of

    results = Results(store)
    studies = results.studies()
    if study not in studies:
        raise unknown("study", study, studies, place=f"the store '{store}'")
    wanted = {
        "regime": regime, "composition": composition, "intermediate": intermediate,
        "seed": None if seed is None else str(seed), "point": point,
    }  # fmt: skip
    files = 0
    for cell in _one_row(study, _told_apart(studies[study]), wanted):
        result = results.read(results.root / "evaluate" / cell["evaluation"][:16])
        if result is None:
            raise UserError(f"study '{study}' has no finished evaluation of {cell['target']}: run it to its end first")
        files += len(
            export_predictions(task_of(result.manifest["spec"]), result.folder / "predictions.parquet", Path(xtreme))
        )
    typer.echo(f"{files} files below {xtreme}")
    typer.echo(f"next: xadapt score --predictions {quote(xtreme)} --labels LABELS")


def _told_apart(study: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The study's cells, their seeds and points as text, where there are several of them."""
    cells, points = study["cells"], study.get("points", [])
    seeds = len({cell.get("seed") for cell in cells}) > 1
    return [
        cell | {"seed": str(cell["seed"]) if seeds else "", "point": points[cell["point"]]["label"] if points else ""}
        for cell in cells
    ]


def _one_row(study: str, cells: list[Mapping[str, Any]], wanted: Mapping[str, str | None]) -> list[Mapping[str, Any]]:
    """The cells of the one row that the options leave; UserError naming the rows if it is none or several."""
    chosen = [cell for cell in cells if all(value in (None, cell[name] or "") for name, value in wanted.items())]
    rows = sorted({_options(cell) for cell in chosen or cells})
    if len(rows) != 1 or not chosen:
        several = "has several rows" if chosen else "has no such row"
        raise UserError(f"study '{study}' {several}; choose one: {'; '.join(rows)}")
    return chosen


def _options(cell: Mapping[str, Any]) -> str:
    return " ".join(f"--{name} {quote(str(cell[name]))}" for name in _ROW if cell.get(name))
