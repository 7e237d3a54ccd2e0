"""A plan run by several processes at once, as `accelerate launch` starts them: the main one runs it, the others help.

Stages are trained by all of them, each on its share of every step's rows; whatever else there is to do, evaluations too,
the main process does alone while the others wait for the next training.
"""

import os
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, parse_flag_from_env

from xadapt.errors import UserError
from xadapt.interruption import Interrupted
from xadapt.study.execution import Execution
from xadapt.study.executors import StudyReporter, run_plan
from xadapt.study.outcome import Outcome
from xadapt.study.plan import Plan
from xadapt.study.stage import Stage
from xadapt.study.stages import run_stage
from xadapt.study.store import Store
from xadapt.study.surroundings import Reporter, surround
from xadapt.study.train_stage import Train
from xadapt.training.device import make_deterministic
from xadapt.training.faults import Diverged

# the others wait for as long as an evaluation takes
PATIENCE = timedelta(days=30)
_END = -1


def run_in_ranks(plan: Plan, store: Store, reporter: StudyReporter, *, execution: Execution) -> list[Outcome]:
    """In the main process the outcome of every stage, in the plan's order; in the others, when it has ended, none.

    Raises UserError for what processes that train one model cannot do. Any other error of one process ends it, and its
    launcher ends the others; the same command then goes on from the last checkpoint.
    """
    if execution.together or execution.executor != "local" or (execution.jobs or 1) > 1:
        raise UserError(
            "several processes train one model here (accelerate launch): leave together, --jobs and --executor out"
        )
    # accelerate takes processes on CPUs for single ones, without a word, unless it is told of them
    cpu = not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")
    state = PartialState(cpu=cpu, timeout=PATIENCE)
    if state.num_processes != int(os.environ["WORLD_SIZE"]):
        raise UserError(
            f"of {os.environ['WORLD_SIZE']} processes {state.num_processes} know each other; see accelerate env"
        )
    if execution.deterministic:
        make_deterministic()
    if not state.is_main_process:
        _follow(plan, store, reporter, execution, state)
        return []
    try:
        return run_plan(plan, store, reporter, execution=execution, work=_leading(plan, state))
    finally:
        _tell(_END, state)


def _leading(plan: Plan, state: PartialState) -> Callable[..., dict[str, Any]]:
    numbers = {stage.key: number for number, stage in enumerate(plan.stages)}

    def work(stage: Stage, store: Store, folder: Path, reporter: Reporter, execution: Execution) -> dict[str, Any]:
        if stage.kind != "train":
            return run_stage(stage, store, folder, reporter, execution)
        _tell(numbers[stage.key], state)
        try:
            return run_stage(stage, store, folder, reporter, execution)
        except (Diverged, Interrupted):  # in all processes alike
            raise
        except Exception as error:  # the others wait for this one in the middle of a step
            _leave(error, stage)

    return work


def _leave(error: Exception, stage: Stage) -> NoReturn:
    """End this process at once, and by its launcher the others."""
    text = str(error) if isinstance(error, UserError) else "".join(traceback.format_exception(error))
    sys.stderr.write(f"error in {stage.label}: {text}\n")
    sys.stderr.flush()
    os._exit(1)


def _follow(plan: Plan, store: Store, reporter: Reporter, execution: Execution, state: PartialState) -> None:
    while (number := _tell(_END, state)) != _END:
        stage = plan.stages[number]
        folder = store.partial(stage)  # the main process's, whose checkpoints are all's
        try:
            Train(surround(stage, store, folder, reporter, execution)).beside()
        except (Diverged, Interrupted):  # in all processes alike: the main one says so
            continue


def _tell(number: int, state: PartialState) -> int:
    """What the main process says, in all of them."""
    told: torch.Tensor = broadcast(torch.tensor([number], device=state.device))
    return int(told.item())
