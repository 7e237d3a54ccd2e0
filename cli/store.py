"""`xadapt store`: what lies in a store, whether it is whole, what can go, and results to and from other stores."""

import json
import time
from collections.abc import Sequence, Set
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xadapt.analysis.export import visible
from xadapt_cli.options import Store
from xadapt_cli.sizes import size_text
from xadapt_cli.store_removal import clean, remove, upgrade

if TYPE_CHECKING:
    from xadapt.study.integrity import Problem
    from xadapt.study.inventory import Entry
    from xadapt.study.study_files import StudyFile

store_app = typer.Typer(
    help="See, verify, clean up and copy the results of a store.", no_args_is_help=True, rich_markup_mode="rich"
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Kind = Annotated[str | None, typer.Option(help="Only results of this kind: train, average, import or evaluate.")]
InStudy = Annotated[
    str | None, typer.Option(help="Only results of this study (or STUDY@2, a version), and what they need.")
]
Text = Annotated[str | None, typer.Option(help="Only results with this in their label or key.")]
Name = Annotated[
    str, typer.Argument(metavar="KEY|STUDY", help="The beginning of a key, of `xadapt store ls`; a study, or STUDY@2.")
]
Keys = Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="Beginnings of keys; all without.")]
Study = Annotated[
    str | None, typer.Option(help="Copy this study alone (or STUDY@2, a version), with its results and all they need.")
]
As = Annotated[str | None, typer.Option("--as", metavar="NAME", help="The study's name there.")]
Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="The other store's folder.")]
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
    typer.echo(f"{results} results{others}, {size_text(sum(entry.bytes for entry in found))}")


@store_app.command("studies")
def list_studies(store: Store = "runs", as_json: Json = False) -> None:
    """List studies, oldest first, every version of each: name and version, when it was written (UTC), evaluations, setting."""
    from xadapt.study.inventory import list_entries
    from xadapt.study.study_files import read_studies

    there = {entry.key for entry in list_entries(Path(store)) if entry.state == "whole"}
    studies = [_study_record(study, there) for study in read_studies(Path(store))]
    if as_json:
        typer.echo(json.dumps(studies, indent=1))
        return
    rows = [["study", "written", "evaluations", "setting"]] if studies else []
    for study in studies:
        finished = f"{study['finished']} of {study['evaluations']}"
        rows.append([study["study"], study["written"], finished, study["problem"] or study["setting"]])
    _print_grid(rows)
    typer.echo(f"{len(studies)} versions of {len({name.rpartition('@')[0] for name, *_ in rows[1:]})} studies")


@store_app.command("show")
def show(name: Name, store: Store = "runs", as_json: Json = False) -> None:
    """Show one result: what it is, its record, what made it, what it needs and what needs it, its files; or a study."""
    from xadapt.study.inventory import Entry, list_entries
    from xadapt.study.removal import named
    from xadapt.study.study_files import read_studies, whole

    root = Path(store)
    entries = list_entries(root)
    found = named(name, entries, read_studies(root), root)[-1]
    if isinstance(found, Entry):
        facts = _facts(found, entries, root)
    else:
        there = {entry.key for entry in entries if entry.state == "whole"}
        facts = {**_study_record(whole(found), there), **found.content}
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
    from xadapt.study.store import upgrade_hint
    from xadapt.study.study_files import read_studies

    root = Path(store)
    results = [entry for entry in list_entries(root) if entry.is_result or entry.state == "empty"]
    named = [pick(results, key, root=root) for key in keys or ()] or results
    chosen = [entry for entry in named if entry.state != "earlier"]
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
    if earlier := len(named) - len(chosen):
        typer.echo(f"{earlier} results not verified, an earlier version of xadapt wrote them; {upgrade_hint(root)}")
    if problems or earlier:
        raise typer.Exit(1)


store_app.command("gc")(clean)
store_app.command("rm")(remove)
store_app.command("upgrade")(upgrade)


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
            typer.echo(visible(f"{how} {entry.name} {entry.label}, {size_text(entry.bytes)}"), err=True)
    replaced = f", {counts['replaced']} damaged ones replaced" if counts["replaced"] else ""
    typer.echo(
        visible(
            f"{counts['copied']} results copied, {counts['there']} there already{replaced}, {size_text(size)}; "
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

    result = Results(root).read(entry.folder) if entry.is_result else None  # UserError for one that cannot be used
    facts = _record(entry)
    if result is None:
        error = entry.folder / "error.txt"
        text = error.read_text(encoding="utf-8", errors="replace") if error.is_file() else ""
        files = [str(path.relative_to(entry.folder)) for path in sorted(entry.folder.rglob("*")) if path.is_file()]
        return {**facts, "error": text.splitlines(), "files": files}
    manifest, labels = result.manifest, {other.key: f"{other.name} {other.label}" for other in entries}
    studies = [study.title for study in read_studies(root) if entry.key in study.stages]
    return {
        **facts,
        "spec": manifest["spec"], "record": manifest["record"], "provenance": manifest.get("provenance", {}),
        "needs": [labels.get(key, f"{head(key)} (not in this store)") for key in manifest["needs"]],
        "needed by": [labels[other.key] for other in entries if entry.key in other.needs],
        "studies": studies,
        "files": [f"{name}, {size_text(file['bytes'])}" for name, file in manifest["files"].items()],
    }  # fmt: skip


def _study_record(study: "StudyFile", there: Set[str]) -> dict[str, Any]:
    """A study for scripts; there are the keys of the results in the store."""
    written = datetime.fromtimestamp(study.path.stat().st_mtime, UTC).isoformat(sep=" ", timespec="seconds")[:19]
    return {
        "study": study.title, "written": written, "evaluations": len(study.evaluations),
        "finished": len(study.evaluations & there), "setting": study.content.get("setting", ""),
        "problem": study.problem, "path": str(study.path),
    }  # fmt: skip


def _record(entry: "Entry") -> dict[str, Any]:
    return {**asdict(entry), "folder": str(entry.folder), "needs": list(entry.needs)}


def _row(entry: "Entry") -> list[str]:
    seconds = "" if entry.seconds is None else f"{entry.seconds:,.1f}"
    started = entry.started[:19].replace("T", " ")
    return [entry.kind, entry.key[:16], size_text(entry.bytes), started, seconds, entry.state, entry.label]


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


def _place(store: str) -> list[str]:
    return ["--store", quote(store)] if store != "runs" else []
