"""What a store can do without, and its removal under the locks that stages at work hold; torch-free."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Literal

from xadapt.errors import UserError
from xadapt.locks import holder_file, locked_if_free
from xadapt.study.inventory import (
    DIGITS,
    EarlierVersion,
    Entry,
    behind,
    head,
    is_held,
    list_entries,
    lock_of,
    read_manifest,
    size_of,
)
from xadapt.study.stage import STAGE_VERSIONS
from xadapt.study.store import MANIFEST, upgrade_hint
from xadapt.study.study_files import StudyFile, read_studies, whole
from xadapt.study.unfinished import GONE, INCOMING, PARTIAL, PROGRESS, remove, unfinished

Why = Literal["unfinished", "resumable", "empty", "unreachable", "named", "lock of nothing"]
_LOCK = re.compile(rf"[0-9a-f]{{{DIGITS}}}\.lock")


@dataclass(frozen=True)
class Waste:
    """A folder or lock file that can go, why, and the bytes that this frees; detail is for people."""

    path: Path
    why: Why
    bytes: int
    detail: str

    @property
    def lock(self) -> Path:
        return lock_of(self.path)


def find_waste(root: Path, *, resumable: bool = False, unreachable: bool = False) -> tuple[list[Waste], list[Waste]]:
    """What can go, and what could but is kept because it was not asked for; nothing is changed.

    Always waste: unfinished folders that nobody holds the lock of and that no training can go on from, folders without
    a manifest, lock files of nothing. With `resumable` also interrupted trainings with their progress, with
    `unreachable` also results that no study names or needs. Raises UserError where it cannot be known what is needed.
    """
    entries = list_entries(root)
    found = [waste for entry in entries if (waste := _unfinished(entry))]
    lost = _unreachable(entries, read_studies(root), root, sure=unreachable)
    asked = {"resumable": resumable, "unreachable": unreachable}
    drop = [waste for waste in [*found, *lost] if asked.get(waste.why, True)]
    kept = [waste for waste in [*found, *lost] if not asked.get(waste.why, True)]
    return [*drop, *_idle_locks(root)], kept


def drop(waste: Waste) -> bool:
    """Delete it while holding its lock; False, and nothing is done, if somebody holds that or it is waste no more."""
    with locked_if_free(waste.lock) as held:
        if held is None:
            return False
        still = _is_still(waste)
        if still and waste.why != "lock of nothing":
            still = remove(waste.path, waste.lock.with_suffix(""), held)
        if not _beside(waste.lock):
            holder_file(waste.lock).unlink(missing_ok=True)
            waste.lock.unlink(missing_ok=True)  # whoever opened it meanwhile sees that it has no name, and opens anew
    return still


def _unfinished(entry: Entry) -> Waste | None:
    if entry.is_result or entry.state == "running" or entry.folder.is_symlink():
        return None
    why = _why(entry.folder)
    return Waste(entry.folder, why, entry.bytes, entry.state) if why else None


def _why(folder: Path) -> Why | None:
    """Why a folder that is no result can go; None if it is one, or is not there."""
    if not folder.is_dir() or (not folder.suffix and (folder / MANIFEST).exists()):
        return None
    if not folder.suffix:
        return "empty"
    finished = (lock_of(folder).with_suffix("") / MANIFEST).exists()
    resumable = folder.suffix == PARTIAL and (folder / PROGRESS).is_dir()
    return "resumable" if resumable and not finished else "unfinished"


def _is_still(waste: Waste) -> bool:
    """Whether what was found is still so, now that the lock is held."""
    if waste.why == "lock of nothing":
        return not _beside(waste.path)
    if waste.why in ("unreachable", "named"):
        return waste.path.is_dir()
    return _why(waste.path) == waste.why


def _beside(lock: Path) -> list[Path]:
    """What a lock is the lock of, finished or not."""
    folder = lock.with_suffix("")
    return [*([folder] if folder.exists() else []), *unfinished(folder, PARTIAL, INCOMING, GONE)]


def _unreachable(entries: Sequence[Entry], studies: Sequence[StudyFile], root: Path, *, sure: bool) -> list[Waste]:
    """Results that no study names or needs; with `sure`, UserError where that cannot be known."""
    if sure:
        refuse_while_running(entries, root, instead="leave --unreachable out")
        studies = [whole(study) for study in studies]
    reached = behind({key for study in studies for key in study.stages}, entries)
    if sure:
        _refuse_unknown_needs(entries, studies, reached.values(), root)
    lost = [entry for entry in entries if entry.state == "whole" and head(entry.key) not in reached]
    return [Waste(e.folder, "unreachable", e.bytes, _told(e)) for e in lost if not e.folder.is_symlink()]


def _told(entry: Entry) -> str:
    return f"{entry.label}, made for {entry.study}" if entry.study else entry.label


def refuse_while_running(entries: Sequence[Entry], root: Path, *, instead: str) -> None:
    """UserError while a stage runs in a store, whose needs nothing there names."""
    for entry in entries:
        if entry.state == "running":
            raise UserError(
                f"{entry.folder} is being made, and what it needs is not known before it is there; wait until nothing "
                f"runs in the store '{root}', or {instead}"
            )


def _refuse_unknown_needs(
    entries: Sequence[Entry], studies: Sequence[StudyFile], reached: Iterable[Entry], root: Path
) -> None:
    for entry in [*(entry for entry in entries if entry.state == "damaged"), *reached]:
        try:
            read_manifest(entry.folder)
        except EarlierVersion as error:
            raise UserError(f"{entry.folder / MANIFEST}: {error}; {upgrade_hint(entry.folder.parents[1])}") from error
        except (ValueError, OSError) as error:
            raise UserError(
                f"{entry.folder / MANIFEST} is damaged ({error}), so that what it needs is not known; delete "
                f"{entry.folder}, run its study again, and then clean up"
            ) from error
    there = {head(entry.key) for entry in entries if entry.is_result}
    for study in studies:
        if not study.names_all and not set(map(head, study.evaluations)) <= there:
            raise UserError(
                f"study '{study.title}' is not finished, and what its evaluations need is not known; see what "
                f"`xadapt store rm {study.title} --store {quote(str(root))}` would remove, or leave --unreachable out"
            )


def _idle_locks(root: Path) -> Iterator[Waste]:
    """Lock files that nobody holds and beside which there is nothing."""
    for kind in STAGE_VERSIONS:
        beside = {
            path.name.partition(".")[0] for path in (root / kind).glob("*") if path.suffix not in (".lock", ".holder")
        }
        for lock in sorted((root / kind).glob("*.lock")):
            if not _LOCK.fullmatch(lock.name) or lock.is_symlink() or lock.stem in beside:
                continue
            if not is_held(lock):
                yield Waste(lock, "lock of nothing", size_of(lock), "")
