"""What the record tells of an evaluation's rows beside its number: rows left out, a split that stands for another."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import write_split
from hub_stand_in import StandIn, parquet
from test_executor import run, scores_of
from test_hub import ask

from xadapt.analysis.records import Score
from xadapt.analysis.scorecard import Scorecard
from xadapt.data import open_source
from xadapt.data.rows import joined_splits
from xadapt.data.suite import suite_rows
from xadapt.durable import write_sealed
from xadapt.study.recipe import Recipe
from xadapt.study.recipe_file import make_recipe
from xadapt.study.store import Result, Store
from xadapt.tasks import Task, get_task
from xadapt.tasks.spec import Part


def loaded_from(root: Path, task: Task, lang: str = "de") -> str:
    return open_source(str(root)).load(task, lang, "test").stand_in


def put(root: Path, name: str, lang: str, split: str, *, like: str = "", skipped: int = 0) -> None:
    """Twelve rows of the suite as a file of the mirror, of another split if told; some, spread out, to be left out."""
    rows = suite_rows(name, lang, like or split, limit=12)
    for row in rows[: 2 * skipped : 2]:
        row["sentence1"] = "NS"
    folder = {"pawsx": lang, "panx": f"PAN-X.{lang}", "xquad": f"xquad.{lang}", "mlqa": f"MLQA.{lang}.{lang}"}[name]
    write_split(root / name / folder / f"{split}.parquet", rows)


# ---- which split was read


@pytest.mark.parametrize("name", ["panx", "mlqa"])
def test_validation_stands_for_a_test_split_that_is_not_there(tmp_path: Path, name: str) -> None:
    put(tmp_path, name, "de", "validation")
    assert loaded_from(tmp_path, get_task(name)) == "validation"
    put(tmp_path, name, "de", "test")
    assert loaded_from(tmp_path, get_task(name)) == ""


@pytest.mark.parametrize("split", ["validation", "test"])
def test_nothing_stands_in_where_validation_is_the_test_set(tmp_path: Path, split: str) -> None:
    put(tmp_path, "xquad", "de", split, like="validation")
    assert loaded_from(tmp_path, get_task("xquad")) == ""


def test_a_stand_in_of_any_part_is_told(tmp_path: Path) -> None:
    task = get_task("panx")
    more = Part(hub=task.hub, mirror="more/{lang}", splits=task.splits)
    both = task.model_copy(update={"more": (more,)})
    put(tmp_path, "panx", "de", "test")
    write_split(tmp_path / "more" / "de" / "validation.parquet", suite_rows("panx", "de", "validation", limit=3))
    rows = open_source(str(tmp_path)).load(both, "de", "test", limit=5)
    assert (rows.stand_in, rows[:2].stand_in) == ("validation", "validation")


def test_mining_counts_what_both_of_its_splits_left_out() -> None:
    source, task = open_source("embedded"), get_task("bucc2018")
    dev, test = (source.load(task, "de", split) for split in ("validation", "test"))  # type: ignore[arg-type]
    assert joined_splits(replace(dev, skipped=2), replace(test, skipped=3)).skipped == 5


LOAD = """
import json
from xadapt.data import open_source
from xadapt.tasks import get_task
print(json.dumps([open_source("hub").load(get_task("panx"), lang, "test").stand_in for lang in ("de", "fr")]))
"""


def test_a_stand_in_from_the_hub_is_told(tmp_path: Path) -> None:
    """German has no test split there, French has."""
    splits = {"de": ("validation",), "fr": ("validation", "test")}
    rows, pinned = parquet(suite_rows("panx", "de", "test", limit=4)), str(get_task("panx").hub.revision)
    hub = StandIn()
    hub.repositories["datasets/google/xtreme"] = {
        pinned: {f"PAN-X.{lang}/{split}-00000-of-00001.parquet": rows for lang in splits for split in splits[lang]}
    }
    hub.heads["datasets/google/xtreme"] = pinned
    hub.start()
    try:
        assert ask(LOAD, hub, tmp_path) == ["validation", ""]
    finally:
        hub.stop()


# ---- from rows to the record and the tables


@pytest.fixture
def recipe(tmp_path: Path, tiny_backbone: Path) -> Recipe:
    """pawsx with sentences that were not translated, panx whose German has no test split."""
    root = tmp_path / "mirror"
    for split, skipped in (("train", 3), ("validation", 2), ("test", 0)):
        put(root, "pawsx", "en", split, skipped=skipped)
        put(root, "panx", "en", split)
    put(root, "pawsx", "de", "test", skipped=1)
    put(root, "panx", "de", "validation")
    values: dict[str, Any] = {
        "backbone": str(tiny_backbone), "data": str(root), "targets": ["pawsx", "panx"], "languages": ["en", "de"],
        "regimes": {"full": {"compositions": ["none"]}},
        "training": {"max_steps": 1, "per_device_train_batch_size": 4, "dtype": "float32"},
    }  # fmt: skip
    return make_recipe(values, place="the test")


def results(recipe: Recipe, store: Store) -> dict[tuple[str, str], Result]:
    """What a run made, by kind and task."""
    outcomes, _ = run(recipe, store)
    found = {}
    for outcome in outcomes.values():
        assert outcome.result
        spec = outcome.stage.spec
        found[outcome.stage.kind, spec.get("task") or spec["train"]["task"]] = outcome.result
    return found


def marked(scores: list[Score]) -> set[tuple[str, str]]:
    return {(score.task, score.language) for score in scores if score.stand_in == "validation"}


def test_rows_left_out_and_a_stand_in_enter_the_record_and_the_tables(recipe: Recipe, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    found = results(recipe, store)
    train = found["train", "pawsx"].record
    assert [train[name] for name in ("train_samples", "train_skipped", "dev_samples", "dev_skipped")] == [9, 3, 10, 2]
    told = {
        (task, entry["language"]): (entry["n"], entry["skipped"], entry["stand_in"])
        for task in ("pawsx", "panx")
        for entry in found["evaluate", task].record["scores"]
    }
    assert told.pop(("panx", "de"))[1:] == (0, "validation")
    assert told.pop(("panx", "en"))[1:] == (0, "")
    assert told == {("pawsx", "en"): (12, 0, ""), ("pawsx", "de"): (11, 1, "")}

    scores = scores_of(recipe, store)
    assert marked(scores) == {("panx", "de")}
    card = Scorecard(scores)
    (line,) = card.languages(card.settings()[0], "panx").lines
    assert ["‖" in cell.marks for cell in line.cells if cell] == [False, True]


def test_records_of_before_are_read(recipe: Recipe, tmp_path: Path) -> None:
    """A store whose records lack both facts, as those of earlier versions do."""
    store = Store(tmp_path / "store")
    run(recipe, store)
    before = scores_of(recipe, store)
    for path in (tmp_path / "store").glob("*/*/manifest.json"):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        for entry in manifest["record"].get("scores", []):
            del entry["skipped"], entry["stand_in"], entry["repaired"]
        for name in ("train_skipped", "dev_skipped", "train_repaired", "dev_repaired"):
            manifest["record"].pop(name, None)
        write_sealed(path, {name: value for name, value in manifest.items() if name != "checksum"})
    after = scores_of(recipe, store)
    assert marked(after) == set()
    assert after == [score.model_copy(update={"stand_in": "", "skipped": 0, "train_skipped": 0}) for score in before]
