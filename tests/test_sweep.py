"""Several seeds and sweeps: which cells and stages they become, what is shared, and that tables never mix points.

Stages are finished here by writing records of their kind into a real store, since what matters is where they go.
"""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from xadapt.analysis.report import write_report
from xadapt.analysis.scorecard import Scorecard
from xadapt.errors import UserError
from xadapt.study.collect import study_of
from xadapt.study.collection import Collection
from xadapt.study.plan import Plan, make_plan
from xadapt.study.recipe import Recipe
from xadapt.study.recipe_file import load_recipe, make_recipe
from xadapt.study.stage import Stage
from xadapt.study.store import Store
from xadapt.study.sweep import sweep_points
from xadapt_cli.app import app

BASE: dict[str, Any] = {
    "backbone": "embedded", "data": "embedded", "intermediate": ["mnli"], "targets": ["udpos", "tatoeba"],
    "languages": ["en", "de", "hi"], "regimes": {"adapter": {"compositions": ["none", "stack"]}},
    "max_train_samples": 40, "max_predict_samples": 6, "training": {"max_steps": 2, "dtype": "float32"},
}  # fmt: skip
SIZES = {"max_intermediate_samples": [16, 32]}


def recipe(**changes: Any) -> Recipe:
    return make_recipe({**BASE, **changes}, place="the test")


def refusal(**changes: Any) -> str:
    with pytest.raises(UserError) as refused:
        recipe(**changes)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def keys(plan: Plan) -> set[str]:
    return {stage.key for stage in plan.stages}


def record_of(stage: Stage) -> dict[str, Any]:
    """What a stage of two seconds says of itself; its scores depend on the trainings behind it."""
    if stage.kind != "evaluate":
        return {"seconds": 2.0, "examples_per_second": 10.0, "train_samples": 20, "steps": 2}
    level = 40 + int(stage.key[:4], 16) % 40
    scores = [
        {"language": code, "n": 6, "values": dict.fromkeys(stage.spec["metrics"], level + at), "collapsed": False}
        for at, code in enumerate(stage.spec["languages"])
    ]
    return {"scores": scores, "retrieval_layer": None, "seconds": 2.0, "rows_per_second": 9.0, "rows": 18}


def finish(plan: Plan, store: Store) -> None:
    for stage in plan.stages:
        store.run(stage, lambda _, stage=stage: record_of(stage), waiting=lambda: None)  # type: ignore[misc]


def finished(made: Recipe, store: Store) -> Scorecard:
    plan = make_plan(made)
    finish(plan, store)
    store.write_study(made.name, study_of(made, plan))
    studies = store.studies()
    found = Collection(store, studies)
    return Scorecard(found.scores(), found.costs(), (), found.sweeps())


def test_every_cell_is_planned_once_a_seed_and_each_seed_is_the_study_of_that_seed() -> None:
    several = make_plan(recipe(seeds=[3, 0, 7]))
    alone = [make_plan(recipe(seed=seed)) for seed in (3, 0, 7)]
    assert keys(several) == set().union(*map(keys, alone))
    assert [(c.seed, c.evaluation.key) for c in several.cells] == [
        (c.seed, c.evaluation.key) for plan in alone for c in plan.cells
    ]


def test_what_depends_on_no_seed_is_shared() -> None:
    several, one = make_plan(recipe(seeds=[0, 1, 2])), make_plan(recipe())
    backbone = [stage for stage in several.stages if stage.kind == "evaluate" and not stage.needs]
    assert [several.uses[stage.key] for stage in backbone] == [3]
    assert len(several.stages) == 3 * (len(one.stages) - 1) + 1


def test_stages_say_which_seed_and_point_they_are_of_where_they_differ() -> None:
    labels = [stage.label for stage in make_plan(recipe(seeds=[0, 1], sweep=SIZES)).stages]
    assert len(set(labels)) == len(labels)
    assert "train udpos, adapter (seed 0)" in labels
    assert "train mnli, adapter (seed 1, max_intermediate_samples 32)" in labels
    assert "evaluate tatoeba on 2 languages: the backbone itself" in labels


def test_of_seed_and_seeds_the_nearer_counts(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("targets: [udpos]\nseed: 5\n")
    child = tmp_path / "child.yaml"
    child.write_text("extends: base.yaml\nseeds: [1, 2]\n")
    assert load_recipe(child).every_seed == (1, 2)
    assert load_recipe(child, overrides=["seed=4"]).every_seed == (4,)
    assert load_recipe(tmp_path / "base.yaml", overrides=["seeds=[8, 9]"]).every_seed == (8, 9)
    assert recipe(seed=0, seeds=[0, 1]).every_seed == (0, 1)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 5, "seeds": [0, 1]}, "give one of the two"),
        ({"seeds": [0, 1, 0]}, "seeds: 0 stands twice"),
        ({"seeds": [-1]}, "seeds.0"),
        ({"seeds": 3}, "seeds"),
        ({"sweep": {"max_train_sample": [1]}}, "Did you mean 'max_train_samples'?"),
        ({"sweep": {"learning_rate": [1]}}, "Did you mean 'training.learning_rate'?"),
        ({"sweep": {"training.learning_rat": [1]}}, "Did you mean 'learning_rate'?"),
        ({"sweep": {"regimes.adapter.reduction": [1]}}, "Did you mean 'reduction_factor'?"),
        ({"sweep": {"regimes.adaptor.reduction_factor": [1]}}, "Did you mean 'adapter'?"),
        ({"sweep": {"tasks.udpo.max_steps": [1]}}, "Did you mean 'udpos'?"),
        ({"sweep": {"intermediate": ["mnly"]}}, "Did you mean 'mnli'?"),
        ({"sweep": {"max_train_samples.x": [1]}}, "unknown key 'max_train_samples.x'"),
        ({"sweep": {"training.max_steps.x": [1]}}, "'max_steps' is a value"),
        ({"sweep": {"name": ["a"]}}, "'name'"),
        ({"sweep": {"seed": [0, 1]}}, "seeds: [0, 1]"),
        ({"sweep": {"backbone": ["embedded"]}}, "--backbone"),
        ({"sweep": {"targets": [["udpos"]]}}, "a column of its own"),
        ({"sweep": {"regimes.adapter.compositions": [["none"]]}}, "a row of its own"),
        ({"sweep": {"training": [{"max_steps": 1}]}}, "section"),
        ({"sweep": {"max_train_samples": [5, 9, 5]}}, "5 stands twice"),
        ({"sweep": {"intermediate": ["mnli", ["mnli"]]}}, "stands twice"),
        ({"sweep": {"max_train_samples": []}}, "empty"),
        ({"sweep": {"max_train_samples": 5}}, "sweep.max_train_samples"),
        ({"sweep": {"max_train_samples": [5, 0]}}, "sweep, max_train_samples=0"),
        ({"sweep": {"training.learning_rate": [1e-4, -1]}}, "training.learning_rate=-1"),
        ({"sweep": {"intermediate": [[]]}}, "`intermediate` is empty"),
    ],
)
def test_what_cannot_be_swept_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    assert named in refusal(**changes)


def test_a_sweep_is_the_product_of_its_values_and_each_point_the_recipe_by_hand() -> None:
    swept = {"max_train_samples": [10, None], "intermediate": ["mnli", ["squad", "mnli"]], "training.max_steps": [1, 3]}
    made = recipe(intermediate=[], sweep=swept)
    points = sweep_points(made)
    assert [point.values["training.max_steps"] for point in points] == [1, 3] * 4
    assert len({json.dumps(point.values) for point in points}) == 8
    for point in points:
        by_hand = recipe(
            max_train_samples=point.values["max_train_samples"], intermediate=point.values["intermediate"],
            training={**BASE["training"], "max_steps": point.values["training.max_steps"]},
        )  # fmt: skip
        assert keys(make_plan(by_hand)) == keys(make_plan(point.recipe))
    assert keys(make_plan(made)) == set().union(*(keys(make_plan(point.recipe)) for point in points))


def test_overrides_reach_a_sweep_and_never_stand_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("targets: [udpos]\nsweep: {max_train_samples: [1, 2]}\n")
    found = load_recipe(path, overrides=["sweep.max_train_samples=[3]", "sweep.training.max_steps=[4, 5]"])
    assert found.sweep == {"max_train_samples": (3,), "training.max_steps": (4, 5)}
    with pytest.raises(UserError, match=r"sweep\.max_train_samples=\[3\]"):
        load_recipe(path, overrides=["max_train_samples=3"])


def test_a_cap_of_intermediate_training_leaves_the_targets_alone() -> None:
    plain, capped = make_plan(recipe()), make_plan(recipe(max_intermediate_samples=16))
    changed = {stage.label for stage in capped.stages if stage.key not in keys(plain)}
    assert changed == {stage.label for stage in plain.stages if "mnli" in stage.label}
    own = make_plan(recipe(max_intermediate_samples=40))
    assert keys(own) == keys(plain), "the same rows by another name"


def test_mnli_is_new_to_xnli_only_where_it_has_more_rows() -> None:
    def repeats(**caps: int) -> bool:
        return make_plan(recipe(targets=["xnli"], **caps)).cells[1].repeats

    assert repeats()
    assert repeats(max_intermediate_samples=16)
    assert not repeats(max_intermediate_samples=400)


def test_points_that_a_row_does_not_show_stand_in_tables_of_their_own(tmp_path: Path) -> None:
    made = recipe(name="s", sweep=SIZES | {"training.learning_rate": [1e-4, 1e-3]})
    scorecard = finished(made, Store(tmp_path))
    assert len(scorecard.settings()) == 4
    for setting, rows, rate in zip(scorecard.settings(), (16, 16, 32, 32), (0.0001, 0.001) * 2, strict=True):
        assert f"intermediate first {rows} rows" in setting
        assert setting.endswith(f"training.learning_rate {rate}")
        assert [row.label for row in scorecard.rows(setting)] == ["adapter · none", "adapter · stack · mnli"]
    plan = make_plan(made)
    cells = {(c.point, c.composition): c.evaluation.key for c in plan.cells if c.target == "udpos"}
    by_setting = {(s.setting, s.composition): s.stage for s in scorecard.scores if s.task == "udpos"}
    for (point, composition), key in cells.items():
        assert by_setting[scorecard.settings()[point], composition] == key


def test_points_that_rows_show_share_a_table(tmp_path: Path) -> None:
    groups = ["mnli", "squad", ["mnli", "squad"]]
    made = recipe(intermediate=[], sweep={"intermediate": groups})
    (setting,) = (scorecard := finished(made, Store(tmp_path))).settings()
    rows = [row.label for row in scorecard.rows(setting)]
    assert rows == ["adapter · none", "adapter · stack · mnli", "adapter · stack · squad"]
    assert scorecard.sweeps() == []
    assert len({(s.stage, s.task, s.composition, s.intermediate) for s in scorecard.scores}) == 6
    assert len(scorecard.scores) == 3 * (3 * 2 + 2)  # udpos has two metrics and en beside the others


def test_a_sweep_has_a_table_a_target_with_its_points_beside_each_other(tmp_path: Path) -> None:
    scorecard = finished(recipe(name="s", seeds=[0, 1], sweep=SIZES), Store(tmp_path))
    tables = {table.setting: table for table in scorecard.sweeps()}
    assert list(tables) == [f"max_intermediate_samples (s): {name}" for name in ("udpos", "tatoeba", "mean")]
    table = tables["max_intermediate_samples (s): udpos"]
    assert [column.name for column in table.columns] == ["16", "32"]
    for column, setting in enumerate(scorecard.settings()):
        for line, own in zip(table.lines, scorecard.overall(setting).lines, strict=True):
            assert (line.row, line.cells[column]) == (own.row, own.cells[0])
    none, stack = table.lines
    assert none.cells[0] == none.cells[1], "the same stages"
    assert stack.cells[0] is not None
    assert stack.cells[0].gain is not None
    assert stack.cells[0].gain.sd is not None
    assert "±" in [note.mark for note in table.footnotes]


def test_one_evaluation_for_all_seeds_has_no_deviation_and_says_so(tmp_path: Path) -> None:
    scorecard = finished(recipe(seeds=[0, 1]), Store(tmp_path))
    none, stack = scorecard.overall(scorecard.settings()[0]).lines
    udpos, tatoeba, stacked = none.cells[0], none.cells[1], stack.cells[1]
    assert udpos is not None
    assert udpos.sd is not None
    assert tatoeba is not None
    assert (tatoeba.sd, tatoeba.seeds, tatoeba.marks) == (None, 2, "◦")
    assert stacked is not None
    assert stacked.gain is not None
    assert stacked.gain.sd == pytest.approx(stacked.sd)


def test_terminal_files_and_report_say_seeds_and_points(tmp_path: Path) -> None:
    scorecard = finished(recipe(name="s", seeds=[0, 1], sweep=SIZES), Store(tmp_path))
    shown = CliRunner().invoke(app, ["compare", "--store", str(tmp_path)]).output
    assert shown.count("seeds  ") >= 2 + 3
    assert re.search(r"udpos \(n=3\) .*±.*\([+-]\d+\.\d ±\d", shown)
    assert shown.count("sweep over max_intermediate_samples (s): ") == 3
    scorecard.write_csv(tmp_path / "scores.csv")
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert {row["seed"] for row in rows} == {"0", "1"}
    assert len({row["setting"] for row in rows}) == 2
    write_report(scorecard, tmp_path / "report.html", title="t", provenance={}, notes=[])
    page = (tmp_path / "report.html").read_text()
    assert page.count("<h3>max_intermediate_samples (s): ") == 3
    assert "±" in page.partition("<h2>Sweep</h2>")[2]


def test_a_study_without_a_sweep_is_kept_as_ever(tmp_path: Path) -> None:
    made, store = recipe(name="s"), Store(tmp_path)
    finished(made, store)
    study = json.loads((tmp_path / "studies" / "s.json").read_text())
    assert "points" not in study
    assert all("point" not in cell for cell in study["cells"])


def test_exports_one_seed_and_point_and_asks_where_there_are_several(tmp_path: Path) -> None:
    finished(recipe(name="s", seeds=[0, 1], sweep=SIZES), Store(tmp_path))
    command = ["export", "s", "--xtreme", str(tmp_path / "x"), "--store", str(tmp_path), "--composition", "stack"]
    for options, named in (([], "--seed 1"), (["--seed", "1"], "--point"), (["--seed", "5"], "no such row")):
        result = CliRunner().invoke(app, [*command, *options])
        assert isinstance(result.exception, UserError)
        assert named in str(result.exception)
    one = CliRunner().invoke(app, [*command, "--seed", "1", "--point", "32"])
    assert "bucc2018" in str(one.exception), "the row is chosen; it has not all of XTREME's tasks"
