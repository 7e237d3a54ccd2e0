"""The files of studies in a store: read one by one, checked before anything in them becomes a path; torch-free."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xadapt.errors import UserError, unknown

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
KEY = re.compile(r"[0-9a-f]{64}")
LARGEST = 64 << 20  # bytes of a study or a manifest; what is larger is none
_CELL = {
    "regime": str, "composition": str, "intermediate": str, "target": str, "seed": int, "repeats": bool,
    "evaluation": str,
}  # fmt: skip


@dataclass(frozen=True)
class StudyFile:
    """A study's file and what it says; problem says why it cannot be read, and then it says nothing.

    name_there is the name it gets in another store, if another.
    """

    path: Path
    content: Mapping[str, Any]
    problem: str = ""
    name_there: str = ""

    @property
    def name(self) -> str:
        return self.path.stem

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
    """All studies of a store, oldest first; those that cannot be read with their problem."""
    files = sorted((root / "studies").glob("*.json"), key=lambda file: file.lstat().st_mtime)
    return [_read(file) for file in files]


def get_study(studies: list[StudyFile], name: str, *, root: Path) -> StudyFile:
    """A study by name; UserError if there is none or it cannot be read."""
    for study in studies:
        if study.name == name:
            return whole(study)
    raise unknown("study", name, [study.name for study in studies], place=f"the store '{root}'")


def whole(study: StudyFile) -> StudyFile:
    """The study itself; UserError if it could not be read."""
    if study.problem:
        raise UserError(f"{study.path} is damaged ({study.problem}); run its recipe again, or delete the file")
    return study


def parse_json(data: bytes) -> Any:
    """JSON of any origin; ValueError for what is none, stands too deep in itself or cannot be written again."""
    try:
        value = json.loads(data)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def _read(path: Path) -> StudyFile:
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST:
            raise ValueError("it is no file of a study")
        content = parse_json(path.read_bytes())
        for wrong in _wrong(path.stem, content):
            raise ValueError(wrong)
    except ValueError as error:
        return StudyFile(path, {}, str(error))
    return StudyFile(path, content)


def _wrong(name: str, content: Any) -> Iterator[str]:
    """What makes a study none, one after another."""
    if not NAME.fullmatch(name):
        yield "its name is none of a study's"
    if not isinstance(content, dict) or not isinstance(content.get("setting"), str):
        yield "it is no study"
        return
    cells, stages = content.get("cells"), content.get("stages", [])
    if not isinstance(cells, list) or not isinstance(content.get("recipe"), dict) or not isinstance(stages, list):
        yield "it is no study"
        return
    for cell in cells:
        if not isinstance(cell, dict) or any(not isinstance(cell.get(key), kind) for key, kind in _CELL.items()):
            yield "a cell of it is none"
    keys = [*(cell["evaluation"] for cell in cells), *stages]
    if any(not isinstance(key, str) or not KEY.fullmatch(key) for key in keys):
        yield "a key in it is none"
