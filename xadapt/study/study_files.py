"""The files of studies in a store: sealed, every version kept, read one by one and checked before use; torch-free."""

import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from xadapt.durable import Unsealed, read_json, read_sealed, sync, write_sealed
from xadapt.errors import UserError, unknown

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
KEY = re.compile(r"[0-9a-f]{64}")
# the first version of a study has no number in its file's name
_STEM = re.compile(rf"({NAME.pattern})(?:@([2-9]|[1-9][0-9]{{1,5}}))?")
_FIELDS = {"recipe", "setting", "cells"}
_CELL = {
    "regime": str, "composition": str, "intermediate": str, "target": str, "seed": int, "repeats": bool,
    "evaluation": str,
}  # fmt: skip
_POINT = {"values": dict, "label": str, "setting": str}


@dataclass(frozen=True)
class StudyFile:
    """A version of a study: its file and what it says; problem says why it cannot be read, and then it says nothing.

    earlier says that it has no seal, which earlier versions of xadapt gave none. name_there is the name it gets in another
    store, if another.
    """

    path: Path
    content: Mapping[str, Any]
    problem: str = ""
    earlier: bool = False
    name_there: str = ""

    @property
    def name(self) -> str:
        return self._parts[0]

    @property
    def version(self) -> int:
        """1 for the first study of this name, counting up."""
        return self._parts[1]

    @property
    def title(self) -> str:
        """Its name and version, as they are given to name it: `demo@2`."""
        return f"{self.name}@{self.version}"

    @property
    def _parts(self) -> tuple[str, int]:
        match = _STEM.fullmatch(self.path.stem)
        return (match[1], int(match[2] or 1)) if match else (self.path.stem, 1)

    @property
    def evaluations(self) -> set[str]:
        """Keys of the evaluations that fill its cells."""
        return {cell["evaluation"] for cell in self.content.get("cells", ())}

    @property
    def stages(self) -> set[str]:
        """Keys of all stages of its plan; of a study that was kept without them, those of its evaluations."""
        return self.evaluations | set(self.content.get("stages", ()))

    @property
    def names_all(self) -> bool:
        """Whether it names every stage, also those behind evaluations that are not there yet."""
        return "stages" in self.content


def read_studies(root: Path) -> list[StudyFile]:
    """Every version of all studies of a store, oldest first; those that cannot be read with their problem."""
    files = sorted((root / "studies").glob("*.json"), key=lambda file: file.lstat().st_mtime)
    return [_read(file) for file in files]


def latest(studies: Iterable[StudyFile]) -> list[StudyFile]:
    """The last version of each study, in the order given."""
    studies = list(studies)
    newest = {study.name: study.path for study in sorted(studies, key=lambda study: study.version)}
    return [study for study in studies if newest[study.name] == study.path]


def versions(studies: Iterable[StudyFile], name: str, *, root: Path) -> list[StudyFile]:
    """The versions that a name means, the first one first: all of NAME, or the one of NAME@VERSION; UserError if none."""
    studies = sorted(studies, key=lambda study: study.version)
    if not (found := [study for study in studies if name in (study.name, study.title)]):
        given, at, _ = name.rpartition("@")
        names = [study.title if at and study.name == given else study.name for study in studies]
        raise unknown("study", name, dict.fromkeys(names), place=f"the store '{root}'")
    return found


def get_study(studies: Iterable[StudyFile], name: str, *, root: Path) -> StudyFile:
    """A study by NAME, which is its latest version, or NAME@VERSION; UserError if there is none or it cannot be read."""
    return whole(versions(studies, name, root=root)[-1])


def named_studies(root: Path, names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """What studies say, by the names given, each NAME or NAME@VERSION, without any the latest of all; UserError as `get_study`."""
    studies = read_studies(root)
    if names:
        return {name: get_study(studies, name, root=root).content for name in names}
    return {study.name: whole(study).content for study in latest(studies)}


def whole(study: StudyFile) -> StudyFile:
    """The study itself; UserError if it could not be read."""
    if study.problem:
        raise UserError(f"{study.path} {fault(study)}; {remedy(study)}")
    return study


def fault(study: StudyFile) -> str:
    """What is wrong with a study that cannot be read, in words that follow its path."""
    return "has no seal" if study.earlier else f"is damaged ({study.problem})"


def remedy(study: StudyFile) -> str:
    """What to do about a study that cannot be read."""
    if study.earlier:
        store = study.path.parent.parent
        return f"if an earlier version of xadapt wrote it, `xadapt store upgrade --store {quote(str(store))}` seals it"
    return "run its recipe again, or delete the file"


def add_study(root: Path, name: str, content: Mapping[str, Any]) -> None:
    """Keep a study as the newest version of its name, unless that says the same already.

    UserError where an earlier version of xadapt wrote the study that is there: its results have other keys.
    """
    (root / "studies").mkdir(parents=True, exist_ok=True)
    body = json.loads(json.dumps(content))
    while True:
        there = [study for study in read_studies(root) if study.name == name]
        newest = max(there, key=lambda study: study.version, default=None)
        if newest and newest.earlier:
            whole(newest)
        if newest and not newest.problem and newest.content == body:
            return
        if put_study(root, name, newest.version + 1 if newest else 1, body):
            return


def study_path(root: Path, name: str, version: int) -> Path:
    """Where a version of a study lies."""
    return root / "studies" / f"{name}{f'@{version}' if version > 1 else ''}.json"


def put_study(root: Path, name: str, version: int, content: Mapping[str, Any]) -> bool:
    """Write one version of a study, sealed; False, and nothing is done, if there is one."""
    path = study_path(root, name, version)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.{secrets.token_hex(8)}")  # hosts have equal pids
    try:
        write_sealed(draft, content)
        os.link(draft, path)  # of several that write the same version one comes first
    except FileExistsError:
        return False
    except OSError:
        if not draft.exists() or path.exists():
            raise
        os.replace(draft, path)  # a file system without hard links
    finally:
        draft.unlink(missing_ok=True)
    sync(path.parent)
    return True


def read_earlier_study(path: Path) -> dict[str, Any]:
    """A study as earlier versions wrote it, without a seal, for an upgrade; ValueError for what is none."""
    content = read_json(path)
    if not isinstance(content, dict) or not content.keys() >= _FIELDS:
        raise ValueError("it is no study")
    for wrong in _wrong(path.stem, content):
        raise ValueError(wrong)
    return content


def _read(path: Path) -> StudyFile:
    try:
        content = read_sealed(path, fields=_FIELDS)
        for wrong in _wrong(path.stem, content):
            raise ValueError(wrong)
    except (ValueError, OSError) as error:
        return StudyFile(path, {}, str(error), earlier=isinstance(error, Unsealed))
    return StudyFile(path, {name: value for name, value in content.items() if name != "checksum"})


def _wrong(stem: str, content: Mapping[str, Any]) -> Iterator[str]:
    """What makes a study none, one after another."""
    cells, stages, points = content["cells"], content.get("stages", []), content.get("points", [])
    if not _STEM.fullmatch(stem):
        yield "its name is none of a study's"
    if not isinstance(content["setting"], str) or not isinstance(content["recipe"], dict):
        yield "it is no study"
    if not all(isinstance(part, list) for part in (cells, stages, points)):
        yield "it is no study"
    if not all(_is_like(_CELL, cell) for cell in cells):
        yield "a cell of it is none"
    if not all(_is_like(_POINT, point) for point in points):
        yield "a point of it is none"
    if any(cell.get("point", 0) not in range(max(1, len(points))) for cell in cells):
        yield "a cell of it is of no point"
    if not all(isinstance(key, str) and KEY.fullmatch(key) for key in [*(c["evaluation"] for c in cells), *stages]):
        yield "a key in it is none"


def _is_like(fields: Mapping[str, type], value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in fields.items())
