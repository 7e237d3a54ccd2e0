"""`xadapt export`: predictions of a finished study in XTREME's submission layout."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xadapt.errors import UserError
from xadapt.regimes.compositions import COMPOSITIONS, EVERY_COMPOSITION
from xadapt_cli.options import Store

if TYPE_CHECKING:
    from xadapt.evaluation.submission_export import Evaluated
    from xadapt.study.store import Store as Results

_ROW = ("regime", "composition", "intermediate", "seed", "point")
_OF = "Of the study's rows: "

Study = Annotated[
    str, typer.Argument(metavar="STUDY", help="The study's name, or NAME@2; `xadapt store studies` lists them.")
]
Xtreme = Annotated[
    str, typer.Option("--xtreme", metavar="DIR", help="A new folder, where <task>/test-<lang> files are written.")
]
Regime = Annotated[str | None, typer.Option(help=f"{_OF}{', '.join(COMPOSITIONS)}.")]
Composition = Annotated[str | None, typer.Option(help=f"{_OF}{', '.join(EVERY_COMPOSITION)}.")]
Intermediate = Annotated[str | None, typer.Option(help=f"{_OF}the task behind, or several joined by commas.")]
Seed = Annotated[int | None, typer.Option(help="Of the study's seeds, where it has several.")]
Point = Annotated[str | None, typer.Option(help="Of a sweep: the values of the point, as its table shows them.")]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--task", help="These targets alone, joined by commas or given several times; without it XTREME's nine."
    ),
]


def export(
    study: Study, xtreme: Xtreme, regime: Regime = None, composition: Composition = None,
    intermediate: Intermediate = None, seed: Seed = None, point: Point = None, task: Targets = None, store: Store = "runs",
) -> None:  # fmt: skip
    """Write one row of a study as an XTREME submission, to be scored here or by XTREME's own scorer.

    Nothing is written of an evaluation that lacks rows or languages, nor into a folder that holds another submission.
    """
    from xadapt.evaluation.submission_export import check_whole, submitted_targets, write_submission
    from xadapt.study.store import Store as Results
    from xadapt.study.study_files import get_study, read_studies

    results = Results(store)
    content = get_study(read_studies(results.root), study, root=results.root).content
    wanted = {
        "regime": regime, "composition": composition, "intermediate": intermediate,
        "seed": None if seed is None else str(seed), "point": point,
    }  # fmt: skip
    place, cells = f"study '{study}'", _one_row(study, _told_apart(content), wanted)
    named = [name.strip() for given in task or () for name in given.split(",")]
    targets = submitted_targets([cell["target"] for cell in cells], named, place=place)
    evaluations = _evaluations(results, [cell for cell in cells if cell["target"] in targets], place)
    check_whole(evaluations, place=place)
    files = write_submission(evaluations, Path(xtreme))
    typer.echo(f"{len(files)} files below {xtreme}")
    typer.echo(f"next: xadapt score --predictions {quote(xtreme)} --labels LABELS")


def _evaluations(results: "Results", cells: Iterable[Mapping[str, Any]], place: str) -> "list[Evaluated]":
    """The finished evaluations behind some cells, their files as they were written; UserError naming those that lack."""
    from xadapt.evaluation.submission_export import Evaluated
    from xadapt.study.store import verify

    found = {cell["target"]: results.read(results.root / "evaluate" / cell["evaluation"][:16]) for cell in cells}
    if lacking := [target for target, result in found.items() if result is None]:
        raise UserError(f"{place} has no finished evaluation of {', '.join(lacking)}: run it to its end first")
    evaluations = []
    for result in filter(None, found.values()):
        verify(result)
        evaluations.append(Evaluated(result.manifest["spec"], result.record, result.folder / "predictions.parquet"))
    return evaluations


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
