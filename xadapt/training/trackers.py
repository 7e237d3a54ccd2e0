"""Experiment trackers (TensorBoard, Weights & Biases, MLflow, trackio) through accelerate; torch-free until one opens.

All of them write below one folder and reach for no network, unless the user's environment says otherwise.
"""

import os
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from xadapt.errors import UserError, unknown

TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")  # each the name of its package, too
# what a tracker's error may quote and must not be shown
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD")
Value = str | int | float | bool


def chosen_trackers(text: str | None, *, place: str = "--report-to") -> tuple[str, ...]:
    """Trackers joined by commas, once each; UserError for one that there is not, or whose package is not installed."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(","))) if text else ()
    for name in names:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS, place=place)
        if not _installed(name):
            raise UserError(f"{place} {name}: the package {name} is not installed; `pip install {name}` installs it")
    return names


def _installed(package: str) -> bool:
    """Whether it can be imported; a folder of runs that bears a package's name has no origin."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


@dataclass(frozen=True)
class RunOf:
    """What a tracker's run is called, what made it, and the folder that all trackers write below."""

    project: str
    name: str
    key: str
    config: Mapping[str, Value]
    folder: Path

    @property
    def title(self) -> str:
        """The name with the key's start."""
        return f"{self.name[:100]} {self.key}"

    @property
    def slug(self) -> str:
        """The title as the name of a folder."""
        return f"{re.sub(r'[^A-Za-z0-9._+@-]+', '-', self.name)[:100].strip('.-')}-{self.key}"


class Tracker(Protocol):
    """The part of `accelerate.tracking.GeneralTracker` that is used."""

    def start(self) -> None: ...

    def store_init_configuration(self, values: dict[str, Value]) -> None: ...

    def log(self, values: dict[str, float], step: int | None = None) -> None: ...

    def finish(self) -> None: ...


def open_tracker(name: str, of: RunOf) -> Tracker:
    """A tracker with a run begun; raises whatever the tracker's library raises."""
    from accelerate import PartialState

    PartialState()  # accelerate's own notices need it, and a stage's Accelerator takes it up
    of.folder.mkdir(parents=True, exist_ok=True)
    tracker = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}[name](of)
    tracker.start()
    if name in ("tensorboard", "mlflow"):  # the others are given theirs when they begin
        tracker.store_init_configuration(dict(of.config))
    return tracker


def _tensorboard(of: RunOf) -> Tracker:
    from accelerate.tracking import TensorBoardTracker

    tracker: Tracker = TensorBoardTracker(of.slug, of.folder / "tensorboard" / of.project)
    return tracker


def _wandb(of: RunOf) -> Tracker:
    """Offline unless WANDB_MODE says otherwise; runs of stages trained side by side stay apart."""
    from accelerate.tracking import WandBTracker

    quiet = {"console": "off", "silent": True, "disable_git": True, "disable_code": True}
    tracker: Tracker = WandBTracker(
        of.project, name=of.title, dir=str(of.folder), config=dict(of.config), reinit="create_new", settings=quiet,
        mode=os.environ.get("WANDB_MODE", "offline"),
    )  # fmt: skip
    return tracker


def _mlflow(of: RunOf) -> Tracker:
    """In a folder unless MLFLOW_TRACKING_URI says otherwise."""
    import mlflow
    from accelerate.tracking import MLflowTracker

    if "MLFLOW_TRACKING_URI" not in os.environ:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # mlflow-skinny has nothing else
        mlflow.set_tracking_uri((of.folder / "mlflow").absolute().as_uri())

    class Apart(MLflowTracker):  # type: ignore[misc]
        """MLflow's current run is one for the whole process; this is a run by its id, however many are open."""

        def store_init_configuration(self, values: dict[str, Value]) -> None:
            allowed = {re.sub(r"[^\w./ -]", "-", key): value for key, value in values.items()}
            super().store_init_configuration(allowed)
            self.run_id = self.tracker.info.run_id
            mlflow.end_run("RUNNING")  # it is the current one no longer, and goes on

        def log(self, values: dict[str, float], step: int | None = None, **_: Any) -> None:
            allowed = {re.sub(r"[^\w./ -]", "-", key): value for key, value in values.items()}
            super().log(allowed, step=step, run_id=self.run_id)

        def finish(self) -> None:
            mlflow.MlflowClient().set_terminated(self.run_id)

    tracker: Tracker = Apart(of.project, run_name=of.title)
    return tracker


def _trackio(of: RunOf) -> Tracker:
    """In a folder unless TRACKIO_DIR says otherwise, which trackio's oldest versions do not know."""
    os.environ.setdefault("TRACKIO_DIR", str((of.folder / "trackio").absolute()))
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    from accelerate.tracking import TrackioTracker

    tracker: Tracker = TrackioTracker(of.project, name=of.title, config=dict(of.config), resume="allow")
    return tracker


@dataclass
class TrackerSet:
    """The trackers of a study. One that raises is told of once by `warn` and left alone from then on."""

    names: Collection[str]
    warn: Callable[[str], None]
    open: Callable[[str, RunOf], Tracker] = open_tracker
    failed: set[str] = field(default_factory=set)

    def attempt(self, name: str, doing: str, work: Callable[[], Any]) -> Any:
        """What the work gives; None if it raises, or if the tracker has failed before."""
        if name in self.failed:
            return None
        try:
            with redirect_stdout(sys.stderr):  # standard output is for results
                return work()
        except Exception as error:
            self.failed.add(name)
            self.warn(
                f"tracker {name} failed to {doing} and is left out from here: {type(error).__name__}: {_plain(error)}"
            )
            return None


class TrackedRun:
    """A monitor that passes a training, or scores, on to a run of each tracker."""

    def __init__(self, trackers: TrackerSet, of: RunOf) -> None:
        self.trackers = trackers
        begun = {name: trackers.attempt(name, "start", partial(trackers.open, name, of)) for name in trackers.names}
        self.runs: dict[str, Tracker] = {name: run for name, run in begun.items() if run is not None}

    def step(self, step: int, total: int, values: Mapping[str, Any]) -> None:
        """The numbers of a step; its loss under the name of its task, too, where there are several."""
        found = {f"train/{name}": value for name, value in values.items() if isinstance(value, int | float)}
        if "task" in values:
            found[f"train/{values['task']}/loss"] = values["loss"]
        self._log(found, step)

    def selection(self, step: int, epoch: float, metrics: Mapping[str, float], best: bool) -> None:
        self._log({f"dev/{name}": value for name, value in metrics.items()}, step)

    def scores(self, scores: Sequence[Mapping[str, Any]]) -> None:
        """The scores of an evaluation as its record has them, each as `metric/language`."""
        self._log({f"{metric}/{of['language']}": v for of in scores for metric, v in of["values"].items()}, 0)

    def finish(self) -> None:
        for name, run in self.runs.items():
            self.trackers.attempt(name, "finish", run.finish)
        self.runs = {}

    def _log(self, values: dict[str, float], step: int) -> None:
        for name, run in self.runs.items():
            self.trackers.attempt(name, "log", partial(run.log, values, step=step))


def flattened(values: object, place: str = "") -> dict[str, Value]:
    """Nested keys joined by dots, lists by commas; what is None is left out."""
    if isinstance(values, Mapping):
        found: dict[str, Value] = {}
        for key, value in values.items():
            found |= flattened(value, f"{place}.{key}" if place else str(key))
        return found
    if isinstance(values, list | tuple):
        if any(isinstance(value, Mapping | list | tuple) for value in values):
            return flattened({str(at): value for at, value in enumerate(values)}, place)
        return {place: ", ".join(map(str, values))}
    return {place: values} if isinstance(values, str | int | float | bool) else {}


def _plain(error: Exception) -> str:
    """An error's first line, without what must stay secret."""
    text = next(iter(str(error).splitlines()), "")
    for name in SECRETS:
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    return text[:300]
