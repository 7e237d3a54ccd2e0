"""What lies in a store: every result and every folder on the way to one, by its manifest; torch-free."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from xadapt.data.manifest import first_unsafe
from xadapt.durable import read_sealed
from xadapt.errors import UserError, short, unknown
from xadapt.locks import is_held as is_lock_held
from xadapt.study.stage import STAGE_VERSIONS, key_of
from xadapt.study.store import FIELDS, MANIFEST
from xadapt.study.study_files import KEY, StudyFile
from xadapt.study.unfinished import GONE, INCOMING, PARTIAL, PROGRESS

DIGITS = 16  # of a key, in the name of a result's folder
ERROR = "error.txt"
# unfinished ones have the token of who works in them, but for those that nobody does, and earlier versions' of any kind
_SUFFIXES = {PARTIAL: "(unfinished)", INCOMING: "(being copied)", GONE: "(being deleted)"}
_FOLDER = re.compile(rf"([0-9a-f]{{{DIGITS}}})(?:(?:\.[0-9a-f]+)?({'|'.join(map(re.escape, _SUFFIXES))}))?")
_FACTS = {"sha256": str, "bytes": int}

State = Literal["whole", "earlier", "damaged", "empty", "running", "failed", "resumable", "interrupted"]


class EarlierVersion(ValueError):
    """A manifest that has to be upgraded to be used."""


@dataclass(frozen=True)
class Entry:
    """A result, or a folder on the way to one.

    state: whole (its manifest is; files are not hashed), earlier (as earlier versions of xadapt wrote it, to be upgraded),
    damaged (the manifest is not what was written), empty (no manifest, so no result); of unfinished ones running, failed, resumable (interrupted, with progress to go on from)
    or interrupted. key has 64 digits where a manifest says it, else 16; started is ISO 8601 in UTC; seconds are those
    of its making; bytes those of the files that the manifest names, or of all that is there. study is the one that it was
    made for, as far as that is known, formerly are keys that it had in earlier versions of xadapt.
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
    study: str = ""
    formerly: tuple[str, ...] = ()

    @property
    def is_result(self) -> bool:
        """Whether a manifest lies there, damaged or not."""
        return self.state in ("whole", "earlier", "damaged")

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


def read_manifest(folder: Path) -> dict[str, Any]:
    """A result's manifest, all of it as written, with the key of what it says, and nothing in it leading out of the folder.

    Raises ValueError, saying why, for what is no manifest of a result in this place, EarlierVersion for one that has to be
    upgraded; OSError as from any read.
    """
    manifest = _manifest(folder, checked=True)
    if why := _why_earlier(manifest, folder):
        raise EarlierVersion(why)
    _check_files(manifest["files"])
    _check_key(manifest)
    return manifest


def read_earlier_manifest(folder: Path) -> dict[str, Any]:
    """The sealed manifest of any version, for an upgrade; raises as `read_manifest`, but for EarlierVersion."""
    manifest = _manifest(folder, checked=True)
    _check_files(manifest["files"])
    return manifest


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
        manifest = _manifest(folder, checked=False)  # seals take as long as all the rest
        size = (folder / MANIFEST).stat().st_size + sum(facts["bytes"] for facts in manifest["files"].values())
    except FileNotFoundError:
        return _without_manifest(folder, digits, "empty", "(no manifest)")
    except (ValueError, LookupError, TypeError, OSError) as error:
        return _without_manifest(folder, digits, "damaged", "(damaged manifest)", str(error))
    made, earlier = manifest.get("provenance", {}), _why_earlier(manifest, folder)
    return Entry(
        folder, folder.parent.name, manifest["key"], "earlier" if earlier else "whole", str(manifest.get("label", "")),
        size, str(made.get("started", "")), made.get("seconds"), tuple(manifest["needs"]), earlier,
        _made_for(made), tuple(_upgraded_from(manifest)),
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


def _manifest(folder: Path, *, checked: bool) -> dict[str, Any]:
    """The manifest in a folder, as far as the one of any version can be told from what is none; ValueError for that."""
    manifest = read_sealed(folder / MANIFEST, fields=FIELDS, checked=checked)
    key, needs, files, made = manifest["key"], manifest["needs"], manifest["files"], manifest.get("provenance", {})
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise ValueError("its key is none")
    if not isinstance(needs, list) or not all(isinstance(need, str) and KEY.fullmatch(need) for need in needs):
        raise ValueError("a key that it needs is none")
    if not all(isinstance(part, dict) for part in (files, made, manifest["spec"], manifest["record"])):
        raise ValueError("it is no manifest")
    if not isinstance(made.get("seconds", 0.0), int | float):
        raise ValueError("its seconds are none")
    if manifest.get("kind", folder.parent.name) != folder.parent.name or (
        folder.name.partition(".")[0] not in map(head, [key, *_upgraded_from(manifest)])
    ):
        raise ValueError("it is the manifest of another result")
    return manifest


def _made_for(provenance: Mapping[str, Any]) -> str:
    where = provenance.get("where")
    return str(where.get("study", "")) if isinstance(where, dict) else ""


def _upgraded_from(manifest: Mapping[str, Any]) -> list[str]:
    """The keys that a result had under earlier versions of xadapt."""
    keys = manifest.get("provenance", {}).get("upgraded_from", [])
    if not isinstance(keys, list) or not all(isinstance(key, str) and KEY.fullmatch(key) for key in keys):
        raise ValueError("a key that it had is none")
    return keys


def _why_earlier(manifest: Mapping[str, Any], folder: Path) -> str:
    """Why a result has to be upgraded before it can be used, if it has."""
    if "version" not in manifest:
        return "an earlier version of xadapt wrote it"
    return "" if head(manifest["key"]) == folder.name.partition(".")[0] else "its upgrade was stopped"


def _check_key(manifest: Mapping[str, Any]) -> None:
    """ValueError unless the key is that of kind, version, spec and needs."""
    kind, version = manifest.get("kind"), manifest["version"]
    if kind not in STAGE_VERSIONS or type(version) is not int:
        raise ValueError("its kind or version is none")
    if key_of(kind, version, manifest["spec"], manifest["needs"]) != manifest["key"]:
        raise ValueError("its key is not that of its kind, version, spec and needs")


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
