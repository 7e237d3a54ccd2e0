"""A repository of the hub at one commit, and the part of it that a folder is to hold."""

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from xadapt.data.hub import reason
from xadapt.data.hub_record import Listing, Repository, kept_commit
from xadapt.data.listing import ask, place_of
from xadapt.data.manifest import MANIFEST, FileFacts, Manifest, check_complete, read_manifest, write_manifest
from xadapt.data.transfer import Patience, bring, hub_errors, hub_name
from xadapt.durable import sync
from xadapt.errors import UserError
from xadapt.locks import locked

# from all names of a repository, and what to call it in an error, to those that are wanted
Pick = Callable[[Collection[str], str], Collection[str]]
INCOMING = ".incoming"  # where files come to, and what the library notes of them; empty when all is there


class Watch(Protocol):
    """Who hears how a download goes: sizes in bytes, pauses in seconds."""

    def listed(self, repository: str, commit: str, files: int, size: int) -> None: ...

    def coming(self, file: str, size: int) -> None: ...

    def paused(self, what: str, reason: str, seconds: float) -> None: ...

    def waiting(self, repository: str) -> None: ...


def fetch_snapshot(repository: Repository, folder: Path, pick: Pick, patience: Patience, watch: Watch) -> Manifest:
    """Bring what `pick` wants of a repository into a folder, at the commit that the folder has or the newest.

    Whatever the folder's manifest names is checked by hash and completed too. Raises UserError, leaving a folder
    that readers refuse, when the hub, the network or the disk does not serve; the next call goes on from there.
    """
    revision = _revision(repository, folder)
    listing = _listed(repository, revision, patience, watch)
    wanted = pick(listing.files, place_of(repository, listing))  # before anything is written
    with _disk_trouble(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", lambda: watch.waiting(repository.name)):
            held = _revision(repository, folder)
            if held not in (revision, listing.commit):  # who had the lock before us began at another commit
                listing = _listed(repository, held, patience, watch)
                wanted = pick(listing.files, place_of(repository, listing))
            manifest = _extended(repository, folder, listing, wanted)
            _complete(repository, folder, manifest, patience, watch)
    check_complete(folder, _WAYS)
    return manifest


def verify_snapshot(repository: Repository, folder: Path, pick: Pick) -> Manifest:
    """The manifest of a folder that holds what `pick` wants, every file hashed again; needs no network.

    Raises UserError naming what is missing or damaged.
    """
    remedy = "The same command without --verify fetches what lacks, and what is damaged again."
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(
            f"'{folder}' has no {MANIFEST}: {repository.kind} '{repository.name}' was not fetched. {remedy}"
        )
    try:
        pick(manifest.files, f"the {MANIFEST} in '{folder}'")
    except UserError as error:
        raise UserError(f"{error}. {remedy}") from error
    damaged = [name for name, facts in manifest.files.items() if not facts.describe(folder / name)]
    if damaged:
        shown = ", ".join(damaged[:5]) + (", ..." if damaged[5:] else "")
        count = f"{len(damaged)} of {len(manifest.files)} files"
        raise UserError(f"'{folder}': {count} are missing or not what the hub states: {shown}. {remedy}")
    return manifest


def _listed(repository: Repository, revision: str, patience: Patience, watch: Watch) -> Listing:
    try:
        told = partial(watch.paused, repository.name)
        return ask(repository, revision, patience, told, note_branch=False)  # the folder notes it
    except hub_errors() as error:
        raise _refused(repository, "the list of files", error) from error


def _revision(repository: Repository, folder: Path) -> str:
    """What to ask the hub for: a folder that was begun stays at its commit, a branch at what it was at its first use."""
    held = read_manifest(folder)
    if held and repository.revision and held.commit != repository.revision:
        raise UserError(
            f"'{folder}' holds commit {held.commit}, but {repository.revision} is wanted; fetch into another --to, or "
            f"delete '{folder}'"
        )
    return held.commit if held else repository.revision or kept_commit(repository) or repository.branch


def _extended(repository: Repository, folder: Path, listing: Listing, wanted: Collection[str]) -> Manifest:
    """The folder's manifest with what is wanted now, written before any of its files."""
    held = read_manifest(folder)
    files = {name: listing.facts(name, place_of(repository, listing)) for name in wanted}
    before = held.files if held else {}
    licences = [*(held.licence.split("; ") if held else []), repository.licence or listing.licence]
    manifest = Manifest(
        kind=repository.kind, repository=repository.name, commit=listing.commit,
        licence="; ".join(dict.fromkeys(licence for text in licences for licence in text.split("; "))),
        date=datetime.now(UTC).isoformat(timespec="seconds"), files=dict(sorted((before | files).items())),
    )  # fmt: skip
    if held and held == manifest.model_copy(update={"date": held.date}):
        return held
    write_manifest(folder, manifest)
    return manifest


def _complete(repository: Repository, folder: Path, manifest: Manifest, patience: Patience, watch: Watch) -> None:
    """Fetch the files that are not there as the hub states them, the smallest first."""
    lacking = {name: facts for name, facts in manifest.files.items() if not facts.describe(folder / name)}
    _check_space(folder, lacking)
    watch.listed(repository.name, manifest.commit, len(lacking), sum(facts.bytes for facts in lacking.values()))
    for name, facts in sorted(lacking.items(), key=lambda item: item[1].bytes):
        (folder / name).unlink(missing_ok=True)  # readers go by size: what is damaged must not look whole
        watch.coming(name, facts.bytes)
        _fetch(repository, folder, manifest.commit, name, facts, patience, watch)
    shutil.rmtree(folder / INCOMING, ignore_errors=True)


def _fetch(
    repository: Repository, folder: Path, commit: str, name: str, facts: FileFacts, patience: Patience, watch: Watch
) -> None:
    """Bring a file to its own place, checked and on disk before it has its name."""
    try:
        came = bring(
            repository.kind, repository.name, commit, name, facts, folder=folder / INCOMING, patience=patience,
            told=partial(watch.paused, name),
        )  # fmt: skip
    except hub_errors() as error:
        raise _refused(repository, name, error) from error
    sync(came)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    os.replace(came, folder / name)
    sync((folder / name).parent)


def _check_space(folder: Path, lacking: Mapping[str, FileFacts]) -> None:
    begun = [path for path in (folder / INCOMING).rglob("*") if path.is_file()]
    there = sum(path.stat().st_size for path in begun)
    needed, free = sum(facts.bytes for facts in lacking.values()) - there, shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"'{folder}' needs {needed:,} bytes more, but {free:,} are free there; make room, or give another --to"
        )


_WAYS = (
    "Whole files and what came of a broken one are kept: the same command goes on from there. `HF_ENDPOINT` names another "
    "hub, `HF_TOKEN` opens one that asks who you are. What another machine fetched can be copied here, folder and all. "
    "Without any: `--backbone embedded --data embedded`."
)


def _refused(repository: Repository, what: str, error: Exception) -> UserError:
    name = type(error).__name__
    return UserError(
        f"cannot get {what} of {repository.kind} '{repository.name}' from {hub_name()} ({name}: {reason(error)}). {_WAYS}"
    )


@contextmanager
def _disk_trouble(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        raise UserError(
            f"cannot write '{where}' ({error.strerror or error}); mend that or give another --to. {_WAYS}"
        ) from error
