"""Progress of a study: a live table of what runs on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape

from xadapt.analysis.export import visible
from xadapt.errors import UserError
from xadapt.interruption import requested
from xadapt.study.outcome import Outcome
from xadapt.study.stage import Stage
from xadapt.study.store import Store
from xadapt.workers.reports import RemoteError
from xadapt_cli.live import LiveTable
from xadapt_cli.pace import Pace, counted

if TYPE_CHECKING:
    from xadapt.training.result import Monitor

_COLOURS = {"succeeded": "green", "cached": "cyan", "failed": "red", "interrupted": "yellow", "not run": "yellow"}
_PLAIN_SECONDS = 15.0
# done, total, what they count, and what else there is to say
Line = Callable[[int, int, str, str], None]


class ConsoleReporter:
    """Prints a line a stage; while they run, a table (terminal) or a line every fifteen seconds each (elsewhere).

    With the store it can say who is at a stage that somebody else runs, and where the log of a failure lies.
    """

    def __init__(self, console: Console, store: Store | None = None) -> None:
        self.console, self.store = console, store
        self._table = LiveTable(console) if console.is_terminal else None
        self._running: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._table:
            self._table.close()

    def started(self, stage: Stage, number: int, total: int) -> None:
        self._running.add(stage.key)
        if self._table:
            self._table.total = total
            self._table.add(stage.key, stage.label)
        else:
            self.console.print(f"[{number}/{total}] {escape(stage.label)} ...", markup=False)

    def waiting(self, stage: Stage) -> None:
        holder = self.store.holder(stage) if self.store else ""
        who = f"another process ({holder})" if holder else "another process"
        self.console.print(f"      {who} is at it, waiting: {stage.label}", markup=False)

    def lost(self, stage: Stage, why: str) -> None:
        self.console.print(f"      {visible(why)}; it is started again: {stage.label}", markup=False)

    def ended(self, outcome: Outcome, number: int, total: int) -> None:
        self._running.discard(outcome.stage.key)
        if self._table:
            self._table.remove(outcome.stage.key, outcome.status)
        colour = _COLOURS[outcome.status]
        text = f"\\[{number}/{total}] [{colour}]{outcome.status}[/{colour}] {escape(outcome.stage.label)}"
        self.console.print(text + escape(_detail(outcome) + self._log(outcome)), soft_wrap=True)

    def monitors(self, stage: Stage) -> "list[Monitor]":
        return [_TrainingProgress(self._line(stage))]

    def evaluated(self, stage: Stage, total: int) -> Callable[[int], None]:
        line, done, started = self._line(stage), 0, time.monotonic()

        def advance(rows: int) -> None:
            nonlocal done
            done += rows
            rate = done / max(time.monotonic() - started, 1e-9)
            line(done, total, "rows", f"{rate:.1f} rows/s")

        return advance

    def _line(self, stage: Stage) -> Line:
        row = self._table.rows.get(stage.key) if self._table else None
        # beside others it says whose it is
        return row.show if row else _plain(self.console, f" of {stage.label}" if len(self._running) > 1 else "")

    def _log(self, outcome: Outcome) -> str:
        """Where the traceback of a failure lies."""
        if outcome.status != "failed" or not self.store:
            return ""
        file = self.store.partial(outcome.stage) / "error.txt"
        return f"\n      log: {file}" if file.is_file() else ""


class _TrainingProgress:
    """A monitor that shows loss, speed and the last dev score."""

    def __init__(self, line: Line) -> None:
        self._line, self._dev = line, ""

    def step(self, step: int, total: int, values: dict[str, float]) -> None:
        said = f"loss {values['loss']:.4f}, {values['examples_per_second']:.1f} examples/s{self._dev}"
        self._line(step, total, "steps", said)

    def selection(self, step: int, epoch: float, metrics: dict[str, float], best: bool) -> None:
        self._dev = "".join(f", dev {name} {value:.1f}" for name, value in metrics.items())


def _plain(console: Console, of: str) -> Line:
    last, pace = time.monotonic(), Pace()

    def show(done: int, total: int, unit: str, values: str) -> None:
        nonlocal last
        now = time.monotonic()
        left = pace.left(done, total, now=now)
        if now - last >= _PLAIN_SECONDS:
            rest = "" if left is None else f", {left:.0f} s left"
            console.print(f"      {counted(done, total, unit)}{of}, {values}{rest}", markup=False)
            last = now

    return show


def _detail(outcome: Outcome) -> str:
    """What a stage's line says behind its label."""
    if outcome.error is not None:
        told = isinstance(outcome.error, UserError | RemoteError)  # what it says is all there is to say
        return f"\n      {'' if told else f'{type(outcome.error).__name__}: '}{visible(str(outcome.error))}"
    if outcome.status == "interrupted":
        return " (what it had done is kept)"
    if outcome.result is None:
        return " (stopped before its turn)" if requested() else " (what it needs failed)"
    record, seconds = outcome.result.record, outcome.result.manifest["provenance"]["seconds"]
    if outcome.status == "cached":
        return f" -> {outcome.result.folder}"
    counts = ("dev_samples", "dev_skipped", "dev_repaired")
    dev = "".join(f", {k} {value:.1f}" for k, value in record.items() if k.startswith("dev_") and k not in counts)
    speed = f", {record['examples_per_second']:.1f} examples/s" if "examples_per_second" in record else ""
    return f" in {seconds:.1f} s{speed}{dev} -> {outcome.result.folder}"
