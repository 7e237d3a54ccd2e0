"""Files that survive a crash, and whether what is read is what was written: syncs, checksums, seals, room on disk."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xadapt.errors import UserError


def write_durably(path: Path, text: str) -> None:
    """Write a text file that is on disk when this returns; OSError as from any write."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Bring a file's content, or a folder's entries, to disk."""
    if os.name == "nt":  # Windows opens no directory, and syncs no file opened for reading
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(path: Path) -> dict[str, Any]:
    """The sha256 and the bytes of a file, which is on disk afterwards."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return {"sha256": digest, "bytes": path.stat().st_size}


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as JSON gives them back, with a checksum of all of them."""
    body = json.loads(json.dumps(values))
    return {**body, "checksum": _digest(body)}


def unsealed(values: Any, *, fields: set[str], checked: bool = True) -> dict[str, Any]:
    """What `sealed` made; ValueError if it is not what was written, as far as that is checked.

    Seals of earlier versions have no checksum.
    """
    if not isinstance(values, dict) or not fields <= values.keys():
        raise ValueError(f"it has not {', '.join(sorted(fields))}")
    if not checked:
        return values
    body = {name: value for name, value in values.items() if name != "checksum"}
    if "checksum" in values and values["checksum"] != _digest(body):
        raise ValueError("its checksum does not match")
    return values


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def require_space(folder: Path, needed: int, *, what: str) -> None:
    """UserError unless the file system of a folder has room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder} has {free:,} bytes free, and {what} takes up to {needed:,}; make room, or take a --store elsewhere"
        )
