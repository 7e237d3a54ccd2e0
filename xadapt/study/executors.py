"""Run a plan in this process, one stage after another; a failure stops only what depends on it."""

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from xadapt.interruption import Interrupted, requested
from xadapt.study.execution import DEFAULT, Execution
from xadapt.study.outcome import Outcome
from xadapt.study.plan import Plan
from xadapt.study.stage import Stage
from xadapt.study.stages import run_stage
from xadapt.study.store import Result, Store
from xadapt.study.surroundings import Reporter
from xadapt.study.together import joint_trainings, train_together
from xadapt.training.device import make_deterministic
from xadapt.training.faults import Diverged

__all__ = ["Outcome", "StudyReporter", "run_plan", "run_unit"]


Work = Callable[[Stage, Store, Path, Reporter, Execution], dict[str, Any]]


class StudyReporter(Reporter, Protocol):
    """A Reporter that is also told of the stages themselves."""

    def started(self, stage: Stage, number: int, total: int) -> None: ...

    def waiting(self, stage: Stage) -> None: ...

    def lost(self, stage: Stage, why: str) -> None: ...

    def ended(self, outcome: Outcome, number: int, total: int) -> None: ...


def run_plan(
    plan: Plan, store: Store, reporter: StudyReporter, *, execution: Execution = DEFAULT, work: Work = run_stage
) -> list[Outcome]:
    """Run every stage that is not in the store; the outcome of each, in the plan's order.

    Trainings that are run together start when the first of them is due. Where a stop is asked for (`interruption`), what
    runs keeps what it has, and nothing is started any more. work does a stage that is not trained together with others.
    """
    if execution.deterministic:
        make_deterministic()
    outcomes: dict[str, Outcome] = {}
    groups = joint_trainings(plan.stages, store) if execution.together else {}
    made: dict[str, Outcome] = {}
    for number, stage in enumerate(plan.stages, start=1):
        if stage.key in groups and stage.key not in made:
            made |= _run_together(groups[stage.key], plan, store, reporter, execution)
        outcome = made.get(stage.key) or _run(
            stage, store, reporter, execution, outcomes, number, len(plan.stages), work
        )
        outcomes[stage.key] = outcome
        reporter.ended(outcome, number, len(plan.stages))
    return list(outcomes.values())


def run_unit(
    stages: Sequence[Stage], store: Store, reporter: StudyReporter, *, execution: Execution = DEFAULT
) -> list[Outcome]:
    """Run one stage, or trainings of `joint_trainings`, whose needs are in the store, for whoever keeps the plan."""
    if execution.deterministic:
        make_deterministic()
    if len(stages) == 1:
        return [_attempt(stages[0], store, reporter, execution, 1, 1)]
    return list(_run_together(stages, Plan(tuple(stages), ()), store, reporter, execution).values())


def _run(
    stage: Stage, store: Store, reporter: StudyReporter, execution: Execution, outcomes: dict[str, Outcome], number: int,
    total: int, work: Work,
) -> Outcome:  # fmt: skip
    if not all(outcomes[need.key].ok for need in stage.needs):
        return Outcome(stage, "not run")
    return _attempt(stage, store, reporter, execution, number, total, work)


def _attempt(
    stage: Stage, store: Store, reporter: StudyReporter, execution: Execution, number: int, total: int,
    work: Work = run_stage,
) -> Outcome:  # fmt: skip
    try:
        if found := store.find(stage):
            return Outcome(stage, "cached", found)
        if requested():
            return Outcome(stage, "not run")
        reporter.started(stage, number, total)
        result = store.run(
            stage,
            lambda folder: work(stage, store, folder, reporter, execution),
            waiting=lambda: reporter.waiting(stage),
        )
    except Interrupted:
        return Outcome(stage, "interrupted")
    except Exception as error:  # whatever it is, the other branches go on
        return _outcome(stage, error)
    return _outcome(stage, result)


def _run_together(
    stages: Sequence[Stage], plan: Plan, store: Store, reporter: StudyReporter, execution: Execution
) -> dict[str, Outcome]:
    numbers = {stage.key: number for number, stage in enumerate(plan.stages, start=1)}
    for stage in stages:
        reporter.started(stage, numbers[stage.key], len(plan.stages))
    try:
        ended = train_together(stages, store, reporter, waiting=reporter.waiting, execution=execution)
    except Interrupted:
        # those that had ended are in the store
        return {s.key: Outcome(s, "succeeded" if (r := store.find(s)) else "interrupted", r) for s in stages}
    except Exception as error:
        ended = {stage.key: error for stage in stages}
    outcomes = {stage.key: _outcome(stage, ended[stage.key]) for stage in stages}
    for stage in stages:
        if execution.retry_in_fp32 and isinstance(ended[stage.key], Diverged):  # alone it goes on in float32
            outcomes[stage.key] = _attempt(stage, store, reporter, execution, numbers[stage.key], len(plan.stages))
    return outcomes


def _outcome(stage: Stage, ended: Result | Exception) -> Outcome:
    if isinstance(ended, Exception):
        traceback.clear_frames(ended.__traceback__)  # they hold the stage's model
        return Outcome(stage, "failed", error=ended)
    return Outcome(stage, "cached" if ended.cached else "succeeded", ended)
