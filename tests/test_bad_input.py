"""Bad Parquet input, format by kind of damage: a located error, or the damage is read right."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import (
    AT,
    KINDS,
    Cell,
    Do,
    check_matrix,
    every,
    no_rows,
    put,
    refused,
    undecodable,
    without,
    write,
    written_as,
)

from xadapt.data import Rows, open_source
from xadapt.data.suite import suite_rows
from xadapt.tasks import get_task
from xadapt.tasks.spec import Split

Row = dict[str, Any]


@dataclass(frozen=True)
class Where:
    """A format's example: a task and its file, the columns that hold a text each, and the labels' where they do."""

    task: str
    file: str
    texts: tuple[str, ...]
    lang: str = "en"
    split: Split = "train"
    label: str = ""


FORMS = {
    "classification": Where("mnli", "mnli/train.parquet", ("premise", "hypothesis"), label="label"),
    "tagging": Where("udpos", "udpos/udpos.English/train.parquet", ()),
    "span": Where("squad", "squad/train.parquet", ("id", "context", "question")),
    "choice": Where("hellaswag", "hellaswag/train.parquet", ("ctx_a",), label="label"),
    "choice by column": Where("cosmos_qa", "cosmos_qa/train.parquet", ("context", "answer0", "answer3"), label="label"),
    "choice in structure": Where("commonsense_qa", "commonsense_qa/train.parquet", ("question",), label="answerKey"),
    "retrieval": Where(
        "tatoeba", "tatoeba/tatoeba.deu/validation.parquet", ("source_sentence", "target_sentence"), "de", "test"
    ),
    "mlm": Where("mlm", "mlm/en/train.parquet", ("text",)),
    "mining": Where("bucc2018", "bucc18/bucc18.de/test.parquet", ("id", "text"), "de", "test"),
}
# why a kind of damage cannot befall a format
NO_CELL = {
    ("surrogate", "*"): "Arrow keeps text as UTF-8, in which half of a pair cannot be written: see not UTF-8",
    ("missing label", "retrieval"): "a sentence's label is its translation, a text",
    ("unknown label", "retrieval"): "a sentence's label is its translation, a text",
    ("unknown label", "span"): "an answer is no label but a part of its context: see bad reference",
    **{(kind, "mlm"): "there is nothing but texts" for kind in ("missing label", "unknown label", "misaligned")},
    ("misaligned", "classification"): "no column is counted against another",
    ("misaligned", "retrieval"): "both sentences stand in one row",
    ("misaligned", "mining"): "gold names any number of sentences: see bad reference",
    ("misaligned", "choice by column"): "every choice has a column: see missing column",
    **{("bad reference", form): "no column refers to another" for form in FORMS if form not in ("span", "mining")},
    **{("duplicate", form): "rows have no id" for form in FORMS if form not in ("span", "mining")},
}


@cache
def _good(form: str) -> list[Row]:
    where = FORMS[form]
    if where.task != "bucc2018":
        return suite_rows(where.task, where.lang, "validation" if form == "retrieval" else where.split, limit=6)
    rows = suite_rows(where.task, where.lang, where.split)
    foreign = [row for row in rows if row["gold"]][:3]
    return foreign + [row for row in rows if any(row["id"] in other["gold"].split() for other in foreign)]


def good(form: str) -> dict[str, Any]:
    """The columns of a format's good file."""
    rows = _good(form)
    return {name: [row[name] for row in rows] for name in rows[0]}


def load(root: Path, form: str) -> Rows:
    where = FORMS[form]
    return open_source(str(root)).load(get_task(where.task), where.lang, where.split)


def first(text: str) -> Callable[[list[str]], list[str]]:
    return lambda texts: [text, *texts[1:]]


def first_choice(text: str) -> Callable[[Row], Row]:
    return lambda choices: choices | {"text": [text, *choices["text"][1:]]}


def at(column: str, row: int = AT) -> tuple[str, str]:
    return f"row {row}", f"'{column}"


# ---- the matrix


HARMLESS = {"byte order mark": "\ufeffIt rains.", "CRLF": "It\r\nrains.", "NUL": "It\0rains.", "megabyte": "x" * 1_000_000}  # fmt: skip


def of_the_file(form: str, where: Where) -> Iterator[Cell]:
    yield Cell("no rows", form, no_rows, ("empty",))
    yield Cell("no bytes", form, written_as(lambda _: b""), ("Parquet",))
    yield Cell("cut off", form, written_as(lambda content: content[: len(content) // 2]), ("Parquet",))
    yield Cell("cut off", form, written_as(lambda content: content[:-4]), ("Parquet",))
    yield Cell("another type", form, written_as(lambda _: b"a\tb\n"), ("Parquet",))
    for column in get_task(where.task).source_columns:
        yield Cell("missing column", form, without(column), (f"'{column}'", "lacks it"))
        yield Cell("nothing", form, put(column, None), at(column))


def of_texts(form: str, where: Where) -> Iterator[Cell]:
    for column in where.texts:
        for blank in ("", " \n\u3000"):
            yield Cell("blank text", form, put(column, blank), (*at(column), "not a text"))
        for value in (7, 1.5, True, b"bytes", ["x"], {"a": 1}, date(2020, 1, 1)):
            yield Cell("another type", form, every(column, value), at(column, 0))
        late = every(column, 2**60, pa.timestamp("ms"))  # for Python's dates
        yield Cell("another type", form, late, at(column, 0))
        yield Cell("not UTF-8", form, undecodable(column), (*at(column), "0xe9"))
        for kind, text in HARMLESS.items():
            if column == "id":  # gold names it
                continue
            tail = (lambda old, text=text: old + text) if column == "context" else text  # answers stay where they are
            yield Cell(kind, form, put(column, tail), reads=column)


def of_labels(form: str, where: Where) -> Iterator[Cell]:
    column = where.label
    yield Cell("missing label", form, every(column, None, pa.null()), (*at(column, 0), "'None'"))
    for value in (99, -1, 1.0, 1.5, True, float("nan"), b"1", ["A"], {"a": 1}, 2**63):
        kind = "unknown label" if isinstance(value, int) and not isinstance(value, bool) else "another type"
        named = (*at(column, 0), "unknown label", "Valid: ")
        yield Cell(kind, form, every(column, value, pa.uint64() if value == 2**63 else None), named)
    yield Cell("unknown label", form, every(column, "Entailment?"), (*at(column, 0), "'Entailment?'"))
    yield Cell("unknown label", form, every(column, "x" * 1_000_000), (*at(column, 0), "xxx"))
    yield Cell("missing label", form, every(column, ""), (*at(column, 0), "''"))


def of_tagging() -> Iterator[Cell]:
    """Words and their tags, one each."""
    tokens, tags = "tokens", "pos_tags"
    for column in (tokens, tags):
        for value in (7, 1.5, "ab", True, b"ab", {"a": 1}):
            yield Cell("another type", "tagging", every(column, value), at(column, 0))
        yield Cell("misaligned", "tagging", put(column, lambda old: old[1:]), (*at(tokens), f"'{tags}'", "tokens but"))
        yield Cell("misaligned", "tagging", put(column, lambda old: [*old, old[0]]), (*at(tokens), f"'{tags}'"))
        yield Cell("no rows", "tagging", put(column, []), (*at(tokens), " 0 "))
        yield Cell("nothing", "tagging", put(column, first(None)), (*at(column), "None"))
    for blank in ("", " "):
        yield Cell("blank text", "tagging", put(tokens, first(blank)), (*at(tokens), "token 0", repr(blank)))
    for kind, text in HARMLESS.items():
        yield Cell(kind, "tagging", put(tokens, first(text)), reads=tokens)
    for kind, tag in (("missing label", ""), ("unknown label", "VERV")):
        yield Cell(kind, "tagging", put(tags, first(tag)), (*at(tags), f"'{tag}'", "Valid: ADJ"))
    width = len(good("tagging")[tokens][0])
    yield Cell("another type", "tagging", every(tokens, [1] * width), (*at(tokens, 0), "token 0 of [1, "))
    for value in (1.0, True):
        yield Cell("another type", "tagging", every(tags, [value] * width), (*at(tags, 0), f"'{value}'"))
    bad = b"caf\xe9"
    encoded = pa.array([[bad]]).cast(pa.list_(pa.binary())).view(pa.list_(pa.string()))
    yield Cell(
        "not UTF-8", "tagging", lambda path, _: write(path, {tokens: encoded, tags: [["X"]]}), (*at(tokens, 0), "0xe9")
    )


def of_span() -> Iterator[Cell]:
    """Answers must stand in their context."""

    def answer(text: Any, start: Any) -> Do:
        return put("answers", {"text": text, "answer_start": start})

    def shifted(by: int) -> Do:
        return put("answers", lambda old: old | {"answer_start": [old["answer_start"][0] + by]})

    place = at("answers")
    for by in (-1, -10_000):  # one that is too large is mended: see test_defects
        yield Cell("bad reference", "span", shifted(by), (*place, "does not stand at"))
    # Python would count -1 from the end, where the full stop stands
    yield Cell("bad reference", "span", answer(["."], [-1]), (*place, "-1"))
    yield Cell("bad reference", "span", answer(["x" * 1_000_000], [0]), (*place, "does not stand at"))
    yield Cell("misaligned", "span", answer(["a", "b"], [0]), (*place, "2 texts but 1"))
    yield Cell("misaligned", "span", answer([], [0]), (*place, "0 texts but 1"))
    yield Cell("missing label", "span", answer([], []), (*place, "no answer"))
    yield Cell("nothing", "span", answer([None], [0]), (*place, "None"))
    yield Cell("nothing", "span", answer(["a"], [None]), (*place, "None"))
    yield Cell("nothing", "span", answer(None, None), (*place, "None"))
    for blank in ("", " "):
        yield Cell(
            "blank text", "span", put("answers", lambda old, blank=blank: {"text": [blank], "answer_start": [3]}), place
        )
    for value in ({"text": ["a"], "answer_start": [0.0]}, {"text": ["a"], "answer_start": [True]}, {"text": [1], "answer_start": [0]}, {"texts": ["a"]}, "a", ["a"], 1):  # fmt: skip
        yield Cell("another type", "span", every("answers", value), at("answers", 0))
    yield Cell("duplicate", "span", put("id", good("span")["id"][0]), (*at("id"), "row 0"))


def of_choice() -> Iterator[Cell]:
    """As many texts as there are labels; a stem that may be empty."""
    lists: tuple[tuple[str, str, str, Callable[[Any], Any]], ...] = (
        ("choice", "endings", "endings", first), ("choice in structure", "choices", "choices.text", first_choice)
    )  # fmt: skip
    for form, column, shown, changed in lists:
        yield Cell(
            "misaligned",
            form,
            put(column, lambda old: old[:-1] if isinstance(old, list) else old | {"text": old["text"][1:]}),
            at(shown),
        )
        yield Cell("nothing", form, put(column, changed(None)), (*at(shown), "choice 0", "None"))
        yield Cell("blank text", form, put(column, changed(" ")), (*at(shown), "choice 0", "' '"))
        for value in (7, "ab", [1, 2, 3, 4], [["a"]] * 4):
            yield Cell("another type", form, every(column, value), at(shown, 0))
        for kind, text in HARMLESS.items():
            yield Cell(kind, form, put(column, changed(text)), reads=column)
    for column, form in (("ctx_b", "choice"), ("question", "choice by column")):
        yield Cell("another type", form, every(column, 7), at(column, 0))
        yield Cell("blank text", form, put(column, ""), reads=column)


def of_mining() -> Iterator[Cell]:
    """Gold names English sentences, and only foreign ones have it."""
    columns = good("mining")
    english = columns["side"].index("english")
    gold = at("gold")
    yield Cell("bad reference", "mining", put("gold", "en-none"), (*gold, "'en-none'"))
    yield Cell("bad reference", "mining", put("gold", columns["id"][0]), (*gold, columns["id"][0]))
    yield Cell("bad reference", "mining", put("gold", columns["id"][english], english), at("gold", english))
    yield Cell("missing label", "mining", every("gold", ""), (*at("gold", 0), "no sentence has gold"))
    yield Cell("another type", "mining", every("gold", 7), at("gold", 0))
    yield Cell("another type", "mining", every("side", 7), at("side", 0))
    yield Cell("unknown label", "mining", put("side", "englsh"), (*at("side"), "Did you mean 'english'"))
    yield Cell("duplicate", "mining", put("id", columns["id"][0]), (*at("id"), "row 0"))
    yield Cell("duplicate", "mining", every("text", "Ja."), ("row 0", "every foreign sentence"))
    # the same id on the other side is another sentence
    yield Cell("duplicate", "mining", put("id", columns["id"][english]), reads="id")


CELLS = [
    *chain.from_iterable(part(form, where) for form, where in FORMS.items() for part in (of_the_file, of_texts)),
    *chain.from_iterable(of_labels(form, where) for form, where in FORMS.items() if where.label),
    *of_tagging(), *of_span(), *of_choice(), *of_mining(),
]  # fmt: skip


def test_the_matrix_has_no_gap() -> None:
    check_matrix(CELLS, NO_CELL, kinds=KINDS, forms=FORMS)
    with pytest.raises(UnicodeEncodeError):
        pa.array(["\ud800"])


@pytest.mark.parametrize("form", FORMS)
def test_the_good_files_are_good(tmp_path: Path, form: str) -> None:
    write(tmp_path / FORMS[form].file, good(form))
    assert len(load(tmp_path, form)) == len(_good(form))


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_what_is_bad_is_located_and_what_is_not_is_read(tmp_path: Path, cell: Cell) -> None:
    where, path = FORMS[cell.form], tmp_path / FORMS[cell.form].file
    cell.do(path, good(cell.form))
    if not cell.harmless:
        refused(lambda: load(tmp_path, cell.form), str(path), *cell.named)
        return
    rows, columns = load(tmp_path, cell.form), get_task(where.task).columns
    assert rows.skipped == 0
    assert len(rows) == len(_good(cell.form))
    field = next(
        field for field, names in columns.items() if cell.reads in [n.partition(".")[0] for n in names.split("|")]
    )
    (written,) = pq.read_table(path).column(cell.reads)[AT : AT + 1].to_pylist()
    written = written["text"] if isinstance(written, dict) else written
    found = rows.columns[field][AT]
    assert found == written or (isinstance(found, list) and written in found)
