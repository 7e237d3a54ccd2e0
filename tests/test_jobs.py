"""Studies in several processes of this machine, on a tiny encoder: scores as in one, failures, kills and signals."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from silent_reporter import Silent

from xadapt.errors import UserError
from xadapt.study.collect import study_of
from xadapt.study.collection import Collection
from xadapt.study.execution import Execution
from xadapt.study.outcome import Outcome
from xadapt.study.plan import make_plan
from xadapt.study.recipe import Recipe
from xadapt.study.recipe_file import make_recipe
from xadapt.study.stage import Stage
from xadapt.study.store import Store, verify
from xadapt.workers.schedule import RETRIES, WorkerLost
from xadapt.workers.start import start
from xadapt_cli.exit_codes import RESUMABLE

TWO = Execution(jobs=2)
PATIENCE = 240.0  # seconds until something that must come is given up on a machine under load
COMMAND = [sys.executable, "-c", "from xadapt_cli.app import main; main()"]
Make = Callable[..., Recipe]


@pytest.fixture
def make(mirror: Path, tiny_backbone: Path) -> Make:
    """mnli behind udpos and tatoeba with adapters: three trainings, four evaluations."""

    def made(**changes: Any) -> Recipe:
        values: dict[str, Any] = {
            "backbone": str(tiny_backbone), "data": str(mirror), "intermediate": ["mnli"],
            "targets": ["udpos", "tatoeba"], "languages": ["en", "de"],
            "regimes": {"adapter": {"compositions": ["none", "stack"], "reduction_factor": 4}},
            "training": {"max_steps": 3, "per_device_train_batch_size": 8, "dtype": "float32"}, "max_train_samples": 40,
        }  # fmt: skip
        return make_recipe(values | changes, place="the test")

    return made


@dataclass
class Recorder(Silent):
    """Keeps what it is told; `watch` is called at the first step of every start of a training."""

    watch: Callable[[Stage], None] = lambda stage: None
    begun: Counter[str] = field(default_factory=Counter)
    over: dict[str, str] = field(default_factory=dict)
    losses: Counter[str] = field(default_factory=Counter)
    last: dict[str, tuple[int, int]] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    totals: dict[str, int] = field(default_factory=dict)

    def started(self, stage: Stage, number: int, total: int) -> None:
        self.begun[stage.label] += 1
        self.last.pop(stage.label, None)

    def lost(self, stage: Stage, why: str) -> None:
        assert "SIGKILL" in why
        self.losses[stage.label] += 1

    def ended(self, outcome: Outcome, number: int, total: int) -> None:
        self.over[outcome.stage.label] = outcome.status

    def monitors(self, stage: Stage) -> list[Any]:
        return [_Steps(self, stage)]

    def evaluated(self, stage: Stage, total: int) -> Callable[[int], None]:
        self.totals[stage.label] = total
        return lambda rows: self.rows.update({stage.label: rows})


@dataclass
class _Steps:
    recorder: Recorder
    stage: Stage

    def step(self, step: int, total: int, values: dict[str, float]) -> None:
        first = self.stage.label not in self.recorder.last
        self.recorder.last[self.stage.label] = (step, total)
        assert values["loss"] > 0
        if first:
            self.recorder.watch(self.stage)

    def selection(self, step: int, epoch: float, metrics: dict[str, float], best: bool) -> None: ...


def holder(store: Store, stage: Stage) -> int:
    """The process that is at a stage."""
    return int(store.holder(stage).rpartition(" ")[2])


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody waits for, a zombie, has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def until(true: Callable[[], object], what: str) -> None:
    for _ in waiting(what):
        if true():
            return


def waiting(what: str) -> Iterator[None]:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        yield
        time.sleep(0.05)
    pytest.fail(f"{what} did not happen")


@pytest.mark.slow
def test_two_at_once_give_what_one_gives_and_a_failure_stays_in_its_branch(
    make: Make, mirror: Path, tmp_path: Path
) -> None:
    recipe, alone, store = make(), Store(tmp_path / "alone"), Store(tmp_path / "two")
    plan = make_plan(recipe)
    path = mirror / "udpos" / "udpos.German" / "test.parquet"
    whole = path.read_bytes()
    path.unlink()
    recorder = Recorder()
    outcomes = {outcome.stage.label: outcome for outcome in start(plan, store, recorder, execution=TWO)}
    for label, outcome in outcomes.items():
        assert outcome.status == ("failed" if label.startswith("evaluate udpos") else "succeeded")
        assert recorder.over[label] == outcome.status
        assert recorder.begun[label] == 1
        if outcome.error:
            assert isinstance(outcome.error, UserError)
            assert "udpos.German" in str(outcome.error)
    assert recorder.last == {label: (3, 3) for label in outcomes if label.startswith("train")}

    path.write_bytes(whole)
    recorder = Recorder()
    outcomes = {outcome.stage.label: outcome for outcome in start(plan, store, recorder, execution=TWO)}
    assert Counter(outcome.status for outcome in outcomes.values()) == {"cached": 5, "succeeded": 2}
    assert recorder.rows == recorder.totals == dict.fromkeys(recorder.begun, 36)
    for outcome in outcomes.values():
        assert outcome.result
        verify(outcome.result)
    start(plan, alone, Silent(), execution=Execution())
    study = {"s": study_of(recipe, plan)}
    assert Collection(store, study).scores() == Collection(alone, study).scores() != []


@pytest.mark.slow
def test_a_killed_worker_is_replaced_a_few_times(make: Make, tmp_path: Path) -> None:
    """One training loses its worker once, another one each time."""
    store = Store(tmp_path)
    pids: list[int] = []

    def kill(stage: Stage) -> None:
        if stage.label == "train mnli, adapter" or recorder.begun[stage.label] == 1:
            pids.append(holder(store, stage))
            os.kill(pids[-1], signal.SIGKILL)

    recorder = Recorder(watch=kill)
    training = {"max_steps": 400, "per_device_train_batch_size": 8, "dtype": "float32"}
    plan = make_plan(make(targets=["udpos"], training=training), evaluate=False)
    outcomes = {outcome.stage.label: outcome for outcome in start(plan, store, recorder, execution=TWO)}
    assert {label: outcome.status for label, outcome in outcomes.items()} == {
        "train udpos, adapter": "succeeded", "train mnli, adapter": "failed", "train udpos, adapter, stack mnli": "not run",
    }  # fmt: skip
    assert recorder.losses == {"train udpos, adapter": 1, "train mnli, adapter": RETRIES}
    assert len(set(pids)) == len(pids) == RETRIES + 2
    error = outcomes["train mnli, adapter"].error
    assert isinstance(error, WorkerLost)
    assert "SIGKILL" in str(error)
    result = outcomes["train udpos, adapter"].result
    assert result
    assert result.record["steps"] == 400
    verify(result)
    # the kernel's lock went with the process: whoever comes next works at once
    assert not list(tmp_path.glob("train/*.holder")) or store.run(
        outcomes["train mnli, adapter"].stage, lambda _: {}, waiting=lambda: pytest.fail("a lock is left")
    )


RECIPE = """
name: long
backbone: {backbone}
data: {data}
intermediate: [mnli]
targets: [udpos]
languages: [de]
regimes: {{adapter: {{compositions: [none, stack], reduction_factor: 4}}}}
training: {{max_steps: {steps}, per_device_train_batch_size: 8, dtype: float32}}
"""


@dataclass
class Study:
    """A command that runs a study of two trainings side by side, and what follows them."""

    recipe: Path
    store: Path

    def begin(self, *more: str) -> "subprocess.Popen[str]":
        arguments = ["run", str(self.recipe), "--store", str(self.store), "--jobs", "2", *more]
        return subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def trains(self) -> bool:
        """Whether two trainings have made steps since they were started."""
        logs = [path for path in self.store.glob("train/*.partial/**/log.jsonl") if path.stat().st_mtime > self.since]
        return len(logs) == 2 and all(path.stat().st_size for path in logs)

    def run_until_it_trains(self) -> "tuple[subprocess.Popen[str], list[int]]":
        """The running command, and its workers."""
        self.since = time.time()
        process = self.begin()
        until(lambda: self.trains() or process.poll() is not None, "a step of both trainings")
        assert process.poll() is None, process.communicate()
        files = self.store.glob("train/*.holder")
        return process, [json.loads(file.read_text())["pid"] for file in files]


@pytest.fixture
def study(mirror: Path, tiny_backbone: Path, tmp_path: Path) -> Iterator[Study]:
    recipe = tmp_path / "long.yaml"
    recipe.write_text(RECIPE.format(backbone=tiny_backbone, data=mirror, steps=600))
    found = Study(recipe, tmp_path / "store")
    yield found
    for file in found.store.glob("train/*.holder"):  # of a test that failed
        with contextlib.suppress(ProcessLookupError):
            os.kill(json.loads(file.read_text())["pid"], signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_a_signal_keeps_the_work_a_second_one_ends_it_and_no_worker_outlives_its_parent(study: Study) -> None:
    process, workers = study.run_until_it_trains()
    assert len(set(workers) - {process.pid}) == 2
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == RESUMABLE, said
    assert "2 interrupted, 3 not run" in said
    assert all(map(gone, workers))
    assert all(any(folder.iterdir()) for folder in study.store.glob("train/*.partial/progress"))

    process, workers = study.run_until_it_trains()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=PATIENCE)
    assert process.returncode in {128 + signal.SIGUSR1, 128 + signal.SIGINT}
    until(lambda: all(map(gone, workers)), "the end of the workers")

    process, workers = study.run_until_it_trains()
    process.kill()
    process.communicate()
    until(lambda: all(map(gone, workers)), "the end of the workers")

    process = study.begin()
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert re.search(r"^5 succeeded$", said, re.MULTILINE)
    assert not list(study.store.glob("*/*.holder"))
    manifests = [json.loads(path.read_text()) for path in study.store.glob("train/*/manifest.json")]
    assert sum("resumed_at" in manifest["record"] for manifest in manifests) == 2
