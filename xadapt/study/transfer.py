"""Results from one store to another, each verified as it is copied and there whole or not at all; torch-free."""

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from xadapt.durable import open_file, sync, write_sealed
from xadapt.errors import UserError, short
from xadapt.locks import locked
from xadapt.study.integrity import fault_of
from xadapt.study.inventory import (
    EarlierVersion,
    Entry,
    behind,
    head,
    list_entries,
    lock_of,
    pick,
    read_manifest,
)
from xadapt.study.store import MANIFEST, upgrade_hint
from xadapt.study.study_files import NAME, StudyFile, put_study, read_studies, study_path, versions, whole
from xadapt.study.unfinished import INCOMING, own_folder, put_in_place, unfinished

How = Literal["copied", "there", "replaced"]
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Cargo:
    """What is to be copied: results, each after what it needs, and studies; lacking are keys' first digits of what they need and is not there.

    pending counts evaluations of the studies that are not there, and so stay behind.
    """

    entries: tuple[Entry, ...]
    studies: tuple[StudyFile, ...]
    lacking: tuple[str, ...]
    pending: int


def choose(source: Path, *, keys: Sequence[str] = (), study: str | None = None, rename: str | None = None) -> Cargo:
    """Everything in a store, one study, or results by the beginnings of their keys; always with all they need.

    rename is the study's name in the other store. Raises UserError for names that are not there, for damaged manifests
    and studies, and for a folder that is no store.
    """
    if keys and study is not None:
        raise UserError(f"--study '{study}' and keys: give one of them")
    everything = list_entries(source)
    entries, studies = [entry for entry in everything if entry.is_result], read_studies(source)
    if not entries and not studies:
        raise UserError(f"'{source}' holds no results; give the folder of a store")
    if study is not None:
        studies = versions(studies, study, root=source)
    if keys or study is not None:
        named = {pick(entries, key, root=source).key for key in keys} or {
            key for each in studies for key in each.stages
        }
        entries = list(behind(named, entries).values())
    else:
        entries = list(behind((entry.key for entry in entries), entries).values())
    for entry in entries:
        if entry.state == "earlier":
            raise UserError(f"{entry.folder / MANIFEST}: {entry.problem}; {upgrade_hint(source)}")
        if entry.state == "damaged":
            raise UserError(f"{entry.folder / MANIFEST} is damaged ({entry.problem}); {_remedy(entry, source)}")
    studies = [] if keys else [whole(each) for each in studies]
    there = {head(entry.key) for entry in entries}
    lacking = {head(need) for entry in entries for need in entry.needs} - there
    pending = {head(key) for each in studies for key in each.evaluations} - there
    return Cargo(tuple(entries), _renamed(studies, rename), tuple(sorted(lacking)), len(pending))


def carry(cargo: Cargo, target: Path, *, waiting: Callable[[Entry], None]) -> Iterator[tuple[Entry, How]]:
    """Copy into another store, and tell of each result how it came to be there; the studies come last.

    A result that is there and whole is kept as it is; one whose files are damaged is replaced. A result is verified
    while it is copied, by size and sha256 of every file, and appears by one rename. UserError for whatever is
    not what its manifest says, leads out of its folder or is a link, and for a study that is there with other content.
    """
    _refuse_other_studies(cargo.studies, target)
    for entry in cargo.entries:
        folder = target / entry.kind / entry.folder.name
        if folder.resolve() == entry.folder.resolve():
            raise UserError(f"'{target}' is the store itself; give another folder")
        yield entry, _bring(entry, folder, waiting)
    for study in cargo.studies:
        _bring_study(study, target)


def _bring(entry: Entry, folder: Path, waiting: Callable[[Entry], None]) -> How:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock_of(folder), lambda: waiting(entry)) as held:
        there = (folder / MANIFEST).exists()
        if there and _same(entry, folder):
            return "there"
        for left in unfinished(folder, INCOMING):
            shutil.rmtree(left, ignore_errors=True)
        incoming = own_folder(folder, held, INCOMING)
        incoming.mkdir()
        try:
            _copy(entry, incoming)
            put_in_place(incoming, folder, held)  # of one that is damaged, or a folder without a manifest
        except BaseException:
            shutil.rmtree(incoming, ignore_errors=True)
            held.check()  # before any error about a folder that another has removed
            raise
    return "replaced" if there else "copied"


def _same(entry: Entry, folder: Path) -> bool:
    """Whether the result is there and whole; UserError for another one in its place, OSError if that cannot be read."""
    try:
        manifest = read_manifest(folder)
    except EarlierVersion as error:
        raise UserError(f"{folder / MANIFEST}: {error}; {upgrade_hint(folder.parents[1])}") from error
    except ValueError:
        return False
    if manifest["key"] != entry.key:
        raise UserError(f"{folder} holds the result of another stage; delete {folder} and try again")
    return not any(fault_of(folder / name, facts) for name, facts in manifest["files"].items())


def _copy(entry: Entry, incoming: Path) -> None:
    """Every file that the manifest names, then the manifest, all of it on disk; UserError for what must not come."""
    source, remedy = entry.folder, _remedy(entry, entry.folder.parents[1])
    name = MANIFEST
    try:
        if source.is_symlink():
            raise ValueError("it lies in a link")
        manifest = read_manifest(source)
        if manifest["key"] != entry.key:
            raise ValueError("it is the manifest of another result")
        for name, facts in manifest["files"].items():
            _copy_file(source, incoming, name, facts)
    except ValueError as error:
        raise UserError(f"{source / name} is refused ({error}); {remedy}") from error
    except (FileNotFoundError, NotADirectoryError, FileExistsError) as error:
        raise UserError(f"{source / name} is missing, or names a folder and a file at once; {remedy}") from error
    write_sealed(incoming / MANIFEST, manifest, sort_keys=True)
    for folder in (incoming, *(path for path in incoming.rglob("*") if path.is_dir())):
        sync(folder)


def _copy_file(source: Path, incoming: Path, name: str, facts: Mapping[str, Any]) -> None:
    """One file, never more of it than its manifest says; ValueError for a link on the way to it or other content."""
    *above, _ = name.split("/")
    for depth in range(len(above)):
        if (source / "/".join(above[: depth + 1])).is_symlink():
            raise ValueError("it lies in a link")
    digest, left = hashlib.sha256(), facts["bytes"] + 1
    with open_file(source / name, links=False) as reading:
        (incoming / name).parent.mkdir(parents=True, exist_ok=True)
        with open(incoming / name, "xb") as writing:
            while left and (chunk := reading.read(min(_CHUNK, left))):
                digest.update(chunk)
                writing.write(chunk)
                left -= len(chunk)
            writing.flush()
            os.fsync(writing.fileno())
    if left != 1:
        raise ValueError(f"it has not the {facts['bytes']} bytes of its manifest")
    if digest.hexdigest() != facts["sha256"]:
        raise ValueError("it is not what was written: checksum")


def _renamed(studies: Collection[StudyFile], rename: str | None) -> tuple[StudyFile, ...]:
    if rename is None:
        return tuple(studies)
    if not NAME.fullmatch(rename):
        raise UserError(f"--as {short(rename)} is no name of a study; take letters, digits, '.', '_' and '-'")
    if (count := len({study.name for study in studies})) != 1:
        raise UserError(f"--as '{rename}' names one study, but there are {count}; choose one with --study")
    return tuple(replace(study, name_there=rename) for study in studies)


def _refuse_other_studies(studies: Sequence[StudyFile], target: Path) -> None:
    """UserError, before anything is copied, if the same version of a study says something else."""
    there = {(study.name, study.version): study for study in read_studies(target)}
    for study in studies:
        other = there.get((study.name_there or study.name, study.version))
        if other and other.earlier:
            whole(other)
        if other and other.content != study.content:
            raise UserError(
                f"study '{study.title}' is in '{target}' with other content; give it another name with --study "
                f"{study.name} --as NAME, or delete {other.path}"
            )


def _bring_study(study: StudyFile, target: Path) -> None:
    """A version as it was written, with its age, by which studies are ordered; one that is there is kept."""
    name = study.name_there or study.name
    if put_study(target, name, study.version, study.content):
        with suppress(OSError):
            status = study.path.stat()
            os.utime(study_path(target, name, study.version), ns=(status.st_atime_ns, status.st_mtime_ns))


def _remedy(entry: Entry, root: Path) -> str:
    return f"delete {entry.folder} and try again; `xadapt store verify --store {root}` lists all that is damaged"
