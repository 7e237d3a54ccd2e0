"""CCGbank in all its layouts, labels that the training rows decide, and a training on them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_split
from typer.testing import CliRunner

from xadapt.data import Rows, open_source
from xadapt.errors import UserError
from xadapt.metrics import get_metric
from xadapt.tasks import get_task
from xadapt.tasks.spec import Split

CCG = get_task("ccg")
TREE = (
    r"(<T S[dcl] 0 2> (<T S[dcl] 1 2> (<T NP 0 1> (<L N NNP NNP Vinken N>) ) (<L S[dcl]\NP VBZ VBZ (runs) "
    r"S[dcl]\NP_1>) ) (<L . . . . .>) )"
)
LEAVES = (["Vinken", "(runs)", "."], ["N", r"S[dcl]\NP", "."])
OTHER = r"(<T NP 0 2> (<L NP[nb]/N DT DT The NP[nb]_1/N_1>) (<L N NN NN cat N>) )"
SECTIONS = [f"{number:02}" for number in range(25)]


def auto(*trees: str, name: str = "wsj_0001") -> str:
    return "".join(f"ID={name}.{i} PARSER=GOLD NUMPARSE=1\n{tree}\n" for i, tree in enumerate(trees, start=1))


def write(root: Path, name: str, content: str | bytes) -> Path:
    path = root / "ccg" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def load(root: Path, split: Split = "train", limit: int | None = None) -> Rows:
    return open_source(str(root)).load(CCG, "en", split, limit=limit)


def named(rows: Rows) -> list[tuple[list[str], list[str]]]:
    pairs = zip(rows.columns["tokens"], rows.columns["tags"], strict=True)
    return [(tokens, [rows.labels[tag] for tag in tags]) for tokens, tags in pairs]


def refused(root: Path, *parts: str, split: Split = "train") -> None:
    with pytest.raises(UserError) as caught:
        load(root, split)
    assert [part for part in parts if part not in str(caught.value)] == [], str(caught.value)


# ---- layouts


def test_a_derivations_leaves_are_its_words_and_categories(tmp_path: Path) -> None:
    write(tmp_path, "train.auto", auto(TREE, OTHER))
    rows = load(tmp_path)
    assert named(rows) == [LEAVES, (["The", "cat"], ["NP[nb]/N", "N"])]
    assert rows.labels == (".", "N", "NP[nb]/N", r"S[dcl]\NP")
    assert named(load(tmp_path, limit=1)) == [LEAVES]


@pytest.mark.parametrize("below", ["", "AUTO/", "ccgbank_1_1/data/AUTO/"])
def test_sections_are_divided_as_usual(tmp_path: Path, below: str) -> None:
    for section in SECTIONS:
        tree = f"(<T NP 0 1> (<L N NN NN in{section} N>) )"
        for number in (2, 1):
            name = f"wsj_{section}{number:02}"
            write(tmp_path, f"{below}{section}/{name}.auto", auto(tree, name=name))
    words = [tokens[0] for tokens in load(tmp_path).columns["tokens"]]
    assert words == [f"in{section}" for section in SECTIONS[2:22] for _ in range(2)]
    assert [tokens[0] for tokens in load(tmp_path, "validation").columns["tokens"]] == ["in00", "in00"]
    before = open_source(str(tmp_path)).identity(CCG, "en", "train")
    write(tmp_path, f"{below}21/wsj_2102.auto", auto(TREE, name="wsj_2102"))
    assert open_source(str(tmp_path)).identity(CCG, "en", "train") != before
    (tmp_path / "ccg" / below / "05" / "wsj_0501.auto").unlink()
    (tmp_path / "ccg" / below / "05" / "wsj_0502.auto").unlink()
    refused(tmp_path, "sections", "add 05")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "content",
    ["Vinken (runs) .\tN S[dcl]\\NP .\nYes\tN\n", "Vinken\tN\n(runs)\tS[dcl]\\NP\n.\t.\n\n\nYes\tN\n\n"],
    ids=["sentences", "tokens"],
)
def test_tab_separated_files_of_either_kind(tmp_path: Path, content: str, end: str) -> None:
    write(tmp_path, "train.tsv", b"\xef\xbb\xbf" + content.replace("\n", end).encode())
    assert named(load(tmp_path)) == [LEAVES, (["Yes"], ["N"])]
    assert named(load(tmp_path, limit=1)) == [LEAVES]


def test_a_no_break_space_divides_nothing(tmp_path: Path) -> None:
    write(tmp_path, "train.tsv", "1\u00a0000  men\tN/N N\n")
    assert named(load(tmp_path)) == [(["1\u00a0000", "men"], ["N/N", "N"])]


def test_parquet_with_names_or_ids_goes_too(tmp_path: Path) -> None:
    write_split(tmp_path / "ccg" / "train.parquet", [{"tokens": ["a", "b"], "tags": ["NP/N", "N"]}])
    assert named(load(tmp_path)) == [(["a", "b"], ["NP/N", "N"])]
    feature = {"tokens": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "Sequence"}}
    feature["tags"] = {"feature": {"names": ["S", "NP/N", "N"], "_type": "ClassLabel"}, "_type": "Sequence"}  # type: ignore[dict-item]
    table = pa.table({"tokens": [["a", "b"]], "tags": [[1, 2]]})
    described = {"huggingface": json.dumps({"info": {"features": feature}})}
    pq.write_table(table.replace_schema_metadata(described), tmp_path / "ccg" / "train.parquet")
    rows = load(tmp_path)
    assert (rows.labels, named(rows)) == (("N", "NP/N"), [(["a", "b"], ["NP/N", "N"])])


def test_the_embedded_suite_has_it() -> None:
    rows = open_source("embedded").load(CCG, "en", "train", limit=20)
    assert len(rows) == 20
    assert list(rows.labels) == sorted(rows.labels)
    assert r"(S[dcl]\NP)/NP" in rows.labels


def test_without_it_the_places_to_get_it_are_named(tmp_path: Path) -> None:
    write(tmp_path, "notes.txt", "nothing")
    refused(tmp_path, "LDC2005T13", ".auto", "train.tsv", "notes.txt")
    with pytest.raises(UserError, match=r"no hub.*LDC2005T13.*\.auto"):
        open_source("hub").load(CCG, "en", "train")


# ---- what cannot be used


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["empty"]),
        ("\n\n", ["empty"]),
        (b"ID=a.1 X\n\xff\n", ["line 2", "UTF-8"]),
        (b"ID=a.1 X\n(<L N N N \xed\xa0\x80 N>)\n", ["line 2", "UTF-8"]),
        (auto(TREE) + TREE, ["line 3", "ID="]),
        ("ID=a.1 X\nID=a.2 X\n", ["line 2", "derivation of a.1"]),
        ("ID=a.1 X\n", ["line 1", "a.1", "no derivation"]),
        (auto(TREE) + auto(OTHER), ["line 3", "wsj_0001.1", "line 1"]),
        (auto(TREE, TREE[:-2]), ["line 4", "not a whole derivation"]),
        (auto(TREE.replace("(<L . . . . .>)", "(<L . . . .>)")), ["line 2", "not a whole derivation"]),
        (auto("(<T NP 0 0> )"), ["line 2", "not a whole derivation"]),
        (auto(TREE + " word"), ["line 2", "not a whole derivation"]),
    ],
)
def test_a_broken_derivation_is_located(tmp_path: Path, content: str | bytes, parts: list[str]) -> None:
    path = write(tmp_path, "train.auto", content)
    refused(tmp_path, str(path), *parts)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["empty"]),
        ("a b\tN\n", ["line 1", "2 tokens", "1 tags"]),
        ("a b\tN N\nc d\n", ["line 2", "1 columns"]),
        ("a b\tN N\n \tN\n", ["line 2", "column 1", "empty"]),
        ("a b\tN N\n\nc d\tN N\n", ["line 1", "several tokens", "blank lines"]),
        ("a\tN\n\nb\t\n", ["line 3", "column 2", "empty"]),
        ("a\tN\nb\tN\tN\n", ["line 2", "3 columns"]),
        (b"a\tN\n\nb\xe9\tN\n", ["line 3", "UTF-8"]),
    ],
)
def test_a_broken_line_is_located(tmp_path: Path, content: str | bytes, parts: list[str]) -> None:
    path = write(tmp_path, "train.tsv", content)
    refused(tmp_path, str(path), *parts)


@pytest.mark.parametrize("tag", [None, 3, " ", True])
def test_a_tag_that_is_none_is_refused_although_labels_are_open(tmp_path: Path, tag: Any) -> None:
    path = tmp_path / "ccg" / "train.parquet"
    write_split(path, [{"tokens": ["a"], "tags": [tag]}])
    refused(tmp_path, str(path), "row 0", "'tags'")


# ---- open labels


def test_a_dev_tag_that_training_has_not_is_wrong_and_counted(tmp_path: Path) -> None:
    write(tmp_path, "train.tsv", "a b\tN V\n")
    write(tmp_path, "validation.tsv", "a b c\tN A V\n")
    train, dev = load(tmp_path), load(tmp_path, "validation").relabelled(load(tmp_path).labels)
    assert (train.labels, dev.labels) == (("N", "V"), ("N", "V", "A"))
    assert dev.columns["tags"] == [[0, 2, 1]]
    best = get_metric("tagging", "accuracy").function([[0, 1, 1]], dev.columns["tags"], dev.labels)
    assert best == pytest.approx(200 / 3)


def test_a_training_on_it_has_the_labels_of_its_rows(tmp_path: Path, tiny_backbone: Path) -> None:
    from safetensors.torch import load_file

    from xadapt_cli.app import app

    write(tmp_path / "data", "train.auto", auto(TREE, OTHER, TREE, OTHER))
    write(tmp_path / "data", "dev.auto", auto(OTHER, r"(<T NP 0 1> (<L NP\NP JJ JJ new NP\NP>) )"))
    options = ["--backbone", str(tiny_backbone), "--data", str(tmp_path / "data"), "--store", str(tmp_path / "runs")]
    numbers = ["--max-steps", "2", "--per-device-train-batch-size", "2"]
    result = CliRunner().invoke(app, ["train-intermediate", "--task", "ccg", *options, *numbers])
    assert result.exit_code == 0, result.output
    (manifest,) = (tmp_path / "runs" / "train").glob("*/manifest.json")
    record = json.loads(manifest.read_text())["record"]
    assert record["labels"] == [".", "N", "NP[nb]/N", r"S[dcl]\NP"]
    assert 0 <= record["dev_accuracy"] <= 200 / 3, "one of three dev words has a tag that no head can give"
    head = load_file(manifest.parent / "head.safetensors")
    assert len(head["out_proj.weight"]) == 4
