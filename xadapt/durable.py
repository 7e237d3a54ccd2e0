"""Files that survive a crash, and whether what is read is what was written: syncs, checksums, sealed JSON, room on disk."""

import hashlib
import io
import json
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from xadapt.errors import UserError

LARGEST = 64 << 20  # bytes of sealed JSON; what is larger is none


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


def open_file(path: str | Path, *, links: bool = True) -> io.FileIO:
    """A plain file, opened to be read; ValueError for what is none, which may be a pipe, and without `links` for a link."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if not links and os.path.islink(path):
        raise ValueError("it is a link")
    file = io.FileIO(os.open(path, flags if links else flags | getattr(os, "O_NOFOLLOW", 0)))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError("it is no plain file")
    return file


class Unsealed(ValueError):
    """A file of sealed JSON that has no seal, as earlier versions wrote some."""


def write_sealed(path: Path, values: Mapping[str, Any], *, sort_keys: bool = False) -> dict[str, Any]:
    """Write JSON with a checksum of all of it, by one rename and on disk when this returns; what a reader gets.

    Raises OSError as from any write, and then leaves what was there; ValueError for text that is no Unicode.
    """
    whole = sealed(values)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write_durably(partial, json.dumps(whole, indent=1, ensure_ascii=False, sort_keys=sort_keys))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)
    return whole


def read_sealed(path: Path, *, fields: AbstractSet[str], checked: bool = True) -> dict[str, Any]:
    """What `write_sealed` wrote; ValueError, saying why, for anything else, and OSError as from any read.

    Unless checked, the checksum is only looked for, since it takes as long as all the rest: enough to list what is there.
    """
    return unsealed(read_json(path), fields=fields, checked=checked)


def read_json(path: Path) -> Any:
    """JSON of any origin from a plain file that is no link; ValueError for what is none or could not be written again."""
    with open_file(path, links=False) as file:
        if os.fstat(file.fileno()).st_size > LARGEST:
            raise ValueError("it is too large")
        data = file.readall()
    try:
        value = json.loads(data.decode())
        if b"\\ud" in data.lower():  # the one way to half a surrogate pair, which cannot be encoded
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as JSON gives them back, with a checksum of all of them, instead of one that is there."""
    body = json.loads(json.dumps({name: value for name, value in values.items() if name != "checksum"}))
    return {**body, "checksum": _digest(body)}


def unsealed(values: Any, *, fields: AbstractSet[str], checked: bool = True) -> dict[str, Any]:
    """What `sealed` made; ValueError if it is not what was written, and Unsealed if it has no checksum."""
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    if "checksum" not in values:
        raise Unsealed("it has no checksum")
    if lacking := fields - values.keys():
        raise ValueError(f"it has no {', '.join(sorted(lacking))}")
    body = {name: value for name, value in values.items() if name != "checksum"}
    if checked and values["checksum"] != _digest(body):
        raise ValueError("its checksum does not match")
    return values


def _digest(body: Mapping[str, Any]) -> str:
    try:
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def require_space(folder: Path, needed: int, *, what: str) -> None:
    """UserError unless the file system of a folder has room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder} has {free:,} bytes free, and {what} takes up to {needed:,}; make room, or take a --store elsewhere"
        )
