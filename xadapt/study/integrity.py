"""Whether results are what was written: every file of them against the checksums of their manifests; torch-free."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xadapt.durable import open_file
from xadapt.study.inventory import EarlierVersion, Entry, read_manifest
from xadapt.study.store import MANIFEST, upgrade_hint
from xadapt.study.study_files import StudyFile, fault, remedy


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file, and what to do."""

    path: Path
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path} {self.what}; {self.remedy}"


def check_result(entry: Entry) -> Iterator[Problem]:
    """Every problem of a result, its files read piece by piece; nothing is changed, and other files are not looked at."""
    delete = f"delete {entry.folder} and run again"
    try:
        files = read_manifest(entry.folder)["files"]
    except FileNotFoundError:
        yield Problem(entry.folder / MANIFEST, "is missing", delete)
        return
    except EarlierVersion as error:
        yield Problem(entry.folder / MANIFEST, f"cannot be used yet ({error})", upgrade_hint(entry.folder.parents[1]))
        return
    except ValueError as error:
        yield Problem(entry.folder / MANIFEST, f"is damaged ({error})", delete)
        return
    except OSError as error:
        yield _unreadable(entry.folder / MANIFEST, error, delete)
        return
    for name, facts in files.items():
        path = entry.folder / name
        try:
            if wrong := fault_of(path, facts):
                yield Problem(path, wrong, delete)
        except OSError as error:
            yield _unreadable(path, error, delete)


def fault_of(path: Path, facts: Mapping[str, Any]) -> str:
    """What a file has against it, by its size and sha256 in the manifest, or nothing; OSError if it cannot be read."""
    try:
        if (size := path.stat().st_size) != facts["bytes"]:
            return f"has {size} bytes instead of {facts['bytes']}"
        with open_file(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except ValueError as error:
        return f"cannot be used ({error})"
    return "" if digest == facts["sha256"] else "is not what was written (checksum)"


def check_studies(studies: list[StudyFile]) -> Iterator[Problem]:
    """The studies of a store that cannot be read."""
    for study in studies:
        if study.problem:
            yield Problem(study.path, fault(study), remedy(study))


def _unreadable(path: Path, error: OSError, delete: str) -> Problem:
    return Problem(path, f"cannot be read ({error.strerror})", f"see to its rights and the disk, or {delete}")
