"""What a plan expects of time and examples, against finished stages of known speed, and how fast large plans are made.

Stages are finished here by writing records of their kind into a real store.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import xadapt_configs
from xadapt.data.sources import EmbeddedSource
from xadapt.models import identity
from xadapt.study import looked_up
from xadapt.study.estimate import Estimate, Timings, finished_stages
from xadapt.study.plan import Plan, make_plan
from xadapt.study.recipe import Recipe
from xadapt.study.recipe_file import make_recipe
from xadapt.study.stage import Stage
from xadapt.study.store import Result, Store
from xadapt_cli.app import app
from xadapt_cli.plan import plan_record

SYNONYMS = Path(next(iter(xadapt_configs.__path__))) / "synonyms-demo.txt"
BASE: dict[str, Any] = {
    "backbone": "embedded", "data": "embedded", "intermediate": ["mnli", "squad"], "targets": ["xnli", "tatoeba"],
    "languages": ["en", "de", "hi"], "regimes": {"adapter": {"compositions": ["none", "stack"]}},
    "training": {"dtype": "float32", "num_train_epochs": 2}, "max_train_samples": 40, "max_predict_samples": 6,
}  # fmt: skip


def recipe(**changes: Any) -> Recipe:
    return make_recipe({**BASE, **changes}, place="the test")


def examples(label: str, **changes: Any) -> int | None:
    (found,) = (stage.examples for stage in make_plan(recipe(**changes)).stages if stage.label == label)
    return found


def result(stage: Stage, record: dict[str, Any], whole: float, **provenance: Any) -> Result:
    """A finished stage that took `whole` seconds from beginning to end."""
    manifest = {
        "kind": stage.kind, "spec": json.loads(json.dumps(stage.spec)), "record": record,
        "provenance": {"seconds": whole, **provenance},
    }  # fmt: skip
    return Result(Path(), manifest, cached=True)


def stage_of(label: str, **changes: Any) -> Stage:
    return next(stage for stage in make_plan(recipe(**changes)).stages if stage.label == label)


def train(rate: float, *, fixed: float = 0.0, label: str = "train mnli, adapter", **changes: Any) -> Result:
    record = {"seconds": 10.0, "examples_per_second": rate}
    return result(stage_of(label, **changes), record, 10.0 + fixed)


def test_copies_with_synonyms_and_masked_language_modelling_count() -> None:
    assert examples("train mnli, adapter") == 80
    robust = {"method": "synonym", "synonyms": str(SYNONYMS), "copies": 3}
    assert examples("train mnli, adapter", tasks={"mnli": {"robust": robust}}) == 240
    assert examples("train xnli, adapter", tasks={"mnli": {"robust": robust}}) == 80
    assert examples("train mnli with mlm, adapter", mixture={"mlm_ratio": 0.2}) == 100
    steps = {"max_steps": 5, "per_device_train_batch_size": 4}
    assert examples("train mnli with mlm, adapter", mixture={"mlm_ratio": 0.2}, training=steps) == 20
    joint = {"regimes": {"adapter": {"compositions": ["multitask"]}}}
    assert examples("train multitask of mnli, squad, adapter", **joint) == 160
    mixture = {"cap": 30, "mlm_ratio": 0.25}
    assert examples("train multitask of mnli, squad with mlm, adapter", **joint, mixture=mixture) == 160


def test_an_estimate_is_what_alike_stages_took_by_their_size() -> None:
    stage = stage_of("train mnli, adapter", seed=4)
    finished = [train(rate, fixed=fixed) for rate, fixed in ((4.0, 1.0), (8.0, 3.0), (40.0, 90.0))]
    assert Timings(finished).estimate(stage) == Estimate(3.0 + 80 / 8, "task, regime and composition")


def test_the_closest_match_there_is_counts() -> None:
    stage = stage_of("train mnli, adapter")
    lora, full = {"lora": {"compositions": ["none", "stack"]}}, {"full": {"compositions": ["none", "continue"]}}
    other_regime = train(10, label="train mnli, lora", regimes=lora)
    other_task = train(20, label="train squad, adapter")
    neither = train(40, label="train squad, full", regimes=full)
    for finished, seconds, like in (
        ([other_regime, other_task, neither], 8, "task"),
        ([other_task, neither], 4, "regime"),
        ([neither], 2, "kind"),
    ):
        assert Timings(finished).estimate(stage) == Estimate(seconds, like)
    assert Timings([]).estimate(stage) is None


def test_another_encoder_says_nothing(tiny_backbone: Path) -> None:
    assert Timings([train(5, backbone=str(tiny_backbone))]).estimate(stage_of("train mnli, adapter")) is None


def test_evaluations_count_rows_and_a_group_trained_at_once_no_time_beside_it() -> None:
    stage = stage_of("evaluate tatoeba on 2 languages: the backbone itself")
    assert stage.examples == 24
    before = result(stage, {"seconds": 3.0, "rows_per_second": 4.0, "rows": 12}, 5.0)
    assert Timings([before]).estimate(stage) == Estimate(2 + 12 / 4, "task")
    group = result(
        stage_of("train mnli, adapter"), {"seconds": 10.0, "examples_per_second": 8.0}, 60.0, together=["a", "b"]
    )
    assert Timings([group]).estimate(stage_of("train mnli, adapter", seed=1)) == Estimate(
        10, "task, regime and composition"
    )


def test_records_that_say_less_are_passed_over() -> None:
    stage = stage_of("train mnli, adapter")
    odd = [
        result(stage, record, 1.0) for record in ({}, {"seconds": 1.0, "examples_per_second": 0.0}, {"seconds": None})
    ]
    assert Timings([*odd, train(8)]).estimate(stage) == Estimate(10, "task, regime and composition")


def finish(plan: Plan, store: Store, *, some: Callable[[Stage], bool] = lambda stage: True) -> None:
    record = {"seconds": 2.0, "examples_per_second": 10.0, "rows_per_second": 9.0, "rows": 18, "scores": []}
    for stage in filter(some, plan.stages):
        store.run(stage, lambda _: record, waiting=lambda: None)


def test_a_plan_says_what_is_shared_cached_and_expected(tmp_path: Path) -> None:
    made, store = make_plan(recipe(seeds=[0, 1])), Store(tmp_path)
    record = plan_record(made, store)
    totals = record["totals"]
    assert (totals["cached"], totals["to_run"], totals["without_estimate"]) == (0, len(made.stages), len(made.stages))
    alone = sum(len(behind(cell.evaluation)) for cell in made.cells)
    assert (totals["uses"], totals["stages"], totals["cells"]) == (alone, len(made.stages), len(made.cells))
    each = {stage.key: stage.examples or 0 for stage in made.stages}
    whole = sum(each[key] for cell in made.cells for key in behind(cell.evaluation))
    assert totals["shared_examples"] == whole - sum(each.values())
    finish(made, store, some=lambda stage: "seed 1" not in stage.label)
    (damaged, *_) = (tmp_path / "train").glob("*/manifest.json")
    (tmp_path / "train" / "other").mkdir()
    (tmp_path / "train" / "other" / "manifest.json").write_text(damaged.read_text()[:-9])
    totals = plan_record(made, store)["totals"]
    assert totals["cached"] == sum("seed 1" not in stage.label for stage in made.stages)
    assert totals["without_estimate"] == 0
    trainings = [stage for stage in made.stages if "seed 1" in stage.label and stage.kind == "train"]
    assert totals["estimated_seconds"] >= sum(stage.examples or 0 for stage in trainings) / 10 > 0
    assert len(list(finished_stages(store, newest=3))) <= 3


def behind(stage: Stage) -> set[str]:
    return {stage.key}.union(*(behind(need) for need in stage.needs))


def test_the_command_shows_it_all(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(json.dumps({**BASE, "seeds": [0, 1]}))
    store = Store(tmp_path / "store")
    made = make_plan(recipe(seeds=[0, 1]))
    finish(made, store, some=lambda stage: "seed 1" not in stage.label)
    shown = CliRunner().invoke(app, ["plan", str(path), "--store", str(store.root)])
    assert shown.exit_code == 0
    for line in ("stages, ", "shared: ", "cached: ", "estimated time: "):
        assert line in shown.output
    as_json = CliRunner().invoke(app, ["plan", str(path), "--store", str(store.root), "--json"])
    assert json.loads(as_json.output)["totals"] == plan_record(made, store)["totals"]


MANY: dict[str, Any] = {
    "intermediate": ["mnli", "qqp", "squad", "hellaswag", "cosmos_qa", "commonsense_qa", "ccg"], "languages": None,
    "targets": ["xnli", "pawsx", "udpos", "panx", "xquad", "mlqa", "tydiqa", "tatoeba", "bucc2018"],
    "regimes": {
        "full": {"compositions": ["none", "continue", "multitask"]},
        "adapter": {"compositions": ["none", "stack", "fusion", "average", "multitask"]},
        "lora": {"compositions": ["none", "stack", "fusion", "average"]},
    },
    "seeds": [0, 1, 2, 3], "sweep": {"max_intermediate_samples": [100, 300, 600], "training.learning_rate": [1e-4, 3e-4]},
}  # fmt: skip


def test_ten_thousand_stages_are_planned_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """In processor time, with a bound several times what it takes; each split and the encoder are looked at once."""
    asked: list[tuple[str, str, str]] = []
    backbones: list[str] = []

    def counted(self: EmbeddedSource, task: Any, lang: str, split: Any) -> str:
        asked.append((task.name, lang, split))
        return of(self, task, lang, split)

    def named(backbone: str, **commits: Any) -> str:
        backbones.append(backbone)
        return identity.backbone_identity(backbone, **commits)

    of = EmbeddedSource.identity
    monkeypatch.setattr(EmbeddedSource, "identity", counted)
    monkeypatch.setattr(looked_up, "backbone_identity", named)
    many = recipe(**MANY)
    start = time.process_time()
    plan = make_plan(many)
    assert time.process_time() - start < 8.0
    assert len(plan.stages) >= 10_000
    assert len(asked) == len(set(asked))
    assert backbones == ["embedded"]
