"""Every composition of every regime through plan and store: which stages, which parameters move, what is kept."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from silent_reporter import Silent

from xadapt.analysis.scorecard import Scorecard
from xadapt.errors import UserError
from xadapt.models.backbone import Backbone
from xadapt.regimes.protocol import open_regime
from xadapt.regimes.specs import COMPOSITIONS, JOINT, RegimeSpec
from xadapt.study.collect import study_of
from xadapt.study.collection import Collection
from xadapt.study.executors import Outcome, run_plan
from xadapt.study.plan import Cell, Plan, make_plan
from xadapt.study.recipe_file import make_recipe
from xadapt.study.store import Store
from xadapt.study.surroundings import REGIME_SPEC

GOLDEN = Path(__file__).parent / "golden" / "plan_compositions.json"
EVERYTHING: dict[str, Any] = {
    "name": "everything",
    "data": "embedded",
    "intermediate": ["squad", "commonsense_qa"],
    "targets": ["xnli", "tatoeba"],
    "languages": ["en", "de", "sw"],
    "regimes": {regime: {"compositions": list(names)} for regime, names in COMPOSITIONS.items()},
    "training": {"max_steps": 2, "per_device_train_batch_size": 4, "dtype": "float32", "learning_rate": 1e-3},
    "max_train_samples": 12, "max_eval_samples": 6, "max_predict_samples": 6,
}  # fmt: skip
Ran = tuple[Plan, Store, list[Outcome]]
CELLS = [
    pytest.param(regime, composition, id=f"{regime}-{composition}")
    for regime, names in COMPOSITIONS.items()
    for composition in names
]


def plan_of(backbone: str, **changes: Any) -> Plan:
    return make_plan(make_recipe({**EVERYTHING, "backbone": backbone, **changes}, place="the test"))


@pytest.fixture(scope="module")
def ran(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Every cell of every regime, run once."""
    plan, store = plan_of(str(tiny_backbone)), Store(tmp_path_factory.mktemp("store"))
    outcomes = run_plan(plan, store, Silent())
    for outcome in outcomes:
        if outcome.error:
            raise outcome.error
    return plan, store, outcomes


def cells_of(plan: Plan, regime: str, composition: str, target: str) -> list[Cell]:
    return [c for c in plan.cells if (c.regime, c.composition, c.target) == (regime, composition, target)]


def shape(backbone: str) -> dict[str, object]:
    """Labels and needs of the stages, and what fills the cells; keys depend on the backbone."""
    plan = plan_of(backbone)
    return {
        "stages": [[stage.kind, stage.label, [need.label for need in stage.needs]] for stage in plan.stages],
        "cells": [[c.regime, c.composition, c.intermediate, c.target, c.evaluation.label] for c in plan.cells],
    }


def test_the_plan_is_the_kept_one(tiny_backbone: Path) -> None:
    """Made again by running this file: `python tests/test_compositions.py`."""
    assert shape(str(tiny_backbone)) == json.loads(GOLDEN.read_text("utf-8"))


def test_joint_compositions_take_all_tasks_at_once_the_others_one_each(tiny_backbone: Path) -> None:
    for cell in plan_of(str(tiny_backbone)).cells:
        several = cell.intermediate.split(",") if cell.intermediate else []
        assert len(several) == (0 if cell.composition == "none" else 2 if cell.composition in JOINT else 1)


@pytest.mark.parametrize("regime", ["adapter", "lora"])
def test_one_set_of_modules_serves_all_compositions(regime: str, ran: Ran) -> None:
    plan, _, _ = ran
    modules = [s for s in plan.stages if s.label in (f"train squad, {regime}", f"train commonsense_qa, {regime}")]
    assert len(modules) == 2
    fusion, average = (
        next(s for s in plan.stages if s.label == f"{label} commonsense_qa, squad, {regime}")
        for label in ("train fusion of", "average")
    )
    assert {need.key for need in fusion.needs} == {need.key for need in average.needs} == {m.key for m in modules}


@pytest.mark.parametrize(("regime", "composition"), CELLS)
def test_frozen_weights_stay_and_full_ones_move(regime: str, composition: str, ran: Ran, tiny_backbone: Path) -> None:
    plan, store, _ = ran
    backbone = Backbone(str(tiny_backbone))
    base = dict(backbone.encoder().named_parameters())
    for cell in cells_of(plan, regime, composition, "xnli"):
        model = store.verified(cell.evaluation.needs[0])
        spec: RegimeSpec = REGIME_SPEC.validate_python(model.manifest["spec"]["regime"])
        encoder = open_regime(spec).load(backbone, model.folder)
        found = {re.sub(r"(\.base_layer)+", "", name): p for name, p in encoder.named_parameters()}
        same = [name for name in base if torch.equal(found[name], base[name])]
        # a LoRA or an adapter adds parameters and leaves the base's where they were
        assert (len(same) == len(base)) == (regime != "full")
        assert (found.keys() - base.keys() != set()) == (regime != "full")


@pytest.mark.parametrize(("regime", "composition"), CELLS)
def test_a_retrieval_target_sees_the_encoder_before_target_training(regime: str, composition: str, ran: Ran) -> None:
    plan, _, _ = ran
    for retrieval, target in zip(
        cells_of(plan, regime, composition, "tatoeba"), cells_of(plan, regime, composition, "xnli"), strict=True
    ):
        model = target.evaluation.needs[0]
        behind = [need.key for need in model.needs]
        assert [need.key for need in retrieval.evaluation.needs] == behind
        assert len(behind) == (composition != "none")


def test_a_second_run_finds_everything(ran: Ran) -> None:
    plan, store, outcomes = ran
    assert {outcome.status for outcome in outcomes} == {"succeeded"}
    assert {outcome.status for outcome in run_plan(plan, store, Silent())} == {"cached"}


def test_every_cell_has_its_scores_and_its_cost(ran: Ran, tiny_backbone: Path) -> None:
    plan, store, _ = ran
    study = study_of(make_recipe({**EVERYTHING, "backbone": str(tiny_backbone)}, place="the test"), plan)
    scorecard = Scorecard((found := Collection(store, {"s": study})).scores(), found.costs())
    (setting,) = scorecard.settings()
    table = scorecard.overall(setting)
    shown = {(line.row.regime, line.row.composition) for line in table.lines}
    assert shown == {*((c.regime, c.composition) for c in plan.cells), *((r, "best single") for r in COMPOSITIONS)}
    header, *lines = scorecard.costs(setting)
    assert len(lines) == len({(c.regime, c.composition, c.intermediate) for c in plan.cells})
    by_label = {line[0]: dict(zip(header, line, strict=True)) for line in lines}
    assert by_label["adapter · none"]["trainable"].replace(",", "").isdigit()
    assert all(line["GFLOP/step"] != "-" and line["peak MiB"] != "-" for line in by_label.values())
    for scored in scorecard.scores:
        assert f"comp:{scored.composition}" in scored.signature


def test_the_best_single_is_the_highest_of_the_singles(ran: Ran, tiny_backbone: Path) -> None:
    plan, store, _ = ran
    study = study_of(make_recipe({**EVERYTHING, "backbone": str(tiny_backbone)}, place="the test"), plan)
    scorecard = Scorecard(Collection(store, {"s": study}).scores())
    table = scorecard.overall(scorecard.settings()[0])
    at = [column.name for column in table.columns].index("xnli")
    for regime in COMPOSITIONS:
        singles = [
            line for line in table.lines if line.row.regime == regime and line.row.composition in ("continue", "stack")
        ]
        best = next(line for line in table.lines if line.row.regime == regime and line.row.composition == "best single")
        values = [cell.value for line in singles if (cell := line.cells[at])]
        found = best.cells[at]
        assert found is not None
        assert found.value == max(values)
        order = [line.row.composition for line in table.lines if line.row.regime == regime]
        assert order.index("best single") == len(singles) + 1


def test_a_fusion_on_the_target_trains_attention_and_module_in_one(tiny_backbone: Path, tmp_path: Path) -> None:
    changes = {"fusion": {"train_on": "target"}, "regimes": {"adapter": {"compositions": ["none", "fusion"]}}}
    plan, store = plan_of(str(tiny_backbone), **changes), Store(tmp_path)
    (cell,) = cells_of(plan, "adapter", "fusion", "xnli")
    model = cell.evaluation.needs[0]
    assert model.label == "train xnli, adapter, fusion commonsense_qa, squad"
    assert len(model.needs) == 2
    (retrieval,) = cells_of(plan, "adapter", "fusion", "tatoeba")
    assert retrieval.evaluation.needs[0].label == "train fusion of commonsense_qa, squad, adapter", "it has no data"
    for outcome in run_plan(plan, store, Silent()):
        assert outcome.ok, outcome.error
    none, fused = (
        store.verified(cells_of(plan, "adapter", c, "xnli")[0].evaluation.needs[0]).record["trainable_parameters"]
        for c in ("none", "fusion")
    )
    assert fused > none


def test_what_a_fusion_is_enters_its_key_alone(tiny_backbone: Path) -> None:
    def keys(**changes: Any) -> dict[str, str]:
        return {stage.label: stage.key for stage in plan_of(str(tiny_backbone), **changes).stages}

    before = keys()
    fused = {label for label in before if label.startswith("train fusion of")}
    for changes, regimes in (
        ({"regularization": 0.0}, ["adapter"]), ({"reference": True}, ["adapter"]),
        ({"training": {"learning_rate": 1e-2}}, ["adapter", "lora"]),
    ):  # fmt: skip
        after = keys(fusion=changes)
        changed = {label for label in before if before[label] != after[label]}
        assert {label for label in fused if label.rpartition(", ")[2] in regimes} == fused & changed
        assert all("fusion" in label for label in changed)


def test_weights_of_an_average_enter_its_key_alone(tiny_backbone: Path) -> None:
    before, after = (
        {stage.label: stage.key for stage in plan_of(str(tiny_backbone), **changes).stages}
        for changes in ({}, {"average": {"squad": 3.0}})
    )
    changed = {label for label in before if before[label] != after[label]}
    assert changed
    assert all("average" in label for label in changed)


def test_lengths_of_joint_trainings_are_their_tasks(tiny_backbone: Path) -> None:
    def lengths(**changes: Any) -> dict[str, int]:
        stages = plan_of(str(tiny_backbone), **changes).stages
        spec = next(stage.spec for stage in stages if stage.label.startswith("train multitask"))
        return {part["name"]: part["max_seq_length"] for part in spec["tasks"]}

    assert lengths() == {"commonsense_qa": 128, "squad": 384}
    assert lengths(mixture={"training": {"max_seq_length": 32}}) == {"commonsense_qa": 32, "squad": 32}
    assert lengths(tasks={"squad": {"max_seq_length": 64}}) == {"commonsense_qa": 128, "squad": 64}


def test_a_cell_repeats_none_only_where_nothing_else_is_trained(tiny_backbone: Path) -> None:
    def repeats(**changes: Any) -> bool:
        base = {"intermediate": ["mnli"], "targets": ["xnli"], "regimes": {"adapter": {"compositions": ["stack"]}}}
        (cell,) = plan_of(str(tiny_backbone), **base | changes).cells
        return cell.repeats

    assert repeats()
    assert not repeats(mixture={"mlm_ratio": 0.2})
    assert not repeats(tasks={"mnli": {"robust": {"method": "random"}}})


@pytest.mark.parametrize("regime", ["adapter", "lora"])
def test_modules_of_one_task_in_two_languages_are_told_apart(regime: str, tiny_backbone: Path, tmp_path: Path) -> None:
    changes = {
        "intermediate": ["mlm", "mlm@de"],
        "regimes": {regime: {"compositions": ["fusion"]}},
        "targets": ["xnli"],
    }
    plan, store = plan_of(str(tiny_backbone), **changes), Store(tmp_path)
    outcome = run_plan(plan, store, Silent())[-1]
    assert outcome.result, outcome.error
    (record,) = Collection(store, {"s": study_of(make_recipe({**EVERYTHING, "backbone": str(tiny_backbone), **changes}, place="the test"), plan)}).attention()  # fmt: skip
    assert record.modules == ["mlm", "mlm@de"]


def test_costs_and_attention_stand_at_the_row_of_their_scores(tiny_backbone: Path, tmp_path: Path) -> None:
    store, studies = Store(tmp_path), []
    for rate in (1e-3, 1e-4):
        changes = {
            "regimes": {"lora": {"compositions": ["fusion"]}}, "targets": ["xnli"],
            "training": EVERYTHING["training"] | {"learning_rate": rate},
        }  # fmt: skip
        plan = plan_of(str(tiny_backbone), **changes)
        run_plan(plan, store, Silent())
        recipe = make_recipe({**EVERYTHING, "backbone": str(tiny_backbone), **changes}, place="the test")
        studies.append(study_of(recipe, plan))
    found = Collection(store, dict(zip("ab", studies, strict=True)))
    scorecard = Scorecard(found.scores(), found.costs(), found.attention())
    (setting,) = scorecard.settings()
    rows = [row.label for row in scorecard.rows(setting)]
    assert len(rows) == 2
    assert [line[0] for line in scorecard.costs(setting)[1:]] == rows
    assert sorted(record.row.label for record in scorecard.attention) == rows
    assert len({score.signature for score in scorecard.scores}) == 2


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"regimes": {"full": {"compositions": ["fusion"]}}}, "fusion"),
        ({"regimes": {"full": {"compositions": ["stack"]}}}, "stack"),
        ({"intermediate": ["squad"], "regimes": {"lora": {"compositions": ["average"]}}}, "squad"),
        ({"regimes": {"lora": {"compositions": ["stack"], "use_dora": True}}}, "use_dora"),
        ({"average": {"mnli": 1.0}}, "mnli"),
        ({"fusion": {"train_on": "targets"}}, "fusion.train_on"),
        ({"fusion": {"trian_on": "target"}}, "train_on"),
        ({"mixture": {"mlm_ratio": 1.0}}, "mixture.mlm_ratio"),
        ({"mixture": {"mlm_languages": ["de"]}}, "mlm_ratio"),
        ({"mixture": {"mlm_ratio": 0.1}, "intermediate": ["mlm", "mnli"]}, "mlm"),
        ({"tasks": {"commonsense_qa": {"robust": {"method": "random"}}}}, "commonsense_qa"),
        ({"average": {"squad": float("inf")}}, "average.squad"),
        ({"fusion": {"regularization": float("nan")}}, "fusion.regularization"),
        ({"regimes": {"lora": {"compositions": ["stack", "stack"]}}}, "stack"),
        ({"mixture": {"training": {"learning_rat": 1}}}, "learning_rate"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    changes: dict[str, Any], named: str, tiny_backbone: Path
) -> None:
    with pytest.raises(UserError, match=named):
        plan_of(str(tiny_backbone), **changes)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(shape("embedded"), indent=1) + "\n", "utf-8")
