"""Run a plan in this process, one stage after another; a failure stops only what depends on it."""

import traceback
from dataclasses import dataclass
from typing import Literal, Protocol

from xadapt.study.plan import Plan
from xadapt.study.stage import Stage
from xadapt.study.stages import run_stage
from xadapt.study.store import Result, Store
from xadapt.study.surroundings import Reporter


@dataclass(frozen=True)
class Outcome:
    """How a stage ended; result is there for succeeded and cached, error for failed."""

    stage: Stage
    status: Literal["succeeded", "cached", "failed", "not run"]
    result: Result | None = None
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        return self.result is not None


class StudyReporter(Reporter, Protocol):
    """A Reporter that is also told of the stages themselves."""

    def started(self, stage: Stage, number: int, total: int) -> None: ...

    def waiting(self, stage: Stage) -> None: ...

    def ended(self, outcome: Outcome, number: int, total: int) -> None: ...


def run_plan(plan: Plan, store: Store, reporter: StudyReporter) -> list[Outcome]:
    """Run every stage that is not in the store; the outcome of each, in the plan's order."""
    outcomes: dict[str, Outcome] = {}
    for number, stage in enumerate(plan.stages, start=1):
        outcome = _run(stage, store, reporter, outcomes, number, len(plan.stages))
        outcomes[stage.key] = outcome
        reporter.ended(outcome, number, len(plan.stages))
    return list(outcomes.values())


def _run(
    stage: Stage, store: Store, reporter: StudyReporter, outcomes: dict[str, Outcome], number: int, total: int
) -> Outcome:
    if not all(outcomes[need.key].ok for need in stage.needs):
        return Outcome(stage, "not run")
    try:
        if found := store.find(stage):
            return Outcome(stage, "cached", found)
        reporter.started(stage, number, total)
        result = store.run(
            stage, lambda folder: run_stage(stage, store, folder, reporter), waiting=lambda: reporter.waiting(stage)
        )
    except Exception as error:  # whatever it is, the other branches go on
        traceback.clear_frames(error.__traceback__)  # they hold the stage's model
        return Outcome(stage, "failed", error=error)
    return Outcome(stage, "cached" if result.cached else "succeeded", result)
