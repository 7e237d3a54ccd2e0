"""Stages that are stopped: nothing that ended is lost or made twice, and the end is that of a run nobody stopped."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from safetensors import safe_open
from silent_reporter import Silent
from test_executor import Make, make  # noqa: F401 - make is a fixture

from xadapt.evaluation.zero_shot import evaluate_languages
from xadapt.interruption import resumable
from xadapt.study.execution import Execution
from xadapt.study.executors import Outcome, run_plan
from xadapt.study.plan import make_plan
from xadapt.study.recipe import Recipe
from xadapt.study.stage import Stage
from xadapt.study.store import PROGRESS, Store
from xadapt.training.checkpoint import Checkpoints
from xadapt.training.result import Monitor
from xadapt.training.settings import SaveEvery

RESUMABLE = 75
LORA = {"lora": {"compositions": ["none"], "r": 4, "training": {"learning_rate": 1e-2}}}


class Stopper(Silent):
    """Asks this process to stop at the n-th thing it is told of: a step of a training, or predicted rows."""

    def __init__(self, at: int, signal: int = signal.SIGTERM) -> None:
        self.left, self.signal = at, signal
        self.told: list[str] = []

    def tell(self, what: str) -> None:
        self.told.append(what)
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.signal)

    def monitors(self, stage: Stage) -> list[Monitor]:
        return [_Steps(self, stage)]

    def evaluated(self, stage: Stage, total: int) -> Callable[[int], None]:
        return lambda rows: self.tell(f"{rows} rows of {stage.label}")


class _Steps:
    def __init__(self, stopper: Stopper, stage: Stage) -> None:
        self.stopper, self.stage = stopper, stage

    def step(self, step: int, total: int, values: dict[str, Any]) -> None:
        self.stopper.tell(f"step {step} of {self.stage.label}")

    def selection(self, step: int, epoch: float, metrics: dict[str, float], best: bool) -> None: ...


def run(recipe: Recipe, store: Store, reporter: Silent, **execution: Any) -> list[Outcome]:
    with resumable():
        return run_plan(make_plan(recipe), store, reporter, execution=Execution(**execution))


def outputs(store: Store) -> dict[str, str]:
    """What results are, by place: the hashes of parameters, of predictions and of scores."""
    found = {}
    for path in sorted(store.root.rglob("*")):
        if path.suffix == ".safetensors":
            found[str(path.relative_to(store.root))] = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.name == "scores.json":
            found[str(path.relative_to(store.root))] = path.read_text()
        if path.name == "predictions.parquet":
            rows = pq.read_table(path).drop_columns("score").to_pylist()
            found[str(path.relative_to(store.root))] = json.dumps(rows)
    return found


def left_behind(store: Store) -> list[Path]:
    return [path for path in store.root.rglob("*") if path.suffix in (".partial", ".holder") or path.name == PROGRESS]


def test_a_study_stopped_at_every_turn_ends_as_one_that_was_not(make: Make, tmp_path: Path) -> None:  # noqa: F811
    """A training of three steps, and an evaluation, each begun anew until nothing stops it."""
    recipe = make(targets=["udpos"], intermediate=[], regimes=LORA)
    straight, counted = Store(tmp_path / "straight"), Stopper(0)
    run(recipe, straight, counted)
    stopped, told = Store(tmp_path / "stopped"), list[str]()
    for attempt in range(2 * len(counted.told)):
        reporter = Stopper(1 if attempt < 4 else attempt)  # an evaluation keeps whole languages
        outcomes = run(recipe, stopped, reporter)
        told += reporter.told
        statuses = [outcome.status for outcome in outcomes]
        if all(outcome.ok for outcome in outcomes):
            break
        assert "failed" not in statuses
        assert statuses.count("interrupted") <= 1
    else:
        pytest.fail("it never ended")
    assert outputs(stopped) == outputs(straight)
    assert left_behind(stopped) == []
    steps = [what for what in told if what.startswith("step")]
    assert len(steps) == len(set(steps)) == 3, "no step is taken twice"
    train, evaluate = (outcome.result for outcome in outcomes)
    assert train
    assert train.record["resumed_at"] == [1, 2, 3], "the last before its dev score is taken"
    assert evaluate


def test_finished_languages_are_not_predicted_again(
    make: Make,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped behind the first language; then that language's file is damaged, too."""
    # a block that a language fills, as the languages of real data do
    monkeypatch.setitem(evaluate_languages.__kwdefaults__, "block", 12)
    recipe = make(targets=["tatoeba"], intermediate=[], regimes=LORA, languages=["de", "sw"])
    straight = Store(tmp_path / "straight")
    counted = Stopper(0)
    run(recipe, straight, counted)
    of_one = rows(counted) // 2
    behind_one = next(at for at in range(1, 9) if rows(counted, at) == of_one)
    for damaged in (False, True):
        store = Store(tmp_path / f"damaged-{damaged}")
        reporter = Stopper(behind_one)
        (outcome,) = run(recipe, store, reporter)
        assert outcome.status == "interrupted"
        (kept,) = store.root.rglob("languages/*.parquet")
        assert kept.name == "de.parquet"
        if damaged:
            kept.write_bytes(kept.read_bytes()[:-1])
        again = Stopper(0)
        (outcome,) = run(recipe, store, again)
        assert outcome.result
        assert rows(again) == of_one * (2 if damaged else 1)
        assert outcome.result.record.get("resumed_after", []) == ([] if damaged else ["de"])
        assert outputs(store) == outputs(straight)
        assert left_behind(store) == []


def rows(stopper: Stopper, batches: int | None = None) -> int:
    """The rows that were told of, in the first batches or in all."""
    return sum(int(told.split()[0]) for told in stopper.told[:batches])


@pytest.mark.parametrize("at", [4, *(pytest.param(at, marks=pytest.mark.slow) for at in (1, 2, 7))])
def test_trainings_side_by_side_go_on_together(at: int, make: Make, tmp_path: Path) -> None:  # noqa: F811
    recipe = make(targets=[], intermediate=["mnli", "hellaswag"], data="embedded", regimes=LORA, max_eval_samples=8)
    straight, store = Store(tmp_path / "straight"), Store(tmp_path / "stopped")
    run(recipe, straight, Stopper(0), together=True)
    outcomes = run(recipe, store, Stopper(at), together=True)
    assert {outcome.status for outcome in outcomes} <= {"interrupted", "succeeded"}
    outcomes = run(recipe, store, Stopper(0), together=True)
    assert all(outcome.ok for outcome in outcomes)
    assert outputs(store) == outputs(straight)
    assert left_behind(store) == []


@pytest.mark.slow
def test_checkpoints_of_different_steps_begin_at_the_last_that_all_have(make: Make, tmp_path: Path) -> None:  # noqa: F811
    """As after a kill between the checkpoints of two trainings that go side by side."""
    recipe = make(targets=[], intermediate=["mnli", "hellaswag"], data="embedded", regimes=LORA, max_eval_samples=8)
    straight, store = Store(tmp_path / "straight"), Store(tmp_path / "stopped")
    run(recipe, straight, Stopper(0), together=True)
    run(recipe, store, Stopper(4), together=True, save_every=SaveEvery(steps=1))
    folders = [store.folder(stage).with_suffix(".partial") / PROGRESS for stage in make_plan(recipe).stages]
    checkpoints = [Checkpoints(folder, SaveEvery()) for folder in folders]
    assert [each.steps() for each in checkpoints] == [[2, 1], [2, 1]]
    next(folders[0].glob("step-2/*.safetensors")).unlink()
    outcomes = run(recipe, store, Stopper(0), together=True)
    assert [outcome.result and outcome.result.record["resumed_at"] for outcome in outcomes] == [[1], [1]]
    assert outputs(store) == outputs(straight)


def test_a_training_that_diverges_keeps_its_checkpoint(make: Make, tmp_path: Path) -> None:  # noqa: F811
    """In bfloat16; from there it goes on in float32 where it is told to, and says so."""
    training = {"max_steps": 4, "per_device_train_batch_size": 8, "dtype": "bfloat16"}
    recipe = make(targets=[], regimes=LORA, training=training)
    (stage,) = make_plan(recipe).stages
    store = Store(tmp_path)
    (outcome,) = run(recipe, store, Poisoned(), save_every=SaveEvery(steps=1))
    assert outcome.status == "failed"
    assert "nan" in str(outcome.error)
    progress = store.folder(stage).with_suffix(".partial") / PROGRESS
    assert Checkpoints(progress, SaveEvery()).steps() == [2, 1]
    (outcome,) = run(recipe, store, Poisoned(), save_every=SaveEvery(steps=1), retry_in_fp32=True)
    assert outcome.status == "failed", "poisoned each time"
    poison = Poisoned(times=1)
    (outcome,) = run(recipe, store, poison, save_every=SaveEvery(steps=1), retry_in_fp32=True)
    assert outcome.result, outcome.error
    assert outcome.result.record["retried_in_fp32"]
    assert outcome.result.record["dtype"] == "float32"
    assert outcome.result.manifest["spec"]["training"]["dtype"] == "bfloat16"


def test_a_training_that_diverges_beside_another_goes_on_alone_in_float32(make: Make, tmp_path: Path) -> None:  # noqa: F811
    training = {"max_steps": 4, "per_device_train_batch_size": 8, "dtype": "bfloat16"}
    recipe = make(targets=[], intermediate=["mnli", "hellaswag"], data="embedded", regimes=LORA, training=training)
    # it diverges again alone, from the checkpoint before, as what is no accident does
    outcomes = run(recipe, Store(tmp_path), Poisoned(times=2, only="mnli"), save_every=SaveEvery(steps=1), together=True, retry_in_fp32=True)  # fmt: skip
    records = [outcome.result.record for outcome in outcomes if outcome.result]
    assert sorted(record["dtype"] for record in records) == ["bfloat16", "float32"]
    assert {record["dtype"]: record.get("resumed_at") for record in records} == {"bfloat16": None, "float32": [2]}


def test_a_training_that_diverges_at_a_checkpoint_spares_the_one_beside_it(make: Make, tmp_path: Path) -> None:  # noqa: F811
    recipe = make(targets=[], intermediate=["mnli", "hellaswag"], data="embedded", regimes=LORA, max_eval_samples=8)
    outcomes = run(recipe, Store(tmp_path), Poisoned(only="mnli"), save_every=SaveEvery(steps=1), together=True)
    assert sorted(outcome.status for outcome in outcomes) == ["failed", "succeeded"]


def test_a_log_that_one_of_several_lost_lets_all_begin_again(make: Make, tmp_path: Path) -> None:  # noqa: F811
    recipe = make(targets=[], intermediate=["mnli", "hellaswag"], data="embedded", regimes=LORA, max_eval_samples=8)
    straight, store = Store(tmp_path / "straight"), Store(tmp_path / "stopped")
    run(recipe, straight, Stopper(0), together=True)
    run(recipe, store, Stopper(4), together=True)
    first, second = make_plan(recipe).stages
    (store.folder(second).with_suffix(".partial") / PROGRESS / "log.jsonl").write_text("")
    outcomes = run(recipe, store, Stopper(0), together=True)
    assert all(outcome.ok for outcome in outcomes)
    assert outputs(store) == outputs(straight)
    texts = [(of.folder(first) / "log.jsonl").read_text() for of in (store, straight)]
    logs = [[json.loads(line)["step"] for line in text.splitlines()] for text in texts]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("at", ["xadapt.study.train_stage.write_check", "xadapt.study.store.checksum"])
def test_an_end_while_the_artefact_is_written_costs_the_steps_since_the_checkpoint(
    at: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    recipe = make(targets=[], regimes=LORA, training={"max_steps": 4, "per_device_train_batch_size": 8})
    straight, store = Store(tmp_path / "straight"), Store(tmp_path / "stopped")
    run(recipe, straight, Silent())

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(at, fail)
        (outcome,) = run(recipe, store, Silent(), save_every=SaveEvery(steps=1))
        assert outcome.status == "failed"
    (outcome,) = run(recipe, store, Silent())
    assert outcome.result
    assert outcome.result.record["resumed_at"] == [3]
    assert outputs(store) == outputs(straight)
    assert left_behind(store) == []


class Poisoned(Silent):
    """Plants a NaN into the parameters at step 3, so many times, of the trainings with a word in their label."""

    def __init__(self, times: int = 99, only: str = "") -> None:
        self.times, self.only = times, only

    def monitors(self, stage: Stage) -> list[Monitor]:
        return [_Poison(self)] if self.only in stage.label else []


class _Poison:
    def __init__(self, of: Poisoned) -> None:
        self.of = of

    def step(self, step: int, total: int, values: dict[str, Any]) -> None:
        import gc

        from xadapt.training.loop import Training

        if step == 3 and self.of.times:
            self.of.times -= 1
            (training,) = (found for found in gc.get_objects() if type(found) is Training and self in found.monitors)
            training.trainable[0][1].data.fill_(float("nan"))

    def selection(self, step: int, epoch: float, metrics: dict[str, float], best: bool) -> None: ...


def test_no_room_is_said_before_the_first_step(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    reporter = Stopper(0)
    (outcome,) = run(make(targets=[], regimes=LORA), Store(tmp_path), reporter)
    assert outcome.status == "failed"
    assert "1,000 bytes free" in str(outcome.error)
    assert str(tmp_path) in str(outcome.error)
    assert reporter.told == []
    assert list(tmp_path.rglob("*.partial")) == []


def test_room_that_checkpoints_have_already_is_not_asked_for_again(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    asked: list[int] = []
    monkeypatch.setattr("xadapt.study.train_stage.require_space", lambda _, needed, **__: asked.append(needed))
    recipe = make(targets=[], regimes=LORA)
    run(recipe, Store(tmp_path), Stopper(3), save_every=SaveEvery(steps=1))
    run(recipe, Store(tmp_path), Silent())
    first, again = asked
    assert again < first


# other processes


def command(recipe: Path, store: Path, *more: str) -> list[str]:
    program = str(Path(sys.executable).with_name("xadapt"))
    return [program, "run", str(recipe), "--store", str(store), *more]


def scores(store: Path) -> str:
    return hashlib.sha256((store / "reports" / "study" / "scores.csv").read_bytes()).hexdigest()


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    """Read what a process says until a text comes; all of it."""
    assert process.stderr
    seen = ""
    while text not in seen:
        line = process.stderr.readline()
        assert line, f"{text} never came:\n{seen}"
        seen += line
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGKILL])
def test_a_command_that_is_stopped_and_given_again(
    number: int, mirror: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "study.yaml"
    values = {
        "name": "study", "backbone": str(tiny_backbone), "data": str(mirror), "targets": ["xnli", "tatoeba"],
        "regimes": {"full": {"compositions": ["none"]}}, "languages": ["en", "de"], "max_train_samples": 40,
        "training": {"max_steps": 60, "per_device_train_batch_size": 4, "dtype": "float32"},
    }  # fmt: skip
    recipe.write_text(json.dumps(values))
    every = ("--save-every", "5")
    stopped = subprocess.Popen(command(recipe, tmp_path / "stopped", *every), stderr=subprocess.PIPE, text=True)
    wait_for(stopped, "[1/3] train")
    while not list((tmp_path / "stopped").rglob("step-*/checkpoint.json")):
        with pytest.raises(subprocess.TimeoutExpired):  # or it has ended, without a checkpoint
            stopped.wait(timeout=0.05)
    stopped.send_signal(number)
    _, said = stopped.communicate()
    assert stopped.returncode == (-signal.SIGKILL if number == signal.SIGKILL else RESUMABLE), said
    assert "Traceback" not in said
    assert list((tmp_path / "stopped").rglob("step-*/checkpoint.json"))
    for store in ("stopped", "straight"):
        ended = subprocess.run(command(recipe, tmp_path / store, *every), capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
    assert scores(tmp_path / "stopped") == scores(tmp_path / "straight")
    weights = [sorted((tmp_path / store).glob("train/*/model.safetensors")) for store in ("stopped", "straight")]
    (first,), (second,) = weights
    assert equal_tensors(first, second)


def equal_tensors(first: Path, second: Path) -> bool:
    with safe_open(first, "pt") as a, safe_open(second, "pt") as b:
        names: Sequence[str] = sorted(a.keys())
        return names == sorted(b.keys()) and all(a.get_tensor(n).equal(b.get_tensor(n)) for n in names)
