"""One training in two processes is that of one: shares of the rows, one gradient, one stop, one going on."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from ranks_program import KINDS, train
from safetensors.torch import load_file
from silent_reporter import Silent
from test_training import without_dropout

from xadapt.models.backbone import Backbone
from xadapt.study.executors import run_plan
from xadapt.study.plan import make_plan
from xadapt.study.recipe_file import make_recipe
from xadapt.study.store import Store


@pytest.fixture(scope="module")
def still_folder(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without dropout, whose draws differ between processes."""
    return without_dropout(tiny_backbone, tmp_path_factory.mktemp("ranks") / "xlm-r")


@pytest.fixture(scope="module")
def in_two(still_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two processes wrote to, started as `accelerate launch` starts them, on CPUs."""
    root = tmp_path_factory.mktemp("two")
    program = Path(__file__).with_name("ranks_program.py")
    ended = in_processes([str(program), str(root), str(still_folder)])
    assert ended.returncode == 0, ended.stderr[-4000:]
    return root


def in_processes(command: list[str], count: int = 2) -> subprocess.CompletedProcess[str]:
    """Run a Python program in several processes that know each other, by what `accelerate launch` calls for GPUs."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(
        [*launch, *command], cwd=Path(__file__).parent, env=env, capture_output=True, text=True, check=False
    )


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_as_one(kind: str, in_two: Path, still_folder: Path, tmp_path: Path) -> None:
    train(tmp_path / "one", Backbone(str(still_folder)), kind)
    one, two = read(tmp_path / "one"), read(in_two / kind)
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
    assert {name: two[name] for name in ("best", "examples", "tokens")} == {name: one[name] for name in ("best", "examples", "tokens")}  # fmt: skip


@pytest.mark.slow
def test_a_stop_of_one_stops_both_and_they_go_on_to_the_same_bytes(in_two: Path) -> None:
    straight, stopped = read(in_two / "full tagging"), read(in_two / "stopped")
    assert stopped["resumed"] == [3]
    assert stopped["losses"] == straight["losses"]
    first, second = (load_file(in_two / name / "state.safetensors") for name in ("full tagging", "stopped"))
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)


@pytest.mark.slow
def test_a_study_in_two_processes_scores_as_in_one(still_folder: Path, tmp_path: Path) -> None:
    """The whole command: a training of two processes, then evaluations of the main one; and found again by one."""
    recipe = tmp_path / "study.json"
    values = {
        "name": "study", "backbone": str(still_folder), "data": "embedded", "targets": ["xnli"], "languages": ["en", "de"],
        "regimes": {"adapter": {"compositions": ["none"], "reduction_factor": 4}}, "max_train_samples": 48,
        "max_eval_samples": 16, "max_predict_samples": 16,
        "training": {"max_steps": 6, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "dtype": "float32"},
    }  # fmt: skip
    recipe.write_text(json.dumps(values))
    xadapt = [str(Path(sys.executable).with_name("xadapt")), "run", str(recipe)]
    one = subprocess.run([*xadapt, "--store", str(tmp_path / "one")], capture_output=True, text=True, check=False)
    assert one.returncode == 0, one.stderr
    two = in_processes([*xadapt, "--store", str(tmp_path / "two")])
    assert two.returncode == 0, two.stderr[-4000:]
    assert two.stderr.count("2 succeeded") == 1
    losses = [
        [json.loads(line).get("loss") for line in next((tmp_path / store).glob("train/*/log.jsonl")).read_text().splitlines()]
        for store in ("one", "two")
    ]  # fmt: skip
    assert len(losses[0]) == len(losses[1]) == 7
    for first, second in zip(*losses, strict=True):
        assert first == (second if second is None else pytest.approx(second, abs=1e-5))
    again = subprocess.run([*xadapt, "--store", str(tmp_path / "two")], capture_output=True, text=True, check=False)
    assert "2 cached" in again.stderr


FAILING = """
import os
from xadapt.errors import UserError
from xadapt.study import train_stage
from xadapt_cli.app import main

def refuse(*_, **__):
    raise UserError("no room on this machine")

if os.environ["RANK"] == "0":
    train_stage.require_space = refuse
main()
"""


@pytest.mark.slow
def test_an_error_of_the_main_process_ends_all(still_folder: Path, tmp_path: Path) -> None:
    """The others are on their way to a gradient that will never be added up."""
    program = tmp_path / "failing.py"
    program.write_text(FAILING)
    words = ["--task", "mnli", "--backbone", str(still_folder), "--data", "embedded", "--max-steps", "3", "--max-train-samples", "16"]  # fmt: skip
    ended = in_processes([str(program), "train-intermediate", *words, "--store", str(tmp_path / "store")])
    assert ended.returncode != 0
    assert "no room on this machine" in ended.stderr
    assert not list((tmp_path / "store").glob("train/*/manifest.json"))


def test_nothing_is_wrapped_for_what_the_main_process_evaluates_alone(
    still_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are several GPUs, accelerate wraps a model that is prepared for training, which all of them must do."""
    monkeypatch.setattr(Accelerator, "multi_device", property(lambda _: True))
    values = {
        "backbone": str(still_folder), "data": "embedded", "targets": ["xnli", "tatoeba"], "languages": ["de"],
        "regimes": {"adapter": {"compositions": ["none"]}}, "max_train_samples": 8, "max_eval_samples": 8,
        "max_predict_samples": 8, "training": {"max_steps": 1, "per_device_train_batch_size": 8, "dtype": "float32"},
    }  # fmt: skip
    outcomes = run_plan(make_plan(make_recipe(values, place="the test")), Store(tmp_path), Silent())
    assert [outcome.error for outcome in outcomes] == [None] * 3
