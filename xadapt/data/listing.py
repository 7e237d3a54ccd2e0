"""Which commit of a repository is read, and which files it holds: from what is known already, else from the hub."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import ValidationError

from xadapt.data.hub_record import (
    Listing,
    Repository,
    asked_commit,
    keep,
    kept_commit,
    kept_listing,
    library_commit,
    library_listing,
)
from xadapt.data.manifest import COMMIT, FileFacts, first_unsafe
from xadapt.data.transfer import Patience, endpoint, hub_errors, passing_trouble
from xadapt.errors import UserError

# a connection comes about at once or not at all; the card of a large data set takes its time
CONNECT_SECONDS, READ_SECONDS = 5.0, 30.0
# hubs and repositories that answered in this process
_answered: set[tuple[str | None, str, str]] = set()
Told = Callable[[str, float], None]


def untold(reason: str, seconds: float) -> None:
    """Nobody hears of a pause."""


def resolve(repository: Repository, commits: Mapping[str, str], patience: Patience, *, newest: bool = False) -> Listing:
    """The files of a repository at its pinned commit, else the one given for its branch, else what that is now.

    commits are by `Repository.key`. A branch stays what it was at its first use here, unless the newest is wanted, for
    which the hub has to answer, and which is written down by `note_branches` alone. One that cannot be reached leaves what its library last took the branch for. Raises what
    `hub_errors` names where nothing is known, and UserError for a listing that is unsafe.
    """
    first = None if newest else asked_commit(repository) or kept_commit(repository)
    if commit := repository.revision or commits.get(repository.key) or first:
        return listing_at(repository, commit, patience)
    last = None if newest else library_commit(repository)
    try:
        return ask(repository, repository.branch, patience, note_branch=not newest)
    except hub_errors():
        if last is None:
            raise
        return listing_at(repository, last, patience)


def moved(repository: Repository, listing: Listing, files: Collection[str]) -> str:
    """What it would change to read a branch at what it is now; empty where it is nothing, or the hub cannot be asked."""
    try:
        now = ask(repository, repository.branch, Patience(pauses=()), note_branch=False)
    except hub_errors():
        return ""
    differ = [file for file in files if now.files.get(file) != listing.files[file]]
    if repository.revision or now.commit == listing.commit or not differ:
        return ""
    return (
        f"{repository.key} was {listing.commit} when the study began, and is read at that; it has moved to {now.commit}, "
        f"where {len(differ)} of the {len(files)} files that are read differ: --update-data takes those"
    )


def listing_at(repository: Repository, commit: str, patience: Patience) -> Listing:
    """The files of a repository at a commit; raises as `resolve` does."""
    if found := kept_listing(repository, commit):
        return found
    there = library_listing(repository, commit)
    try:
        return ask(repository, commit, patience)
    except hub_errors():
        if there is None:
            raise
        return there


def ask(
    repository: Repository, revision: str, patience: Patience, told: Told = untold, *, note_branch: bool = True
) -> Listing:
    """Ask the hub for a repository's files at a commit or branch, in one call, and write the answer down.

    note_branch: also what the branch is, which data are then read at.
    """
    from huggingface_hub import HfApi

    seconds: Any = (CONNECT_SECONDS, READ_SECONDS)  # to connect, and between two parts of the answer

    def call() -> Any:
        try:
            return HfApi(endpoint=endpoint()).repo_info(
                repository.name, repo_type=repository.kind, revision=None if revision == "main" else revision,
                timeout=seconds, files_metadata=True,
            )  # fmt: skip
        except hub_errors() as error:
            if busy := passing_trouble(error):
                raise busy from error
            raise

    listing = _listing(repository, patience.try_with(call, told))
    _answered.add((endpoint(), repository.kind, repository.name))
    keep(repository, listing, branch=None if re.fullmatch(COMMIT, revision) or not note_branch else revision)
    return listing


def reach(repository: Repository, commit: str, patience: Patience) -> None:
    """Raise at once what would end a download, where the hub has not answered for the repository yet.

    The library itself would go on for half a minute to reach a hub that is not there.
    """
    if (endpoint(), repository.kind, repository.name) not in _answered:
        ask(repository, commit, patience)


def _listing(repository: Repository, info: Any) -> Listing:
    files = {sibling.rfilename: _facts(sibling) for sibling in info.siblings or ()}
    unsafe = first_unsafe(files)
    if unsafe is not None or not re.fullmatch(COMMIT, str(info.sha)):
        odd = f"the file name {unsafe!r}" if unsafe is not None else f"the commit {info.sha!r}"
        raise UserError(
            f"{repository.kind} '{repository.name}' lists {odd}: that is no sound repository; nothing is taken from it"
        )
    card = info.card_data.to_dict() if info.card_data else {}
    licence = card.get("license") or "not stated"
    licence = ", ".join(map(str, licence)) if isinstance(licence, list) else str(licence)
    return Listing(commit=str(info.sha), files=files, licence=licence, rows=_rows(card.get("dataset_info")))


def _facts(sibling: Any) -> FileFacts | None:
    try:
        if sibling.lfs:
            return FileFacts(bytes=sibling.lfs.size, sha256=sibling.lfs.sha256)
        return FileFacts(bytes=sibling.size, git_sha1=sibling.blob_id)
    except ValidationError:
        return None


def _rows(described: Any) -> dict[str, int]:
    """The rows of every split that a card's `dataset_info` gives; what is written otherwise says nothing."""
    found = {}
    for config in described if isinstance(described, list) else [described]:
        for split in (config.get("splits") or ()) if isinstance(config, dict) else ():
            if isinstance(split, dict) and type(rows := split.get("num_examples")) is int and rows >= 0:
                found[f"{config.get('config_name', 'default')}/{split.get('name')}"] = rows
    return found


def place_of(repository: Repository, listing: Listing) -> str:
    """What messages call a repository at a commit."""
    return f"the hub's '{repository.name}' at {listing.commit}"
