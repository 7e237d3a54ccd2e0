"""What every stage works with: the store, its folder, the backbone, the rows, and who is told of progress."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter

from xadapt.cache import cache_root
from xadapt.data import Rows, Source, open_source
from xadapt.errors import UserError
from xadapt.models.backbone import Backbone
from xadapt.regimes.specs import RegimeSpec
from xadapt.study.execution import DEFAULT, Execution
from xadapt.study.stage import Stage
from xadapt.study.store import Store
from xadapt.study.unfinished import PROGRESS
from xadapt.tasks import Task
from xadapt.tasks.spec import Split
from xadapt.training.result import Monitor

REGIME_SPEC: TypeAdapter[RegimeSpec] = TypeAdapter(RegimeSpec)


class Reporter(Protocol):
    """Told how a stage goes: the monitors of a training, the rows an evaluation has done of a total, 0 if not known."""

    def monitors(self, stage: Stage) -> list[Monitor]: ...

    def evaluated(self, stage: Stage, total: int) -> Callable[[int], None]: ...


@dataclass(frozen=True)
class Surroundings:
    """A stage about to run: what it reads from, and the folder it writes to."""

    stage: Stage
    store: Store
    folder: Path
    reporter: Reporter
    backbone: Backbone
    source: Source
    execution: Execution

    @property
    def progress(self) -> Path:
        """The folder for what a later start of the stage goes on from."""
        return self.folder / PROGRESS


def surround(
    stage: Stage, store: Store, folder: Path, reporter: Reporter, execution: Execution = DEFAULT
) -> Surroundings:
    """What a stage works with; UserError if its backbone is no longer the one it was planned on."""
    commits = json.loads(stage.where.get("commits", "{}"))
    backbone = Backbone(stage.where["backbone"], commits)
    if backbone.identity != stage.spec["backbone"]:
        raise UserError(f"backbone '{backbone.name}' has changed since the study was planned; run it again")
    return Surroundings(
        stage, store, folder, reporter, backbone, open_source(stage.where["data"], commits=commits), execution
    )


def load_planned(source: Source, task: Task, lang: str, split: Split, limit: int | None, planned: str) -> Rows:
    """The rows of a split; UserError if they are not those the stage was planned, and is kept, under."""
    rows = source.load(task, lang, split, limit=limit)
    if rows.identity != planned:
        raise UserError(f"{rows.place} has changed since the study was planned; run it again")
    return rows


def token_cache() -> Path | None:
    """Where encoded rows are kept; None on a machine where the user has no home."""
    try:
        return cache_root() / "tokens"
    except RuntimeError:
        return None
