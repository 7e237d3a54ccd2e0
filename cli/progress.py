"""Progress of a study: bars with loss, examples/s and time left on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from xadapt.analysis.export import visible
from xadapt.errors import UserError
from xadapt.study.executors import Outcome
from xadapt.study.stage import Stage
from xadapt.training.result import Monitor

_COLOURS = {"succeeded": "green", "cached": "cyan", "failed": "red", "not run": "yellow"}
_PLAIN_SECONDS = 15.0


class ConsoleReporter:
    """Prints a line a stage; while one runs, a bar (terminal) or a line every fifteen seconds (elsewhere)."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars: Progress | None = None
        self._running = 0

    def started(self, stage: Stage, number: int, total: int) -> None:
        self.console.print(f"[{number}/{total}] {escape(stage.label)} ...", markup=False)
        self._running += 1
        if self.console.is_terminal and not self._bars:
            self._bars = Progress(
                TextColumn("  {task.description}"), BarColumn(bar_width=16), MofNCompleteColumn(), TimeRemainingColumn(),
                TextColumn("{task.fields[values]}"), console=self.console, transient=True,
            )  # fmt: skip
            self._bars.start()

    def waiting(self, stage: Stage) -> None:
        self.console.print(f"      another process is at it, waiting: {stage.label}", markup=False)

    def ended(self, outcome: Outcome, number: int, total: int) -> None:
        self._running = 0
        if self._bars:
            self._bars.stop()
            self._bars = None
        colour = _COLOURS[outcome.status]
        text = f"\\[{number}/{total}] [{colour}]{outcome.status}[/{colour}] {escape(outcome.stage.label)}"
        self.console.print(text + escape(_detail(outcome)), soft_wrap=True)

    def monitors(self, stage: Stage) -> list[Monitor]:
        beside = self._running > 1  # trained with others, each has a line of its own
        return [_TrainingProgress(self._line(f"steps of {stage.label}" if beside else "steps"))]

    def evaluated(self, stage: Stage, total: int) -> Callable[[int], None]:
        line, done, started = self._line("rows"), 0, time.monotonic()

        def advance(rows: int) -> None:
            nonlocal done
            done += rows
            rate = done / max(time.monotonic() - started, 1e-9)
            line(done, total, f"{rate:.1f} rows/s")

        return advance

    def _line(self, unit: str) -> Callable[[int, int, str], None]:
        return _bar(self._bars, unit) if self._bars else _plain(self.console, unit)


class _TrainingProgress:
    """A monitor that shows loss, speed and the last dev score."""

    def __init__(self, line: Callable[[int, int, str], None]) -> None:
        self._line, self._dev = line, ""

    def step(self, step: int, total: int, values: dict[str, float]) -> None:
        self._line(step, total, f"loss {values['loss']:.4f}, {values['examples_per_second']:.1f} examples/s{self._dev}")

    def selection(self, step: int, epoch: float, metrics: dict[str, float], best: bool) -> None:
        self._dev = "".join(f", dev {name} {value:.1f}" for name, value in metrics.items())


def _bar(bars: Progress, unit: str) -> Callable[[int, int, str], None]:
    task: list[TaskID] = []

    def show(done: int, total: int, values: str) -> None:
        if not task:
            task.append(bars.add_task(unit, total=total, values=""))
        bars.update(task[0], completed=done, values=values)

    return show


def _plain(console: Console, unit: str) -> Callable[[int, int, str], None]:
    started = last = time.monotonic()

    def show(done: int, total: int, values: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PLAIN_SECONDS:
            left = (now - started) / done * (total - done)
            console.print(f"      {done}/{total} {unit}, {values}, {left:.0f} s left", markup=False)
            last = now

    return show


def _detail(outcome: Outcome) -> str:
    """What a stage's line says behind its label."""
    if outcome.error is not None:
        kind = "" if isinstance(outcome.error, UserError) else f"{type(outcome.error).__name__}: "
        return f"\n      {kind}{visible(str(outcome.error))}"
    if outcome.result is None:
        return " (what it needs failed)"
    record, seconds = outcome.result.record, outcome.result.manifest["provenance"]["seconds"]
    if outcome.status == "cached":
        return f" -> {outcome.result.folder}"
    counts = ("dev_samples", "dev_skipped")
    dev = "".join(f", {k} {value:.1f}" for k, value in record.items() if k.startswith("dev_") and k not in counts)
    speed = f", {record['examples_per_second']:.1f} examples/s" if "examples_per_second" in record else ""
    return f" in {seconds:.1f} s{speed}{dev} -> {outcome.result.folder}"
