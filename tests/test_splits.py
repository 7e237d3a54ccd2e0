"""Shares and sums of splits, several data sets as one, rows that a spec leaves out."""

from pathlib import Path
from typing import Any

import pytest
from conftest import write_split

from xadapt.data import Rows, open_source
from xadapt.data.splits import merge, parse_share
from xadapt.errors import UserError
from xadapt.tasks import Task, get_task
from xadapt.tasks.spec import HubSource, Part


def pairs(n: int, name: str, *, label: Any = "neutral") -> list[dict[str, Any]]:
    return [{"premise": f"{name} {i}", "hypothesis": "b", "label": label} for i in range(n)]


def squad(n: int, prefix: str = "q") -> list[dict[str, Any]]:
    answers = {"text": ["b"], "answer_start": [2]}
    return [{"id": f"{prefix}{i}", "title": "", "context": "a b c", "question": "d", "answers": answers} for i in range(n)]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "names", "bounds"),
    [
        ("train", ("train",), (0, 7)),
        ("train[:90%]", ("train",), (0, 6)),
        ("train[90%:]", ("train",), (6, 7)),
        ("a+b+c[10%:50%]", ("a", "b", "c"), (0, 3)),
    ],
)
def test_a_split_name_is_a_share_of_a_sum(name: str, names: tuple[str, ...], bounds: tuple[int, int]) -> None:
    share = parse_share(name)
    assert (share.names, share.bounds(7)) == (names, bounds)


@pytest.mark.parametrize("name", ["", "a[90%:10%]", "a[:190%]", "a[", "a[b]", "a[:50]"])
def test_other_split_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="split"):
        parse_share(name)


def test_the_shares_of_tydiqa_are_all_rows_and_no_row_twice(tmp_path: Path) -> None:
    write_split(tmp_path / "tydiqa_goldp" / "tydiqa.en" / "train.parquet", squad(57))
    source, task = open_source(str(tmp_path)), get_task("tydiqa")
    train, dev = (source.load(task, "en", split) for split in ("train", "validation"))  # type: ignore[arg-type]
    assert [*train.columns["id"], *dev.columns["id"]] == [f"q{i}" for i in range(57)]
    assert (source.count(task, "en", "train"), source.count(task, "en", "validation")) == (len(train), len(dev))
    assert len(dev) == 6
    assert train.identity != dev.identity
    assert source.load(task, "en", "validation", limit=2).columns["id"] == ["q51", "q52"]


def test_the_hubs_tydiqa_is_cut_by_language_before_it_is_shared(tmp_path: Path) -> None:
    rows = [row for pair in zip(squad(20, "english-"), squad(20, "swahili-"), strict=True) for row in pair]
    folder = tmp_path / "google" / "xtreme" / "tydiqa"
    write_split(folder / "train-00000-of-00001.parquet", rows)
    write_split(folder / "validation-00000-of-00001.parquet", rows)
    source, task = open_source(str(tmp_path)), get_task("tydiqa")
    train = source.load(task, "en", "train")
    assert train.columns["id"] == [f"english-{i}" for i in range(18)]
    assert source.load(task, "sw", "test", limit=3).columns["id"] == [f"swahili-{i}" for i in range(3)]


@pytest.fixture
def anli(tmp_path: Path) -> Path:
    for part, n in (("train_r1", 4), ("train_r2", 4), ("train_r3", 2), ("dev_r1", 1), ("dev_r2", 1), ("dev_r3", 1)):
        write_split(tmp_path / "anli" / f"{part}.parquet", pairs(n, part))
    snli = [*pairs(15, "snli"), *pairs(5, "none", label=-1), *pairs(15, "more")]
    for i, row in enumerate(snli):
        row["label"] = row["label"] if row["label"] == -1 else i % 3
    write_split(tmp_path / "snli" / "train.parquet", snli)
    write_split(tmp_path / "snli" / "validation.parquet", pairs(2, "snli"))
    write_split(tmp_path / "mnli" / "train.parquet", pairs(60, "mnli"))
    write_split(tmp_path / "mnli" / "validation.parquet", pairs(3, "mnli"))
    return tmp_path


def origin(rows: Rows) -> list[str]:
    return [text.split(" ")[0] for text in rows.columns["text_a"]]


def test_anli_is_three_data_sets_and_any_first_rows_hold_them_in_proportion(anli: Path) -> None:
    source, task = open_source(str(anli)), get_task("anli")
    rows = source.load(task, "en", "train")
    assert (len(rows), rows.skipped) == (100, 5)
    assert "none" not in origin(rows)
    first = source.load(task, "en", "train", limit=20)
    assert first.columns["text_a"] == rows.columns["text_a"][:20]
    found = origin(first)
    assert abs(found.count("mnli") - 12) <= 1
    assert abs(sum(name.startswith("train_r") for name in found) - 2) <= 1
    assert [name for name in origin(rows) if name.startswith("train_r")] == ["train_r1"] * 4 + ["train_r2"] * 4 + ["train_r3"] * 2  # fmt: skip
    assert len(source.load(task, "en", "validation")) == 8


def test_a_missing_part_is_named(anli: Path) -> None:
    (anli / "snli" / "train.parquet").unlink()
    with pytest.raises(UserError, match="snli"):
        open_source(str(anli)).load(get_task("anli"), "en", "train")
    (anli / "anli" / "train_r2.parquet").unlink()
    with pytest.raises(UserError, match=r"train_r1.parquet and train_r2.parquet"):
        open_source(str(anli)).load(get_task("anli"), "en", "train")


def test_untranslated_pairs_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [
        {"id": i, "sentence1": f"a {i}", "sentence2": "NS" if i % 3 == 0 else "b", "label": i % 2} for i in range(9)
    ]
    rows[1]["sentence1"] = ""
    write_split(tmp_path / "pawsx" / "de" / "test.parquet", [{**row, "label": str(row["label"])} for row in rows])
    loaded = open_source(str(tmp_path)).load(get_task("pawsx"), "de", "test")
    assert (list(loaded.columns["text_a"]), loaded.skipped) == (["a 2", "a 4", "a 5", "a 7", "a 8"], 4)
    assert loaded.columns["label"] == [0, 0, 1, 1, 0]
    first = open_source(str(tmp_path)).load(get_task("pawsx"), "de", "test", limit=2)
    assert (list(first.columns["text_a"]), first.skipped) == (["a 2", "a 4"], 3)


def test_columns_may_be_fields_of_structures_and_lists_of_columns(tmp_path: Path) -> None:
    choices = {"label": list("ABCDE"), "text": [f"choice {i}" for i in range(5)]}
    write_split(
        tmp_path / "commonsense_qa" / "train.parquet", [{"question": "q", "choices": choices, "answerKey": "C"}]
    )
    cosmos = {"context": "c", "question": "q", **{f"answer{i}": f"a{i}" for i in range(4)}, "label": 3}
    write_split(tmp_path / "cosmos_qa" / "train.parquet", [cosmos])
    source = open_source(str(tmp_path))
    first = source.load(get_task("commonsense_qa"), "en", "train").columns
    assert dict(first) == {"prompt": ["q"], "stem": [""], "choices": [choices["text"]], "label": [2]}
    second = source.load(get_task("cosmos_qa"), "en", "train").columns
    assert dict(second) == {"prompt": ["c"], "stem": ["q"], "choices": [["a0", "a1", "a2", "a3"]], "label": [3]}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"answers": {"text": ["x"], "answer_start": [2]}}, "'x' does not stand at character 2"),
        ({"answers": {"text": ["z"], "answer_start": [99]}}, "'z' does not stand at character 99"),
        ({"answers": {"text": ["b", "c"], "answer_start": [2]}}, "2 texts but 1"),
        ({"context": "  "}, "column 'context'"),
        ({"id": "q0"}, "row 0 too"),
        ({"answers": {"text": [], "answer_start": []}}, "no answer"),
    ],
)
def test_a_bad_span_is_located(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    rows = squad(3)
    rows[1] |= change
    write_split(tmp_path / "squad" / "train.parquet", rows)
    with pytest.raises(UserError) as caught:
        open_source(str(tmp_path)).load(get_task("squad"), "en", "train")
    assert all(part in str(caught.value) for part in (named, "row 1", "train.parquet"))


@pytest.mark.parametrize(
    ("change", "named"),
    [({"endings": ["a", "b", "c"]}, "not 4 texts"), ({"endings": ["a", "", "c", "d"]}, "''"), ({"label": "4"}, "'4'")],
)
def test_a_bad_choice_is_located(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    row = {"ctx_a": "a", "ctx_b": "", "endings": list("abcd"), "label": "0"}
    write_split(tmp_path / "hellaswag" / "train.parquet", [row, row | change])
    with pytest.raises(UserError) as caught:
        open_source(str(tmp_path)).load(get_task("hellaswag"), "en", "train")
    assert all(part in str(caught.value) for part in (named, "row 1", "train.parquet"))


def test_one_part_is_given_as_it_is() -> None:
    rows = Rows("mnli", "en", "train", {"text_a": ["a"]}, "i", "p")
    assert merge([rows], [0], limit=None) is rows
    assert isinstance(get_task("anli").more[0], Part)
    assert isinstance(get_task("anli").more[0].hub, HubSource)
    assert isinstance(get_task("anli"), Task)


def test_a_broken_split_is_not_replaced_by_another(tmp_path: Path) -> None:
    folder = tmp_path / "google" / "xtreme" / "PAN-X.de"
    rows = [{"tokens": ["a"], "ner_tags": ["O"], "langs": ["de"]}]
    write_split(folder / "validation-00000-of-00001.parquet", rows)
    source, task = open_source(str(tmp_path)), get_task("panx")
    assert len(source.load(task, "de", "test")) == 1
    write_split(folder / "test-00000-of-00002.parquet", rows)
    with pytest.raises(UserError, match="some shards of the split test"):
        source.load(task, "de", "test")
