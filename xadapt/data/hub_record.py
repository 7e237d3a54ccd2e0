"""What was resolved of the hub, written down: which commit a branch was, and which files a commit holds.

One folder a repository below xadapt's cache: `commits/<sha>.json` never changes, `branches/<name>.json` is what a
branch was when it was last asked for. The hub library's own cache is read for what only it knows, and never written.
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import quote
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from xadapt.cache import cache_root
from xadapt.data.manifest import COMMIT, FileFacts, first_unsafe
from xadapt.errors import UserError

Kind = Literal["dataset", "model"]


class Repository(BaseModel):
    """A data set or model of the hub; revision pins a commit, else `branch` is resolved when it is first read.

    licence is what a manifest says; empty: what the repository's own card says.
    """

    model_config = ConfigDict(frozen=True)
    kind: Kind
    name: str
    revision: str | None = None
    branch: str = "main"
    licence: str = ""

    @property
    def key(self) -> str:
        """What a study keeps its commit under: `datasets/owner/name@branch`."""
        return f"{self.kind}s/{self.name}@{self.revision or self.branch}"


class Listing(BaseModel):
    """A repository's files at a commit; None for one whose size or hash the hub does not state.

    rows are the rows of `<config>/<split>` as the repository's card says them, where it does.
    """

    model_config = ConfigDict(frozen=True)
    commit: str = Field(pattern=COMMIT)
    licence: str
    files: dict[str, FileFacts | None]
    rows: dict[str, int] = {}

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, FileFacts | None]) -> dict[str, FileFacts | None]:
        if (bad := first_unsafe(files)) is not None:
            raise ValueError(f"{bad!r} leads out of the folder")
        return files

    def facts(self, file: str, place: str) -> FileFacts:
        """What is stated of a file; UserError where size or hash are not."""
        if found := self.files[file]:
            return found
        raise UserError(f"{place} states no size and hash of {file}, so it cannot be checked; try another HF_ENDPOINT")


class _Branch(BaseModel):
    commit: str = Field(pattern=COMMIT)


# what this process has asked or read, by the folder of the record: a commit's files never change
_listings: dict[tuple[Path | None, str], Listing] = {}
_branches: dict[tuple[Path | None, str], str] = {}


def keep(repository: Repository, listing: Listing, *, branch: str | None) -> None:
    """Write down a commit's files and, if it was asked for by a branch, what that is; a folder it cannot write is left."""
    folder = _folder(repository)
    _listings[folder, listing.commit] = listing
    if branch is not None:
        _branches[folder, branch] = listing.commit
    if folder is None:
        return
    with suppress(OSError):
        _write(_commit_file(folder, listing.commit), listing)
        if branch is not None:
            _write(_branch_file(folder, branch), _Branch(commit=listing.commit))


def note_branches(commits: Mapping[str, str]) -> None:
    """Take branches from now on for what they were just read at, by `Repository.key`."""
    for key, commit in commits.items():
        kind, _, rest = key.partition("s/")
        name, _, branch = rest.rpartition("@")
        repository = Repository.model_validate({"kind": kind, "name": name, "branch": branch})
        if listing := kept_listing(repository, commit):
            keep(repository, listing, branch=branch)


def kept_listing(repository: Repository, commit: str) -> Listing | None:
    """The files of a commit, if they were ever asked for."""
    folder = _folder(repository)
    if (folder, commit) not in _listings and folder is not None:
        with suppress(OSError, ValidationError):
            found = Listing.model_validate_json(_commit_file(folder, commit).read_bytes())
            if found.commit == commit:
                _listings[folder, commit] = found
    return _listings.get((folder, commit))


def asked_commit(repository: Repository) -> str | None:
    """What this process has been told that the branch is."""
    return _branches.get((_folder(repository), repository.branch))


def kept_commit(repository: Repository) -> str | None:
    """What a branch was when it was first read here, or last noted."""
    if folder := _folder(repository):
        with suppress(OSError, ValidationError):
            return _Branch.model_validate_json(_branch_file(folder, repository.branch).read_bytes()).commit
    return None


def library_commit(repository: Repository) -> str | None:
    """What a branch was when the hub's library last downloaded it."""
    with suppress(OSError):
        commit = (_library_folder(repository) / "refs" / repository.branch).read_text().strip()
        return commit if re.fullmatch(COMMIT, commit) else None
    return None


def library_listing(repository: Repository, commit: str) -> Listing | None:
    """The files of a commit that the hub library's cache holds, which names each by its hash; None if it holds none."""
    snapshot = _library_folder(repository) / "snapshots" / commit
    files: dict[str, FileFacts | None] = {}
    for path in sorted(snapshot.rglob("*")):
        if path.is_file() and path.is_symlink():
            files[path.relative_to(snapshot).as_posix()] = _facts(path.resolve())
    return Listing(commit=commit, licence="not stated", files=files) if files else None


def _facts(blob: Path) -> FileFacts | None:
    with suppress(ValidationError):
        digest = "sha256" if len(blob.name) == 64 else "git_sha1"
        return FileFacts.model_validate({"bytes": blob.stat().st_size, digest: blob.name})
    return None


def _library_folder(repository: Repository) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE, f"{repository.kind}s--{repository.name.replace('/', '--')}")


def _folder(repository: Repository) -> Path | None:
    """The repository's part of the record; None on a machine where the user has no home."""
    try:
        return cache_root() / "hub" / f"{repository.kind}s" / quote(repository.name, safe="")
    except RuntimeError:
        return None


def _commit_file(folder: Path, commit: str) -> Path:
    return folder / "commits" / f"{commit}.json"


def _branch_file(folder: Path, branch: str) -> Path:
    return folder / "branches" / f"{quote(branch, safe='')}.json"


def _write(path: Path, content: BaseModel) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    partial.write_text(content.model_dump_json(exclude_defaults=True), encoding="utf-8")
    os.replace(partial, path)
