"""An earlier version's store in the form of this one: results under the keys they have now, studies sealed; torch-free.

Nothing is computed again: a result's new key follows from its manifest. What changed since, change by change, is in
`earlier_specs`.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from xadapt.durable import sync, write_sealed
from xadapt.errors import UserError
from xadapt.locks import locked
from xadapt.study.cleaning import refuse_while_running
from xadapt.study.earlier_specs import CONVERSIONS, CannotCarry, Conversion, Made, commits_of
from xadapt.study.inventory import Entry, behind, head, list_entries, lock_of, read_earlier_manifest
from xadapt.study.resolved import Resolved
from xadapt.study.stage import STAGE_VERSIONS, canonical_json, key_of
from xadapt.study.store import MANIFEST, upgrade_hint
from xadapt.study.study_files import StudyFile, read_earlier_study, read_studies
from xadapt.study.unfinished import remove


@dataclass(frozen=True)
class Move:
    """A result that can be used again: what its manifest says from now on, and where it will lie."""

    entry: Entry
    manifest: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        return self.entry.folder.with_name(head(self.manifest["key"]))


@dataclass(frozen=True)
class Left:
    """What stays as it is, and why; key is its first digits, empty for a study."""

    path: Path
    label: str
    why: str


@dataclass(frozen=True)
class SealedStudy:
    """A study with the new keys; dropped counts the cells whose evaluations cannot be carried over."""

    study: StudyFile
    content: Mapping[str, Any]
    dropped: int


@dataclass
class Upgrade:
    """What is done, and what is not; unfinished are the folders that nothing is known of, and that stay.

    unseen are folders of encoders, as they were named then, that are not there from here.
    """

    moves: list[Move] = field(default_factory=list)
    studies: list[SealedStudy] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    unfinished: int = 0
    unseen: set[str] = field(default_factory=set)


@dataclass
class _Keys:
    """What became of the keys of earlier versions: the new ones, and those whose results cannot be carried over."""

    new: dict[str, str]
    lost: set[str] = field(default_factory=set)


def plan_upgrade(root: Path, conversions: Sequence[Conversion] = CONVERSIONS) -> Upgrade:
    """What an upgrade of a store would do; UserError while a stage runs there, and where it is no store."""
    entries = list_entries(root)
    refuse_while_running(entries, root, instead="stop it")
    return _planned(root, entries, conversions)


def refuse_before_upgrade(root: Path) -> None:
    """UserError where results of an earlier version lie that an upgrade carries over, so that none is made again."""
    entries = list_entries(root) if root.is_dir() else []
    if not any(entry.state == "earlier" for entry in entries):
        return
    if moves := _planned(root, entries, CONVERSIONS).moves:
        raise UserError(
            f"the store '{root}' has {len(moves)} results of an earlier version of xadapt; {upgrade_hint(root)}"
        )


def _planned(root: Path, entries: Sequence[Entry], conversions: Sequence[Conversion]) -> Upgrade:
    upgrade = Upgrade(unfinished=sum(not entry.is_result for entry in entries))
    # those of this version, also where an upgrade was stopped before the result had its new place
    done = [e for e in entries if e.state == "whole" or (e.state == "earlier" and e.folder.name != head(e.key))]
    keys = _Keys({old: entry.key for entry in done for old in (entry.key, *entry.formerly)})
    ordered = behind((entry.key for entry in entries), entries).values()  # each after what it needs
    for entry in [entry for entry in ordered if entry.state in ("earlier", "damaged")]:
        _plan_result(entry, keys, conversions, upgrade)
    for study in read_studies(root):
        if study.earlier:
            _plan_study(study, keys, upgrade)
    return upgrade


def carry_out(upgrade: Upgrade, *, waiting: Callable[[Entry], None]) -> Iterator[Move | SealedStudy]:
    """Do it, and tell of each result and study that is done; killed anywhere and planned again, it comes to the same.

    A result gets its new manifest where it lies and then its new name, in one rename, under the locks of both places.
    """
    for move in upgrade.moves:
        if _moved(move, waiting):
            yield move
    for sealed in upgrade.studies:
        path = sealed.study.path
        status = path.stat()
        _drop_drafts(path)
        write_sealed(path, sealed.content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # studies are ordered by age
        yield sealed


def _plan_result(entry: Entry, keys: _Keys, conversions: Sequence[Conversion], upgrade: Upgrade) -> None:
    try:
        manifest = read_earlier_manifest(entry.folder)
        if "version" not in manifest:
            manifest = _converted(manifest, entry.kind, keys, conversions)
    except (ValueError, OSError) as error:  # CannotCarry, too
        keys.lost |= {entry.key, *entry.formerly}
        upgrade.left.append(Left(entry.folder, entry.label, str(error)))
        return
    where = str(manifest.get("provenance", {}).get("where", {}).get("backbone", ""))
    if (
        where
        and str(manifest["spec"].get("backbone", "")).startswith("sha256:")
        and not Path(where).expanduser().exists()
    ):
        upgrade.unseen.add(where)
    move = Move(entry, manifest)
    keys.new |= dict.fromkeys((entry.key, *manifest.get("provenance", {}).get("upgraded_from", ())), manifest["key"])
    if move.folder != entry.folder and (move.folder / MANIFEST).exists():
        upgrade.left.append(Left(entry.folder, entry.label, f"{move.folder} has its result already"))
        return
    upgrade.moves.append(move)


def _converted(
    manifest: Mapping[str, Any], kind: str, keys: _Keys, conversions: Sequence[Conversion]
) -> dict[str, Any]:
    """The manifest that this version would have written; CannotCarry if that cannot be told or would hold other numbers."""
    old, version, provenance = manifest["key"], STAGE_VERSIONS[kind], dict(manifest.get("provenance", {}))
    if key_of(kind, version, manifest["spec"], manifest["needs"]) != old:
        raise CannotCarry(
            "its key is not that of what it says, or its numbers are those of another version of `" + kind + "`"
        )
    for need in manifest["needs"]:
        if need not in keys.new:
            why = "cannot be carried over" if need in keys.lost else "is not in the store"
            raise CannotCarry(f"what it was made from, {head(need)}, {why}")
    made = Made(kind, manifest["spec"], manifest["record"], provenance.get("where", {}))
    if commits := commits_of(made.spec):
        provenance["where"] = {**made.where, "commits": canonical_json(commits)}
    for convert in conversions:
        made = replace(made, spec=convert(made))
    needs = [keys.new[need] for need in manifest["needs"]]
    key = key_of(kind, version, made.spec, needs)
    if key != old:
        provenance["upgraded_from"] = [*provenance.get("upgraded_from", ()), old]
    changed = {"key": key, "version": version, "spec": made.spec, "needs": needs, "provenance": provenance}
    return {**manifest, "kind": kind, **changed}


def _plan_study(study: StudyFile, keys: _Keys, upgrade: Upgrade) -> None:
    """Put the new keys in; what was never finished keeps its own, under which nothing is ever found."""
    try:
        content = read_earlier_study(study.path)
    except (ValueError, OSError) as error:
        upgrade.left.append(Left(study.path, study.title, str(error)))
        return
    cells = [
        {**cell, "evaluation": keys.new.get(cell["evaluation"], cell["evaluation"])}
        for cell in content["cells"] if cell["evaluation"] not in keys.lost
    ]  # fmt: skip
    changed = {**content, "cells": cells}
    changed["resolved"] = _resolved({cell["evaluation"] for cell in cells}, study.path.parents[1], upgrade).model_dump()
    if "stages" in content:
        changed["stages"] = [keys.new.get(key, key) for key in content["stages"] if key not in keys.lost]
    upgrade.studies.append(SealedStudy(study, changed, len(content["cells"]) - len(cells)))


def _resolved(evaluations: Iterable[str], root: Path, upgrade: Upgrade) -> Resolved:
    """What a study's open choices had come to, by its evaluations' new keys, whether they are to be moved or have been.

    `auto` may come to another data type today, and a branch of the hub to another commit.
    """
    moves = {move.manifest["key"]: move.manifest for move in upgrade.moves}
    dtypes, commits = set[str](), dict[str, str]()
    for key in evaluations:
        with suppress(ValueError, OSError):
            manifest = moves.get(key) or read_earlier_manifest(root / "evaluate" / head(key))
            dtypes.add(str(manifest["spec"]["dtype"]))
            commits |= json.loads(manifest["provenance"].get("where", {}).get("commits", "{}"))
    return Resolved(dtype=dtypes.pop() if len(dtypes) == 1 else "", commits=commits)


def _moved(move: Move, waiting: Callable[[Entry], None]) -> bool:
    """Give a result its manifest and its place; False if another process has done it."""
    old, new = move.entry.folder, move.folder
    with ExitStack() as locks:
        held = {
            lock: locks.enter_context(locked(lock, lambda: waiting(move.entry)))
            for lock in sorted({lock_of(old), lock_of(new)})  # so that no two wait for each other
        }
        if not (old / MANIFEST).is_file() or (new != old and (new / MANIFEST).exists()):
            return False
        _drop_drafts(old / MANIFEST)
        write_sealed(old / MANIFEST, move.manifest, sort_keys=True)
        if new != old:
            if new.exists() and not remove(new, new, held[lock_of(new)]):  # one without a manifest is no result
                return False
            held[lock_of(old)].check()
            os.rename(old, new)
            sync(new.parent)
    return True


def _drop_drafts(path: Path) -> None:
    """What an upgrade that was killed had not given its name yet."""
    for draft in path.parent.glob(f".{path.name}.*"):
        draft.unlink(missing_ok=True)
