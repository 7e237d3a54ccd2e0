"""`xadapt tasks check` reads every row of every split and language; a study looks at all files before it trains."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from conftest import write_split
from damage import refused
from test_cli import snapshot, xadapt
from test_user_tasks import SHIPPED, TOPICS, run

from xadapt.data import open_source
from xadapt.data.survey import survey
from xadapt.study.plan import make_plan
from xadapt.study.recipe import Recipe
from xadapt.tasks import get_task

Row = dict[str, Any]
TASK_FILE, LANGS = SHIPPED / "topics.yaml", ("en", "sw", "gsw")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A user's task of which every split has more rows than a check looks at closely."""
    for lang in LANGS:
        for split in ("train", "validation", "test"):
            put(tmp_path / "data", lang, split)
    return tmp_path / "data"


def put(root: Path, lang: str, split: str, bad: dict[int, Row] | None = None) -> Path:
    rows = [{"headline": f"{TOPICS[at % 4]} {at}", "text": f"item {at}", "topic": TOPICS[at % 4]} for at in range(200)]
    for at, change in (bad or {}).items():
        rows[at] |= change
    path = root / "topics" / lang / f"{split}.parquet"
    write_split(path, rows)
    return path


@pytest.mark.parametrize(("lang", "split"), [("gsw", "test"), ("sw", "validation"), ("en", "train"), ("gsw", "train")])
def test_a_label_that_no_study_could_use_is_found_wherever_it_stands(
    data: Path, tiny_backbone: Path, lang: str, split: str
) -> None:
    path = put(data, lang, split, {177: {"topic": "politcs"}})
    done = xadapt("tasks", "check", TASK_FILE, "--data", data, "--backbone", tiny_backbone)
    assert done.code == 2
    assert all(part in done.err for part in (f"{path}, row 177, column 'topic'", "'politcs'", "'politics'"))
    assert "Traceback" not in done.err


def test_what_a_study_will_meet_is_told_of_every_split_and_language(data: Path, tiny_backbone: Path) -> None:
    put(data, "gsw", "test", {50: {"headline": " "}, 60: {"text": "x" * 700}, 61: {"topic": "sports"}})
    told = run("tasks", "check", TASK_FILE, "--data", data, "--backbone", tiny_backbone).splitlines()
    loads = {line.partition(":")[0]: line for line in told if line.startswith("load ")}
    assert set(loads) == {f"load {split} {lang}" for lang in LANGS for split in ("train", "validation", "test")}
    shown = loads["load test gsw"]
    assert all(part in shown for part in ("199 rows", "700 characters (row 60)", "1 left out"))
    assert all(part in shown for part in ("sports 51", "health 49", "business 50", "politics 49"))
    assert not any("left out" in line for name, line in loads.items() if name != "load test gsw")


def test_two_checks_print_the_same(data: Path, tiny_backbone: Path) -> None:
    """Whatever was drawn before in the process."""
    told = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        told.append(run("tasks", "check", TASK_FILE, "--data", data, "--backbone", tiny_backbone))
    assert "one training step: loss" in told[0]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("name", "lang", "split", "counts"),
    [
        ("xnli", "de", "test", {"entailment", "neutral", "contradiction"}),
        ("udpos", "de", "test", {"NOUN", "VERB", "DET"}),
        ("squad_v2", "en", "validation", {"answered", "without an answer"}),
        ("ccg", "en", "validation", {"N", "N/N"}),
        ("hellaswag", "en", "validation", {"0", "1", "2", "3"}),
        ("bucc2018", "de", "test", set()),
        ("tatoeba", "de", "test", set()),
    ],
)
def test_a_survey_counts_what_the_rows_hold(name: str, lang: str, split: Any, counts: set[str]) -> None:
    task, source = get_task(name), open_source("embedded")
    found, rows = survey(task, source, lang, split, keep=3), source.load(task, lang, split)
    assert (found.rows, len(found.first), found.skipped) == (len(rows), 3, 0)
    assert counts <= set(found.labels)
    labelled = {
        "tagging": lambda: sum(map(len, rows.columns["tags"])), "retrieval": lambda: 0, "mining": lambda: 0,
    }.get(task.format, lambda: len(rows))()  # fmt: skip
    assert found.labels.total() == labelled
    length, field, row = found.longest
    text = rows.columns[field][row]
    assert length == (max(map(len, text)) if field == "choices" else len(text))
    assert str(length) in str(found)


# ---- before anything is trained


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def renamed(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.rename_columns([name.replace("premise", "Premise") for name in table.column_names]), path)


def emptied(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(0, 0), path)


def doubled(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.append_column("label", table.column("label")), path)


@pytest.mark.parametrize("damage", [Path.unlink, cut_off, renamed, emptied, doubled])
def test_a_language_whose_file_is_of_no_use_is_met_before_the_first_step(
    mirror: Path, tiny_backbone: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    """The last of the languages: its file would be read when the model has been trained and the others are scored."""
    path, store = mirror / "xnli" / "sw" / "test.parquet", tmp_path / "store"
    damage(path)
    command = ["evaluate", "--task", "xnli", "--data", mirror, "--backbone", tiny_backbone, "--store", store]
    done = xadapt(*command, "--max-steps", 1)
    assert done.code == 2
    assert str(path.parent) in done.err
    assert "Traceback" not in done.err + done.out
    assert snapshot(store) == {}


def planned(data: str, backbone: Path) -> object:
    return make_plan(Recipe(targets=("pawsx",), data=data, backbone=str(backbone), languages=("en", "de")))


def test_a_text_file_of_a_language_is_read_before_the_first_step(tmp_path: Path, tiny_backbone: Path) -> None:
    """XTREME's own download has test files without their labels."""
    lines = [f"a {at}\tb {at}\t{at % 2}" for at in range(20)]
    (tmp_path / "pawsx").mkdir()
    for name in ("train-en", "dev-en", "test-en", "test-de"):
        (tmp_path / "pawsx" / f"{name}.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    planned(f"xtreme:{tmp_path}", tiny_backbone)
    file = tmp_path / "pawsx" / "test-de.tsv"
    file.write_text("\n".join(line.rpartition("\t")[0] for line in lines) + "\n", "utf-8")
    refused(lambda: planned(f"xtreme:{tmp_path}", tiny_backbone), str(file), "no column of labels")
    file.write_text("\n".join([*lines[:7], "a\tb\t2", *lines[7:]]) + "\n", "utf-8")
    refused(lambda: planned(f"xtreme:{tmp_path}", tiny_backbone), f"{file}, line 8, column 3")


def test_a_shard_of_other_columns_is_met_by_a_plan(tmp_path: Path, tiny_backbone: Path) -> None:
    rows = [{"sentence1": f"a {at}", "sentence2": "b", "label": at % 2} for at in range(8)]
    hub = get_task("pawsx").hub.dataset
    for lang in ("en", "de"):
        for split in ("train", "validation", "test"):
            for shard in range(2):
                write_split(tmp_path / hub / lang / f"{split}-{shard:05}-of-00002.parquet", rows)
    planned(str(tmp_path), tiny_backbone)
    last = tmp_path / hub / "de" / "test-00001-of-00002.parquet"
    write_split(last, [{"sentence1": 7, "text": "b"}])
    refused(lambda: planned(str(tmp_path), tiny_backbone), str(last.parent), "not shards of one table")
