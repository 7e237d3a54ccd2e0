"""`xadapt store`: what lies in a store, whether it is whole, what can go, and results to and from other stores."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xadapt.analysis.export import visible
from xadapt_cli.options import Store

if TYPE_CHECKING:
    from xadapt.study.cleaning import Waste
    from xadapt.study.integrity import Problem
    from xadapt.study.inventory import Entry

store_app = typer.Typer(
    help="See, verify, clean up and copy the results of a store.", no_args_is_help=True, rich_markup_mode="rich"
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Kind = Annotated[str | None, typer.Option(help="Only results of this kind: train, average, import or evaluate.")]
InStudy = Annotated[str | None, typer.Option(help="Only results of this study, and what they need.")]
Text = Annotated[str | None, typer.Option(help="Only results with this in their label or key.")]
Key = Annotated[str, typer.Argument(metavar="KEY", help="The beginning of its key; `xadapt store ls` lists them.")]
Keys = Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="Beginnings of keys; all without.")]
Study = Annotated[str | None, typer.Option(help="Copy this study alone, with its results and all they need.")]
As = Annotated[str | None, typer.Option("--as", metavar="NAME", help="The study's name there.")]
Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="The other store's folder.")]
Resumable = Annotated[
    bool, typer.Option("--resumable", help="Drop interrupted trainings too that could go on from where they were.")
]
Unreachable = Annotated[
    bool, typer.Option("--unreachable", help="Drop results too that no study names or needs; trained by commands, say.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this it is only shown.")]
_LINE_SECONDS = 10.0


@store_app.command("ls")
def list_results(
    kind: Kind = None, study: InStudy = None, text: Text = None, store: Store = "runs", as_json: Json = False
) -> None:
    """List results, oldest first, and what is unfinished: kind, key, size, start (UTC), seconds, state, label."""
    from xadapt.study.inventory import chosen, list_entries
    from xadapt.study.study_files import get_study, read_studies

    root = Path(store)
    entries = list_entries(root)
    one = get_study(read_studies(root), study, root=root) if study is not None else None
    found = chosen(entries, kind=kind, study=one, text=text)
    if as_json:
        typer.echo(json.dumps([_record(entry) for entry in found], indent=1))
        return
    head = [["kind", "key", "size", "started", "seconds", "state", "label"]] if found else []
    _print_grid(head + [_row(entry) for entry in found])
    results = sum(entry.is_result for entry in found)
    others = f", {len(found) - results} unfinished" if len(found) > results else ""
    typer.echo(f"{results} results{others}, {_size(sum(entry.bytes for entry in found))}")


@store_app.command("show")
def show(key: Key, store: Store = "runs", as_json: Json = False) -> None:
    """Show one result: what it is, its record, what made it, what it needs and what needs it, its files."""
    from xadapt.study.inventory import list_entries, pick

    root = Path(store)
    entries = list_entries(root)
    facts = _facts(pick(entries, key, root=root), entries, root)
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    for name, value in facts.items():
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            typer.echo("".join([f"{name}:", *(f"\n  {visible(item)}" for item in value)]) if value else f"{name}: none")
        elif isinstance(value, dict | list):
            text = json.dumps(value, indent=1, ensure_ascii=False).splitlines()
            typer.echo("\n  ".join([f"{name}:", *map(visible, text)]))
        else:
            typer.echo(visible(f"{name}: {value}"))


@store_app.command("verify")
def verify(keys: Keys = None, store: Store = "runs") -> None:
    """Hash every file of results again and compare with their manifests; exit code 1 if anything is damaged."""
    from xadapt.study.integrity import check_result, check_studies
    from xadapt.study.inventory import list_entries, pick
    from xadapt.study.study_files import read_studies

    root = Path(store)
    results = [entry for entry in list_entries(root) if entry.is_result or entry.state == "empty"]
    chosen = [pick(results, key, root=root) for key in keys or ()] or results
    problems: list[Problem] = [] if keys else list(check_studies(read_studies(root)))
    for problem in problems:
        typer.echo(visible(f"damaged: {problem}"))
    last = time.monotonic()
    for number, entry in enumerate(chosen, start=1):
        for problem in check_result(entry):
            problems.append(problem)
            typer.echo(visible(f"damaged: {problem}"))
        if time.monotonic() - last >= _LINE_SECONDS:
            last = time.monotonic()
            typer.echo(f"verified {number} results so far", err=True)
    typer.echo(f"{len(chosen)} results verified: {f'{len(problems)} problems' if problems else 'all whole'}")
    if problems:
        raise typer.Exit(1)


@store_app.command("gc")
def clean(
    resumable: Resumable = False, unreachable: Unreachable = False, yes: Yes = False, store: Store = "runs"
) -> None:
    """Show, and with --yes drop, what is of no use: unfinished folders that nobody works in, locks of nothing.

    Never touched: what a running stage holds. Kept unless asked for: interrupted trainings with progress to go on from
    (--resumable), and results that are in no study and that no study needs, such as those of single training commands
    (--unreachable).
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
            typer.echo(f"kept: {len(those)} {why}, {_size(sum(w.bytes for w in those))}; --{why} drops them")
    typer.echo(f"{verb}: {gone} folders and locks, {_size(freed)}")
    if found and not yes:
        options = [f"--{name}" for name, given in (("resumable", resumable), ("unreachable", unreachable)) if given]
        typer.echo(f"next: {' '.join(['xadapt store gc', *options, *_place(store), '--yes'])}")


@store_app.command("export")
def export(folder: Folder, keys: Keys = None, study: Study = None, name: As = None, store: Store = "runs") -> None:
    """Copy results, with all they need, and studies into a folder that is a store itself; again, it goes on."""
    _carry(Path(store), Path(folder), keys or [], study, name)
    typer.echo(f"next: xadapt store verify --store {quote(folder)}")


@store_app.command("import")
def import_results(
    folder: Folder, keys: Keys = None, study: Study = None, name: As = None, store: Store = "runs"
) -> None:
    """Copy results and studies of another store into this one, each verified first; what is here is kept."""
    _carry(Path(folder), Path(store), keys or [], study, name)
    typer.echo(f"next: {' '.join(['xadapt store ls', *_place(store)])}")


def _carry(source: Path, target: Path, keys: Sequence[str], study: str | None, name: str | None) -> None:
    from xadapt.study.transfer import carry, choose

    cargo = choose(source, keys=keys, study=study, rename=name)
    counts = {"copied": 0, "there": 0, "replaced": 0}
    size = 0

    def waiting(entry: "Entry") -> None:
        typer.echo(f"another process has {entry.name} in {visible(str(target))}, waiting", err=True)

    for entry, how in carry(cargo, target, waiting=waiting):
        counts[how] += 1
        if how != "there":
            size += entry.bytes
            typer.echo(visible(f"{how} {entry.name} {entry.label}, {_size(entry.bytes)}"), err=True)
    replaced = f", {counts['replaced']} damaged ones replaced" if counts["replaced"] else ""
    typer.echo(
        visible(
            f"{counts['copied']} results copied, {counts['there']} there already{replaced}, {_size(size)}; "
            f"{len(cargo.studies)} studies -> {target}"
        )
    )
    if cargo.lacking:
        typer.echo(f"note: {len(cargo.lacking)} results that these were made from are not in {visible(str(source))}")
    if cargo.pending:
        typer.echo(f"note: {cargo.pending} evaluations of the studies are not finished")


def _facts(entry: "Entry", entries: "Sequence[Entry]", root: Path) -> dict[str, Any]:
    """What `show` tells: the manifest, and what is around the result; UserError for a damaged manifest."""
    from xadapt.study.inventory import head
    from xadapt.study.store import Store as Results
    from xadapt.study.study_files import read_studies

    result = Results(root).read(entry.folder) if entry.is_result else None
    facts = _record(entry)
    if result is None:
        error = entry.folder / "error.txt"
        text = error.read_text(encoding="utf-8", errors="replace") if error.is_file() else ""
        files = [str(path.relative_to(entry.folder)) for path in sorted(entry.folder.rglob("*")) if path.is_file()]
        return {**facts, "error": text.splitlines(), "files": files}
    manifest, labels = result.manifest, {other.key: f"{other.name} {other.label}" for other in entries}
    studies = [study.name for study in read_studies(root) if entry.key in study.stages]
    return {
        **facts,
        "spec": manifest["spec"], "record": manifest["record"], "provenance": manifest.get("provenance", {}),
        "needs": [labels.get(key, f"{head(key)} (not in this store)") for key in manifest["needs"]],
        "needed by": [labels[other.key] for other in entries if entry.key in other.needs],
        "studies": studies,
        "files": [f"{name}, {_size(file['bytes'])}" for name, file in manifest["files"].items()],
    }  # fmt: skip


def _record(entry: "Entry") -> dict[str, Any]:
    return {**asdict(entry), "folder": str(entry.folder), "needs": list(entry.needs)}


def _row(entry: "Entry") -> list[str]:
    seconds = "" if entry.seconds is None else f"{entry.seconds:,.1f}"
    started = entry.started[:19].replace("T", " ")
    return [entry.kind, entry.key[:16], _size(entry.bytes), started, seconds, entry.state, entry.label]


def _print_grid(rows: list[list[str]]) -> None:
    """Aligned lines, sizes and seconds to the right; the last column is as long as it is."""
    shown = [[visible(text) for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = []
    for row in shown:
        cells = [text.rjust(width) if n in (2, 4) else text.ljust(width) for n, (text, width) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        lines.append("  ".join([*cells[:-1], row[-1]]))
    if lines:
        typer.echo("\n".join(lines))


def _waste_line(verb: str, waste: "Waste") -> str:
    detail = f", {waste.detail}" if waste.detail and waste.detail != waste.why else ""
    return f"{verb} {waste.path}: {waste.why}{detail}, {_size(waste.bytes)}"


def _place(store: str) -> list[str]:
    return ["--store", quote(store)] if store != "runs" else []


def _size(size: int) -> str:
    """Bytes for people, in powers of a thousand."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:,.1f} {units[0]}"
