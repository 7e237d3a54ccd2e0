"""A split in pieces is the split: rows, errors, scores; and an evaluation's memory does not grow with its rows."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_split
from damage import Cell, refused
from hub_stand_in import StandIn, parquet
from silent_reporter import Silent
from test_bad_input import CELLS, FORMS, good
from test_hub import ask

from xadapt.data import Rows, Source, open_source
from xadapt.data.rows import PIECE, joined
from xadapt.data.suite import suite_rows
from xadapt.errors import UserError
from xadapt.evaluation.zero_shot import BLOCK
from xadapt.study.executors import Outcome, run_plan
from xadapt.study.plan import make_plan
from xadapt.study.recipe_file import make_recipe
from xadapt.study.stage import Stage
from xadapt.study.store import Store
from xadapt.tasks import Task, get_task
from xadapt.tasks.spec import Split

SIZES = (1, 7, 4096)


def same(source: Source, task: Task, lang: str, split: Split, limit: int | None = None) -> Rows:
    """The rows of a split, which are those of its pieces of every size."""
    whole = source.load(task, lang, split, limit=limit)
    for size in SIZES:
        pieces = list(source.pieces(task, lang, split, limit=limit, size=size))
        assert {len(piece) for piece in pieces} <= set(range(1, size + 1))
        assert joined(pieces) == replace(whole, columns={field: list(v) for field, v in whole.columns.items()})
    return whole


# ---- the same rows


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("limit", [None, 1, 4, 100])
def test_pieces_of_every_format_are_the_rows(tmp_path: Path, form: str, limit: int | None) -> None:
    where, path = FORMS[form], tmp_path / FORMS[form].file
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(good(form)), path, row_group_size=2)
    limit = None if form == "mining" else limit
    assert len(same(open_source(str(tmp_path)), get_task(where.task), where.lang, where.split, limit)) >= 1


@pytest.mark.parametrize(("name", "split"), [("xnli", "test"), ("udpos", "test"), ("ccg", "train"), ("mlm", "train")])
def test_pieces_of_the_embedded_suite_are_its_rows(name: str, split: Split) -> None:
    assert len(same(open_source("embedded"), get_task(name), "en", split, 20)) == 20


def test_pieces_of_text_files_are_their_rows(tmp_path: Path) -> None:
    folder = tmp_path / "tatoeba"
    folder.mkdir()
    for side in ("de", "en"):
        (folder / f"de-en.{side}").write_text("".join(f"{side} {(7 * i) % 20}\n" for i in range(20)), encoding="utf-8")
    assert len(same(open_source(f"xtreme:{tmp_path}"), get_task("tatoeba"), "de", "test")) == 20
    (tmp_path / "mlm" / "en").mkdir(parents=True)
    (tmp_path / "mlm" / "en" / "train.txt").write_text("\n\none\n\ntwo\nthree\n\nfour\n", encoding="utf-8")
    assert same(open_source(str(tmp_path)), get_task("mlm"), "en", "train").skipped == 4
    assert same(open_source(str(tmp_path)), get_task("mlm"), "en", "train", 2).skipped == 3


def test_pieces_of_shards_are_their_rows_in_order(tmp_path: Path) -> None:
    rows, folder = suite_rows("mnli", "en", "train", limit=30), tmp_path / "nyu-mll" / "glue" / "mnli"
    for number, (start, stop) in enumerate(((0, 5), (5, 5), (5, 19), (19, 30))):
        path = folder / f"train-{number:05}-of-00004.parquet"
        write_split(path, rows)
        pq.write_table(pq.read_table(path).slice(start, stop - start), path)
    for limit in (None, 5, 6, 19, 30, 31):
        found = same(open_source(str(tmp_path)), get_task("mnli"), "en", "train", limit)
        assert found.columns["text_a"] == [row["premise"] for row in rows][:limit]


def test_pieces_of_several_data_sets_are_spread_as_the_rows_are(tmp_path: Path) -> None:
    for file, rows in (("anli/train_r1", 4), ("anli/train_r2", 3), ("anli/train_r3", 2), ("snli/train", 9), ("mnli/train", 12)):  # fmt: skip
        write_split(tmp_path / f"{file}.parquet", suite_rows("mnli", "en", "train", limit=rows))
    for limit in (None, 11):
        same(open_source(str(tmp_path)), get_task("anli"), "en", "train", limit)


@pytest.mark.parametrize("left_out", ["", "0", "9", "0123456", "3456789", "12356", "013456789"])
def test_what_the_spec_leaves_out_is_counted_once(tmp_path: Path, left_out: str) -> None:
    rows = [
        {"sentence1": "NS" if str(i) in left_out else f"a {i}", "sentence2": "b", "label": i % 2} for i in range(10)
    ]
    write_split(tmp_path / "pawsx" / "de" / "test.parquet", rows)
    source, task = open_source(str(tmp_path)), get_task("pawsx")
    assert same(source, task, "de", "test").skipped == len(left_out)
    for limit in range(1, 12):
        same(source, task, "de", "test", limit)


def questions(count: int) -> list[dict[str, Any]]:
    answers = {"text": ["b"], "answer_start": [2]}
    return [
        {"id": f"q-{i}", "title": "", "context": "a b c", "question": "d", "answers": answers} for i in range(count)
    ]


def test_pieces_of_a_language_and_of_a_share_are_their_rows(tmp_path: Path) -> None:
    rows = questions(43)
    for at, row in enumerate(rows):
        row["id"] = f"{('english', 'swahili', 'finnish')[at * at % 3]}-{at}"
    task = get_task("tydiqa")
    folder = tmp_path / task.hub.dataset / task.hub.config
    for number in range(2):
        for split in ("train", "validation"):
            write_split(folder / f"{split}-{number:05}-of-00002.parquet", rows[number * 20 : 20 + number * 23])
    source = open_source(str(tmp_path))
    counts = [len(same(source, task, "en", split)) for split in ("train", "validation", "test")]  # type: ignore[arg-type]
    assert counts[0] + counts[1] == counts[2] == sum(row["id"].startswith("english") for row in rows)
    for limit in (1, 5, 12):
        same(source, task, "en", "train", limit)
    path = tmp_path / "ours" / "tydiqa" / "en" / "train.parquet"
    write_split(path, rows)
    shared = task.model_copy(update={"mirror": "tydiqa/{lang}"})
    for split in ("train", "validation"):
        same(open_source(str(tmp_path / "ours")), shared, "en", split)  # type: ignore[arg-type]


def test_every_piece_tells_of_a_stand_in(tmp_path: Path) -> None:
    write_split(tmp_path / "panx" / "PAN-X.de" / "validation.parquet", suite_rows("panx", "de", "validation", limit=5))
    pieces = open_source(str(tmp_path)).pieces(get_task("panx"), "de", "test", size=2)
    assert [piece.stand_in for piece in pieces] == ["validation"] * 3


PIECES = """
import json
from xadapt.data import open_source
from xadapt.data.rows import joined
from xadapt.tasks import get_task
source, task = open_source("hub"), get_task("panx")
print(json.dumps([
    [joined(list(source.pieces(task, lang, "test", limit=9, size=size))) == source.load(task, lang, "test", limit=9)
     for size in (1, 4, 100)] for lang in ("de", "fr")
]))
"""


def test_pieces_from_the_hub_are_its_rows(tmp_path: Path) -> None:
    """French has a test split in two shards there, German none."""
    rows, pinned = suite_rows("panx", "de", "test", limit=12), str(get_task("panx").hub.revision)
    hub = StandIn()
    hub.repositories["datasets/google/xtreme"] = {
        pinned: {
            "PAN-X.de/validation-00000-of-00001.parquet": parquet(rows),
            "PAN-X.fr/test-00000-of-00002.parquet": parquet(rows[:5]),
            "PAN-X.fr/test-00001-of-00002.parquet": parquet(rows[5:]),
        }
    }
    hub.heads["datasets/google/xtreme"] = pinned
    hub.start()
    try:
        assert ask(PIECES, hub, tmp_path) == [[True] * 3] * 2
    finally:
        hub.stop()


# ---- the same errors


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_pieces_are_refused_with_what_the_rows_are(tmp_path: Path, cell: Cell) -> None:
    where, path = FORMS[cell.form], tmp_path / FORMS[cell.form].file
    cell.do(path, good(cell.form))
    source, task = open_source(str(tmp_path)), get_task(where.task)
    if cell.harmless:
        same(source, task, where.lang, where.split)
        return
    said = refused(lambda: source.load(task, where.lang, where.split), str(path))
    for size in (1, 2, 4096):
        assert refused(lambda size=size: list(source.pieces(task, where.lang, where.split, size=size))) == said


def test_rows_before_a_bad_one_are_given(tmp_path: Path) -> None:
    """A piece is held back, since what is left out behind it counts with it."""
    rows = [dict(row) for row in suite_rows("mnli", "en", "train", limit=20)]
    rows[13]["premise"] = " "
    for number in range(2):
        path = tmp_path / "nyu-mll" / "glue" / "mnli" / f"train-{number:05}-of-00002.parquet"
        write_split(path, rows[10 * number : 10 * number + 10])
    pieces = open_source(str(tmp_path)).pieces(get_task("mnli"), "en", "train", size=3)
    read = [next(pieces) for _ in range(4)]
    assert joined(read).columns["text_a"] == [row["premise"] for row in rows[:10]]
    refused(lambda: next(pieces), f"{path}, row 3, column 'premise'")


def test_ids_that_stand_twice_are_found_across_pieces(tmp_path: Path) -> None:
    rows, path = questions(30), tmp_path / "squad" / "train.parquet"
    write_split(path, rows)
    source, task = open_source(str(tmp_path)), get_task("squad")
    assert len(same(source, task, "en", "train")) == 30
    rows[28]["id"] = rows[3]["id"]
    write_split(path, rows)
    for size in SIZES:
        refused(lambda size=size: list(source.pieces(task, "en", "train", size=size)), f"{path}, row 28", "row 3 too")
    same(source, task, "en", "train", 28)


def test_a_shard_of_other_columns_is_refused_when_it_is_reached(tmp_path: Path) -> None:
    folder = tmp_path / "nyu-mll" / "glue" / "mnli"
    write_split(folder / "train-00000-of-00002.parquet", suite_rows("mnli", "en", "train", limit=8))
    write_split(folder / "train-00001-of-00002.parquet", [{"premise": 1, "text": "b"}])
    source, task = open_source(str(tmp_path)), get_task("mnli")
    said = refused(lambda: source.load(task, "en", "train"))
    assert refused(lambda: list(source.pieces(task, "en", "train", size=4))) == said
    assert len(same(source, task, "en", "train", 8)) == 8


# ---- an evaluation that meets something on its way


def nli_rows(count: int, **last: Any) -> list[dict[str, Any]]:
    rows = [{"premise": f"it rains {i}", "hypothesis": "wet", "label": i % 3} for i in range(count)]
    rows[-1] |= last
    return rows


class Watching(Silent):
    """A reporter that does something when the first rows are predicted."""

    def __init__(self, do: Callable[[], object]) -> None:
        self.do, self.seen = do, 0

    def evaluated(self, stage: Stage, total: int) -> Callable[[int], None]:
        def done(rows: int) -> None:
            if not self.seen:
                self.do()
            self.seen += rows

        return done


def evaluated_late(mirror: Path, backbone: Path, store: Store, do: Callable[[], object]) -> tuple[Outcome, int]:
    """The evaluation of a hardly trained model on German, and how many rows were predicted."""
    recipe = make_recipe({
        "backbone": str(backbone), "data": str(mirror), "targets": ["xnli"], "languages": ["de"],
        "regimes": {"full": {"compositions": ["none"]}},
        "training": {"max_steps": 1, "per_device_train_batch_size": 4, "dtype": "float32"},
    }, place="the test")  # fmt: skip
    reporter = Watching(do)
    outcomes = run_plan(make_plan(recipe), store, reporter)
    assert [outcome.stage.kind for outcome in outcomes] == ["train", "evaluate"]
    return outcomes[1], reporter.seen


@pytest.mark.parametrize("what", ["a bad row", "other rows"])
def test_what_is_met_late_leaves_nothing(mirror: Path, tiny_backbone: Path, tmp_path: Path, what: str) -> None:
    """Rows beyond the first block and the pieces read ahead of it."""
    path, count = mirror / "xnli" / "de" / "test.parquet", BLOCK + 2 * PIECE + 1
    write_split(path, nli_rows(count, **({"label": 7} if what == "a bad row" else {})))

    def change() -> None:
        if what == "other rows":
            write_split(tmp_path / "other.parquet", nli_rows(count, premise="another"))
            (tmp_path / "other.parquet").replace(path)

    store = Store(tmp_path / "store")
    outcome, seen = evaluated_late(mirror, tiny_backbone, store, change)
    assert seen >= BLOCK
    assert outcome.status == "failed"
    assert isinstance(outcome.error, UserError)
    wanted = f"{path}, row {count - 1}, column 'label'" if what == "a bad row" else "has changed"
    assert wanted in str(outcome.error)
    assert [file for file in (tmp_path / "store" / "evaluate").rglob("*") if file.suffix != ".lock"] == []


# ---- memory


FLAT = """
import sys
from pathlib import Path
import pyarrow.parquet as pq
import torch
from xadapt.data import open_source
from xadapt.evaluation.predictions import PredictionFile
from xadapt.evaluation.zero_shot import evaluate_languages
from xadapt.models.backbone import Backbone
from xadapt.tasks import get_task

root, task, tokenizer = Path(sys.argv[1]), get_task("xnli"), Backbone(sys.argv[2]).tokenizer

def predict(features):
    return [torch.eye(3)[sum(ids) % 3] for ids in features.input_ids]

def peak(lang, rows):
    Path("/proc/self/clear_refs").write_text("5")
    pieces = open_source(str(root)).pieces(task, lang, "test")
    with PredictionFile(root / f"{lang}.parquet", task) as file:
        (result,) = evaluate_languages(
            task, [(lang, pieces)], predict, tokenizer, max_length=32, keep=file.write, token_cache=root / "tokens"
        )
    assert result.n == rows == pq.read_metadata(root / f"{lang}.parquet").num_rows
    assert 0 < result.values["accuracy"] < 100
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

peak("de", 10_000)
print(peak("en", 10_000), peak("sw", 80_000))
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the high-water mark is Linux's")
def test_memory_does_not_grow_with_the_rows_of_a_language(tmp_path: Path, tiny_backbone: Path) -> None:
    """Eight times the rows, which would take 20 MiB more if they were held, take a few at most."""
    for lang, rows in (("de", 10_000), ("en", 10_000), ("sw", 80_000)):
        columns = {
            "premise": [f"it rains in {lang} {i}" for i in range(rows)],
            "hypothesis": [f"wet {i}" for i in range(rows)],
            "label": [i % 3 for i in range(rows)],
        }
        path = tmp_path / "xnli" / lang / "test.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table(columns), path, row_group_size=5000)
    command = [sys.executable, "-c", FLAT, str(tmp_path), str(tiny_backbone)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    small, large = map(int, done.stdout.split())
    assert large - small < 6 * 1024, f"{small} kB for 10,000 rows, {large} kB for 80,000"
