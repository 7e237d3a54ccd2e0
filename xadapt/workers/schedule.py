"""From a plan's graph to stages that are ready, to workers, to outcomes; who the workers are is a Pool's business."""

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from xadapt.interruption import requested
from xadapt.study.outcome import Outcome
from xadapt.study.plan import Plan
from xadapt.study.stage import Stage
from xadapt.study.store import Result, Store
from xadapt.workers.assignment import Unit
from xadapt.workers.reports import Hearing, Report, error_from_json

if TYPE_CHECKING:
    from xadapt.study.executors import StudyReporter

RETRIES = 2
# seconds for which a network file system may not show this machine what another one has just made
UNSEEN = 60.0


class WorkerLost(RuntimeError):
    """Whoever ran a stage went away under it, again and again."""


@dataclass(frozen=True)
class Lost:
    """A unit whose worker is gone, and what is known of why."""

    unit: Unit
    why: str


class Pool(Protocol):
    """Workers that run units elsewhere, report, and leave the results in the store."""

    def room(self) -> bool:
        """Whether another unit may be given to it now."""
        ...

    def submit(self, unit: Unit) -> None: ...

    def wait(self) -> Sequence[Report | Lost]:
        """What was reported since; returns within half a second. A unit's last is its `ended` report, or that it is lost."""
        ...

    def stop(self) -> None:
        """Ask all workers to keep what they have and leave."""
        ...

    def close(self) -> None:
        """Let go of the workers, which end if they have not."""
        ...


def run_on(
    plan: Plan, store: Store, reporter: "StudyReporter", pool: Pool, *, groups: Mapping[str, Unit] | None = None
) -> list[Outcome]:
    """Run what is not in the store on a pool, each stage as soon as all it needs is there; outcomes in the plan's order.

    groups are stages that are run as one unit, by the key of each. A unit whose worker is lost is given to another one, at
    most RETRIES times. Where a stop is asked for (`interruption`) it is passed on, and what runs is waited for.
    """
    schedule = _Schedule(plan, store, reporter, pool, groups or {})
    try:
        while schedule.advance():
            for said in pool.wait():
                schedule.take(said)
    finally:
        pool.close()
    return [schedule.outcomes[stage.key] for stage in plan.stages]


class _Schedule:
    def __init__(
        self, plan: Plan, store: Store, reporter: "StudyReporter", pool: Pool, groups: Mapping[str, Unit]
    ) -> None:
        self.stages, self.store, self.reporter, self.pool, self.groups = plan.stages, store, reporter, pool, groups
        self.outcomes: dict[str, Outcome] = {}
        self._numbers = {stage.key: number for number, stage in enumerate(plan.stages, start=1)}
        self._running: dict[str, Unit] = {}
        self._looked: set[str] = set()
        self._losses: Counter[str] = Counter()
        self._hearing = Hearing(plan.stages, reporter)
        self._stopped = False

    def advance(self) -> bool:
        """End what needs no worker, give out what is ready; whether there is anything to wait for."""
        if requested() and not self._stopped:
            self._stopped = True
            self.pool.stop()
        for stage in self.stages:
            if stage.key not in self.outcomes and stage.key not in self._running:
                self._advance(stage)
        assert self._running or len(self.outcomes) == len(self.stages), "something is always ready"
        return bool(self._running)

    def _advance(self, stage: Stage) -> None:
        needs = [self.outcomes.get(need.key) for need in stage.needs]
        if any(need is not None and not need.ok for need in needs):
            self._end(Outcome(stage, "not run"))
        elif all(needs) and not self._is_there(stage):
            if self._stopped:
                self._end(Outcome(stage, "interrupted" if self._losses[stage.key] else "not run"))
            elif self.pool.room():
                self._submit(self.groups.get(stage.key, (stage,)))

    def _is_there(self, stage: Stage) -> bool:
        """Whether the store has the stage, or something else in its place, which ends it; looks once."""
        if stage.key in self._looked:
            return False
        self._looked.add(stage.key)
        try:
            found = self.store.find(stage)
        except Exception as error:
            self._end(Outcome(stage, "failed", error=error))
            return True
        if found:
            self._end(Outcome(stage, "cached", found))
        return found is not None

    def _submit(self, unit: Unit) -> None:
        unit = tuple(stage for stage in unit if stage.key not in self.outcomes)
        self._looked |= {stage.key for stage in unit}
        self._running |= {stage.key: unit for stage in unit}
        self.pool.submit(unit)

    def take(self, said: Report | Lost) -> None:
        """What the pool said."""
        if isinstance(said, Lost):
            self._lose(said.unit, said.why)
        elif said["key"] in self._running:  # the last words of a lost worker may come late
            if said["event"] == "ended":
                self._take_end(self._running[said["key"]], said["ended"])
            else:
                self._hearing.hear(said)

    def _take_end(self, unit: Unit, ended: Sequence[Mapping[str, Any]]) -> None:
        left = {"interrupted", "not run"} & {said["status"] for said in ended}
        if left and not self._stopped and not requested():
            self._lose(unit, "its worker was asked to stop")  # by somebody who did not ask us
            return
        for said in ended:
            del self._running[said["key"]]
            stage, status = self._stage(said["key"]), said["status"]
            if status in ("succeeded", "cached"):
                self._end(self._found(stage, status))
            else:
                self._end(Outcome(stage, status, error=error_from_json(said["error"])))

    def _found(self, stage: Stage, status: str) -> Outcome:
        """What the worker made."""
        try:
            if result := _seen(self.store, stage):
                return Outcome(stage, "cached" if status == "cached" else "succeeded", result)
            error: Exception = WorkerLost(
                f"its worker wrote to {self.store.folder(stage)}, but there is nothing here: the store has to be one "
                "folder for all machines"
            )
        except Exception as found:
            error = found
        return Outcome(stage, "failed", error=error)

    def _lose(self, unit: Unit, why: str) -> None:
        """Put the unit's stages back among those that are ready, or give up."""
        for stage in unit:
            del self._running[stage.key]
            self._losses[stage.key] += 1
            if self._stopped:
                continue
            if self._losses[stage.key] <= RETRIES:
                self.reporter.lost(stage, why)
            else:
                self._end(Outcome(stage, "failed", error=WorkerLost(f"{why}; {RETRIES + 1} attempts")))

    def _stage(self, key: str) -> Stage:
        return self.stages[self._numbers[key] - 1]

    def _end(self, outcome: Outcome) -> None:
        self.outcomes[outcome.stage.key] = outcome
        self.reporter.ended(outcome, self._numbers[outcome.stage.key], len(self.stages))


def _seen(store: Store, stage: Stage) -> Result | None:
    """A result that is there, once this machine sees it."""
    until = time.monotonic() + UNSEEN
    while (found := store.find(stage)) is None and time.monotonic() < until:
        with suppress(OSError):
            os.listdir(store.folder(stage).parent)  # asks the server anew
        time.sleep(0.5)
    return found
