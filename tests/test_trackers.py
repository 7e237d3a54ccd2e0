"""Trackers see what the log sees, change no result, and may fail wherever they like."""

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from fingerprints import hashes
from silent_reporter import Silent

from xadapt.errors import UserError
from xadapt.study.executors import Outcome, run_plan
from xadapt.study.plan import make_plan
from xadapt.study.recipe_file import make_recipe
from xadapt.study.store import Store
from xadapt.study.tracking import Tracked
from xadapt.training.trackers import RunOf, TrackedRun, TrackerSet, chosen_trackers, flattened, open_tracker

SECRETS = {"HF_TOKEN": "hf_thisIsASecret", "WANDB_API_KEY": "0123456789secret"}


@pytest.fixture(scope="module")
def studied(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Runs a study of one training and one evaluation with some trackers; outcomes, warnings and the store's root."""

    def run(*names: str, **how: Any) -> tuple[list[Outcome], list[str], Path]:
        root, warnings = tmp_path_factory.mktemp("runs"), list[str]()
        recipe = make_recipe(
            {
                "name": "tracked", "backbone": str(tiny_backbone), "data": "embedded", "targets": ["xnli"],
                "languages": ["en", "de"], "regimes": {"adapter": {"reduction_factor": 4}},
                "training": {"max_steps": 3, "per_device_train_batch_size": 8, "dtype": "float32"},
                "max_train_samples": 16, "max_eval_samples": 8, "max_predict_samples": 8,
            }, place="the test",
        )  # fmt: skip
        trackers = TrackerSet(names, warnings.append, **how)
        with Tracked(Silent(), trackers, study=recipe.name, folder=root / "tracking") as reporter:
            outcomes = run_plan(make_plan(recipe), Store(root), reporter)
        return outcomes, warnings, root

    return run


@pytest.fixture(scope="module")
def untracked(studied: Callable[..., Any]) -> dict[str, str]:
    return results(studied()[2])


def results(root: Path) -> dict[str, str]:
    """Hashes of everything that a stage made, but for its times."""
    found = hashes(root)
    return {n: h for n, h in found.items() if n.endswith((".safetensors", "scores.json", "predictions.parquet"))}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads back: steps and values by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_has_what_the_log_has(studied: Callable[..., Any], untracked: dict[str, str]) -> None:
    pytest.importorskip("tensorboard")
    outcomes, warnings, root = studied("tensorboard")
    assert not warnings
    assert results(root) == untracked != {}
    (train, evaluate), runs = outcomes, sorted((root / "tracking" / "tensorboard" / "tracked").iterdir())
    assert [run.name.rpartition("-")[2] for run in runs] == [evaluate.stage.key[:16], train.stage.key[:16]]
    found = scalars(runs[1])
    lines = [json.loads(line) for line in (train.result.folder / "log.jsonl").read_text().splitlines()]
    for name in ("loss", "grad_norm", "learning_rate", "examples_per_second"):
        expected = [(line["step"], pytest.approx(line[name])) for line in lines if name in line]
        assert found[f"train/{name}"] == expected, name
    assert found["dev/accuracy"] == [(l["step"], pytest.approx(l["dev"]["accuracy"])) for l in lines if "dev" in l]  # noqa: E741
    scores = {score["language"]: score["values"]["accuracy"] for score in evaluate.result.record["scores"]}
    assert {tag: [v for _, v in values] for tag, values in scalars(runs[0]).items()} == {
        f"accuracy/{lang}": [pytest.approx(value)] for lang, value in scores.items()
    }
    (config,) = runs[1].rglob("hparams.yml")
    assert "training.max_steps: 3" in config.read_text()


@dataclass
class Fragile:
    """A tracker that raises in one of its methods and counts its calls."""

    at: str
    calls: list[str] = field(default_factory=list)

    def open(self, name: str, of: RunOf) -> Any:
        if name != "wandb":
            return open_tracker(name, of)
        return self._called("start")

    def _called(self, method: str) -> "Fragile":
        self.calls.append(method)
        if method == self.at:
            raise OSError(f"no route, key {os.environ['WANDB_API_KEY']}\nand more")
        return self

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        self._called("log")

    def finish(self) -> None:
        self._called("finish")


@pytest.mark.parametrize("at", ["start", "log", "finish"])
def test_a_tracker_that_fails_is_told_of_once_and_changes_nothing(
    at: str, studied: Callable[..., Any], untracked: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    fragile = Fragile(at)
    outcomes, warnings, root = studied("wandb", "tensorboard", open=fragile.open)
    assert [outcome.status for outcome in outcomes] == ["succeeded"] * 2
    assert results(root) == untracked
    (warning,) = warnings
    assert "wandb" in warning
    assert "no route" in warning
    assert fragile.calls.count(at) == 1
    assert fragile.calls[-1] == at, "it is left alone from then on"
    runs = list((root / "tracking" / "tensorboard" / "tracked").iterdir())
    assert [len(scalars(run)) > 0 for run in runs] == [True] * 2, "the other one goes on"
    everything = warning.encode() + b"".join(file.read_bytes() for file in root.rglob("*") if file.is_file())
    assert not [name for name, value in SECRETS.items() if value.encode() in everything]


def test_an_interruption_finishes_what_is_open(tmp_path: Path) -> None:
    fragile = Fragile("never")
    trackers = TrackerSet(["wandb"], pytest.fail, open=fragile.open)
    stage: Any = type("Stage", (), {"key": "k" * 64, "label": "train", "spec": {}, "kind": "train"})

    def interrupted() -> None:
        with Tracked(Silent(), trackers, study="s", folder=tmp_path) as reporter:
            reporter.monitors(stage)[-1].step(1, 3, {"loss": 1.0, "task": "mnli"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert fragile.calls == ["start", "log", "finish"]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_two_runs_at_once_stay_apart_below_the_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of them is installed; nobody has imported it yet, as trackio finds its folder then."""
    if not find_spec(name):
        pytest.skip(f"{name} is not installed")
    for secret, value in SECRETS.items():
        monkeypatch.setenv(secret, value)
    trackers = TrackerSet([name], pytest.fail)
    runs = [TrackedRun(trackers, RunOf("study", f"train mnli@de, {n}", n * 16, {"r": 4}, tmp_path)) for n in "ab"]
    for step in (1, 2):
        for at, run in enumerate(runs):
            run.step(step, 2, {"loss": float(10 * at + step), "task": "mnli@de", "epoch": 0.5})
    for run in runs:
        run.selection(2, 1.0, {"accuracy": 50.0}, True)
        run.finish()
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert files
    assert not [f for f in files if any(value.encode() in f.read_bytes() for value in SECRETS.values())]
    if name == "tensorboard":
        folders = sorted((tmp_path / name / "study").iterdir())
        assert [[v for _, v in scalars(f)["train/mnli@de/loss"]] for f in folders] == [[1, 2], [11, 12]]
    if name == "mlflow":
        losses = sorted(f.read_text() for f in files if f.parts[-2:] == ("train", "loss"))
        assert [[float(line.split()[1]) for line in text.splitlines()] for text in losses] in ([[1, 2], [11, 12]], [[11, 12], [1, 2]])  # fmt: skip


@pytest.mark.parametrize(
    ("text", "names"),
    [(None, ()), ("", ()), ("tensorboard", ("tensorboard",)), ("wandb, mlflow,wandb", ("wandb", "mlflow"))],
)
def test_trackers_are_named_by_commas(
    text: str | None, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xadapt.training.trackers._installed", lambda _: True)
    assert chosen_trackers(text) == names


def test_a_tracker_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"'tensorbord' in --report-to.*Did you mean 'tensorboard'"):
        chosen_trackers("tensorbord")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)  # where it is installed
    (tmp_path / "wandb").mkdir()  # runs that wandb once wrote where one works
    with pytest.raises(UserError, match=re.escape("pip install wandb")):
        chosen_trackers("wandb")


def test_a_configuration_is_flat() -> None:
    nested = {"a": {"b": 1, "c": None, "d": ["x", "y"]}, "tasks": [{"n": 1}, {"n": 2}], "e": True}
    assert flattened(nested) == {"a.b": 1, "a.d": "x, y", "tasks.0.n": 1, "tasks.1.n": 2, "e": True}
