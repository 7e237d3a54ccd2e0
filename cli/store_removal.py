"""`xadapt store gc`, `rm` and `upgrade`: what changes a store, shown first and done with --yes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from xadapt.analysis.export import visible
from xadapt_cli.options import Store
from xadapt_cli.sizes import size_text

if TYPE_CHECKING:
    from xadapt.study.cleaning import Waste
    from xadapt.study.inventory import Entry
    from xadapt.study.removal import Removal
    from xadapt.study.upgrade import Upgrade

Names = Annotated[
    list[str],
    typer.Argument(
        metavar="KEY|STUDY...", help="Beginnings of results' keys; studies, or STUDY@2 for a version alone."
    ),
]
Results = Annotated[
    bool, typer.Option("--results", help="Of studies: drop their results too that no other study names or needs.")
]
Resumable = Annotated[
    bool, typer.Option("--resumable", help="Drop interrupted stages too that could go on from where they were.")
]
Unreachable = Annotated[bool, typer.Option("--unreachable", help="Drop results too that no study names or needs.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this it is only shown.")]


def clean(
    resumable: Resumable = False, unreachable: Unreachable = False, yes: Yes = False, store: Store = "runs"
) -> None:
    """Show, and with --yes drop, what is of no use: folders that hold no result and that nobody works in, locks of nothing.

    Never touched: what a running stage holds. Kept unless asked for: interrupted stages with progress to go on from
    (--resumable), and results that no version of a study names or needs (--unreachable): those of removed studies, and of
    commands that train and do not evaluate. `xadapt store rm` removes a study.
    """
    from xadapt.study.cleaning import drop, find_waste

    found, kept = find_waste(Path(store), resumable=resumable, unreachable=unreachable)
    verb, freed, gone = ("dropped" if yes else "would drop"), 0, 0
    for waste in found:
        if yes and not drop(waste):
            typer.echo(visible(f"left, it is in use now: {waste.path}"))
            continue
        freed, gone = freed + waste.bytes, gone + 1
        typer.echo(visible(_waste_line(verb, waste)))
    for why in ("resumable", "unreachable"):
        if those := [waste for waste in kept if waste.why == why]:
            typer.echo(f"kept: {len(those)} {why}, {size_text(sum(w.bytes for w in those))}; --{why} drops them")
    typer.echo(f"{verb}: {gone} folders and locks, {size_text(freed)}")
    if found and not yes:
        options = [f"--{name}" for name, given in (("resumable", resumable), ("unreachable", unreachable)) if given]
        _lead_on("gc", options, store)


def remove(names: Names, results: Results = False, yes: Yes = False, store: Store = "runs") -> None:
    """Show, and with --yes remove, results and studies by name; what another result needs is refused.

    A study goes with all its versions, its results stay: `--results` drops those, too, that no other study names or needs.
    """
    from xadapt.study.removal import plan_removal
    from xadapt.study.removal import remove as do

    removal = plan_removal(Path(store), names, results=results)
    _print_removal(removal)
    if not yes:
        typer.echo(f"would remove: {_counts(removal)}")
        _lead_on("rm", [*map(quote, names), *(["--results"] if results else [])], store)
        return
    left = {path for path, gone in do(removal) if not gone}
    for path in left:
        typer.echo(visible(f"left, it is in use now: {path}"))
    gone = replace(removal, entries=tuple(entry for entry in removal.entries if entry.folder not in left))
    typer.echo(f"removed: {_counts(gone)}")


def upgrade(yes: Yes = False, store: Store = "runs") -> None:
    """Show, and with --yes do, what lets this version use what an earlier one wrote: results' new keys, studies' seals.

    Nothing is computed again. What cannot be carried over is listed with its reason and stays where it is.
    """
    from xadapt.study.upgrade import carry_out, plan_upgrade

    planned = plan_upgrade(Path(store))
    _print_upgrade(planned)
    count = f"{len(planned.moves)} results, {len(planned.studies)} studies"
    if not (planned.moves or planned.studies):
        typer.echo("nothing to upgrade")
    elif not yes:
        typer.echo(f"would upgrade: {count}")
        _lead_on("upgrade", [], store)
    else:

        def waiting(entry: "Entry") -> None:
            typer.echo(f"another process has {entry.name}, waiting", err=True)

        done = sum(1 for _ in carry_out(planned, waiting=waiting))
        typer.echo(f"upgraded: {count}" if done == len(planned.moves) + len(planned.studies) else f"upgraded: {done}")
        typer.echo(f"next: xadapt store verify{_place(store)}")


def _print_removal(removal: "Removal") -> None:
    for study in removal.studies:
        typer.echo(visible(f"study {study.title}, {len(study.evaluations)} evaluations: {study.path}"))
    for entry in removal.entries:
        made_for = f", made for {entry.study}" if entry.study else ""
        typer.echo(visible(f"{entry.name} {entry.label}{made_for}, {entry.state}, {size_text(entry.bytes)}"))
    for entry, title in removal.named_by:
        typer.echo(visible(f"note: study {title} has {entry.name}; its recipe makes it again"))
    if removal.left:
        size = size_text(sum(entry.bytes for entry in removal.left))
        typer.echo(
            f"stay: {len(removal.left)} results that no other study names or needs, {size}; --results drops them"
        )


def _print_upgrade(planned: "Upgrade") -> None:
    for move in planned.moves:
        if move.folder != move.entry.folder:
            typer.echo(visible(f"{move.entry.name} -> {move.folder.name} {move.entry.label}"))
    for sealed in planned.studies:
        lost = f", without {sealed.dropped} cells whose evaluations cannot be carried over" if sealed.dropped else ""
        typer.echo(visible(f"study {sealed.study.title}{lost}"))
    for left in planned.left:
        typer.echo(visible(f"stays as it is: {left.path} {left.label}: {left.why}"))
    for folder in sorted(planned.unseen):
        typer.echo(
            visible(
                f"note: encoder {folder} is not there from here, and what was made with it keeps the name it had, for good; "
                "run this where it was made, if the encoder is still there"
            )
        )
    if planned.unfinished:
        typer.echo(
            f"note: {planned.unfinished} unfinished folders stay, and a training in one begins anew; "
            "`xadapt store gc --resumable` drops them"
        )


def _counts(removal: "Removal") -> str:
    return f"{len(removal.studies)} studies, {len(removal.entries)} results, {size_text(removal.bytes)}"


def _waste_line(verb: str, waste: "Waste") -> str:
    detail = f", {waste.detail}" if waste.detail and waste.detail != waste.why else ""
    return f"{verb} {waste.path}: {waste.why}{detail}, {size_text(waste.bytes)}"


def _lead_on(command: str, arguments: Sequence[str], store: str) -> None:
    typer.echo(f"next: {' '.join(['xadapt store', command, *arguments])}{_place(store)} --yes")


def _place(store: str) -> str:
    return f" --store {quote(store)}" if store != "runs" else ""
