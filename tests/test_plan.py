"""The plan: which stages a recipe becomes, which cells share them, and what their keys depend on.

The golden plan is regenerated, after a deliberate change of what a stage is (raise its STAGE_VERSIONS where the
same spec now gives other numbers), by `python tests/test_plan.py` in the repository's root.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from xadapt.errors import UserError
from xadapt.metrics import METRICS
from xadapt.study.plan import Plan, make_plan
from xadapt.study.recipe_file import load_recipe, make_recipe
from xadapt.study.stage import Stage, canonical_json
from xadapt.study.store import Store
from xadapt.tasks import TASKS
from xadapt.training.settings import TrainingSettings

GOLDEN = Path(__file__).parent / "golden" / "plan_demo.json"
OTHER_NUMBERS: dict[str, Any] = {
    "learning_rate": 2e-4, "num_train_epochs": 4, "max_steps": 7, "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2, "warmup_ratio": 0.2, "weight_decay": 0.01, "adam_epsilon": 1e-6,
    "max_grad_norm": 0.5, "max_seq_length": 64, "eval_steps": 3, "dtype": "bfloat16",
}  # fmt: skip
Base = dict[str, Any]
assert set(OTHER_NUMBERS) | {"robust"} == set(TrainingSettings.model_fields)  # which test_robust_study.py has


def golden_plan() -> dict[str, object]:
    """The demo in float32, since `auto` depends on the machine."""
    plan = make_plan(load_recipe("demo", overrides=["training.dtype=float32"]))
    cells = [
        {
            "cell": " ".join(filter(None, (cell.target, cell.regime, cell.composition, cell.intermediate))),
            "seed": cell.seed,
            "repeats": cell.repeats,
            "evaluation": cell.evaluation.label,
        }
        for cell in plan.cells
    ]
    stages = [
        {"kind": stage.kind, "label": stage.label, "needs": [need.label for need in stage.needs], "key": stage.key}
        for stage in plan.stages
    ]
    return {"stages": stages, "cells": cells, "notes": list(plan.notes)}


@pytest.fixture
def base(mirror: Path, tiny_backbone: Path) -> Base:
    """A recipe with every target, regime and composition."""
    return {
        "backbone": str(tiny_backbone),
        "data": str(mirror),
        "intermediate": ["mnli"],
        "targets": ["xnli", "udpos", "tatoeba"],
        "languages": ["en", "de"],
        "regimes": {
            "full": {"compositions": ["none", "continue"]},
            "adapter": {"compositions": ["none", "continue", "stack"]},
        },
        "training": {"dtype": "float32", "max_seq_length": 128},
    }


def plan_of(base: Base, **changes: Any) -> Plan:
    return make_plan(make_recipe({**base, **changes}, place="the test"))


def keys(plan: Plan) -> dict[str, str]:
    """Keys by label, the number of languages left out."""
    return {re.sub(r" on \d+ languages", "", stage.label): stage.key for stage in plan.stages}


def changed(before: Plan, after: Plan) -> set[str]:
    """Labels of the stages whose keys are others."""
    old, new = keys(before), keys(after)
    assert old.keys() == new.keys()
    return {label for label in old if old[label] != new[label]}


def test_the_demo_is_the_golden_plan() -> None:
    assert golden_plan() == json.loads(GOLDEN.read_text("utf-8"))


def test_stages_come_after_what_they_need_and_each_once(base: Base) -> None:
    plan = plan_of(base)
    seen: list[str] = []
    for stage in plan.stages:
        assert all(need.key in seen for need in stage.needs)
        seen.append(stage.key)
    assert len(set(seen)) == len(seen) == len(keys(plan))


def evaluation(plan: Plan, target: str, regime: str, composition: str) -> Stage:
    found = [c for c in plan.cells if (c.target, c.regime, c.composition) == (target, regime, composition)]
    assert len(found) == 1
    return found[0].evaluation


def test_retrieval_from_the_backbone_itself_is_one_stage_for_all_regimes(base: Base) -> None:
    plan = plan_of(base)
    plain = evaluation(plan, "tatoeba", "full", "none")
    assert plain.key == evaluation(plan, "tatoeba", "adapter", "none").key
    assert plain.needs == ()


def test_continue_and_stack_share_the_retrieval_with_the_intermediate_adapter(base: Base) -> None:
    plan = plan_of(base)
    continued = evaluation(plan, "tatoeba", "adapter", "continue")
    assert continued.key == evaluation(plan, "tatoeba", "adapter", "stack").key
    assert [need.label for need in continued.needs] == ["train mnli, adapter"]
    assert evaluation(plan, "udpos", "adapter", "continue").key != evaluation(plan, "udpos", "adapter", "stack").key


def test_mnli_behind_xnli_repeats_none_and_trains_nothing(base: Base) -> None:
    plan = plan_of(base, targets=["xnli"])
    assert {(c.regime, c.composition) for c in plan.cells if c.repeats} == {
        ("full", "continue"), ("adapter", "continue"), ("adapter", "stack"),
    }  # fmt: skip
    for cell in plan.cells:
        assert cell.evaluation.key == evaluation(plan, "xnli", cell.regime, "none").key
    assert [stage.label for stage in plan.stages if stage.kind == "train"] == [
        "train xnli, full",
        "train xnli, adapter",
    ]
    assert len(plan.notes) == 3
    assert all("mnli is xnli's own training data" in note for note in plan.notes)


def test_without_evaluation_the_models_are_left(base: Base) -> None:
    recipe = make_recipe(base, place="the test")
    whole, models = make_plan(recipe), make_plan(recipe, evaluate=False)
    assert {s.key for s in models.stages} == {s.key for s in whole.stages if s.kind == "train"}
    assert models.cells == ()
    alone = plan_of(base, targets=[], regimes={"adapter": {}})
    assert [stage.label for stage in alone.stages] == ["train mnli, adapter"]
    assert alone.stages[0].key in {stage.key for stage in whole.stages}


def test_a_recipe_without_any_task_is_refused() -> None:
    with pytest.raises(UserError, match="`targets` nor `intermediate`"):
        make_plan(make_recipe({"backbone": "embedded", "data": "embedded"}, place="the test"))


def trained(label: str) -> bool:
    return "the backbone itself" not in label


CHANGES: dict[str, tuple[Mapping[str, Any], Callable[[str], bool]]] = {
    "seed": ({"seed": 1}, trained),
    "max_train_samples": ({"max_train_samples": 30}, trained),
    "max_eval_samples": ({"max_eval_samples": 5}, trained),
    "max_predict_samples": ({"max_predict_samples": 5}, lambda label: label.startswith("evaluate")),
    "retrieval_layer": ({"retrieval_layer": 1}, lambda label: "evaluate tatoeba" in label),
    "languages": ({"languages": ["de"]}, lambda label: label.startswith(("evaluate xnli", "evaluate udpos"))),
    "one task's number": ({"tasks": {"udpos": {"max_steps": 3}}}, lambda label: "udpos" in label),
    "the intermediate's number": ({"tasks": {"mnli": {"max_steps": 3}}}, lambda label: "mnli" in label),
}


@pytest.mark.parametrize("name", CHANGES)
def test_keys_change_with_what_a_result_depends_on_and_only_there(base: Base, name: str) -> None:
    changes, affected = CHANGES[name]
    before = plan_of(base)
    assert changed(before, plan_of(base, **changes)) == {label for label in keys(before) if affected(label)}


@pytest.mark.parametrize("number", OTHER_NUMBERS)
def test_keys_change_with_every_training_number(base: Base, number: str) -> None:
    training = {**base["training"], number: OTHER_NUMBERS[number]}
    before = plan_of(base)
    affected = {label for label in keys(before) if trained(label) or number == "dtype"}
    assert changed(before, plan_of(base, training=training)) == affected


@pytest.mark.parametrize("field", [{"reduction_factor": 8}, {"config": "double_seq_bn"}, {"non_linearity": "gelu"}])
def test_keys_change_with_the_adapters_shape(base: Base, field: dict[str, Any]) -> None:
    regimes = {**base["regimes"], "adapter": {**base["regimes"]["adapter"], **field}}
    before = plan_of(base)
    assert changed(before, plan_of(base, regimes=regimes)) == {label for label in keys(before) if "adapter" in label}


def test_keys_change_with_one_row(base: Base, mirror: Path, tmp_path: Path) -> None:
    before = plan_of(base)
    for split, affected in (
        ("xnli/de/test", lambda label: label.startswith("evaluate xnli")),
        ("xnli/en/validation", lambda label: ": xnli" in label or label.startswith("train xnli")),
        ("mnli/train", lambda label: "mnli" in label or "xnli" in label),
    ):
        other = tmp_path / split.replace("/", "-")
        shutil.copytree(mirror, other)
        table = pq.read_table(other / f"{split}.parquet")
        rows = table.to_pylist()
        rows[-1]["premise"] += "!"
        pq.write_table(type(table).from_pylist(rows, schema=table.schema), other / f"{split}.parquet")
        found = changed(before, plan_of(base, data=str(other)))
        assert found == {label for label in keys(before) if affected(label)}, split


def test_keys_change_with_one_byte_of_weights_or_tokenizer(base: Base, tiny_backbone: Path, tmp_path: Path) -> None:
    before = plan_of(base)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        other = tmp_path / name
        shutil.copytree(tiny_backbone, other)
        content = bytearray((other / name).read_bytes())
        at = -1 if name == "model.safetensors" else content.index(b" ")  # a space of JSON into a tab
        content[at] ^= 0x29
        (other / name).write_bytes(content)
        assert changed(before, plan_of(base, backbone=str(other))) == set(keys(before))


def test_keys_change_with_versions_of_tasks_and_metrics(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan_of(base)
    with monkeypatch.context() as patch:
        patch.setitem(METRICS, ("tagging", "f1"), replace(METRICS["tagging", "f1"], version=2))
        assert changed(before, plan_of(base)) == {label for label in keys(before) if label.startswith("evaluate udpos")}
    with monkeypatch.context() as patch:
        patch.setitem(TASKS, "udpos", TASKS["udpos"].model_copy(update={"version": 2}))
        assert changed(before, plan_of(base)) == {label for label in keys(before) if "udpos" in label}
    assert changed(before, plan_of(base)) == set()


def test_keys_do_not_change_with_names_order_or_places(base: Base, tmp_path: Path) -> None:
    before = plan_of(base)
    assert changed(before, plan_of(base, name="other", description="said otherwise", languages=["de", "en"])) == set()
    moved = {name: shutil.copytree(base[name], tmp_path / "moved" / name) for name in ("data", "backbone")}
    turned = {key: (str(moved[key]) if key in moved else base[key]) for key in reversed(base)}
    turned["regimes"] = {name: base["regimes"][name] for name in reversed(base["regimes"])}
    (tmp_path / "turned.yaml").write_text(yaml.safe_dump(turned, sort_keys=False))
    assert changed(before, make_plan(load_recipe(tmp_path / "turned.yaml"))) == set()
    for stage in before.stages:
        places = {Store(root).folder(stage).relative_to(root) for root in (tmp_path / "a", tmp_path / "b")}
        assert places == {Path(stage.kind, stage.key[:16])}


def test_numbers_written_otherwise_are_the_same_numbers(base: Base) -> None:
    same = {**base["training"], "learning_rate": "1e-4", "num_train_epochs": 3, "warmup_ratio": 0.10}
    training = {**base["training"], "learning_rate": 0.0001, "num_train_epochs": 3.0, "warmup_ratio": "0.1"}
    assert changed(plan_of(base, training=same), plan_of(base, training=training)) == set()


@pytest.mark.parametrize(
    "value", [{1, 2}, object(), Path("x"), b"x", float("nan"), float("inf"), {1: 2}, {None: 1}, {"a": [{"b": {1}}]}]
)
def test_canonical_json_refuses_what_has_no_stable_form(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        canonical_json({"value": value})


def test_canonical_json_is_one_text_a_value() -> None:
    assert canonical_json({"b": (1, 2.0, None), "a": {"é": True}}) == '{"a":{"\\u00e9":true},"b":[1,2.0,null]}'
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})


def test_planning_is_quick() -> None:
    """200 plans in five seconds of processor time, judged by the fastest of five samples, since other programs disturb."""
    recipe = load_recipe("demo")
    seconds = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(20):
            make_plan(recipe)
        seconds.append(time.process_time() - start)
    assert 200 / 20 * min(seconds) < 5.0


def test_planning_imports_no_torch(base: Base) -> None:
    program = (
        "import json, sys\n"
        "from xadapt.study.collect import study_of\n"
        "from xadapt.study.plan import make_plan\n"
        "from xadapt.study.recipe_file import make_recipe\n"
        "from xadapt.study.store import Store\n"
        "recipe = make_recipe(json.loads(sys.argv[1]), place='the test')\n"
        "plan = make_plan(recipe)\n"
        "study_of(recipe, plan)\n"
        "assert [Store('nowhere').find(stage) for stage in plan.stages] == [None] * len(plan.stages)\n"
        "print([stage.key for stage in plan.stages] and sorted(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, json.dumps(base)], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "adapters", "accelerate", "datasets"} & set(
        re.findall(r"'(\w+)'", done.stdout)
    )


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden_plan(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
