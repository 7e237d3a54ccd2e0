"""Robust training in recipes, plans and stages."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from silent_reporter import Silent
from typer.testing import CliRunner

import xadapt_configs
from xadapt.errors import UserError
from xadapt.study.executors import run_plan
from xadapt.study.plan import Plan, make_plan
from xadapt.study.recipe_file import make_recipe
from xadapt.study.store import Store
from xadapt_cli.app import app

SYNONYMS = Path(next(iter(xadapt_configs.__path__))) / "synonyms-demo.txt"
METHODS: dict[str, dict[str, Any]] = {
    "adversarial": {"method": "adversarial"},
    "random": {"method": "random"},
    "synonym": {"method": "synonym", "synonyms": str(SYNONYMS), "copies": 2},
}


def plan_of(backbone: Path, robust: dict[str, Any] | None, *, task: str = "xnli") -> Plan:
    values = {
        "backbone": str(backbone), "data": "embedded", "targets": [task], "languages": ["en"],
        "training": {"max_steps": 4, "per_device_train_batch_size": 8, "dtype": "float32", "learning_rate": 1e-3},
        "max_train_samples": 32, "max_eval_samples": 8, "max_predict_samples": 4,
        "tasks": {task: {"robust": robust}} if robust else {},
    }  # fmt: skip
    return make_plan(make_recipe(values, place="the test"), evaluate=False)


def losses(plan: Plan, folder: Path) -> list[float]:
    (outcome,) = run_plan(plan, Store(folder), Silent())
    if outcome.error:
        raise outcome.error
    assert outcome.result
    lines = (outcome.result.folder / "log.jsonl").read_text().splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


@pytest.mark.parametrize("method", METHODS)
def test_a_robust_training_is_another_one_and_repeats(method: str, tiny_backbone: Path, tmp_path: Path) -> None:
    plain = losses(plan_of(tiny_backbone, None), tmp_path / "plain")
    robust = losses(plan_of(tiny_backbone, METHODS[method]), tmp_path / "robust")
    assert robust != plain
    assert robust == losses(plan_of(tiny_backbone, METHODS[method]), tmp_path / "again")
    if method == "adversarial":
        assert robust[0] > plain[0], "the same rows, moved to where the loss is higher"


def test_a_ball_without_radius_is_the_plain_training(tiny_backbone: Path, tmp_path: Path) -> None:
    plain = losses(plan_of(tiny_backbone, None), tmp_path / "plain")
    for method in ("adversarial", "random"):
        none = losses(plan_of(tiny_backbone, {"method": method, "epsilon": 0.0}), tmp_path / method)
        assert none == pytest.approx(plain, abs=1e-6)


def test_what_a_method_reads_enters_the_key_and_nothing_else(tiny_backbone: Path, tmp_path: Path) -> None:
    def key(robust: dict[str, Any] | None) -> str:
        return plan_of(tiny_backbone, robust).stages[-1].key

    found = [key(None), *(key(robust) for robust in METHODS.values())]
    found += [key({"method": "adversarial", "epsilon": 0.2}), key({"method": "adversarial", "steps": 1})]
    assert len(set(found)) == len(found)
    copy = tmp_path / "elsewhere.txt"
    shutil.copy(SYNONYMS, copy)
    assert key(METHODS["synonym"] | {"synonyms": str(copy)}) == key(METHODS["synonym"]), "the content, not the path"
    copy.write_text(copy.read_text() + "zyx\tqua\n")
    assert key(METHODS["synonym"] | {"synonyms": str(copy)}) != key(METHODS["synonym"])


def test_synonyms_that_change_after_planning_stop_the_stage(tiny_backbone: Path, tmp_path: Path) -> None:
    copy = tmp_path / "synonyms.txt"
    shutil.copy(SYNONYMS, copy)
    plan = plan_of(tiny_backbone, METHODS["synonym"] | {"synonyms": str(copy)})
    copy.write_text(copy.read_text() + "zyx\tqua\n")
    with pytest.raises(UserError, match=r"synonyms\.txt has changed"):
        losses(plan, tmp_path / "store")


def test_other_formats_are_refused_when_planned(tiny_backbone: Path) -> None:
    with pytest.raises(UserError, match="udpos"):
        plan_of(tiny_backbone, METHODS["random"], task="udpos")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--robust", "adversrial"], "adversarial"),
        (["--robust-epsilon", "0.1"], "--robust"),
        (["--robust", "synonym"], "synonyms"),
        (["--robust", "random", "--robust-steps", "4"], "steps"),
        (["--robust", "synonym", "--synonyms", "no-such.txt"], "no-such.txt"),
        (["--train-on", "target"], "--composition fusion"),
        (["--mixing-cap", "9"], "--composition fusion"),
        (["--mlm-ratio", "0.1"], "intermediate tasks"),
    ],
)
def test_options_that_mean_nothing_are_named(
    options: list[str], named: str, tiny_backbone: Path, tmp_path: Path
) -> None:
    place = ["--backbone", str(tiny_backbone), "--data", "embedded", "--store", str(tmp_path / "store")]
    result = CliRunner().invoke(app, ["train-target", "--task", "xnli", *place, *options])
    assert isinstance(result.exception, UserError)
    assert named in str(result.exception)
    assert not (tmp_path / "store").exists()


def test_a_command_makes_a_whole_mixture_robust(tiny_backbone: Path, tmp_path: Path) -> None:
    place = ["--backbone", str(tiny_backbone), "--data", "embedded", "--store", str(tmp_path), "--max-steps", "1"]
    few = ["--max-train-samples", "8", "--max-eval-samples", "4", "--robust", "random"]
    command = ["train-intermediate", "--task", "mnli,qqp", "--composition", "multitask", *place, *few]
    assert CliRunner().invoke(app, command).exit_code == 0
    (manifest,) = (json.loads(path.read_text()) for path in (tmp_path / "train").glob("*/manifest.json"))
    assert manifest["spec"]["training"]["robust"]["method"] == "random"
