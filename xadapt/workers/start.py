"""Run a plan where its Execution says: in this process, in several of this machine, or on a Ray cluster."""

import os
from typing import TYPE_CHECKING

from xadapt.study.execution import Execution
from xadapt.study.outcome import Outcome
from xadapt.study.plan import Plan
from xadapt.study.store import Store
from xadapt.workers.assignment import Unit
from xadapt.workers.local_pool import LocalPool, visible_gpus
from xadapt.workers.schedule import Pool, run_on

if TYPE_CHECKING:
    from xadapt.study.executors import StudyReporter


def check_installed(plan: Plan, store: Store, *, backbone: str, execution: Execution) -> None:
    """UserError for an optional package that running a plan here takes and that is not installed.

    The encoder of `embedded` is asked for by stages that are not in the store, and on Ray by other machines.
    """
    if execution.executor == "ray":
        from xadapt.workers.ray_pool import imported_ray

        imported_ray()
    elif backbone == "embedded" and any(store.find(stage, checked=False) is None for stage in plan.stages):
        from xadapt.models.embedded import check_embedded

        check_embedded()


def start(plan: Plan, store: Store, reporter: "StudyReporter", *, execution: Execution) -> list[Outcome]:
    """The outcome of every stage, in the plan's order. Without `jobs` there is one worker a GPU where there are several.

    Raises UserError where there is no Ray, or no cluster at the address.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # as accelerate launch and torchrun say it
        from xadapt.workers.in_ranks import run_in_ranks

        return run_in_ranks(plan, store, reporter, execution=execution)
    if execution.executor == "ray":
        from xadapt.workers.ray_pool import RayPool

        return _on(RayPool(store, execution), plan, store, reporter, execution)
    jobs = execution.jobs or max(1, len(visible_gpus()))
    if jobs == 1:
        from xadapt.study.executors import run_plan

        return run_plan(plan, store, reporter, execution=execution)
    return _on(LocalPool(jobs, store, execution), plan, store, reporter, execution)


def _on(pool: Pool, plan: Plan, store: Store, reporter: "StudyReporter", execution: Execution) -> list[Outcome]:
    groups: dict[str, Unit] = {}
    if execution.together:
        from xadapt.study.together import joint_trainings

        groups = joint_trainings(plan.stages, store)
    return run_on(plan, store, reporter, pool, groups=groups)
