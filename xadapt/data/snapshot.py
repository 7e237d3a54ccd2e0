"""A repository of the hub at one commit, and the part of it that a folder is to hold."""

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from xadapt.data.download import CONNECT_SECONDS, Busy, Patience, download, passing_trouble
from xadapt.data.hub import hub_errors
from xadapt.data.manifest import (
    COMMIT,
    MANIFEST,
    FileFacts,
    Manifest,
    check_complete,
    first_unsafe,
    read_manifest,
    write_manifest,
)
from xadapt.errors import UserError
from xadapt.locks import locked

# from all names of a repository, and what to call it in an error, to those that are wanted
Pick = Callable[[Collection[str], str], Collection[str]]


class Watch(Protocol):
    """Who hears how a download goes: sizes in bytes, pauses in seconds."""

    def listed(self, repository: str, commit: str, files: int, size: int) -> None: ...

    def received(self, file: str, done: int, size: int) -> None: ...

    def paused(self, what: str, reason: str, seconds: float) -> None: ...

    def waiting(self, repository: str) -> None: ...


@dataclass(frozen=True)
class Repository:
    """A data set or model of the hub; revision pins a commit, else `branch` is resolved when it is first fetched.

    licence is what the manifest says; empty: what the repository's own card says.
    """

    kind: Literal["dataset", "model"]
    name: str
    revision: str | None = None
    branch: str = "main"
    licence: str = ""


@dataclass(frozen=True)
class Listing:
    """A repository's files at a commit; None for one whose size or hash the hub does not state."""

    commit: str
    files: Mapping[str, FileFacts | None]
    licence: str


def fetch_snapshot(repository: Repository, folder: Path, pick: Pick, patience: Patience, watch: Watch) -> Manifest:
    """Bring what `pick` wants of a repository into a folder, at the commit that the folder has or the newest.

    Whatever the folder's manifest names is checked by hash and completed too. Raises UserError, leaving a folder
    that readers refuse, when the hub, the network or the disk does not serve; the next call goes on from there.
    """
    revision = _revision(repository, folder)
    listing = list_repository(repository, revision, patience, watch)
    wanted = pick(listing.files, _place(repository, listing))  # before anything is written
    with _disk_trouble(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", lambda: watch.waiting(repository.name)):
            held = _revision(repository, folder)
            if held not in (revision, listing.commit):  # who had the lock before us began at another commit
                listing = list_repository(repository, held, patience, watch)
                wanted = pick(listing.files, _place(repository, listing))
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


def list_repository(repository: Repository, revision: str, patience: Patience, watch: Watch) -> Listing:
    """The files of a repository at a commit or branch; UserError if it does not answer or what it says is unsafe."""
    from huggingface_hub import HfApi

    def ask() -> Any:
        with passing_trouble():
            return HfApi(endpoint=_endpoint()).repo_info(
                repository.name, repo_type=repository.kind, revision=None if revision == "main" else revision,
                timeout=CONNECT_SECONDS, files_metadata=True,
            )  # fmt: skip

    refusals: tuple[type[Exception], ...] = (Busy, *hub_errors())
    try:
        info = patience.try_with(ask, lambda reason, seconds: watch.paused(repository.name, reason, seconds))
    except refusals as error:
        raise _refused(repository, "the list of files", error) from error
    files = {sibling.rfilename: _facts(sibling) for sibling in info.siblings or ()}
    unsafe = first_unsafe(files)
    if unsafe is not None or not re.fullmatch(COMMIT, str(info.sha)):
        odd = f"the file name {unsafe!r}" if unsafe is not None else f"the commit {info.sha!r}"
        raise UserError(
            f"{repository.kind} '{repository.name}' lists {odd}: that is no sound repository; nothing is taken from it"
        )
    licence = getattr(info.card_data, "license", None) or "not stated"
    return Listing(str(info.sha), files, ", ".join(licence) if isinstance(licence, list) else str(licence))


def _facts(sibling: Any) -> FileFacts | None:
    try:
        if sibling.lfs:
            return FileFacts(bytes=sibling.lfs.size, sha256=sibling.lfs.sha256)
        return FileFacts(bytes=sibling.size, git_sha1=sibling.blob_id)
    except ValueError:
        return None


def _place(repository: Repository, listing: Listing) -> str:
    return f"the hub's '{repository.name}' at {listing.commit}"


def _revision(repository: Repository, folder: Path) -> str:
    """What to ask the hub for: a folder that was begun stays at its commit."""
    held = read_manifest(folder)
    if held and repository.revision and held.commit != repository.revision:
        raise UserError(
            f"'{folder}' holds commit {held.commit}, but {repository.revision} is wanted; fetch into another --to, or "
            f"delete '{folder}'"
        )
    return held.commit if held else repository.revision or repository.branch


def _extended(repository: Repository, folder: Path, listing: Listing, wanted: Collection[str]) -> Manifest:
    """The folder's manifest with what is wanted now, written before any of its files."""
    held, files = read_manifest(folder), {}
    for name in wanted:
        facts = listing.files[name]
        if facts is None:
            raise UserError(
                f"{_place(repository, listing)} states no size and hash of {name}, so it cannot be checked; try another HF_ENDPOINT"
            )
        files[name] = facts
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
    size = sum(facts.bytes for facts in lacking.values())
    _check_space(folder, lacking)
    watch.listed(repository.name, manifest.commit, len(lacking), size)
    for name, facts in sorted(lacking.items(), key=lambda item: item[1].bytes):
        (folder / name).unlink(missing_ok=True)  # readers go by size: what is damaged must not look whole
        _fetch(repository, folder, manifest.commit, name, facts, patience, watch)


def _fetch(
    repository: Repository, folder: Path, commit: str, name: str, facts: FileFacts, patience: Patience, watch: Watch
) -> None:
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(repository.name, name, repo_type=repository.kind, revision=commit, endpoint=_endpoint())
    try:
        download(
            url, folder / name, facts, patience,
            received=lambda done: watch.received(name, done, facts.bytes),
            told=lambda reason, seconds: watch.paused(name, reason, seconds),
        )  # fmt: skip
    except Exception as error:
        if _is_the_hubs(error):
            raise _refused(repository, name, error) from error
        raise


def _is_the_hubs(error: Exception) -> bool:
    from huggingface_hub.errors import OfflineModeIsEnabled
    from requests import RequestException

    return isinstance(error, Busy | RequestException | OfflineModeIsEnabled)


def _check_space(folder: Path, lacking: Mapping[str, FileFacts]) -> None:
    partial = {name: (folder / f"{name}.partial") for name in lacking}
    there = sum(path.stat().st_size for path in partial.values() if path.is_file())
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
    reason = _reason(error)
    hub = _endpoint() or "the Hugging Face hub"
    name = type(error).__name__
    return UserError(
        f"cannot get {what} of {repository.kind} '{repository.name}' from {hub} ({name}: {reason}). {_WAYS}"
    )


def _reason(error: Exception) -> str:
    from requests import ConnectionError as NoConnection

    if isinstance(error, NoConnection):
        return "it cannot be reached"
    return (str(error).splitlines() or [""])[0].partition("?")[0][:160]  # signed addresses end in secrets


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


@contextmanager
def _disk_trouble(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        raise UserError(
            f"cannot write '{where}' ({error.strerror or error}); mend that or give another --to. {_WAYS}"
        ) from error
