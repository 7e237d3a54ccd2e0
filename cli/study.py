"""`run`, `plan` and `compare`: whole recipes, through the store."""

import json
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xadapt_cli.execution import (
    Address,
    Deterministic,
    Executor,
    Jobs,
    RetryInFp32,
    SaveEvery,
    UpdateData,
    execution_of,
)
from xadapt_cli.exit_codes import FAILED, RESUMABLE, USER
from xadapt_cli.options import ReportTo, Store

if TYPE_CHECKING:
    from xadapt.analysis.scorecard import Scorecard
    from xadapt.study.execution import Execution
    from xadapt.study.outcome import Outcome
    from xadapt.study.plan import Plan
    from xadapt.study.recipe import Recipe
    from xadapt.study.resolved import Resolved
    from xadapt.study.store import Store as Results
    from xadapt_cli.tables import By

RecipeFile = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file; those of configs/ by name, too.")]
Backbone = Annotated[str | None, typer.Option(help="Instead of the recipe's: hub id, folder or 'embedded'.")]
Data = Annotated[
    str | None, typer.Option(help="Instead of the recipe's: 'hub', a mirror folder, xtreme:FOLDER or 'embedded'.")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, as training.max_steps=10.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]

_EMBEDDED_BACKBONE = (
    "The embedded encoder was trained contrastively for retrieval: its tatoeba scores start far above raw XLM-R's."
)
_EMBEDDED_DATA = "The embedded suite is synthetic, for demonstration and tests: its scores are not XTREME's."


def run(
    recipe: RecipeFile, store: Store = "runs", backbone: Backbone = None, data: Data = None,
    overrides: Set = None, save_every: SaveEvery = None, retry_in_fp32: RetryInFp32 = False,
    deterministic: Deterministic = False, jobs: Jobs = None,
    executor: Executor = "local", address: Address = None, report_to: ReportTo = None,
    update_data: UpdateData = False,
) -> None:  # fmt: skip
    """Run a recipe: train and evaluate what the store does not have, then print, draw and export the comparison.

    Exit codes: 0 all is well, 1 a stage failed, 2 something given cannot be used, 75 stopped by a signal (the same command
    goes on), 130 interrupted before any stage ran.
    """
    options = {
        "save_every": save_every, "retry_in_fp32": retry_in_fp32, "deterministic": deterministic, "jobs": jobs,
        "executor": executor, "address": address,
    }  # fmt: skip
    execution = execution_of(options)
    loaded = _load(recipe, backbone, data, overrides)
    run_recipe(loaded, store, evaluate=True, execution=execution, report_to=report_to, update_data=update_data)
    if not loaded.targets:
        return
    scorecard = show_scores(store, [loaded.name])
    folder = Path(store) / "reports" / loaded.name
    _write(scorecard, loaded, folder)
    typer.echo(f"scores: {folder / 'scores.csv'}, {folder / 'scores.parquet'}")
    typer.echo(f"report: {folder / 'report.html'}")
    place = ["--store", store] if store != "runs" else []
    given = [
        word for option, value in (("--backbone", backbone), ("--data", data)) if value for word in (option, value)
    ]
    another = max(loaded.every_seed) + 1
    given_seeds = f"seeds={[*loaded.every_seed, another]}" if loaded.seeds else f"seed={another}"
    changes = [*(overrides or []), given_seeds, *([] if loaded.seeds else [f"name={loaded.name}-seed{another}"])]
    again = ["xadapt", "run", recipe, *place, *given, *(word for change in changes for word in ("--set", change))]
    typer.echo(f"another seed: {shlex.join(again)}")
    typer.echo(f"next: {shlex.join(['xadapt', 'compare', *place])}")


def plan(
    recipe: RecipeFile, store: Store = "runs", backbone: Backbone = None, data: Data = None,
    overrides: Set = None, as_json: Json = False, update_data: UpdateData = False,
) -> None:  # fmt: skip
    """Show what a recipe would do: stages, what they share, what is cached, examples and time to expect."""
    from xadapt.study.plan import make_plan
    from xadapt.study.store import Store as Results
    from xadapt_cli.plan import plan_record, print_plan

    loaded, results = _load(recipe, backbone, data, overrides), Results(store)
    record = plan_record(make_plan(loaded, kept=_kept(results, loaded), update_data=update_data), results)
    if as_json:
        typer.echo(json.dumps(record, indent=1))
        return
    print_plan(record)


def compare(
    names: Annotated[list[str] | None, typer.Argument(metavar="[STUDY]...", help="Studies by name, or NAME@2 for a version; all without.")] = None,
    by_language: Annotated[bool, typer.Option("--by-language", "--languages", help="Each language's scores instead of families' means.")] = False,
    store: Store = "runs", as_json: Json = False,
) -> None:  # fmt: skip
    """Print the comparison of finished studies again, from the store."""
    if as_json:
        scores = _scorecard(store, names or []).scores
        typer.echo(json.dumps([score.model_dump() for score in scores], indent=1))
        return
    show_scores(store, names or [], by="language" if by_language else "family")


def run_recipe(
    recipe: "Recipe", store: str, *, evaluate: bool, execution: "Execution | None" = None, report_to: str | None = None,
    update_data: bool = False,
) -> "list[Outcome]":  # fmt: skip
    """Plan and run a recipe with progress on stderr; leaves with exit code 1 or 2 if a stage failed, 75 if stopped."""
    from xadapt.study.plan import make_plan
    from xadapt.study.store import Store as Results
    from xadapt.training.trackers import chosen_trackers

    names, results = chosen_trackers(report_to), Results(store)
    made = make_plan(recipe, evaluate=evaluate, kept=_kept(results, recipe), update_data=update_data)
    from xadapt_cli.console import quiet_libraries, stderr_console

    console = stderr_console()
    for note in made.notes:
        console.print(f"note: {note}", markup=False)
    quiet_libraries()
    from xadapt.data.hub_record import note_branches
    from xadapt.study.collect import study_of
    from xadapt.study.execution import DEFAULT

    execution = replace(execution or DEFAULT, together=recipe.together)
    _check_runnable(made, results, recipe, execution)
    if update_data:
        note_branches(made.resolved.commits)
    main = os.environ.get("RANK", "0") == "0"  # of several processes that train one model
    if evaluate and main:
        results.write_study(recipe.name, study_of(recipe, made))
    outcomes, stopped = _run_plan(made, results, recipe.name, execution, trackers=names)
    if not main:
        raise typer.Exit
    _end(outcomes, stopped)
    return outcomes


def _run_plan(
    made: "Plan", results: "Results", study: str, execution: "Execution", *, trackers: "Sequence[str]"
) -> "tuple[list[Outcome], str | None]":
    """How every stage ended, shown and told to the trackers as they go, and the signal that stopped them, if any."""
    from xadapt import interruption
    from xadapt.study.tracking import Tracked
    from xadapt.training.trackers import TrackerSet
    from xadapt.workers.start import start
    from xadapt_cli.console import stderr_console
    from xadapt_cli.progress import ConsoleReporter

    console = stderr_console()
    told = TrackerSet(trackers, warn=lambda text: console.print(f"warning: {text}", markup=False))
    shown = ConsoleReporter(console, results)
    tracked = Tracked(shown, told, study=study, folder=results.root / "tracking")
    with interruption.resumable(), shown, tracked as reporter:
        outcomes = start(made, results, reporter, execution=execution)
        return outcomes, interruption.requested()


def _check_runnable(made: "Plan", results: "Results", recipe: "Recipe", execution: "Execution") -> None:
    """UserError for what would stop a plan later, or make again what an earlier version has made."""
    from xadapt.study.upgrade import refuse_before_upgrade
    from xadapt.workers.start import check_installed

    if any(results.find(stage, checked=False) is None for stage in made.stages):
        refuse_before_upgrade(results.root)
    check_installed(made, results, backbone=recipe.backbone, execution=execution)


def show_scores(store: str, names: Sequence[str], *, by: "By" = "family") -> "Scorecard":
    """Print the tables of some studies, or of all."""
    from xadapt_cli.console import stdout_console
    from xadapt_cli.tables import render_scorecard

    scorecard = _scorecard(store, names)
    render_scorecard(scorecard, stdout_console(), by=by)
    return scorecard


def _kept(results: "Results", recipe: "Recipe") -> "Resolved":
    """What the study of a recipe's name came to when it was run before."""
    from xadapt.study.collect import resolved_of

    return resolved_of(results.study(recipe.name))


def _load(recipe: str, backbone: str | None, data: str | None, overrides: Sequence[str] | None) -> "Recipe":
    from xadapt.study.recipe_file import load_recipe

    return load_recipe(recipe, overrides=overrides or (), options={"backbone": backbone, "data": data})


def _end(outcomes: "Sequence[Outcome]", stopped: str | None) -> None:
    """The closing line; typer.Exit unless all went well."""
    from xadapt.errors import UserError

    counts = Counter[str](outcome.status for outcome in outcomes)
    order = ("succeeded", "cached", "failed", "interrupted", "not run")
    typer.echo(", ".join(f"{counts[status]} {status}" for status in order if counts[status]), err=True)
    if stopped and counts["interrupted"] + counts["not run"]:
        typer.echo(f"stopped by {stopped}; what was done is kept, the same command goes on from there", err=True)
        raise typer.Exit(RESUMABLE)
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if errors:
        raise typer.Exit(USER if all(isinstance(error, UserError) for error in errors) else FAILED)


def _scorecard(store: str, names: Sequence[str]) -> "Scorecard":
    from xadapt.analysis.scorecard import Scorecard
    from xadapt.errors import UserError
    from xadapt.study.collection import Collection
    from xadapt.study.store import Store as Results
    from xadapt.study.study_files import named_studies

    results = Results(store)
    found = Collection(results, named_studies(results.root, names))
    if not found.cells:
        raise UserError(f"the store '{store}' has no finished evaluation; try `xadapt run configs/demo.yaml`")
    return Scorecard(found.scores(), found.costs(), found.attention(), found.sweeps())


def _write(scorecard: "Scorecard", recipe: "Recipe", folder: Path) -> None:
    from xadapt import __version__
    from xadapt.analysis.report import write_report

    scorecard.write_csv(folder / "scores.csv")
    scorecard.write_parquet(folder / "scores.parquet")
    notes = [
        text
        for name, text in ((recipe.backbone, _EMBEDDED_BACKBONE), (recipe.data, _EMBEDDED_DATA))
        if name == "embedded"
    ]
    provenance = {
        "xadapt": __version__, "recipe": recipe.name, "backbone": recipe.backbone, "data": recipe.data,
        "seed": ", ".join(map(str, recipe.every_seed)), "setting": "; ".join(scorecard.settings()),
    }  # fmt: skip
    write_report(
        scorecard, folder / "report.html", title=recipe.description or recipe.name, provenance=provenance, notes=notes
    )
