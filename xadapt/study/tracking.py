"""A study's reporter that also tells experiment trackers of every stage that runs; torch-free."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from xadapt.training.trackers import RunOf, TrackedRun, TrackerSet, flattened

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from xadapt.study.executors import Outcome, StudyReporter
    from xadapt.study.stage import Stage
    from xadapt.training.result import Monitor


class Tracked:
    """Passes everything on to a reporter, and trainings and scores to trackers, each stage as a run of its own.

    A run's project is the study's name, its own name the stage's label with the start of its key, its configuration
    what the stage is. Leaving the context finishes what an interruption left open.
    """

    def __init__(self, reporter: "StudyReporter", trackers: TrackerSet, *, study: str, folder: "Path") -> None:
        self.reporter, self.trackers, self.study, self.folder = reporter, trackers, study, folder
        self._runs: dict[str, TrackedRun] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        for key in list(self._runs):
            self._runs.pop(key).finish()

    def monitors(self, stage: "Stage") -> "list[Monitor]":
        if not self.trackers.names:
            return self.reporter.monitors(stage)
        self._runs[stage.key] = self._begun(stage)
        return [*self.reporter.monitors(stage), self._runs[stage.key]]

    def evaluated(self, stage: "Stage", total: int) -> Callable[[int], None]:
        return self.reporter.evaluated(stage, total)

    def started(self, stage: "Stage", number: int, total: int) -> None:
        self.reporter.started(stage, number, total)

    def waiting(self, stage: "Stage") -> None:
        self.reporter.waiting(stage)

    def lost(self, stage: "Stage", why: str) -> None:
        """The stage begins anew elsewhere, and so does its run."""
        if run := self._runs.pop(stage.key, None):
            run.finish()
        self.reporter.lost(stage, why)

    def ended(self, outcome: "Outcome", number: int, total: int) -> None:
        """Finish the stage's run; that of an evaluation is made now, of its scores."""
        stage, run = outcome.stage, self._runs.pop(outcome.stage.key, None)
        if stage.kind == "evaluate" and outcome.status == "succeeded" and outcome.result and self.trackers.names:
            run = self._begun(stage)
            run.scores(outcome.result.record["scores"])
        if run:
            run.finish()
        self.reporter.ended(outcome, number, total)

    def _begun(self, stage: "Stage") -> TrackedRun:
        of = RunOf(self.study, stage.label, stage.key[:16], flattened(stage.spec), self.folder)
        return TrackedRun(self.trackers, of)
