"""Where bad rows stand, what follows from harmless ones, what the command line answers, and bad task files."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import HIDDEN, write_split
from damage import refused
from test_bad_input import FORMS, good
from test_cli import snapshot, xadapt

from xadapt.data import Rows, open_source
from xadapt.data.parquet import read_parquet
from xadapt.data.splits import parse_share
from xadapt.data.suite import suite_rows
from xadapt.evaluation.retrieval import sentence_vectors
from xadapt.formats import FORMATS
from xadapt.formats.features import collate, encode_pairs
from xadapt.models.backbone import Backbone
from xadapt.models.task_model import TaskModel, shares_embedding
from xadapt.tasks import get_task
from xadapt.training.prediction import predict_logits

Row = dict[str, Any]


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(str(tiny_backbone))


@pytest.fixture(scope="module")
def megabyte(backbone: Backbone) -> str:
    """One token of as few pieces as the tests' tokenizer can make of it."""
    tokenize = backbone.tokenizer
    pieces = [piece for piece in tokenize.get_vocab() if piece.isalpha()]
    best = min(pieces, key=lambda piece: len(tokenize(piece * 50)["input_ids"]) / len(piece))
    return (best * 1_000_000)[:1_000_000]


# ---- the row that is named is the file's own


def nli(count: int, **changes: Any) -> list[Row]:
    rows = [dict(row) for row in suite_rows("mnli", "en", "train", limit=count)]
    rows[-2] |= changes
    return rows


def test_rows_are_counted_in_the_shard_they_stand_in(tmp_path: Path) -> None:
    folder, source = tmp_path / "nyu-mll" / "glue" / "mnli", open_source(str(tmp_path))
    for at, changes in enumerate(({}, {"premise": " "}, {})):
        write_split(folder / f"train-{at:05}-of-00003.parquet", nli(4 + at, **changes))
    refused(
        lambda: source.load(get_task("mnli"), "en", "train"), "train-00001-of-00003.parquet, row 3, column 'premise'"
    )


def test_rows_are_counted_with_those_that_are_left_out(tmp_path: Path) -> None:
    rows = [dict(row) for row in suite_rows("pawsx", "en", "train", limit=6)]
    for at, changes in ((0, {"sentence1": "NS"}), (2, {"sentence2": ""}), (4, {"label": "diferent"})):
        rows[at] |= changes
    path, source = tmp_path / "pawsx" / "en" / "train.parquet", open_source(str(tmp_path))
    write_split(path, rows)
    refused(lambda: source.load(get_task("pawsx"), "en", "train"), f"{path}, row 4, column 'label'", "'different'")
    write_split(path, rows[:4])
    assert source.load(get_task("pawsx"), "en", "train").skipped == 2


def test_rows_are_counted_before_a_language_and_a_share_are_picked(tmp_path: Path) -> None:
    task = get_task("tydiqa").model_copy(update={"max_skipped": 0.0})
    rows = [dict(row) for row in suite_rows("tydiqa", "en", "train", limit=8)]
    for at, row in enumerate(rows):
        row["id"] = f"{'english' if at % 2 else 'finnish'}-{at}"
    rows[7] |= {"question": ""}

    def read(share: str, prefix: str = "english") -> Rows:
        write_split(tmp_path / "train.parquet", rows)
        files, picked = [tmp_path / "train.parquet"], parse_share(share)
        return read_parquet(task, "en", "train", files, identity="x", limit=None, share=picked, id_prefix=prefix)

    assert read("train[:50%]").columns["id"] == ["english-1", "english-3"]
    assert read("train[:25%]", "").columns["id"] == ["finnish-0", "english-1"]
    for prefix in ("english", ""):
        refused(lambda prefix=prefix: read("train[50%:]", prefix), "train.parquet, row 7, column 'question'")
    rows[2] |= {"id": None}  # of no language: it would be left out of all
    refused(lambda: read("train[:50%]"), "train.parquet, row 2, column 'id'")


def label_file(path: Path, stored: object, kind: Any, values: list[Any]) -> None:
    """Labels of an integer type, with a description of the column as `datasets` or another writer stores it."""
    described = stored if isinstance(stored, str) else json.dumps({"info": {"features": {"label": stored}}})
    table = pa.table({"premise": ["a", "b"], "hypothesis": ["c", "d"], "label": pa.array(values, kind), "other": [[("k", 1)]] * 2},
        schema=pa.schema({"premise": pa.string(), "hypothesis": pa.string(), "label": kind, "other": pa.map_(pa.string(), pa.int8())}))  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"huggingface": described}), path)


NAMES = {"names": ["neutral", "contradiction", "entailment"], "_type": "ClassLabel"}


@pytest.mark.parametrize("kind", [pa.int8(), pa.int32(), pa.int64(), pa.uint16()])
def test_stored_label_names_hold_for_any_integers_beside_any_columns(tmp_path: Path, kind: Any) -> None:
    path, source = tmp_path / "mnli" / "train.parquet", open_source(str(tmp_path))
    label_file(path, NAMES, kind, [2, 0])
    assert source.load(get_task("mnli"), "en", "train").columns["label"] == [0, 1]
    label_file(path, NAMES, kind, [0, 3])
    refused(lambda: source.load(get_task("mnli"), "en", "train"), f"{path}, row 1, column 'label'", "'3'")


@pytest.mark.parametrize("stored", ["{", "[]", '{"info": []}', {**NAMES, "names": [1, 2]}, {**NAMES, "names": 3}, {"_type": "ClassLabel"}])  # fmt: skip
def test_label_names_that_cannot_be_read_are_refused(tmp_path: Path, stored: object) -> None:
    path, source = tmp_path / "mnli" / "train.parquet", open_source(str(tmp_path))
    label_file(path, stored, pa.int64(), [0, 1])
    refused(lambda: source.load(get_task("mnli"), "en", "train"), str(path), "'label'")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path, source = tmp_path / "mnli" / "train.parquet", open_source(str(tmp_path))
    write_split(path, nli(2))
    table = pq.read_table(path)
    pq.write_table(table.append_column("premise", table.column("hypothesis")), path)
    refused(lambda: source.load(get_task("mnli"), "en", "train"), str(path), "'premise'")


SIDES = {
    "mining_de": {"id": ["d1", "d2"], "sentence": ["eins", "zwei"]},
    "mining_en": {"id": ["e1", "e2"], "sentence": ["one", "two"]},
    "mining_gold": {"source_id": ["d1"], "target_id": ["e1"]},
}


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        ("mining_en", {"sentence": ["one", None]}, ["row 1", "'sentence'"]),
        ("mining_en", {"sentence": [" ", "two"]}, ["row 0", "'sentence'"]),
        ("mining_en", {"sentence": pa.array([b"one", b"caf\xe9"]).view(pa.string())}, ["row 1", "'sentence'", "0xe9"]),
        ("mining_de", {"id": ["d1", None]}, ["row 1", "'id'"]),
        ("mining_de", {"id": [1, 2]}, ["row 0", "'id'"]),
        ("mining_de", {"id": [["d1"], ["d2"]]}, ["row 0", "'id'"]),
        ("mining_de", {"id": ["d1", "d1"]}, ["row 1", "'id'", "row 0"]),
        ("mining_de", {"id": pa.array([], pa.string()), "sentence": pa.array([], pa.string())}, ["no rows"]),
        ("mining_gold", {"source_id": ["d9"]}, ["row 0", "'source_id'", "'d9'"]),
        ("mining_gold", {"target_id": ["d1"]}, ["row 0", "'target_id'", "'d1'"]),
        ("mining_gold", {"target_id": pa.array([None], pa.string())}, ["row 0", "'target_id'"]),
        ("mining_gold", {"source_id": ["d1", "d1"], "target_id": ["e1", "e1"]}, ["row 1", "row 0"]),
        ("mining_gold", {"source_id": pa.array([], pa.string()), "target_id": pa.array([], pa.string())}, ["no rows"]),
    ],
)
def test_the_three_files_of_mining_are_located_in(tmp_path: Path, file: str, change: Row, named: list[str]) -> None:
    folder = tmp_path / "bucc18" / "bucc18.de"
    folder.mkdir(parents=True)
    for name, columns in SIDES.items():
        pq.write_table(pa.table(columns | (change if name == file else {})), folder / f"{name}.parquet")
    source = open_source(str(tmp_path))
    refused(lambda: source.load(get_task("bucc2018"), "de", "test"), f"{file}.parquet", *named)
    (folder / "test.parquet").write_bytes(b"")
    refused(lambda: source.load(get_task("bucc2018"), "de", "test"), "test.parquet is not a readable Parquet file")


# ---- harmless rows go all the way


def harmless(form: str, megabyte: str) -> Row:
    """The good file's columns with a byte order mark, a line end, a NUL and a megabyte in them."""
    columns = {name: list(values) for name, values in good(form).items()}
    texts = ("\ufeffIt rains.", "It\r\nrains.", "It\0rains.", megabyte)
    for at, text in enumerate(texts):
        if form == "tagging":
            columns["tokens"][at] = [text, *columns["tokens"][at][1:]]
        elif form == "choice":
            columns["endings"][at] = [text, *columns["endings"][at][1:]]
        else:
            for shift, column in enumerate(name for name in FORMS[form].texts if name != "id"):
                before = columns[column][at] if column == "context" else ""  # answers stay where they are
                columns[column][at] = before + texts[(at + shift) % len(texts)]
    return columns


@pytest.mark.parametrize("form", ["classification", "tagging", "span", "choice", "retrieval", "mining", "mlm"])
def test_what_is_read_is_encoded_trained_on_and_decoded(
    tmp_path: Path, form: str, backbone: Backbone, megabyte: str
) -> None:
    where = FORMS[form]
    task, path = get_task(where.task), tmp_path / where.file
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(harmless(form, megabyte)), path)
    rows = open_source(str(tmp_path)).load(task, where.lang, where.split)
    kind, pad, cpu = FORMATS[task.format], backbone.tokenizer.pad_token_id, torch.device("cpu")
    features = kind.encode(rows, task, backbone.tokenizer, 128)
    assert max(map(len, features.input_ids)) <= 128
    head, encoder = kind.head(HIDDEN, task, 0.1), backbone.encoder()
    if head is None:
        assert set(features.row) == set(range(len(rows)))
        vectors = sentence_vectors(encoder, features, layer=1, pad_token_id=pad, token_budget=1024, device=cpu)
        assert all(bool(vector.isfinite().all()) for vector in vectors)
        return
    model = TaskModel(encoder, head)
    if shares_embedding(head):
        head.fit_to(encoder.get_input_embeddings())
    batch = collate(features, range(min(8, len(features))), pad)
    loss = kind.loss(model(**batch), batch["labels"])
    loss.backward()
    assert bool(loss.isfinite())
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    logits = predict_logits(model, features, pad_token_id=pad, token_budget=1024, device=cpu)
    decoded, references = kind.decode(logits, features, rows), kind.references(rows)
    assert len(decoded) == len(references) == len(rows)
    if form == "tagging":
        assert [len(tags) for tags in decoded] == [len(tags) for tags in references]


@pytest.mark.parametrize("max_length", [8, 13, 32])
def test_pairs_are_cut_as_the_tokenizer_cuts_them(max_length: int, backbone: Backbone) -> None:
    texts = [" ".join(["the", "doctor"][i % 2] for i in range(words)) for words in (1, 2, 4, 5, 9, 14, 15, 40)]
    first, second = ([a for a in texts for _ in texts], [b for _ in texts for b in texts])
    theirs = backbone.tokenizer(first, second, truncation="longest_first", max_length=max_length)["input_ids"]
    assert encode_pairs(backbone.tokenizer, first, second, max_length) == theirs


# ---- the command line


BAD = {
    "label": ("xnli/de/test.parquet", {"label": 7}, "row 1, column 'label'"),
    "text": ("xnli/sw/test.parquet", {"hypothesis": "\n"}, "row 1, column 'hypothesis'"),
    "tags": ("udpos/udpos.English/train.parquet", {"pos_tags": ["NOUN"]}, "row 1, column 'tokens'"),
    "pair": ("tatoeba/tatoeba.swh/validation.parquet", {"target_sentence": ""}, "row 1, column 'target_sentence'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_command_ends_with_one_line_and_an_empty_store(
    mirror: Path, tiny_backbone: Path, tmp_path: Path, name: str
) -> None:
    file, change, place = BAD[name]
    rows = pq.read_table(mirror / file).to_pylist()
    if "label" in change:
        rows = [row | {"label": 0} for row in rows]
    rows[1] |= change
    write_split(mirror / file, rows)
    task, store = file.partition("/")[0], tmp_path / "store"
    where = ["--data", mirror, "--backbone", tiny_backbone]
    evaluated = xadapt("evaluate", "--task", task, *where, "--store", store, "--max-steps", 1)
    checked = xadapt("tasks", "check", task, *where)
    for done in (evaluated, checked):
        assert done.code == 2
        (line,) = (line for line in done.err.splitlines() if f"{mirror / file}, {place}" in line)
        assert "Traceback" not in done.err + done.out
    assert line.startswith("error: "), "a check has nothing else to say"
    # the study's cells are noted, and what was trained before the bad rows were met is whole; there is nothing else
    left = [Path(path) for path in snapshot(store)]
    assert not [path for path in left if path.suffix != ".lock" and path.parts[0] not in ("studies", "train")]
    assert not [path for path in left if ".partial" in str(path)]
