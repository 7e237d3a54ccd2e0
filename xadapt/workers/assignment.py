"""What a worker is given: stages, the store and how to run them, as one line of JSON; torch-free."""

import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from xadapt.errors import UserError
from xadapt.study.execution import DEFAULT, Execution
from xadapt.study.stage import Stage
from xadapt.study.store import Store

# stages that are run as one: a single one, or trainings that share the passes of an encoder
Unit = tuple[Stage, ...]


@dataclass(frozen=True)
class Assignment:
    """A unit of work, where its results go, and how it is run."""

    unit: Unit
    store: Store
    execution: Execution

    def to_json(self) -> str:
        """One line, with the folder that relative paths start from."""
        values = {
            "unit": [stage.key for stage in self.unit], "stages": stages_to_json(self.unit),
            "store": str(self.store.root), "execution": asdict(self.execution), "folder": os.getcwd(),
        }  # fmt: skip
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> "Assignment":
        """What `to_json` wrote, in its folder; UserError where this machine cannot mean the same by it."""
        values = json.loads(text)
        _enter(Path(values["folder"]), Path(values["store"]))
        stages = stages_from_json(values["stages"])
        given = values["execution"]
        save_every = replace(DEFAULT.save_every, **given["save_every"])
        execution = Execution(**{**given, "save_every": save_every})
        return cls(tuple(stages[key] for key in values["unit"]), Store(values["store"]), execution)


def assigned_keys(text: str) -> list[str]:
    """The keys of the stages of an assignment's unit, whatever else is in it."""
    return list(json.loads(text)["unit"])


def stages_to_json(stages: Iterable[Stage]) -> list[dict[str, Any]]:
    """The stages and all that they need, each once and behind what it needs, as plain values."""
    names = [field.name for field in fields(Stage) if field.name != "needs"]
    return [
        {"key": stage.key, "needs": [need.key for need in stage.needs]} | {name: getattr(stage, name) for name in names}
        for stage in _with_needs(stages)
    ]


def stages_from_json(values: Sequence[Mapping[str, Any]]) -> dict[str, Stage]:
    """Stages by key; UserError if they have another key here than where they were written."""
    found: dict[str, Stage] = {}
    for value in values:
        needs = tuple(found[key] for key in value["needs"])
        stage = Stage(**{name: part for name, part in value.items() if name not in ("key", "needs")}, needs=needs)
        if stage.key != value["key"]:
            raise UserError(f"the xadapt on {platform.node()} is another version than the one that made the plan")
        found[stage.key] = stage
    return found


def _with_needs(stages: Iterable[Stage]) -> Iterator[Stage]:
    found: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        for need in stage.needs:
            visit(need)
        found.setdefault(stage.key, stage)

    for stage in stages:
        visit(stage)
    yield from found.values()


def _enter(folder: Path, store: Path) -> None:
    """Go where relative paths start; UserError if there is no such folder and the store lies below it."""
    with suppress(OSError):
        os.chdir(folder)
        return
    if not store.is_absolute():
        raise UserError(
            f"the folder {folder} of the store '{store}' does not exist on {platform.node()}; take a --store that "
            "all machines reach by one absolute path"
        )
