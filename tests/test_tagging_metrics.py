"""What f1 means in a user's tagging task: spans where the labels mark them, as seqeval counts; else XTREME's runs of tags."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import write_split
from damage import refused
from test_user_tasks import run

from xadapt.metrics import get_metric
from xadapt.tasks.span_labels import with_labels
from xadapt.tasks.spec import Task
from xadapt.tasks.user import read_task_file

IOB2 = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
IOBES = [*IOB2, "E-PER", "S-PER", "E-LOC", "S-LOC"]
POS = ["NOUN", "VERB", "CCONJ", "SCONJ"]


def ner(tmp_path: Path, **values: Any) -> Path:
    spec: dict[str, Any] = {
        "name": "ner", "role": "target", "format": "tagging", "description": "names", "languages": ["en", "de"],
        "mirror": "ner/{lang}", "columns": {"tokens": "words", "tags": "tags"}, "labels": IOB2,
        "splits": {"train": ["train"], "validation": ["validation"], "test": ["test"]}, "metrics": ["f1"],
        "optimisation": {"adapter": {"learning_rate": 1e-4, "num_train_epochs": 1}},
    }  # fmt: skip
    file = tmp_path / "ner.yaml"
    file.write_text(yaml.safe_dump(spec | values))
    return file


def drawn(labels: list[str]) -> tuple[list[list[str]], list[list[str]]]:
    """True and predicted tags, most of them O, as of names."""
    rng = random.Random(7)

    def draw() -> str:
        return "O" if rng.random() < 0.6 else rng.choice(labels)

    true = [[draw() for _ in range(rng.randint(1, 15))] for _ in range(80)]
    return true, [[draw() if rng.random() < 0.3 else tag for tag in sentence] for sentence in true]


@pytest.mark.parametrize("labels", [IOB2, IOBES], ids=["IOB2", "IOBES"])
@pytest.mark.parametrize(
    ("metrics", "computed"),
    [
        (["f1"], ("span_f1",)),
        (["span_f1"], ("span_f1",)),
        (["f1", "span_f1"], ("span_f1",)),
        (["f1", "accuracy"], ("span_f1", "accuracy")),
    ],
)
def test_f1_of_labels_that_mark_spans_is_seqevals(
    tmp_path: Path, metrics: list[str], computed: tuple[str, ...], labels: list[str]
) -> None:
    from seqeval.metrics import f1_score

    task = read_task_file(ner(tmp_path, metrics=metrics, labels=labels))
    assert task.metrics == computed
    true, predicted = drawn(labels)
    as_ids = [[[labels.index(tag) for tag in sentence] for sentence in side] for side in (predicted, true)]
    found = get_metric(task.format, task.main_metric).function(*as_ids, labels)
    assert found == pytest.approx(100 * f1_score(true, predicted), abs=1e-9)
    runs = get_metric(task.format, "pos_f1").function(*as_ids, labels)
    assert abs(runs - found) > 1, "the data tell the two apart"


def test_the_plan_names_what_is_computed_and_the_commands_say_it(tmp_path: Path, tiny_backbone: Path) -> None:
    for lang in ("en", "de"):
        for split in ("train", "validation", "test"):
            rows = [{"words": ["Ada", "Lovelace", "ran"], "tags": ["B-PER", "I-PER", "O"]} for _ in range(4)]
            write_split(tmp_path / "data" / "ner" / lang / f"{split}.parquet", rows)
    file = ner(tmp_path)
    recipe = {"task_files": ["ner.yaml"], "targets": ["ner"], "data": str(tmp_path / "data")}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"backbone": str(tiny_backbone)}))
    keys = {}
    for metrics in (["f1"], ["span_f1"], ["pos_f1"]):
        ner(tmp_path, metrics=metrics)
        planned = json.loads(run("plan", tmp_path / "recipe.yaml", "--json"))["stages"]
        keys[metrics[0]] = [stage["key"] for stage in planned]
    assert keys["f1"] == keys["span_f1"]
    assert not set(keys["f1"]) & set(keys["pos_f1"])
    ner(tmp_path)
    checked = run("tasks", "check", file, "--data", tmp_path / "data", "--backbone", tiny_backbone)
    assert "metric span_f1" in checked
    assert "span_f1" in checked.split("score de")[1]
    assert "metric f1" not in checked


@pytest.mark.parametrize("name", ["f1", "pos_f1"])
def test_f1_of_a_tag_a_word_is_xtremes(tmp_path: Path, name: str) -> None:
    task = read_task_file(ner(tmp_path, labels=POS, metrics=[name]))
    assert task.metrics == (name,)
    gold, predicted = [[0, 0, 1, 2, 3]], [[0, 0, 1, 2, 2]]
    # the runs NOUN, VERB, CCONJ, SCONJ are true; NOUN, VERB and a longer CCONJ are predicted
    assert get_metric("tagging", name).function(predicted, gold, POS) == pytest.approx(100 * 2 * 2 / (4 + 3))


def test_pos_f1_of_labels_that_mark_spans_is_taken_at_its_word(tmp_path: Path) -> None:
    assert read_task_file(ner(tmp_path, metrics=["pos_f1"])).metrics == ("pos_f1",)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"labels": [*IOB2, "L-PER", "U-PER"]}, ["'L-PER'", "aliases", "pos_f1"]),
        ({"labels": [*IOB2[1:], "o"]}, ["'o'", "aliases"]),
        ({"labels": [*IOB2, "MISC"], "metrics": ["span_f1"]}, ["'MISC'"]),
        ({"labels": ["O", "b-per", "i-per"]}, ["'b-per'"]),
        ({"labels": ["O", "B_PER", "I_PER"]}, ["'B_PER'"]),
        ({"labels": POS, "metrics": ["span_f1"]}, ["span_f1", "NOUN", "pos_f1", "accuracy"]),
        ({"labels": [], "open_labels": True, "role": "intermediate", "languages": ["en"]}, ["span_f1", "pos_f1"]),
    ],
)
def test_what_the_labels_leave_open_is_refused(tmp_path: Path, change: dict[str, Any], named: list[str]) -> None:
    file = ner(tmp_path, **change)
    refused(lambda: read_task_file(file), str(file), "metrics", *named)


def test_labels_that_the_rows_name_are_looked_at_then(tmp_path: Path) -> None:
    opened = {"labels": [], "open_labels": True, "role": "intermediate", "languages": ["en"], "metrics": ["span_f1"]}
    task = read_task_file(ner(tmp_path, **opened))
    assert with_labels(task, IOB2).labels == tuple(IOB2)
    refused(lambda: with_labels(task, POS), "'ner'", "span_f1", "NOUN")


def test_the_catalogues_names_stay() -> None:
    from xadapt.tasks import TASKS

    found = {task.name: task.metrics for task in TASKS.values() if task.format == "tagging" and not task.own}
    assert found == {"ccg": ("accuracy",), "udpos": ("f1", "accuracy"), "panx": ("span_f1",)}
    assert isinstance(TASKS["udpos"], Task)
