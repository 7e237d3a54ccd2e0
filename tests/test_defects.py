"""Rows with a known or rare defect: offsets are mended, rows that lack a text left out; counted everywhere, shown, bounded."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import write_split
from damage import refused
from pydantic import ValidationError
from test_executor import run, scores_of
from test_streaming import same

from xadapt.analysis.export import write_csv
from xadapt.analysis.scorecard import Scorecard
from xadapt.data import Rows, open_source
from xadapt.data.suite import suite_rows
from xadapt.study.recipe_file import make_recipe
from xadapt.study.store import Store
from xadapt.tasks import Task, get_task
from xadapt.tasks.user import stored_spec

Row = dict[str, Any]


def allowing(name: str, share: float) -> Task:
    return get_task(name).model_copy(update={"max_skipped": share})


# ---- offsets


def stripped(row: Row, at: int) -> Row:
    """The row as a hub copy has it: its context had white space at both ends, which went; its offsets did not."""
    before = [" ", "\n\n", "\u00a0 ", ""][at % 4]
    starts = [start + len(before) for start in row["answers"]["answer_start"]]
    return row | {
        "context": (before + row["context"] + " \n").strip(),
        "answers": row["answers"] | {"answer_start": starts},
    }


@pytest.mark.parametrize("start", [-1, -7, 999])
def test_an_offset_outside_the_context_is_a_rare_row_like_another(tmp_path: Path, start: int) -> None:
    rows = [question(at, "a cat sat", ("cat", 2)) for at in range(199)] + [question(199, "a cat sat", ("dog", start))]
    write_split(tmp_path / "squad" / "train.parquet", rows)
    found = same(open_source(str(tmp_path)), get_task("squad"), "en", "train")
    assert (len(found), found.skipped, found.repaired) == (199, 1, 0)


def test_an_answer_that_goes_while_another_stays_moves_nothing(tmp_path: Path) -> None:
    write_split(tmp_path / "squad" / "train.parquet", [question(0, "a cat sat", ("cat", 2), ("dog", 5))])
    found = open_source(str(tmp_path)).load(get_task("squad"), "en", "train")
    assert (found.columns["answers"][0], found.repaired) == ([("cat", 2)], 0)


def test_a_share_is_reckoned_as_people_do(tmp_path: Path) -> None:
    """0.29 of 100 rows is 29, whatever binary fractions make of it."""
    rows = [question(at, "a cat sat" if at >= 29 else " ", ("cat", 2)) for at in range(100)]
    write_split(tmp_path / "squad" / "train.parquet", rows)
    assert open_source(str(tmp_path)).load(allowing("squad", 0.29), "en", "train").skipped == 29


def test_rows_are_not_counted_where_only_their_ids_say_whose_they_are(tmp_path: Path) -> None:
    rows = [row | {"id": f"{name}-{row['id']}"} for name in ("arabic", "finnish") for row in suite_rows("tydiqa", "en", "validation", limit=5)]  # fmt: skip
    write_split(tmp_path / "google" / "xtreme" / "tydiqa" / "validation-00000-of-00001.parquet", rows)
    source, task = open_source(str(tmp_path)), get_task("tydiqa")
    assert (len(source.load(task, "ar", "test")), source.count(task, "ar", "test")) == (5, None)


def true_answers(rows: list[Row]) -> list[list[tuple[str, int]]]:
    return [list(zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)) for row in rows]


def by_hand(context: str, text: str, start: int) -> int:
    """The nearest place at or before the offset, found by trying each."""
    return max(at for at in range(start + 1) if context[at : at + len(text)] == text)


@pytest.mark.parametrize("split", ["train", "test"])
def test_offsets_into_stripped_contexts_are_mended(tmp_path: Path, split: Any) -> None:
    rows = suite_rows("tydiqa", "en", "validation", limit=80)
    assert all(row["context"] == row["context"].strip() for row in rows)
    file = "train" if split == "train" else "validation"
    bad = [stripped(row, at) for at, row in enumerate(rows)]
    write_split(tmp_path / "tydiqa_goldp" / "tydiqa.en" / f"{file}.parquet", bad)
    task = get_task("tydiqa").model_copy(update={"splits": {split: (file,)}})
    found = same(open_source(str(tmp_path)), task, "en", split)
    assert (len(found), found.skipped, found.repaired) == (80, 0, 60)
    shown = list(zip(found.columns["context"], found.columns["answers"], strict=True))
    wanted = [[(t, by_hand(r["context"], t, s)) for t, s in true_answers([r])[0]] for r in bad]
    assert [answers for _, answers in shown] == wanted
    assert all(context[start : start + len(text)] == text for context, answers in shown for text, start in answers)
    # a text that stands between the true place and the offset, too, is all that could lead astray
    assert wanted == true_answers(rows)


def test_real_contexts_that_were_stripped_are_mended(realdata: Path, tmp_path: Path) -> None:
    rows = pq.read_table(realdata / "tydiqa_goldp" / "tydiqa.ar" / "validation.parquet").to_pylist()
    lead = [len(row["context"]) - len(row["context"].lstrip()) for row in rows]
    true = [[(text, start - by) for text, start in true_answers([row])[0]] for row, by in zip(rows, lead, strict=True)]
    write_split(tmp_path / "tydiqa_goldp" / "tydiqa.ar" / "validation.parquet", [row | {"context": row["context"].strip()} for row in rows])  # fmt: skip
    found = open_source(str(tmp_path)).load(get_task("tydiqa"), "ar", "test")
    assert found.columns["answers"] == true
    assert found.repaired == sum(by > 0 for by in lead) > 100


def question(at: int, context: str, *answers: tuple[str, int]) -> Row:
    texts, starts = [text for text, _ in answers], [start for _, start in answers]
    return {"id": f"q{at}", "context": context, "question": "?", "answers": {"text": texts, "answer_start": starts}}


CASES = [
    question(0, "one two one", ("one", 8)),  # it fits, also where the text stands before
    question(1, "one two one", ("one", 7)),  # the nearest before, not the nearest
    question(2, "one two one", ("one", 99)),
    question(3, "one two", ("two", 3)),  # only behind its offset
    question(4, "one two", ("three", 0)),
    question(5, "one two", ("three", 0), ("two", 5)),
    question(6, "one two", ("one", -4)),
]


@pytest.mark.parametrize("form", ["parquet", "json"])
def test_answers_that_are_not_found_are_left_out_of_training_alone(tmp_path: Path, form: str) -> None:
    """Training needs a place; an evaluation compares the texts, and leaves no question out."""
    if form == "parquet":
        write_split(tmp_path / "squad" / "train.parquet", CASES)
        write_split(tmp_path / "xquad" / "xquad.de" / "test.parquet", CASES)
    else:
        qas = [
            {
                "id": r["id"],
                "question": "?",
                "answers": [{"text": t, "answer_start": s} for t, s in true_answers([r])[0]],
            }
            for r in CASES
        ]
        paragraphs = [{"context": row["context"], "qas": [qa]} for row, qa in zip(CASES, qas, strict=True)]
        for file in ("squad/train-v1.1.json", "xquad/xquad.de.json"):
            (tmp_path / file).parent.mkdir()
            (tmp_path / file).write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), "utf-8")
    source = open_source(str(tmp_path) if form == "parquet" else f"xtreme:{tmp_path}")
    train = same(source, allowing("squad", 0.5), "en", "train")
    assert train.columns["id"] == ["q0", "q1", "q2", "q5"]
    assert train.columns["answers"] == [[("one", 8)], [("one", 0)], [("one", 8)], [("two", 4)]]
    assert (train.skipped, train.repaired) == (3, 3)
    assert list(train.numbers) == [0, 1, 2, 5]
    refused(lambda: source.load(get_task("squad"), "en", "train"), "q3" if form == "json" else "row 3", "'two'", "3")
    test = same(source, get_task("xquad"), "de", "test")
    assert [[text for text, _ in answers] for answers in test.columns["answers"]] == [row["answers"]["text"] for row in CASES]  # fmt: skip
    assert (test.skipped, test.repaired) == (0, 3)


# ---- rows that lack a text


def blanked(name: str, row: Row) -> Row:
    """The row without a text that the task needs."""
    return row | {
        "mnli": {"hypothesis": ""},
        "squad": {"question": " \n"},
        "udpos": {"tokens": ["", *row.get("tokens", [])[1:]]},
        "hellaswag": {"endings": [*row.get("endings", [])[:3], " "]},
        "cosmos_qa": {"answer2": None},
        "tatoeba": {"source_sentence": "\n"},
        "mlm": {"text": ""},
    }[name]  # fmt: skip


FILES = {
    "mnli": ("mnli/train.parquet", "en", "train"), "squad": ("squad/train.parquet", "en", "train"),
    "udpos": ("udpos/udpos.English/train.parquet", "en", "train"),
    "hellaswag": ("hellaswag/train.parquet", "en", "train"), "cosmos_qa": ("cosmos_qa/train.parquet", "en", "train"),
    "tatoeba": ("tatoeba/tatoeba.deu/validation.parquet", "de", "test"), "mlm": ("mlm/en/train.parquet", "en", "train"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_rare_row_without_a_text_is_left_out_and_counted(tmp_path: Path, name: str) -> None:
    file, lang, split = FILES[name]
    source = suite_rows(name, lang, "validation" if name == "tatoeba" else split, limit=50)
    rows = [dict(source[at % len(source)]) for at in range(200)]
    for at, row in enumerate(rows):
        row |= {"id": f"q{at}"} if name == "squad" else {}
    rows[3], rows[150] = blanked(name, rows[3]), blanked(name, rows[150])
    write_split(tmp_path / file, rows)
    data, task = open_source(str(tmp_path)), get_task(name)
    found = same(data, task, lang, split)  # type: ignore[arg-type]
    assert (len(found), found.skipped) == (198, 2)
    assert list(found.numbers) == [at for at in range(200) if at not in (3, 150)]
    write_split(tmp_path / "good" / file, [row for at, row in enumerate(rows) if at not in (3, 150)])
    assert found.columns == open_source(str(tmp_path / "good")).load(task, lang, split).columns  # type: ignore[arg-type]
    # a third is more than a hundredth of them: then the first is named
    rows[20] = blanked(name, rows[20])
    write_split(tmp_path / file, rows)
    said = refused(lambda: data.load(task, lang, split), f"{tmp_path / file}, row 3,", "max_skipped")  # type: ignore[arg-type]
    for size in (1, 7, 4096):
        assert refused(lambda size=size: list(data.pieces(task, lang, split, size=size))) == said


@pytest.mark.parametrize("limit", [1, 3, 4, 5, 97, 98, 99, 100, 250])
def test_a_cap_is_of_rows_that_are_kept_and_changes_not_what_may_be_left_out(tmp_path: Path, limit: int) -> None:
    """One bad row among the first four is rare among a hundred and fifty; those behind the cap are not looked at."""
    rows = [{"premise": f"p {at}", "hypothesis": "h", "label": at % 3} for at in range(150)]
    rows[3]["premise"] = None
    write_split(tmp_path / "mnli" / "train.parquet", rows)
    found = same(open_source(str(tmp_path)), get_task("mnli"), "en", "train", limit)
    kept = [row for row in rows if row["premise"]][:limit]
    assert found.columns["text_a"] == [row["premise"] for row in kept]
    assert found.skipped == (limit > 3)
    rows[99]["premise"] = " "
    write_split(tmp_path / "mnli" / "train.parquet", rows)
    if limit > 98:
        refused(lambda: same(open_source(str(tmp_path)), get_task("mnli"), "en", "train", limit), "row 3,")
    else:
        same(open_source(str(tmp_path)), get_task("mnli"), "en", "train", limit)


def test_what_may_be_left_out_is_counted_of_the_language_and_of_the_share(tmp_path: Path) -> None:
    """Of the 100 Finnish questions among 400 one may lack its text, whatever the others have; of their tenth none."""
    langs = ("finnish", "english", "swahili", "russian")
    rows = [question(at, "a b", ("b", 2)) | {"id": f"{langs[at % 4]}-{at}"} for at in range(400)]
    for at in (8, 1, 2):
        rows[at]["question"] = ""
    task = allowing("tydiqa", 0.01)
    folder = tmp_path / task.hub.dataset / task.hub.config
    write_split(folder / "validation-00000-of-00001.parquet", rows)
    write_split(folder / "train-00000-of-00001.parquet", [*rows[10:], *rows[:10]])
    data = open_source(str(tmp_path))
    found = same(data, task, "fi", "test")
    assert (len(found), found.skipped) == (99, 1)
    assert list(found.numbers) == [at for at in range(100) if at != 2]
    refused(lambda: data.load(task, "fi", "validation"), "row 398,")
    refused(lambda: list(data.pieces(task, "fi", "validation", size=3)), "row 398,")
    rows[12]["question"] = ""
    write_split(folder / "validation-00000-of-00001.parquet", rows)
    refused(lambda: data.load(task, "fi", "test"), "row 8,")


@pytest.mark.parametrize(
    ("file", "lines", "task", "lang", "split", "named"),
    [
        ("xnli/dev-de.tsv", "Ja.\tNein.\tneutral", "xnli", "de", "validation", ("line 3", "column 2")),
        ("udpos/dev-de.tsv", "Ja\tINTJ\n", "udpos", "de", "validation", ("line 5", "column 1")),
        ("tatoeba/de-en.de", "Ja.", "tatoeba", "de", "test", ("line 3",)),
    ],
)
def test_text_files_go_by_the_same_rule(
    tmp_path: Path, file: str, lines: str, task: str, lang: str, split: Any, named: tuple[str, ...]
) -> None:
    bad = {"xnli": "Ja.\t \tneutral", "udpos": "\tINTJ\n", "tatoeba": " "}[task]
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).with_suffix(".en").write_text("Yes.\nNo.\n" * 50, "utf-8")
    data = open_source(f"xtreme:{tmp_path}")

    def put(count: int) -> None:
        written = [lines.replace("neutral", "entailment"), lines, *[bad] * count, *[lines] * (98 - count)]
        (tmp_path / file).write_text("\n".join(written) + "\n", "utf-8")

    put(1)
    found = same(data, get_task(task), lang, split)
    assert (len(found), found.skipped) == (99, 1)
    assert list(found.numbers) == [0, 1, *range(3, 100)]
    put(2)
    refused(lambda: data.load(get_task(task), lang, split), str(tmp_path / file), *named)


def test_what_the_spec_leaves_out_does_not_count_towards_the_share(tmp_path: Path) -> None:
    rows = [{"sentence1": "NS" if at < 50 else "a", "sentence2": "b", "label": at % 2} for at in range(100)]
    rows[70]["sentence1"] = "  "
    write_split(tmp_path / "pawsx" / "de" / "test.parquet", rows)
    found = same(open_source(str(tmp_path)), get_task("pawsx"), "de", "test")
    assert (len(found), found.skipped) == (49, 51)


@pytest.mark.parametrize("share", [-0.1, 1.1, "a few"])
def test_the_share_is_from_0_to_1(share: object) -> None:
    with pytest.raises(ValidationError, match="max_skipped"):
        Task.model_validate(get_task("mnli").model_dump() | {"max_skipped": share})


def test_a_spec_that_does_not_say_the_share_is_kept_as_before() -> None:
    own = get_task("mnli").model_copy(update={"name": "mine", "own": True})
    assert "max_skipped" not in stored_spec(own)["task_spec"]
    assert set(stored_spec(get_task("tydiqa"))) == {"task", "task_version"}


# ---- the record, the scores and the tables


def test_what_was_left_out_stands_beside_the_score(tmp_path: Path, tiny_backbone: Path) -> None:
    root = tmp_path / "mirror"
    for split, bad in (("train", 1), ("validation", 2), ("test", 0)):
        rows = [{"sentence1": f"a {at}", "sentence2": "b", "label": at % 2} for at in range(200)]
        for at in range(bad):
            rows[10 * at]["sentence2"] = " "
        write_split(root / "pawsx" / "en" / f"{split}.parquet", rows)
    rows = [{"sentence1": f"c {at}", "sentence2": "d", "label": at % 2} for at in range(200)]
    rows[5]["sentence1"], rows[7]["sentence1"] = None, "NS"
    write_split(root / "pawsx" / "de" / "test.parquet", rows)
    recipe = make_recipe({
        "backbone": str(tiny_backbone), "data": str(root), "targets": ["pawsx"], "languages": ["en", "de"],
        "regimes": {"full": {"compositions": ["none"]}},
        "training": {"max_steps": 1, "per_device_train_batch_size": 4, "dtype": "float32"},
    }, place="the test")  # fmt: skip
    store = Store(tmp_path / "store")
    outcomes, _ = run(recipe, store)
    train, evaluated = (outcome.result for outcome in outcomes.values())
    assert train
    assert evaluated
    told = ("train_samples", "train_skipped", "train_repaired", "dev_samples", "dev_skipped", "dev_repaired")
    assert [train.record[name] for name in told] == [199, 1, 0, 198, 2, 0]
    ids = [
        row["id"]
        for row in pq.read_table(evaluated.folder / "predictions.parquet").to_pylist()
        if row["language"] == "de"
    ]
    assert ids == [str(at) for at in range(200) if at not in (5, 7)]

    scores = scores_of(recipe, store)
    assert {(score.language, score.n, score.skipped, score.repaired) for score in scores} == {
        ("en", 200, 0, 0),
        ("de", 198, 2, 0),
    }
    card = Scorecard(scores)
    table = card.languages(card.settings()[0], "pawsx")
    (line,) = table.lines
    assert ["※" in cell.marks for cell in line.cells if cell] == [False, True]
    assert all("⊖" in cell.marks for cell in line.cells if cell), "one of the train rows and two of dev"
    assert ["3 rows" in note.text for note in table.footnotes if note.mark == "⊖"] == [True]
    (note,) = (note.text for note in table.footnotes if note.mark == "※")
    assert all(part in note for part in ("pawsx", "de", "2 of 200"))
    write_csv(scores, tmp_path / "scores.csv")
    header, *lines = (tmp_path / "scores.csv").read_text("utf-8").splitlines()
    at = header.split(",").index("skipped")
    assert {line.rsplit(",", len(header.split(",")) - at)[1] for line in lines} == {"0", "2"}


def test_counts_add_up_over_pieces_and_languages_in_turn(tmp_path: Path) -> None:
    from xadapt.data.splits import in_turn

    rows = Rows("mnli", "en", "train", {"text_a": ["a", "b"]}, "i", "p", skipped=2, repaired=1, numbers=(0, 3))
    assert [(piece.skipped, piece.repaired, piece.numbers) for piece in rows.pieces(1)] == [(2, 1, (0,)), (0, 0, (3,))]
    both = in_turn([rows, replace(rows, lang="de")], limit=None)
    assert (both.skipped, both.repaired, len(both.numbers)) == (4, 2, 0)
