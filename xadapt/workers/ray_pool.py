"""Stages as tasks of a Ray cluster: placed by what they need, their results in the one store that all machines share."""

import contextlib
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from xadapt import interruption
from xadapt.errors import UserError
from xadapt.study.execution import Execution
from xadapt.study.store import Store
from xadapt.workers.assignment import Assignment, Unit
from xadapt.workers.reports import PAUSE, Report
from xadapt.workers.resources import resources_of
from xadapt.workers.schedule import Lost

# seconds between two looks of a task at whether it is to leave, and without a board until it leaves
LOOK, ALONE = 1.0, 60.0
_HEAD = "node:__internal_head__"


class Board:
    """An actor beside the driver, where tasks leave reports and see whether they are to leave."""

    def __init__(self) -> None:
        self._reports: list[str] = []
        self._stopped = False

    def put(self, report: str) -> None:
        """Leave a report."""
        self._reports.append(report)

    def take(self) -> list[str]:
        """All reports since the last time."""
        taken, self._reports = self._reports, []
        return taken

    def stop(self) -> None:
        """From now on tasks are to leave."""
        self._stopped = True

    def stopped(self) -> bool:
        """Whether tasks are to leave."""
        return self._stopped


class RayPool:
    """A Pool that gives every unit to Ray, which keeps it until a machine has room. At most execution.jobs at once."""

    def __init__(self, store: Store, execution: Execution) -> None:
        self.ray, self.store, self.execution = _connected(execution.address), store, execution
        machines = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        self._machines: list[dict[str, float]] = machines
        # on the head: any other node may go without it, and nothing goes on without the head
        board = self.ray.remote(num_cpus=0, max_restarts=-1, resources={_HEAD: 0.001})(Board)
        self._board = board.remote()
        self._run = self.ray.remote(max_retries=0)(run_task)  # retries are the schedule's, for both pools alike
        self._tasks: dict[Any, Unit] = {}
        self._stopped = False

    def room(self) -> bool:
        return self.execution.jobs is None or len(self._tasks) < self.execution.jobs

    def submit(self, unit: Unit) -> None:
        needed = resources_of(unit, self._machines, at_once=self.execution.jobs)
        task = self._run.options(
            num_cpus=needed.cpus, num_gpus=needed.gpus, memory=needed.memory, name=unit[0].label
        )  # fmt: skip
        assignment = Assignment(unit, self.store, self.execution).to_json()
        self._tasks[task.remote(assignment, self._board)] = unit

    def wait(self) -> Sequence[Report | Lost]:
        over, _ = self.ray.wait(list(self._tasks), num_returns=1, timeout=PAUSE)
        said: list[Report | Lost] = []
        with contextlib.suppress(self.ray.exceptions.RayError):  # a board that is gone comes again, empty
            said += [json.loads(report) for report in self.ray.get(self._board.take.remote())]
            if self._stopped:
                self.stop()
        return said + [self._ended(task) for task in over]

    def stop(self) -> None:
        self._stopped = True
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.get(self._board.stop.remote())

    def close(self) -> None:
        self.ray.shutdown()

    def _ended(self, task: Any) -> Report | Lost:
        unit = self._tasks.pop(task)
        try:
            report: Report = json.loads(self.ray.get(task))
        except self.ray.exceptions.RayError as error:
            return Lost(unit, f"Ray lost it ({_said(error)})")
        return report


def _said(error: Exception) -> str:
    """An error of Ray's in a sentence: the last line of a traceback, the first of an explanation, without colours."""
    lines = [line for line in re.sub(r"\x1b\[[\d;]*m", "", str(error)).splitlines() if line.strip()]
    kind = type(error).__name__
    if not lines:
        return kind
    return lines[-1] if kind.startswith("RayTaskError") else f"{kind}: {lines[0].partition('. ')[0]}"


def run_task(assignment: str, board: Any) -> str:
    """What a task does, in a worker of Ray's: run the unit; its last report. It leaves where the board says so."""
    from xadapt.workers.work import work

    with interruption.resumable(), _watched(board):
        report = work(assignment, lambda said: board.put.remote(json.dumps(said)))
    _is_stopped(board)  # calls are done in turn: all reports are there when this one ends
    return json.dumps(report)


def _is_stopped(board: Any) -> bool | None:
    """What the board says, None where it says nothing. A task that asks by `ray.get` would lend its cores to another."""
    from ray.exceptions import RayError

    with contextlib.suppress(RayError, TimeoutError):
        return bool(board.stopped.remote().future().result(timeout=ALONE))
    return None


@contextmanager
def _watched(board: Any) -> Iterator[None]:
    """Inside, a stop that the board tells of, or its absence for ALONE seconds, is a request to stop."""
    over = threading.Event()

    def look() -> None:
        seen = time.monotonic()
        while not over.wait(LOOK) and not interruption.requested():
            stopped = _is_stopped(board)
            if stopped:
                interruption.request("the driver")
            seen = seen if stopped is None else time.monotonic()
            if time.monotonic() - seen > ALONE:
                interruption.request("the end of the driver")

    if _is_stopped(board):
        interruption.request("the driver")
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def imported_ray() -> Any:
    """The library; UserError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError("--executor ray needs Ray, which is not installed: pip install 'xadapt[ray]'") from error
    return ray


def _connected(address: str | None) -> Any:
    """Ray, in touch with a cluster: that at an address or in RAY_ADDRESS, else one of this machine alone."""
    ray = imported_ray()
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    before = {number: signal.getsignal(number) for number in interruption.SIGNALS}
    own = {"include_dashboard": False} if address == "local" else {}
    try:
        _reach(address)
        ray.init(address=address, log_to_driver=False, logging_level="error", **own)
    except (OSError, ValueError, ray.exceptions.RayError) as error:
        raise UserError(
            f"no Ray cluster lets this in at --address {address} ({error}); `ray start --head` prints the address of one, "
            "and RAY_AUTH_MODE has to be the same here and there"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():  # Ray puts its own in their place
                signal.signal(number, handler)
    return ray


def _reach(address: str) -> None:
    """OSError if nobody listens at HOST:PORT: Ray itself would go on trying for minutes."""
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=5.0).close()
