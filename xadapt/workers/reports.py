"""What a worker says of its stages, and who hears it: a reporter's calls as JSON, and JSON as a reporter's calls."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xadapt.errors import UserError
from xadapt.study.outcome import Outcome
from xadapt.study.stage import Stage

if TYPE_CHECKING:
    from xadapt.study.executors import StudyReporter
    from xadapt.training.result import Monitor

# plain values with an "event" and the "key" of a stage
Report = dict[str, Any]
Send = Callable[[Report], None]
PAUSE = 0.2  # seconds between two reports of a stage's progress


class RemoteError(Exception):
    """An error that ended a stage in another process; kind is what it was there."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}" if message else kind)


class Telling:
    """A StudyReporter that sends what it is told, progress not oftener than every PAUSE seconds."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def started(self, stage: Stage, number: int, total: int) -> None:
        self._send({"event": "started", "key": stage.key})

    def waiting(self, stage: Stage) -> None:
        self._send({"event": "waiting", "key": stage.key})

    def lost(self, stage: Stage, why: str) -> None:
        raise AssertionError("a worker has no workers")

    def ended(self, outcome: Outcome, number: int, total: int) -> None:
        raise AssertionError("a worker ends no stage of a plan")

    def monitors(self, stage: Stage) -> "list[Monitor]":
        return [_Steps(self._send, stage.key)]

    def evaluated(self, stage: Stage, total: int) -> Callable[[int], None]:
        self._send({"event": "evaluating", "key": stage.key, "total": total})
        due, done, unsaid = _Due(), 0, 0

        def advance(rows: int) -> None:
            nonlocal done, unsaid
            before, done, unsaid = done, done + rows, unsaid + rows
            if due(last=before < total <= done):
                self._send({"event": "rows", "key": stage.key, "rows": unsaid})
                unsaid = 0

        return advance


class _Due:
    """Whether it is time to send something again."""

    def __init__(self) -> None:
        self._sent = float("-inf")

    def __call__(self, *, last: bool) -> bool:
        now = time.monotonic()
        if now - self._sent < PAUSE and not last:
            return False
        self._sent = now
        return True


class _Steps:
    def __init__(self, send: Send, key: str) -> None:
        self._send, self._key, self._due = send, key, _Due()

    def step(self, step: int, total: int, values: dict[str, Any]) -> None:
        if self._due(last=step == total):
            self._send({"event": "step", "key": self._key, "step": step, "total": total, "values": values})

    def selection(self, step: int, epoch: float, metrics: dict[str, float], best: bool) -> None:
        said = {"step": step, "epoch": epoch, "metrics": metrics, "best": best}
        self._send({"event": "selection", "key": self._key, "said": said})


class Hearing:
    """Calls a reporter as the reports say."""

    def __init__(self, stages: Sequence[Stage], reporter: "StudyReporter") -> None:
        self._reporter = reporter
        self._stages = {stage.key: (stage, number) for number, stage in enumerate(stages, start=1)}
        self._monitors: dict[str, list[Monitor]] = {}
        self._advance: dict[str, Callable[[int], None]] = {}

    def hear(self, report: Report) -> None:
        """Pass on a report of progress."""
        key = report["key"]
        stage, number = self._stages[key]
        match report["event"]:
            case "started":
                self._monitors.pop(key, None)  # it may have started before, in a worker that was lost
                self._reporter.started(stage, number, len(self._stages))
            case "waiting":
                self._reporter.waiting(stage)
            case "step":
                for monitor in self._monitors_of(stage):
                    monitor.step(report["step"], report["total"], report["values"])
            case "selection":
                for monitor in self._monitors_of(stage):
                    monitor.selection(**report["said"])
            case "evaluating":
                self._advance[key] = self._reporter.evaluated(stage, report["total"])
            case "rows":
                self._advance[key](report["rows"])

    def _monitors_of(self, stage: Stage) -> "list[Monitor]":
        if stage.key not in self._monitors:
            self._monitors[stage.key] = self._reporter.monitors(stage)
        return self._monitors[stage.key]


def ended(outcomes: Sequence[Outcome]) -> Report:
    """The last report of a unit: how each of its stages ended; results are in the store."""
    said = [
        {"key": outcome.stage.key, "status": outcome.status, "error": _error_to_json(outcome.error)}
        for outcome in outcomes
    ]
    return {"event": "ended", "key": outcomes[0].stage.key, "ended": said}


def refused(keys: Sequence[str], error: UserError) -> Report:
    """The last report of a unit that could not be begun."""
    said = [{"key": key, "status": "failed", "error": _error_to_json(error)} for key in keys]
    return {"event": "ended", "key": keys[0], "ended": said}


def error_from_json(values: Mapping[str, Any] | None) -> Exception | None:
    """The error of a stage's end: a UserError as it was, any other as a RemoteError that says what it was."""
    if values is None:
        return None
    return UserError(values["message"]) if values["user"] else RemoteError(values["kind"], values["message"])


def _error_to_json(error: Exception | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {"kind": type(error).__name__, "message": str(error), "user": isinstance(error, UserError)}
