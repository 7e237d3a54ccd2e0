"""Every source gives the same canonical rows, its identity follows the content, and bad files are located."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_split

from xadapt.data import Rows, open_source
from xadapt.data.suite import suite_rows
from xadapt.errors import UserError
from xadapt.tasks import TASKS, Task, get_task
from xadapt.tasks.spec import Split

Row = dict[str, Any]


def load(root: Path, task: str, lang: str = "en", split: Split = "train", limit: int | None = None) -> Rows:
    return open_source(str(root)).load(get_task(task), lang, split, limit=limit)


def expected(task: Task, rows: list[Row]) -> dict[str, list[Any]]:
    """The canonical columns of suite rows, whose labels are names, written out independently."""
    ids = {label: i for i, label in enumerate(task.labels)}
    if task.format == "tagging":
        return {
            "tokens": [row[task.columns["tokens"]] for row in rows],
            "tags": [[ids[tag] for tag in row[task.columns["tags"]]] for row in rows],
        }
    texts = [field for field in task.columns if field != "label"]
    columns: dict[str, list[Any]] = {field: [row[task.columns[field]] for row in rows] for field in texts}
    return columns | ({"label": [ids[row["label"]] for row in rows]} if "label" in task.columns else {})


# ---- rows, whatever the layout and however labels are stored


@pytest.mark.parametrize(
    ("name", "lang", "split"),
    [("mnli", "en", "train"), ("xnli", "sw", "test"), ("udpos", "de", "test"), ("tatoeba", "sw", "test")],
)
def test_the_mirror_and_the_embedded_suite_give_the_suites_rows(
    mirror: Path, name: str, lang: str, split: Split
) -> None:
    task = get_task(name)
    rows = suite_rows(name, lang, "validation" if name == "tatoeba" else split, limit=12)
    for source in (open_source(str(mirror)), open_source("embedded")):
        loaded = source.load(task, lang, split, limit=12)
        assert dict(loaded.columns) == expected(task, rows)
        assert (loaded.task, loaded.lang, loaded.split, len(loaded)) == (name, lang, split, 12)
        assert loaded.identity == source.identity(task, lang, split)


def shard(root: Path, rows: list[Row], total: int, *, only: int | None = None, split: str = "train") -> Path:
    """Write rows below nyu-mll/glue/mnli in `total` shards of the hub's naming, or only one of them."""
    folder = root / "nyu-mll" / "glue" / "mnli"
    size = -(-len(rows) // total)
    for number in range(total):
        if only in (None, number):
            part = rows[number * size : (number + 1) * size]
            write_split(folder / f"{split}-{number:05}-of-{total:05}.parquet", part)
    return folder


def test_the_hubs_shards_are_read_in_order(tmp_path: Path) -> None:
    rows = suite_rows("mnli", "en", "train", limit=30)
    shard(tmp_path, rows, 3)
    shard(tmp_path, rows[:4], 1, split="validation_matched")
    assert dict(load(tmp_path, "mnli").columns) == expected(TASKS["mnli"], rows)
    assert load(tmp_path, "mnli", limit=13).columns["text_a"] == [row["premise"] for row in rows[:13]]
    assert len(load(tmp_path, "mnli", split="validation")) == 4
    assert open_source(str(tmp_path)).count(TASKS["mnli"], "en", "train") == 30


def test_a_split_with_a_missing_shard_is_not_used(tmp_path: Path) -> None:
    shard(tmp_path, suite_rows("mnli", "en", "train", limit=30), 3, only=2)
    with pytest.raises(UserError, match="some shards of the split train but not all"):
        load(tmp_path, "mnli")


def test_a_stray_shard_of_another_cut_does_not_complete_a_split(tmp_path: Path) -> None:
    rows = suite_rows("mnli", "en", "train", limit=30)
    folder = shard(tmp_path, rows, 2, only=1)
    shard(tmp_path, rows[:6], 1)
    assert len(load(tmp_path, "mnli")) == 6
    shard(tmp_path, rows, 2)
    with pytest.raises(UserError, match="more than once") as caught:
        load(tmp_path, "mnli")
    assert str(folder) in str(caught.value)


def test_our_layout_goes_before_the_hubs(mirror: Path) -> None:
    shard(mirror, suite_rows("mnli", "en", "train", limit=6), 1)
    assert len(load(mirror, "mnli")) == 64


def write_with_features(path: Path, rows: list[Row], labels: tuple[str, ...], column: str) -> None:
    """Write integer labels with their names, by the library that real files are written with."""
    from datasets import ClassLabel, Dataset, Features, Value

    names = ClassLabel(names=list(labels))
    table = {name: [row[name] for row in rows] for name in rows[0]}
    first = table[column][0]
    if isinstance(first, list):
        table[column] = [names.str2int(tags) for tags in table[column]]
        features = Features({name: [Value("string")] for name in table} | {column: [names]})
    else:
        table[column] = names.str2int(table[column])
        features = Features({name: Value("string") for name in table} | {column: names})
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(table, features=features).to_parquet(path)


@pytest.mark.parametrize(("name", "folder"), [("mnli", "mnli"), ("udpos", "udpos/udpos.English")])
def test_stored_label_names_go_before_the_specs_order(tmp_path: Path, name: str, folder: str) -> None:
    task = TASKS[name]
    column = task.columns.get("label") or task.columns["tags"]
    kept = set(task.columns.values())
    rows = [{c: v for c, v in row.items() if c in kept} for row in suite_rows(name, "en", "train", limit=20)]
    write_with_features(tmp_path / folder / "train.parquet", rows, tuple(reversed(task.labels)), column)
    stored = pq.read_table(tmp_path / folder / "train.parquet").column(column).to_pylist()
    assert stored != expected(task, rows)["label" if name == "mnli" else "tags"], "the ids on disk are others"
    assert dict(load(tmp_path, name).columns) == expected(task, rows)


def test_integers_without_names_have_the_specs_order(tmp_path: Path) -> None:
    rows = suite_rows("mnli", "en", "train", limit=12)
    ids = TASKS["mnli"].source_labels
    write_split(tmp_path / "mnli" / "train.parquet", [row | {"label": ids.index(row["label"])} for row in rows])
    assert dict(load(tmp_path, "mnli").columns) == expected(TASKS["mnli"], rows)


def test_names_stored_for_other_labels_than_the_specs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mnli" / "train.parquet"
    names = {"label": ["not_entailment", "entailment"]}
    write_split(path, [{"premise": "a", "hypothesis": "b", "label": i} for i in (1, 0)], names)
    with pytest.raises(UserError, match="row 1, column 'label'"):
        load(tmp_path, "mnli")


def test_limit_takes_the_first_rows(mirror: Path) -> None:
    whole = load(mirror, "mnli")
    for limit in (1, 5, 63):
        assert list(load(mirror, "mnli", limit=limit).columns["text_b"]) == list(whole.columns["text_b"])[:limit]
    assert load(mirror, "mnli", limit=1000).columns == whole.columns


def test_tatoebas_newlines_are_stripped(tmp_path: Path) -> None:
    path = tmp_path / "tatoeba" / "tatoeba.deu" / "validation.parquet"
    write_split(path, [{"source_sentence": "Ja.\n", "target_sentence": " Yes.\r\n"}])
    assert dict(load(tmp_path, "tatoeba", "de", "test").columns) == {"source": ["Ja."], "target": ["Yes."]}


def test_counts_are_the_rows_that_load(mirror: Path) -> None:
    from_mirror, embedded = open_source(str(mirror)), open_source("embedded")
    assert from_mirror.count(TASKS["mnli"], "en", "train") == 64
    assert from_mirror.count(TASKS["tatoeba"], "sw", "test") == 12
    for name, lang, split in (("xnli", "sw", "test"), ("udpos", "de", "validation"), ("tatoeba", "de", "test")):
        loaded = embedded.load(TASKS[name], lang, split)  # type: ignore[arg-type]
        assert embedded.count(TASKS[name], lang, split) == len(loaded)  # type: ignore[arg-type]


def test_languages_are_those_a_source_has(mirror: Path) -> None:
    from_mirror = open_source(str(mirror))
    assert from_mirror.languages(TASKS["xnli"]) == ["de", "en", "sw"]
    assert from_mirror.languages(TASKS["udpos"]) == ["de", "en"]
    embedded = open_source("embedded").languages(TASKS["udpos"])
    assert " ".join(embedded) == "ar bg de el en es fi fr hi id ja ko ru ta th tr ur vi zh"
    assert open_source("hub").languages(TASKS["xnli"]) == list(TASKS["xnli"].languages)


def test_a_language_whose_test_split_is_missing_is_not_left_out_silently(mirror: Path) -> None:
    (mirror / "xnli" / "de" / "test.parquet").unlink()
    assert "de" in open_source(str(mirror)).languages(TASKS["xnli"])
    with pytest.raises(UserError, match="no test split of task 'xnli' for 'de'"):
        load(mirror, "xnli", "de", "test")


# ---- identity


def test_identity_changes_with_any_row_and_not_with_the_folder(tmp_path: Path) -> None:
    task, rows = TASKS["xnli"], suite_rows("xnli", "de", "test", limit=12)

    def identity(name: str, changed: list[Row]) -> str:
        write_split(tmp_path / name / "xnli" / "de" / "test.parquet", changed)
        return open_source(str(tmp_path / name)).identity(task, "de", "test")

    found = [identity("original", rows)]
    for at in range(len(rows)):
        changed = rows[at] | {"hypothesis": rows[at]["hypothesis"] + "!"}
        found.append(identity(f"changed-{at}", [*rows[:at], changed, *rows[at + 1 :]]))
    found += [identity("fewer", rows[:-1]), identity("swapped", [rows[1], rows[0], *rows[2:]])]
    assert len(set(found)) == len(found)
    (tmp_path / "original").rename(tmp_path / "moved")
    assert open_source(str(tmp_path / "moved")).identity(task, "de", "test") == found[0]


def test_identity_changes_with_the_second_shard(tmp_path: Path) -> None:
    rows = suite_rows("mnli", "en", "train", limit=30)
    shard(tmp_path / "a", rows, 2)
    shard(tmp_path / "b", [*rows[:-1], rows[-1] | {"premise": "Another."}], 2)
    shard(tmp_path / "same", rows, 2)
    a, b, same = (open_source(str(tmp_path / n)).identity(TASKS["mnli"], "en", "train") for n in ("a", "b", "same"))
    assert a == same != b


def test_embedded_identities_are_those_of_the_split() -> None:
    source = open_source("embedded")
    cases: list[tuple[str, str, Split]] = [
        ("mnli", "en", "train"), ("mnli", "en", "validation"), ("xnli", "en", "test"), ("xnli", "de", "test"),
    ]  # fmt: skip
    assert len({source.identity(TASKS[name], lang, split) for name, lang, split in cases}) == len(cases)


# ---- what cannot be used


NLI = {"premise": "It rains.", "hypothesis": "It is wet.", "label": "entailment"}
WORDS = {"tokens": ["It", "rains"], "pos_tags": ["PRON", "VERB"]}
PAIR = {"source_sentence": "Ja.", "target_sentence": "Yes."}
FILES = {
    "mnli": ("mnli/train.parquet", "en", "train", NLI),
    "udpos": ("udpos/udpos.English/train.parquet", "en", "train", WORDS),
    "tatoeba": ("tatoeba/tatoeba.deu/validation.parquet", "de", "test", PAIR),
}


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("mnli", {"label": "entailmnt"}, ["row 2", "'label'", "'entailmnt'", "Did you mean 'entailment'"]),
        ("mnli", {"label": ""}, ["row 2", "'label'", "Valid: entailment, neutral, contradiction"]),
        ("mnli", {"label": None}, ["row 2", "'label'", "'None'"]),
        ("mnli", {"premise": " \n"}, ["row 2", "'premise'"]),
        ("mnli", {"hypothesis": None}, ["row 2", "'hypothesis'", "None"]),
        ("tatoeba", {"source_sentence": ""}, ["row 2", "'source_sentence'"]),
        ("tatoeba", {"target_sentence": None}, ["row 2", "'target_sentence'", "None"]),
        ("udpos", {"pos_tags": ["PRON", "VERV"]}, ["row 2", "'pos_tags'", "'VERV'", "Did you mean 'VERB'"]),
        ("udpos", {"pos_tags": ["PRON"]}, ["row 2", "'pos_tags'", "2 tokens", "1 values"]),
        ("udpos", {"tokens": ["It", "rains", "."]}, ["row 2", "'pos_tags'", "3 tokens", "2 values"]),
        ("udpos", {"tokens": [], "pos_tags": []}, ["row 2", "0 tokens"]),
        ("udpos", {"tokens": None}, ["row 2", "'tokens'", "None"]),
        ("udpos", {"pos_tags": None}, ["row 2", "'pos_tags'", "None"]),
        ("udpos", {"tokens": ["It", None]}, ["row 2", "'tokens'", "None"]),
        ("udpos", {"pos_tags": ["PRON", None]}, ["row 2", "'pos_tags'", "'None'"]),
    ],
)
def test_a_bad_value_is_located(tmp_path: Path, name: str, change: Row, named: list[str]) -> None:
    file, lang, split, good = FILES[name]
    write_split(tmp_path / file, [good, good, good | change, good])
    refused(tmp_path, name, lang, split, [str(tmp_path / file), *named])


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("mnli", {"label": 3}, ["row 0", "'label'", "'3'"]),
        ("mnli", {"label": -1}, ["row 0", "'label'", "'-1'"]),
        ("mnli", {"label": True}, ["row 0", "'label'", "'True'"]),
        ("mnli", {"label": ["neutral"]}, ["row 0", "'label'", "neutral"]),
        ("mnli", {"premise": 7}, ["row 0", "'premise'", "7"]),
        ("udpos", {"pos_tags": [1, 17]}, ["row 0", "'pos_tags'", "'17'"]),
        ("udpos", {"tokens": "ab"}, ["row 0", "'tokens'", "'ab'"]),
        ("udpos", {"tokens": [1, 2]}, ["row 0", "'tokens'", "[1, 2]"]),
    ],
)
def test_a_column_of_another_type_is_located(tmp_path: Path, name: str, change: Row, named: list[str]) -> None:
    file, lang, split, good = FILES[name]
    write_split(tmp_path / file, [good | change])
    refused(tmp_path, name, lang, split, [str(tmp_path / file), *named])


def refused(root: Path, name: str, lang: str, split: Any, named: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load(root, name, lang, split)
    assert [part for part in named if part not in str(caught.value)] == [], str(caught.value)


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "mnli" / "train.parquet"
    write_split(path, [{"Premise": "a", "hypothesis": "b", "label": 0}])
    refused(tmp_path, "mnli", "en", "train", [str(path), "'premise'", "Did you mean 'Premise'", "hypothesis"])


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mnli" / "train.parquet"
    write_split(path, [NLI])
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    refused(tmp_path, "mnli", "en", "train", [str(path), "train", "mnli", "empty"])


def test_a_missing_split_is_named_with_what_is_there(mirror: Path) -> None:
    (mirror / "xnli" / "de" / "test.parquet").unlink()
    folder = str(mirror / "xnli" / "de")
    fetch = f"xadapt fetch --tasks xnli --languages de --to {mirror}"
    refused(mirror, "xnli", "de", "test", [folder, "test.parquet", "validation.parquet", fetch])
    with pytest.raises(UserError, match="no test split"):
        open_source(str(mirror)).identity(TASKS["xnli"], "de", "test")


def test_a_missing_language_is_named(mirror: Path) -> None:
    refused(mirror, "xnli", "th", "test", ["'th'", str(mirror / "xnli" / "th"), "de, en, sw", "xadapt fetch"])


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        open_source(str(tmp_path / "nowhere"))
    assert all(part in str(caught.value) for part in (str(tmp_path / "nowhere"), "hub", "embedded", "mirror"))


def test_the_embedded_suite_names_what_it_has() -> None:
    with pytest.raises(UserError, match=r"'af'.*Valid: .*sw"):
        open_source("embedded").load(TASKS["tatoeba"], "af", "test")
    with pytest.raises(UserError, match=r"'train'.*validation, test"):
        open_source("embedded").load(TASKS["xnli"], "en", "train")


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _blank_pages(content: bytes) -> bytes:
    return content[:4] + b"\0" * 400 + content[404:]


def _no_footer(content: bytes) -> bytes:
    return content[:-4]


@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: b"premise\thypothesis\n", _half, _blank_pages, _no_footer],
    ids=["empty", "text", "half", "pages", "footer"],
)
def test_a_damaged_file_is_named_whole_or_in_a_shard(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    ours = tmp_path / "ours" / "mnli" / "train.parquet"
    rows = suite_rows("mnli", "en", "train", limit=64)
    write_split(ours, rows)
    second = shard(tmp_path / "hub", rows, 2) / "train-00001-of-00002.parquet"
    for root, path in ((tmp_path / "ours", ours), (tmp_path / "hub", second)):
        path.write_bytes(damage(path.read_bytes()))
        refused(root, "mnli", "en", "train", [str(path), "fetch it again"])


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mnli" / "train.parquet"
    path.parent.mkdir()
    broken = pa.array([b"caf\xe9", b"tea"]).view(pa.string())
    pq.write_table(pa.table({"premise": broken, "hypothesis": ["a", "b"], "label": [0, 1]}), path)
    refused(tmp_path, "mnli", "en", "train", [str(path)])


def test_shards_of_different_columns_are_refused(tmp_path: Path) -> None:
    rows = suite_rows("mnli", "en", "train", limit=8)
    folder = shard(tmp_path, rows, 2)
    write_split(folder / "train-00001-of-00002.parquet", [{"premise": 1, "text": "b"}])
    refused(tmp_path, "mnli", "en", "train", [f"{folder}/train-"])


def test_texts_are_kept_as_they_are(tmp_path: Path) -> None:
    odd = ["\ufeffbyte order mark", "two\r\nlines", "null \0 inside", "x" * 100_000, "ا\u202eב", "e\u0301 and é"]
    write_split(tmp_path / "mnli" / "train.parquet", [NLI | {"premise": text} for text in odd])
    assert list(load(tmp_path, "mnli").columns["text_a"]) == odd
