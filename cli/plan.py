"""What `xadapt plan` shows: stages with their uses and estimated time, and what sharing and the store save."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from xadapt.study.plan import Plan
    from xadapt.study.store import Store

_LISTED = 400  # stages that a table shows; longer plans are counted by kind


def plan_record(made: "Plan", store: "Store") -> dict[str, Any]:
    """The plan for scripts: its stages, each with its status, uses and estimate, their totals, and the notes."""
    from xadapt.study.estimate import Timings, finished_stages

    results = [store.find(stage, checked=False) for stage in made.stages]
    timings = Timings(() if all(results) else finished_stages(store))
    stages = []
    for stage, result in zip(made.stages, results, strict=True):
        estimate = None if result else timings.estimate(stage)
        stages.append({
            "key": stage.key, "kind": stage.kind, "label": stage.label, "examples": stage.examples,
            "status": "cached" if result else "to run", "needs": [need.key for need in stage.needs],
            "uses": made.uses[stage.key],
            "seconds": result.manifest["provenance"].get("seconds") if result else None,
            "estimated_seconds": round(estimate.seconds, 1) if estimate else None,
            "estimated_like": estimate.like if estimate else None,
        })  # fmt: skip
    points = [dict(point.values) for point in made.points if point.values]
    return {"stages": stages, "totals": _totals(stages, len(made.cells)), "points": points, "notes": made.notes}


def _totals(stages: Sequence[Mapping[str, Any]], cells: int) -> dict[str, Any]:
    """Sums over the stages; what is shared is counted against each cell doing all of its work by itself."""
    waiting = [stage for stage in stages if stage["status"] == "to run"]
    again = [(stage["uses"] - 1, stage) for stage in stages]
    return {
        "stages": len(stages), "to_run": len(waiting), "cached": len(stages) - len(waiting), "cells": cells,
        "examples": sum(stage["examples"] or 0 for stage in waiting),
        "examples_unknown": sum(stage["examples"] is None and stage["kind"] != "average" for stage in waiting),
        "cached_seconds": round(sum(stage["seconds"] or 0 for stage in stages), 1),
        "estimated_seconds": round(sum(stage["estimated_seconds"] or 0 for stage in waiting), 1),
        "estimated_like": dict(Counter(stage["estimated_like"] for stage in waiting if stage["estimated_like"])),
        "without_estimate": sum(stage["estimated_seconds"] is None for stage in waiting),
        "uses": sum(stage["uses"] for stage in stages),
        "shared_examples": sum(times * (stage["examples"] or 0) for times, stage in again),
        "shared_seconds": round(sum(t * (s["seconds"] or s["estimated_seconds"] or 0) for t, s in again), 1),
    }  # fmt: skip


def print_plan(record: Mapping[str, Any]) -> None:
    """The plan for people."""
    stages, totals = record["stages"], record["totals"]
    if len(stages) <= _LISTED:
        _print_stages(stages)
    else:
        kinds = Counter((stage["kind"], stage["status"]) for stage in stages)
        for (kind, status), number in kinds.items():
            typer.echo(f"{number:,} × {kind}, {status}")
        typer.echo("--json lists them all")
    more = " and more, not known before they are loaded" if totals["examples_unknown"] else ""
    typer.echo(
        f"{totals['stages']} stages, {totals['to_run']} to run: {totals['examples']:,} examples through the encoder{more}"
    )
    if totals["uses"] > totals["stages"]:
        saved = f", {duration(totals['shared_seconds'])}" if totals["shared_seconds"] else ""
        typer.echo(
            f"shared: {totals['uses']} uses of stages by {totals['cells']} cells are {totals['stages']} stages, which saves "
            f"{totals['shared_examples']:,} examples{saved}"
        )
    if totals["cached"]:
        typer.echo(f"cached: {totals['cached']} stages, which took {duration(totals['cached_seconds'])}")
    if totals["to_run"]:
        typer.echo(_estimate(totals))
    for note in record["notes"]:
        typer.echo(f"note: {note}")


def _estimate(totals: Mapping[str, Any]) -> str:
    if not totals["estimated_like"]:
        return "estimated time: none, since the store has no finished stage of the kind on this encoder"
    matches = ", ".join(f"{number} by {like}" for like, number in totals["estimated_like"].items())
    missing = f"; {totals['without_estimate']} more have no estimate" if totals["without_estimate"] else ""
    return f"estimated time: {duration(totals['estimated_seconds'])}, from finished stages ({matches}){missing}"


def _print_stages(stages: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table

    from xadapt_cli.console import stdout_console

    table = Table("", "stage", "examples", "uses", "time", "status", "key", box=None)
    for number, stage in enumerate(stages, start=1):
        examples = "?" if stage["examples"] is None else f"{stage['examples']:,}"
        seconds = stage["estimated_seconds"]
        time = "" if stage["status"] == "cached" else "?" if seconds is None else f"~{duration(seconds)}"
        uses = str(stage["uses"])
        table.add_row(str(number), stage["label"], examples, uses, time, stage["status"], stage["key"][:16])
    stdout_console().print(table)


def duration(seconds: float) -> str:
    """A time for people: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"
