"""The manifest of a fetched data set or model: at which commit, and which files with which hashes must be there."""

import hashlib
import os
import re
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from xadapt.durable import sync, write_durably
from xadapt.errors import UserError

MANIFEST = "xadapt-manifest.json"
COMMIT = "^[0-9a-f]{40}$"
_CHUNK = 1 << 20


class FileFacts(BaseModel):
    """What the hub states of a file: its bytes, and the sha256 of the content (LFS) or git's sha1 of the blob."""

    model_config = ConfigDict(frozen=True)
    bytes: int = Field(ge=0)
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    git_sha1: str | None = Field(default=None, pattern=COMMIT)

    @model_validator(mode="after")
    def _one_hash(self) -> "FileFacts":
        if (self.sha256 is None) == (self.git_sha1 is None):
            raise ValueError("give either sha256 or git_sha1")
        return self

    @property
    def content(self) -> str:
        """What names the content: its sha256, as a mirror hashes it, or for what lies in git `git:` and the blob's sha1."""
        return self.sha256 or f"git:{self.git_sha1}"

    def describe(self, path: Path) -> bool:
        """Whether the file is there with this size and this hash; reads all of it."""
        if not self.fit(path):
            return False
        # git hashes a blob behind a header that says its size
        digest = hashlib.sha256() if self.sha256 else hashlib.sha1(b"blob %d\0" % self.bytes, usedforsecurity=False)
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest() == (self.sha256 or self.git_sha1)

    def fit(self, path: Path) -> bool:
        """Whether the file is there with this size."""
        return path.is_file() and path.stat().st_size == self.bytes


class Manifest(BaseModel):
    """What a folder below the mirror must hold: files by their names in the repository, all of one commit.

    It is written before the first file, so that a folder is either complete or known not to be.
    """

    model_config = ConfigDict(frozen=True)
    kind: Literal["dataset", "model"]
    repository: str
    commit: str = Field(pattern=COMMIT)
    licence: str
    date: str
    files: dict[str, FileFacts]

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, FileFacts]) -> dict[str, FileFacts]:
        if bad := first_unsafe(files):
            raise ValueError(f"{bad!r} leads out of the folder")
        return files

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(facts.bytes for facts in self.files.values())


def first_unsafe(names: Collection[str]) -> str | None:
    """The first name that is no plain relative path: absolute, empty, with `..`, or with a NUL."""
    return next((name for name in names if "\0" in name or {"", ".", ".."} & set(name.split("/"))), None)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in a folder, if there is one; UserError if it cannot be read."""
    path = folder / MANIFEST
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _read(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _read(path: Path, size: int, mtime_ns: int) -> Manifest:
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        reason = re.sub(r"\s+", " ", str(error))[:160]
        raise UserError(f"{path} is damaged ({reason}); delete it and run `xadapt fetch` again") from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put the manifest into the folder, on disk before this returns, by one rename."""
    partial = folder / f"{MANIFEST}.partial"
    write_durably(partial, manifest.model_dump_json(indent=1, exclude_none=True) + "\n")
    os.replace(partial, folder / MANIFEST)
    sync(folder)


def check_complete(folder: Path, remedy: str) -> None:
    """UserError, ending in the remedy, if a folder has a manifest and not all of its files, by name and size."""
    manifest = read_manifest(folder)
    if manifest is None:
        return
    lacking = [name for name, facts in manifest.files.items() if not facts.fit(folder / name)]
    if lacking:
        raise UserError(
            f"'{folder}' is not complete: {len(lacking)} of the {len(manifest.files)} files in its {MANIFEST} are "
            f"missing or cut off ({', '.join(lacking[:3])}{', ...' if lacking[3:] else ''}), and part of a data set or "
            f"model is never used. {remedy}"
        )
