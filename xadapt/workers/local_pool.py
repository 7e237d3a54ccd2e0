"""Worker processes of this machine, each with its share of the cores and a GPU of its own where there are several."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from xadapt.study.execution import Execution
from xadapt.study.store import Store
from xadapt.workers.assignment import Assignment, Unit
from xadapt.workers.process import STOP
from xadapt.workers.reports import PAUSE, Report
from xadapt.workers.schedule import Lost

# seconds that an idle worker has to leave
LEAVING = 10.0


def visible_gpus() -> list[str]:
    """The GPUs that a process of this machine sees, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    found = [path for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()]
    return [str(number) for number in range(len(found))]


def usable_cores() -> int:
    """The cores that this process may use: OMP_NUM_THREADS if it is set, else what the system lets it run on."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads):
        return int(threads)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_environment(slot: int, jobs: int) -> dict[str, str]:
    """The environment of the worker at a slot, of so many."""
    threads, gpus = str(max(1, usable_cores() // jobs)), visible_gpus()
    shares = {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}  # torch's, and the tokenizers'
    if len(gpus) > 1:
        shares["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return {**os.environ, **shares}


class LocalPool:
    """A Pool of up to `jobs` processes, started when there is work for them."""

    def __init__(self, jobs: int, store: Store, execution: Execution) -> None:
        self.jobs, self.store, self.execution = jobs, store, execution
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def room(self) -> bool:
        return len(self._workers) < self.jobs or any(worker.unit is None for worker in self._workers)

    def submit(self, unit: Unit) -> None:
        worker = next((worker for worker in self._workers if worker.unit is None), None) or self._start()
        worker.unit = unit
        worker.tell(Assignment(unit, self.store, self.execution).to_json())

    def wait(self) -> Sequence[Report | Lost]:
        said: list[Report | Lost] = []
        for key, _ in self._selector.select(timeout=PAUSE):
            said += self._read(key.data)
        return said

    def stop(self) -> None:
        for worker in self._workers:
            worker.tell(STOP)

    def close(self) -> None:
        for worker in self._workers:
            worker.let_go()
        for worker in self._workers:
            worker.end()
        self._selector.close()

    def _start(self) -> "_Worker":
        slot = min(set(range(self.jobs)) - {worker.slot for worker in self._workers})
        worker = _Worker.started(slot, worker_environment(slot, self.jobs))
        self._workers.append(worker)
        self._selector.register(worker.reports, selectors.EVENT_READ, worker)
        return worker

    def _read(self, worker: "_Worker") -> list[Report | Lost]:
        """The reports that have come in, and the loss of the worker where they end."""
        chunk = os.read(worker.reports.fileno(), 1 << 16)
        if chunk:
            return list(worker.heard(chunk))
        self._selector.unregister(worker.reports)
        self._workers.remove(worker)
        why = worker.end()
        return [Lost(worker.unit, why)] if worker.unit else []


@dataclass
class _Worker:
    slot: int
    process: "subprocess.Popen[bytes]"
    errors: IO[bytes]
    unit: Unit | None = None
    _rest: bytes = field(default=b"")

    @classmethod
    def started(cls, slot: int, environment: dict[str, str]) -> "_Worker":
        """A new process, in a session of its own: a terminal's Ctrl-C is its parent's to pass on."""
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        # -P: a folder of the user's that is named like a library is none
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "xadapt.workers.process"], env=environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=errors, start_new_session=True, bufsize=0,
        )  # fmt: skip
        return cls(slot, process, errors)

    @property
    def reports(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        left = f"{line}\n".encode()
        with contextlib.suppress(BrokenPipeError):  # then its reports end too
            while left:
                left = left[self.process.stdin.write(left) :]

    def heard(self, chunk: bytes) -> list[Report]:
        """The whole lines so far; the unit is over with its last report."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        reports: list[Report] = [json.loads(line) for line in lines]
        if any(report["event"] == "ended" for report in reports):
            self.unit = None
        return reports

    def let_go(self) -> None:
        """Close its stdin, which ends it."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def end(self) -> str:
        """See that it has ended; how it did, in words."""
        try:
            code = self.process.wait(LEAVING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.let_go()
        self.reports.close()
        with self.errors:
            self.errors.seek(0)
            lines = self.errors.read().decode(errors="replace").strip().splitlines()
        if code < 0:
            name = signal.Signals(-code).name
            short = ", as the system does where memory is short: fewer --jobs take less" if name == "SIGKILL" else ""
            return f"its worker process was ended by {name}{short}"
        return f"its worker process left with exit code {code}{': ' + lines[-1] if lines else ''}"
