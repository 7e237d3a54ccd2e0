"""A task by a YAML file alone: checked, trained, evaluated, compared, also in languages outside the forty."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import write_split
from damage import refused
from typer.testing import CliRunner

from xadapt.errors import UserError
from xadapt.languages import LANGUAGES
from xadapt.tasks.user import read_task_file
from xadapt_cli.app import app

SHIPPED = Path(__file__).parents[1] / "configs" / "tasks"
TOPICS = ["business", "health", "politics", "sports"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for lang in ("en", "sw", "gsw"):
        for split, n in (("train", 24), ("validation", 8), ("test", 8)):
            rows = [
                {"headline": f"{TOPICS[i % 4]} {lang}", "text": f"item {i}", "topic": TOPICS[i % 4]} for i in range(n)
            ]
            write_split(tmp_path / "data" / "topics" / lang / f"{split}.parquet", rows)
    return tmp_path / "data"


def changed(tmp_path: Path, **values: Any) -> Path:
    spec = yaml.safe_load((SHIPPED / "topics.yaml").read_text("utf-8")) | values
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in spec.items() if value is not None}), "utf-8")
    return file


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_yaml_file_is_all_a_task_needs(data: Path, tmp_path: Path, tiny_backbone: Path) -> None:
    file, store = SHIPPED / "topics.yaml", tmp_path / "store"
    shared = ["--data", data, "--backbone", tiny_backbone, "--store", store, "--max-steps", 4]
    checked = run("tasks", "check", file, "--data", data, "--backbone", tiny_backbone)
    assert all(part in checked for part in ("load train en", "one training step", "score sw", "score gsw"))
    run("evaluate", "--task", "topics", "--task-file", file, *shared)
    # another process has not read the file; the store knows the task
    code = "from xadapt_cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", "--store", str(store), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    records = json.loads(done.stdout)
    assert {(r["task"], r["language"], r["family"], r["n"]) for r in records} == {
        ("topics", "en", "Indo-European", 8), ("topics", "sw", "Niger-Congo", 8), ("topics", "gsw", "Indo-European", 8)
    }  # fmt: skip


def test_a_recipe_names_task_files_from_where_it_lies(data: Path, tmp_path: Path, tiny_backbone: Path) -> None:
    changed(tmp_path, name="mine", mirror="topics/{lang}")
    recipe = {"task_files": ["mine.yaml"], "targets": ["mine"], "data": str(data), "backbone": str(tiny_backbone)}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    planned = json.loads(run("plan", tmp_path / "recipe.yaml", "--json", "--store", tmp_path / "store"))
    assert [stage["label"] for stage in planned["stages"]] == [
        "train mine, adapter", "evaluate mine on 3 languages: mine, adapter"
    ]  # fmt: skip


def test_a_changed_spec_is_another_stage(data: Path, tmp_path: Path, tiny_backbone: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        yaml.safe_dump(
            {"task_files": ["mine.yaml"], "targets": ["topics"], "data": str(data), "backbone": str(tiny_backbone)}
        )
    )
    keys = []
    for labels in (TOPICS, [*TOPICS, "weather"]):
        changed(tmp_path, labels=labels)
        keys.append([s["key"] for s in json.loads(run("plan", recipe, "--json"))["stages"]])
    assert not set(keys[0]) & set(keys[1])


def test_one_text_is_enough_to_classify(data: Path, tmp_path: Path, tiny_backbone: Path) -> None:
    file = changed(tmp_path, columns={"text_a": "headline", "label": "topic"})
    assert "score en" in run("tasks", "check", file, "--data", data, "--backbone", tiny_backbone)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": "xnli"}, ["name", "catalogue"]),
        ({"name": "My Task"}, ["name", "My Task"]),
        ({"colums": {}}, ["'colums'", "columns"]),
        ({"columns": {"text_a": "headline"}}, ["columns must name", "label"]),
        ({"languages": ["en", "xx"]}, ["'xx'"]),
        ({"own_languages": [{"code": "de", "name": "Deitsch"}]}, ["'de'", "German"]),
        ({"own_languages": [{"code": "../x", "name": "x"}]}, ["own_languages", "../x"]),
        ({"format": "essay"}, ["format", "essay"]),
        ({"labels": ["a", "a"]}, ["label stands twice"]),
        ({"splits": None}, ["splits"]),
        ({"metrics": []}, ["metrics"]),
        ({"skip": {"topic": ["x"]}}, ["skip", "'topic'", "label"]),
        ({"aliases": {"0": "zz"}}, ["aliases", "'zz'"]),
        ({"max_seq_length": 1024}, ["max_seq_length", "1024"]),
        ({"optimisation": {"full": {"learning_rate": "fast", "num_train_epochs": 1}}}, ["learning_rate", "fast"]),
    ],
)
def test_a_bad_file_is_answered_with_file_and_key(tmp_path: Path, change: dict[str, Any], named: list[str]) -> None:
    file = changed(tmp_path, **change)
    with pytest.raises(UserError) as caught:
        read_task_file(file)
    assert [part for part in (str(file), *named) if part not in str(caught.value)] == []


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"{a: ", b"\xff\xfe", b"a: &x [1]\nb: [*x, *x]"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.yaml"):
        read_task_file(tmp_path / "bad.yaml")


def test_a_missing_file_is_answered_with_those_that_ship() -> None:
    with pytest.raises(UserError, match=r"topics\.yaml"):
        read_task_file("topic.yaml")
    assert read_task_file("topics.yaml").name == "topics"


def test_a_task_without_a_hub_says_so() -> None:
    from xadapt.data import open_source

    with pytest.raises(UserError, match=r"topics.*no hub.*--data"):
        open_source("hub").identity(read_task_file("topics.yaml"), "en", "train")


def test_a_target_that_trains_on_other_labels_is_refused(tmp_path: Path) -> None:
    from xadapt.study.plan import make_plan
    from xadapt.study.recipe import Recipe

    labels = ["contradiction", "entailment", "neutral"]
    file = changed(tmp_path, train_on="mnli", labels=labels, own_languages=[], languages=["en", "sw"])
    recipe = Recipe(task_files=(str(file),), targets=("topics",), data="embedded", backbone="embedded")
    with pytest.raises(UserError, match=r"'topics' trains on 'mnli'.*labels differ"):
        make_plan(recipe)


def test_an_unknown_metric_is_answered_with_the_formats(data: Path, tmp_path: Path, tiny_backbone: Path) -> None:
    from xadapt.study.plan import make_plan
    from xadapt.study.recipe import Recipe

    file = changed(tmp_path, metrics=["acuracy"])
    recipe = Recipe(task_files=(str(file),), targets=("topics",), data=str(data), backbone=str(tiny_backbone))
    with pytest.raises(UserError, match=r"'acuracy'.*'accuracy'"):
        make_plan(recipe)


def test_an_own_language_may_be_described_anew(tmp_path: Path) -> None:
    for family in ("Germanic?", "Indo-European"):
        read_task_file(changed(tmp_path, own_languages=[{"code": "gsw", "name": "Swiss German", "family": family}]))
        assert LANGUAGES["gsw"].family == family


def test_an_unknown_label_is_answered_with_what_maps_it(tmp_path: Path) -> None:
    from xadapt.data import open_source

    rows = [{"headline": "a", "text": "b", "topic": topic} for topic in ("sports", "Sport")]
    write_split(tmp_path / "other" / "topics" / "en" / "test.parquet", rows)
    source = open_source(str(tmp_path / "other"))
    refused(lambda: source.load(read_task_file(SHIPPED / "topics.yaml"), "en", "test"), "row 1", "aliases", "'sports'")
    mapped = changed(tmp_path, aliases={"Sport": "sports"})
    assert source.load(read_task_file(mapped), "en", "test").columns["label"] == [3, 3]
    write_split(tmp_path / "other" / "topics" / "en" / "test.parquet", [row | {"topic": 1} for row in rows])
    refused(lambda: source.load(read_task_file(SHIPPED / "topics.yaml"), "en", "test"), "row 0", "source_labels")
    numbered = changed(tmp_path, source_labels=TOPICS)
    assert source.load(read_task_file(numbered), "en", "test").columns["label"] == [1, 1]


@pytest.mark.parametrize("code", ["ha", "hau", "so", "quz"])
def test_another_languages_code_is_no_slip_of_the_pen(tmp_path: Path, code: str) -> None:
    file = changed(tmp_path, languages=["en", code])
    assert "Did you mean" not in refused(lambda: read_task_file(file), str(file), f"'{code}'", "own_languages")


@pytest.mark.parametrize(("code", "meant"), [("EN", "'en'"), ("deu", "'de'"), ("zh-CN", "'zh'"), ("Swahili", "'sw'")])
def test_another_spelling_of_a_language_is_answered_with_its_code(tmp_path: Path, code: str, meant: str) -> None:
    file = changed(tmp_path, languages=["en", code])
    refused(lambda: read_task_file(file), str(file), f"'{code}'", meant)


def test_all_missing_keys_are_named_at_once(tmp_path: Path) -> None:
    file = changed(tmp_path, name=None, role=None, splits=None, hub={"dataset": "a/b"}, colums={})
    refused(lambda: read_task_file(file), "name, role", "splits", "hub.config, hub.licence", "'colums'", "'columns'")


def test_the_commands_show_a_users_task(tmp_path: Path) -> None:
    file = changed(tmp_path, name="mine")
    (record,) = [task for task in json.loads(run("tasks", "--task-file", file, "--json")) if task["name"] == "mine"]
    assert json.loads(run("tasks", "show", "mine", "--task-file", file, "--json")) == record
    shown = run("tasks", "show", "mine", "--task-file", file)
    assert [word for word in ("mine", "business", "gsw", "headline", "accuracy") if word not in shown] == []
    assert "mine" in run("tasks", "--task-file", file)
    refused(lambda: run("tasks", "show", "mien", "--task-file", file), "'mien'", "'mine'")
