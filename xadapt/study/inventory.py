"""What lies in a store: every result and every folder on the way to one, by its manifest; torch-free."""

import io
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from xadapt.data.manifest import first_unsafe
from xadapt.durable import unsealed
from xadapt.errors import UserError, short, unknown
from xadapt.locks import is_held as is_lock_held
from xadapt.study.stage import STAGE_VERSIONS
from xadapt.study.store import FIELDS, MANIFEST
from xadapt.study.study_files import KEY, LARGEST, StudyFile, parse_json
from xadapt.study.unfinished import GONE, INCOMING, PARTIAL, PROGRESS

DIGITS = 16  # of a key, in the name of a result's folder
ERROR = "error.txt"
# unfinished ones have the token of who works in them, but for those that nobody does, and earlier versions' of any kind
_SUFFIXES = {PARTIAL: "(unfinished)", INCOMING: "(being copied)", GONE: "(being deleted)"}
_FOLDER = re.compile(rf"([0-9a-f]{{{DIGITS}}})(?:(?:\.[0-9a-f]+)?({'|'.join(map(re.escape, _SUFFIXES))}))?")
_FACTS = {"sha256": str, "bytes": int}

State = Literal["whole", "damaged", "empty", "running", "failed", "resumable", "interrupted"]


@dataclass(frozen=True)
class Entry:
    """A result, or a folder on the way to one.

    state: whole (its manifest is; files are not hashed), damaged (the manifest is not what was written), empty (no
    manifest, so no result); of unfinished ones running, failed, resumable (interrupted, with progress to go on from)
    or interrupted. key has 64 digits where a manifest says it, else 16; started is ISO 8601 in UTC; seconds are those
    of its making; bytes those of the files that the manifest names, or of all that is there.
    """

    folder: Path
    kind: str
    key: str
    state: State
    label: str
    bytes: int
    started: str
    seconds: float | None = None
    needs: tuple[str, ...] = ()
    problem: str = ""

    @property
    def is_result(self) -> bool:
        """Whether a manifest lies there, damaged or not."""
        return self.state in ("whole", "damaged")

    @property
    def name(self) -> str:
        """`<kind>/<16 digits>`, as the store has it."""
        return f"{self.kind}/{head(self.key)}"


def list_entries(root: Path) -> list[Entry]:
    """Everything in a store, oldest first; UserError if there is no such folder."""
    if not root.is_dir():
        raise UserError(f"the store '{root}' is no folder; give one with --store, or make one with `xadapt run`")
    entries = [entry for place in _places(root) if (entry := _entry(*place))]
    return sorted(entries, key=lambda entry: (entry.started, entry.name))


def read_manifest(folder: Path, *, sealed: bool = True) -> tuple[dict[str, Any], bytes]:
    """A result's manifest and its bytes; with `sealed` nothing in it leads out of the folder and all is as written.

    Raises ValueError, saying why, for what is no manifest of a result in this place; OSError as from any read.
    """
    with open_file(f"{folder}/{MANIFEST}") as file:
        if os.fstat(file.fileno()).st_size > LARGEST:
            raise ValueError("it is too large")
        data = file.readall()
    try:
        manifest = parse_json(data) if sealed else json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    _check(manifest, folder)
    if sealed:
        unsealed(manifest, fields=FIELDS)
        _check_files(manifest["files"])
    return manifest, data


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


def lock_of(folder: Path) -> Path:
    """The lock file that whoever works on a result holds, by the result's folder or one on the way to it."""
    return folder.with_name(f"{folder.name.partition('.')[0]}.lock")


def head(key: str) -> str:
    """The first digits of a key, which name the result's folder."""
    return key[:DIGITS]


def is_held(lock: Path) -> bool:
    """Whether somebody holds a lock file, or it cannot be told."""
    try:
        return lock.exists() and is_lock_held(lock)
    except OSError:
        return True


def pick(entries: Sequence[Entry], prefix: str, *, root: Path) -> Entry:
    """The one entry whose key begins so; UserError naming those that do, or the nearest key."""
    found = [entry for entry in entries if prefix and entry.key.startswith(prefix.lower()[: len(entry.key)])]
    if len({entry.name for entry in found}) == 1:
        return max(found, key=lambda entry: entry.is_result)  # before what is left beside it
    place = f"the store '{root}'"
    if not found:
        raise unknown("key", prefix, [head(entry.key) for entry in entries], place=place)
    shown = "; ".join(f"{entry.folder.name} ({entry.kind}, {entry.label[:80]})" for entry in found[:5])
    more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
    raise UserError(f"key '{prefix}' is not one result's in {place}, give more digits: {shown}{more}")


def behind(keys: Iterable[str], entries: Iterable[Entry]) -> dict[str, Entry]:
    """The results with these keys and all that they need, each after what it needs; those that are there.

    By the first digits of their keys, which is all that a damaged one is known by.
    """
    results = {head(entry.key): entry for entry in entries if entry.is_result}
    ordered: dict[str, Entry] = {}
    seen: set[str] = set()
    waiting = sorted(map(head, keys), reverse=True)
    while waiting:
        key = waiting.pop()
        if key in ordered or key not in results:
            continue
        if key in seen:
            ordered[key] = results[key]
            continue
        seen.add(key)
        waiting += [key, *(head(need) for need in reversed(results[key].needs) if head(need) not in seen)]
    return ordered


def chosen(
    entries: Iterable[Entry], *, kind: str | None = None, study: StudyFile | None = None, text: str | None = None
) -> list[Entry]:
    """The entries of a kind, of a study with all that it needs, or with a text in key or label; UserError for no kind."""
    if kind is not None and kind not in STAGE_VERSIONS:
        raise unknown("kind", kind, STAGE_VERSIONS, place="--kind")
    entries = list(entries)
    if study is not None:
        reached = behind(study.stages, entries)
        heads = reached.keys() | set(map(head, study.stages))
        entries = [entry for entry in entries if head(entry.key) in heads]
    wanted = (text or "").lower()
    return [e for e in entries if kind in (None, e.kind) and (wanted in e.label.lower() or wanted in e.key)]


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links count as themselves, and what goes meanwhile as nothing."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    size = 0
    for place, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                size += os.lstat(os.path.join(place, name)).st_size
    return size


def _places(root: Path) -> Iterator[tuple[Path, str, str]]:
    """Folder, first digits and suffix of everything that can be a result or become one."""
    for kind in STAGE_VERSIONS:
        if not (root / kind).is_dir():
            continue
        with os.scandir(root / kind) as found:
            for item in found:
                if (match := _FOLDER.fullmatch(item.name)) and item.is_dir():
                    yield Path(item.path), match[1], match[2] or ""


def _entry(folder: Path, digits: str, suffix: str) -> Entry | None:
    """What lies in a folder; None if it has got another name since it was listed."""
    with suppress(FileNotFoundError):
        return _unfinished(folder, digits, suffix) if suffix else _result(folder, digits)
    return None


def _result(folder: Path, digits: str) -> Entry:
    try:
        manifest, data = read_manifest(folder, sealed=False)  # seals take as long as all the rest
        size = len(data) + sum(facts["bytes"] for facts in manifest["files"].values())
    except FileNotFoundError:
        return _without_manifest(folder, digits, "empty", "(no manifest)")
    except (ValueError, LookupError, TypeError, OSError) as error:
        return _without_manifest(folder, digits, "damaged", "(damaged manifest)", str(error))
    made = manifest.get("provenance", {})
    return Entry(
        folder, folder.parent.name, manifest["key"], "whole", str(manifest.get("label", "")), size,
        str(made.get("started", "")), made.get("seconds"), tuple(manifest["needs"]),
    )  # fmt: skip


def _unfinished(folder: Path, digits: str, suffix: str) -> Entry:
    state: State = "interrupted"
    if is_held(lock_of(folder)):
        state = "running"
    elif suffix == PARTIAL and (folder / PROGRESS).is_dir():
        state = "resumable"
    elif (folder / ERROR).exists():
        state = "failed"
    return _without_manifest(folder, digits, state, _SUFFIXES[suffix])


def _without_manifest(folder: Path, digits: str, state: State, label: str, problem: str = "") -> Entry:
    changed = datetime.fromtimestamp(folder.stat().st_mtime, UTC).isoformat(timespec="seconds")
    return Entry(folder, folder.parent.name, digits, state, label, size_of(folder), changed, problem=problem)


def _check(manifest: Any, folder: Path) -> None:
    """ValueError unless it can be the manifest of the result in this folder."""
    if not isinstance(manifest, dict) or not {"key", "spec", "needs", "record", "files"} <= manifest.keys():
        raise ValueError("it is no manifest")
    key, needs, files, made = manifest["key"], manifest["needs"], manifest["files"], manifest.get("provenance", {})
    if not isinstance(key, str) or not KEY.fullmatch(key) or not isinstance(needs, list):
        raise ValueError("its key is none")
    if key[:DIGITS] != folder.name.partition(".")[0] or manifest.get("kind", folder.parent.name) != folder.parent.name:
        raise ValueError("it is the manifest of another result")
    if not all(isinstance(need, str) and KEY.fullmatch(need) for need in needs):
        raise ValueError("a key that it needs is none")
    if not all(isinstance(part, dict) for part in (files, made, manifest["spec"], manifest["record"])):
        raise ValueError("it is no manifest")
    if not isinstance(made.get("seconds", 0.0), int | float):
        raise ValueError("its seconds are none")


def _check_files(files: Mapping[str, Any]) -> None:
    if (bad := first_unsafe(files)) is not None or MANIFEST in files:
        raise ValueError(
            f"it names a file {short(MANIFEST if bad is None else bad)}, which leads out of the folder or is its own"
        )
    for name, facts in files.items():
        if not isinstance(facts, dict) or any(type(facts.get(key)) is not kind for key, kind in _FACTS.items()):
            raise ValueError(f"it says nothing of use of the file {short(name)}")
        if not KEY.fullmatch(facts["sha256"]) or facts["bytes"] < 0:
            raise ValueError(f"it says nothing of use of the file {short(name)}")
