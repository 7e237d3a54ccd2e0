"""Like is compared with like: what shares a row, a mean and a gain follows from everything that is behind a number.

Stages are finished by writing records of their kind into a real store, since what matters is where they go.
"""

import csv
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import write_split
from test_sweep import record_of
from typer.testing import CliRunner

from xadapt.analysis.differences import number
from xadapt.analysis.scorecard import Scorecard
from xadapt.data.suite import suite_rows
from xadapt.study.collect import study_of
from xadapt.study.collection import Collection
from xadapt.study.plan import Plan, make_plan
from xadapt.study.recipe_file import make_recipe
from xadapt.study.stage import Stage
from xadapt.study.store import Store
from xadapt_cli.app import app

BASE: dict[str, Any] = {
    "backbone": "embedded", "data": "embedded", "intermediate": ["mnli"], "targets": ["udpos"],
    "languages": ["en", "de"], "regimes": {"adapter": {"compositions": ["none"]}},
    "max_train_samples": 40, "max_predict_samples": 6, "training": {"dtype": "float32"},
}  # fmt: skip
STACKED = {"regimes": {"adapter": {"compositions": ["none", "stack"]}}}


class Studies:
    """A store with studies that nobody trained."""

    def __init__(self, root: Path) -> None:
        self.store, self.kept = Store(root), dict[str, dict[str, Any]]()

    def add(self, name: str, *, records: Mapping[str, Mapping[str, Any]] | None = None, **changes: Any) -> Plan:
        """Run a recipe's stages as if; records has what the stages of a label say otherwise."""
        training = {**BASE["training"], **changes.pop("training", {})}
        recipe = make_recipe({**BASE, "name": name, **changes, "training": training}, place="the test")
        plan = make_plan(recipe)
        for stage in plan.stages:
            self.finish(stage, **(records or {}).get(stage.label, {}))
        self.keep(name, study_of(recipe, plan))
        return plan

    def finish(self, stage: Stage, **said: Any) -> None:
        self.store.run(stage, lambda _: record_of(stage) | said, waiting=lambda: None)

    def keep(self, name: str, study: dict[str, Any]) -> None:
        self.kept[name] = study
        self.store.write_study(name, study)

    def scorecard(self, *names: str) -> Scorecard:
        found = Collection(self.store, {name: self.kept[name] for name in names or self.kept})
        return Scorecard(found.scores(), found.costs(), found.attention(), found.sweeps())


@pytest.fixture
def studies(tmp_path: Path) -> Studies:
    return Studies(tmp_path)


def shown(scorecard: Scorecard) -> list[tuple[str, dict[str, str]]]:
    """Of every setting the rows with what they have in each column."""
    return [
        (line.row.label, {c.name: cell.text for c, cell in zip(table.columns, line.cells, strict=True) if cell})
        for setting in scorecard.settings()
        for table in [scorecard.overall(setting)]
        for line in table.lines
    ]


def labels(scorecard: Scorecard) -> list[str]:
    return [label for label, _ in shown(scorecard)]


def test_studies_of_other_numbers_are_other_rows_and_no_mean_crosses_them(studies: Studies) -> None:
    for name, target, factor, rate in (("a", "pawsx", 2, 1e-3), ("b", "udpos", 64, 1e-5)):
        regime = {"compositions": ["none"], "reduction_factor": factor}
        studies.add(name, targets=[target], regimes={"adapter": regime}, training={"learning_rate": rate})
    scorecard = studies.scorecard()
    assert len(scorecard.settings()) == 1
    rows = dict(shown(scorecard))
    assert sorted(rows) == ["adapter · none (reduction 2, lr 1e-3)", "adapter · none (reduction 64, lr 1e-5)"]
    assert [sorted(columns) for _, columns in sorted(rows.items())] == [["pawsx"], ["udpos"]]


def test_what_tasks_propose_themselves_is_no_difference(studies: Studies) -> None:
    """xnli and xquad start from other learning rates, lengths and epochs: two commands, one row."""
    studies.add("a", targets=["xnli"])
    studies.add("b", targets=["xquad"])
    ((label, columns),) = shown(studies.scorecard())
    assert (label, sorted(columns)) == ("adapter · none", ["mean", "xnli", "xquad"])


def test_seeds_are_runs_that_are_equal_in_everything_but_the_seed(studies: Studies) -> None:
    studies.add("a", seed=0, training={"learning_rate": 1e-3})
    studies.add("b", seed=1, training={"learning_rate": 3e-3})
    assert labels(studies.scorecard()) == ["adapter · none (lr 1e-3)", "adapter · none (lr 3e-3)"]
    studies.add("c", seed=1, training={"learning_rate": 1e-3})
    found = {label: columns["udpos"] for label, columns in shown(studies.scorecard())}
    assert "±" in found["adapter · none (lr 1e-3)"], "the genuine pair"
    assert "±" not in found["adapter · none (lr 3e-3)"]
    assert labels(studies.scorecard("a", "c")) == ["adapter · none"]


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"training": {"max_steps": 9}}, "steps 9"),
        ({"training": {"weight_decay": 0.1}}, "weight decay 0.1"),
        ({"training": {"warmup_ratio": 0.25}}, "warmup ratio 0.25"),
        ({"regimes": {"adapter": {"compositions": ["none"], "reduction_factor": 64}}}, "reduction 64"),
        ({"regimes": {"adapter": {"compositions": ["none"], "config": "double_seq_bn"}}}, "config double_seq_bn"),
        ({"tasks": {"udpos": {"max_seq_length": 64}}}, "length 64"),
    ],
)
def test_rows_are_labelled_by_exactly_what_differs(changes: dict[str, Any], label: str, studies: Studies) -> None:
    studies.add("a")
    studies.add("b", seed=1, **changes)
    first, second = sorted(labels(studies.scorecard()), key=lambda name: label in name)
    assert second == f"adapter · none ({label})"
    assert "," not in first
    assert first != second


def test_a_gain_is_over_none_of_the_same_numbers_alone(studies: Studies) -> None:
    studies.add("a", training={"learning_rate": 1e-3})
    stack = {"adapter": {"compositions": ["stack"]}}
    studies.add("b", training={"learning_rate": 3e-3}, regimes=stack)
    assert not [columns["gain"] for _, columns in shown(studies.scorecard()) if "gain" in columns]
    studies.add("c", training={"learning_rate": 3e-3})
    cells = {
        (c.study, c.cell["composition"]): c for c in Collection(studies.store, studies.kept).cells
    }  # fmt: skip
    assert cells["b", "stack"].basis == cells["c", "none"].basis != cells["a", "none"].basis
    (line,) = (columns for label, columns in shown(studies.scorecard()) if "stack" in label)
    own, none = ({s.stage: s for s in studies.scorecard(name).scores if s.main} for name in "bc")
    values = [sum(s.value for s in found.values()) / len(found) for found in (own, none)]
    assert float(line["gain"]) == pytest.approx(values[0] - values[1], abs=0.05)


def test_what_lies_behind_is_no_hindrance_to_a_gain_and_tells_rows_apart(studies: Studies) -> None:
    studies.add("a", **STACKED)
    studies.add("b", **STACKED, tasks={"mnli": {"learning_rate": 5e-4}})
    rows = dict(shown(studies.scorecard()))
    stacked = sorted(label for label in rows if "stack" in label)
    assert [label.partition("(")[2] for label in stacked] == ["lr 1e-4)", "lr 5e-4)"]
    assert all("gain" in rows[label] for label in stacked)
    assert [label for label in rows if "none" in label] == ["adapter · none"]


def test_the_encoder_itself_stands_beside_every_row_that_it_fits(studies: Studies) -> None:
    """Retrieval straight from the backbone has no reduction factor."""
    for name, factor in (("a", 2), ("b", 64)):
        regime = {"adapter": {"compositions": ["none"], "reduction_factor": factor}}
        studies.add(name, targets=["udpos", "tatoeba"], regimes=regime)
    for label, columns in shown(studies.scorecard()):
        assert "reduction" in label
        assert {"udpos", "tatoeba", "mean"} <= columns.keys()


def test_a_training_that_went_on_in_float32_is_a_row_of_its_own_and_signed(studies: Studies) -> None:
    half = {"training": {"dtype": "bfloat16"}}
    studies.add("a", seeds=[0, 1], records={"train udpos, adapter (seed 1)": {"dtype": "float32"}}, **half)
    scorecard = studies.scorecard()
    assert labels(scorecard) == ["adapter · none", "adapter · none (trained in float32)"]
    signed = {score.seed: score.signature.split("|") for score in scorecard.scores}
    assert "trained:float32" in signed[1]
    assert "trained:float32" not in signed[0]
    assert all("dtype:bfloat16" in parts for parts in signed.values())


def test_two_data_types_are_two_settings(studies: Studies) -> None:
    for name in ("float32", "bfloat16"):
        studies.add(name, training={"dtype": name})
    settings = studies.scorecard().settings()
    assert [setting.rpartition("; ")[2] for setting in settings] == ["float32", "bfloat16"]
    assert len(studies.scorecard("float32").settings()[0].split(";")) < len(settings[0].split(";"))


def mirror_of(root: Path, langs: tuple[str, ...], first: int) -> Path:
    """A mirror called `mirror` with udpos in some languages, rows from `first` on."""
    for lang, name in (("en", "English"), ("de", "German"), ("hi", "Hindi")):
        for split in ("train", "validation", "test") if lang == "en" else ("test",):
            if lang == "en" or lang in langs:
                rows = suite_rows("udpos", lang, split, limit=first + 8)[first:]
                write_split(root / "mirror" / "udpos" / f"udpos.{name}" / f"{split}.parquet", rows)
    return root / "mirror"


@pytest.mark.parametrize("langs", [("de", "de"), ("de", "hi")])
def test_mirrors_of_one_name_with_other_rows_are_two_settings(
    langs: tuple[str, str], studies: Studies, tmp_path: Path
) -> None:
    for name, lang, first in (("a", langs[0], 0), ("b", langs[1], 4)):
        data = mirror_of(tmp_path / name, (lang,), first)
        studies.add(name, data=str(data), languages=[lang], intermediate=[])
    settings = studies.scorecard().settings()
    assert len(set(settings)) == 2
    assert [row for _, row in shown(studies.scorecard()) if "[" in row["udpos"]] == []


def test_a_mirror_that_was_copied_is_the_same_data(studies: Studies, tmp_path: Path) -> None:
    for name, lang in (("a", "de"), ("b", "hi")):
        studies.add(name, data=str(mirror_of(tmp_path / name, ("de", "hi"), 0)), languages=[lang], intermediate=[])
    (setting,) = studies.scorecard().settings()
    assert studies.scorecard().codes(setting, "udpos") == ["de", "hi"]


def test_encoders_of_one_name_are_two_settings(studies: Studies, tiny_backbone: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(tiny_backbone, tmp_path / name / "encoder")
    config = tmp_path / "b" / "encoder" / "config.json"
    config.write_text(config.read_text().replace('"layer_norm_eps": 1e-05', '"layer_norm_eps": 1e-04'))
    for name in ("a", "b"):
        studies.add(name, backbone=str(tmp_path / name / "encoder"))
    settings = studies.scorecard().settings()
    assert len({setting.rpartition("backbone ")[2] for setting in settings}) == 2


def test_the_table_of_scores_has_a_column_for_every_number_that_differs(studies: Studies, tmp_path: Path) -> None:
    studies.add("a", training={"learning_rate": 1e-3, "max_steps": 7})
    studies.add("b", training={"learning_rate": 1e-3, "max_steps": 7, "weight_decay": 0.5})
    scorecard = studies.scorecard()
    scorecard.write_csv(tmp_path / "scores.csv")
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert {(row["learning_rate"], row["training.weight_decay"]) for row in rows} == {
        ("0.001", "0.0"),
        ("0.001", "0.5"),
    }
    assert {row["steps"] for row in rows} == {"2"}, "those that ran, by the record"
    scorecard.write_parquet(tmp_path / "scores.parquet")
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "scores.parquet")
    assert sorted(set(table["training.weight_decay"].to_pylist())) == [0.0, 0.5]


def test_evaluations_that_share_languages_are_one_row_with_each_language_once(studies: Studies) -> None:
    studies.add("a", languages=["de"])
    studies.add("b", languages=["de", "hi"])
    scorecard = studies.scorecard()
    (setting,) = scorecard.settings()
    assert scorecard.codes(setting, "udpos") == ["de", "hi"]
    ((_, columns),) = shown(scorecard)
    assert "[" not in columns["udpos"]
    (line,) = scorecard.costs(setting)[1:]
    assert dict(zip(scorecard.costs(setting)[0], line, strict=True))["target s"] == "2", "one training"


def test_a_field_of_the_scores_is_never_overwritten_by_a_difference(studies: Studies, tmp_path: Path) -> None:
    """A row that repeats none in one study and not in another differs in its composition."""
    for name, cap in (("a", None), ("b", 60)):
        studies.add(name, targets=["xnli"], **STACKED, max_intermediate_samples=cap)
    scorecard = studies.scorecard()
    scorecard.write_csv(tmp_path / "scores.csv")
    header, *lines = csv.reader((tmp_path / "scores.csv").read_text().splitlines())
    assert len(set(header)) == len(header)
    assert {line[header.index("composition")] for line in lines} == {"none", "stack"}
    scorecard.write_parquet(tmp_path / "scores.parquet")
    import pyarrow.parquet as pq

    assert len(pq.read_table(tmp_path / "scores.parquet")) == len(lines)


def test_a_study_that_is_added_takes_nothing_from_other_rows(studies: Studies) -> None:
    studies.add("a", targets=["udpos"])
    studies.add("b", targets=["tatoeba"])
    studies.add("c", targets=["udpos"], training={"learning_rate": 3e-3})
    before = dict(shown(studies.scorecard()))["adapter · none (lr 3e-3)"]
    assert {"udpos", "tatoeba"} <= before.keys()
    studies.add("d", targets=["tatoeba", "udpos"])
    assert dict(shown(studies.scorecard()))["adapter · none (lr 3e-3)"] == before


def test_a_number_that_one_task_proposes_itself_is_the_same_number_asked_for(studies: Studies) -> None:
    """3e-5 is where xquad starts."""
    full = {"regimes": {"full": {"compositions": ["none"]}}, "training": {"learning_rate": 3e-5}}
    for name in ("xnli", "udpos", "xquad"):
        studies.add(name, targets=[name], **full)
    ((label, columns),) = shown(studies.scorecard())
    assert (label, len(columns)) == ("full · none", 4)


def test_numbers_of_a_task_alone_are_no_difference_between_rows_that_have_the_same(studies: Studies) -> None:
    own = {
        "targets": ["xquad", "udpos"],
        "tasks": {"xquad": {"num_train_epochs": 1.5}, "udpos": {"num_train_epochs": 1}},
    }
    studies.add("a", **own, **STACKED)
    assert labels(studies.scorecard()) == ["adapter · none", "adapter · stack · mnli"]
    studies.add("b", targets=["panx"], tasks={"panx": {"num_train_epochs": 2}})
    found = labels(studies.scorecard())
    assert "adapter · none (epochs 2)" in found
    assert "adapter · none (udpos epochs 1, xquad epochs 1.5)" in found


def test_a_sweep_over_regimes_of_several_data_types_shows_them_all(studies: Studies) -> None:
    half = {"compositions": ["none"], "training": {"dtype": "bfloat16"}}
    regimes = {"adapter": half, "lora": {"compositions": ["none"]}}
    studies.add("s", regimes=regimes, sweep={"training.weight_decay": [0.0, 0.1]})
    table = studies.scorecard().sweeps()[0]
    assert [line.row.regime for line in table.lines] == ["adapter", "lora"]
    assert all(None not in line.cells for line in table.lines)


def test_the_best_single_stands_for_all_joint_rows_of_the_same_numbers(studies: Studies) -> None:
    regime = {"adapter": {"compositions": ["stack", "fusion", "average"]}}
    plan = studies.add("a", targets=["udpos", "xnli"], intermediate=["qqp", "squad"], regimes=regime)
    (gone,) = (c.evaluation for c in plan.cells if (c.composition, c.target) == ("average", "xnli"))
    shutil.rmtree(studies.store.folder(gone))
    rows = dict(shown(studies.scorecard()))
    assert {"udpos", "xnli"} <= rows["adapter · best single"].keys()


def test_what_is_not_known_is_like_nothing_else(studies: Studies) -> None:
    studies.add("a", **STACKED, training={"learning_rate": 1e-3})
    plan = studies.add("b", regimes={"adapter": {"compositions": ["stack"]}}, training={"learning_rate": 3e-3})
    for stage in plan.stages:
        if stage.kind == "train":
            shutil.rmtree(studies.store.folder(stage))
    rows = dict(shown(studies.scorecard()))
    (lost,) = (label for label in rows if "not in this store" in label)
    assert "gain" not in rows[lost]
    assert "( " not in lost


def test_only_what_differs_is_named(studies: Studies) -> None:
    """What a mixture of one task says twice, and numbers of targets in which nothing differs, are left out."""
    studies.add("a", regimes={"adapter": {"compositions": ["stack"]}})
    studies.add("b", regimes={"adapter": {"compositions": ["stack"]}}, mixture={"mlm_ratio": 0.2})
    assert sorted(labels(studies.scorecard())) == [
        "adapter · stack · mnli", "adapter · stack · mnli (mixing mlm ratio 0.2)"
    ]  # fmt: skip
    both = {"targets": ["udpos", "tatoeba"], "regimes": {"lora": {"compositions": ["none"]}}}
    studies.add("c", **both)
    studies.add("d", **both, retrieval_layer=2)
    found = labels(studies.scorecard("c", "d"))
    assert [label for label in found if "udpos" in label] == []
    assert "lora · none (retrieval layer 2)" in found


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0)])
def test_data_are_one_body_whatever_the_order_of_studies(
    order: tuple[int, ...], studies: Studies, tmp_path: Path
) -> None:
    """Two mirrors with a language each, and a third that has both: all are the same data."""
    langs = (("de",), ("hi",), ("de", "hi"))
    for at in order:
        studies.add(f"s{at}", data=str(mirror_of(tmp_path / str(at), langs[at], 0)), languages=list(langs[at]), intermediate=[])  # fmt: skip
    assert len(studies.scorecard().settings()) == 1


EVERYTHING: dict[str, Any] = {
    "intermediate": ["mnli", "squad"], "targets": ["udpos", "tatoeba"], "mixture": {"mlm_ratio": 0.1},
    "regimes": {"adapter": {"compositions": ["stack", "fusion", "average", "multitask"]}},
    "fusion": {"train_on": "target"},
}  # fmt: skip


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all scalars in a spec."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    if isinstance(value, Mapping | list | tuple):
        for key, inner in items:
            yield from leaves(inner, (*at, key))
    else:
        yield at


def altered(value: Any, at: tuple[Any, ...]) -> Any:
    """A copy with another value at a place, of the same kind where that can be."""
    if not at:
        if value in ("udpos", "tatoeba", "mnli", "squad", "mlm"):  # tasks that there are
            return {"udpos": "panx", "tatoeba": "xnli", "mnli": "qqp", "squad": "squad_v2", "mlm": "ccg"}[value]
        match value:
            case bool():
                return not value
            case int() | float():
                return value + 1
            case None:
                return 3
        return f"{value}0"
    if isinstance(value, Mapping):
        return {key: altered(inner, at[1:]) if key == at[0] else inner for key, inner in value.items()}
    return [altered(inner, at[1:]) if number == at[0] else inner for number, inner in enumerate(value)]


def with_changed(stage: Stage, target: Stage, at: tuple[Any, ...]) -> Stage:
    """The stage with one value of a stage that it is, or rests on, altered."""
    needs = tuple(with_changed(need, target, at) for need in stage.needs)
    spec = altered(stage.spec, at) if stage.key == target.key else stage.spec
    return replace(stage, spec=spec, needs=needs)


def test_every_hashed_field_tells_two_rows_apart_by_a_label(studies: Studies) -> None:
    """Each value of every spec is altered in turn: no cell behind it is then taken for the one before."""
    plan = studies.add("before", **EVERYTHING)
    before = studies.kept["before"]
    cells = {cell.evaluation.key: cell for cell in plan.cells}
    tried, missed, finished = 0, list[Any](), {stage.key for stage in plan.stages}
    for stage in plan.stages:
        users = [cell for cell in cells.values() if stage.key in {s.key for s in below(cell.evaluation)}]
        cell = users[0]
        for at in leaves(stage.spec):
            if (stage.kind, at) == ("evaluate", ("task",)):  # another target is another column
                continue
            changed = with_changed(cell.evaluation, stage, at)
            assert changed.key != cell.evaluation.key
            for each in below(changed):
                if each.key not in finished:
                    studies.finish(each)
                    finished.add(each.key)
            (kept,) = (c for c in before["cells"] if (c["evaluation"], c["target"]) == (cell.evaluation.key, cell.target) and c["composition"] == cell.composition and c["intermediate"] == cell.intermediate)  # fmt: skip
            after = {**before, "cells": [{**kept, "evaluation": changed.key}]}
            found = Collection(studies.store, {"before": {**before, "cells": [kept]}, "after": after}).cells
            assert len(found) == 2, at
            (first, second) = ({(c.setting, row.label) for row in c.rows} for c in found)
            if not first.isdisjoint(second):
                missed.append((stage.label, at))
            own = stage.kind == "evaluate" or (stage in cell.evaluation.needs and cell.target == "udpos")
            composed = at[0] in ("composition", "fusion")
            if own and not composed and found[0].basis == found[1].basis:
                missed.append((f"basis of {stage.label}", at))
            tried += 1
    assert missed == []
    assert tried > 300


def below(stage: Stage) -> list[Stage]:
    """A stage and all that it rests on, needs first."""
    return [*(inner for need in stage.needs for inner in below(need)), stage]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-3, "1e-3"),
        (5e-4, "5e-4"),
        (2.5e-5, "2.5e-5"),
        (0.05, "0.05"),
        (64.0, "64"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e20, "1e20"),
        (0.0, "0"),
        (1e-10, "1e-10"),
    ],
)
def test_numbers_read_as_people_write_them(value: float, text: str) -> None:
    assert number(value) == text
    assert float(text) == value


def test_the_command_shows_two_rows_where_two_commands_differ(tiny_backbone: Path, tmp_path: Path) -> None:
    command = ["evaluate", "--task", "udpos", "--backbone", str(tiny_backbone), "--data", "embedded", "--languages", "de", "--max-steps", "1", "--max-train-samples", "8", "--max-eval-samples", "2", "--max-predict-samples", "2", "--store", str(tmp_path)]  # fmt: skip
    for rate, seed in (("1e-3", "0"), ("3e-3", "1")):
        assert CliRunner().invoke(app, [*command, "--learning-rate", rate, "--seed", seed]).exit_code == 0
    output = CliRunner().invoke(app, ["compare", "--store", str(tmp_path)]).output
    assert "(lr 1e-3)" in output
    assert "(lr 3e-3)" in output
    assert "±" not in output
