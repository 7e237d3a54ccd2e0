"""Bad files of a submission, or of its labels: a located error, or read as they should be."""

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from damage import TEXT_KINDS, Cell, check_matrix, refused
from damaged_text import (
    MEGABYTE,
    Form,
    Reading,
    Refusal,
    cells_of,
    changed,
    check_cell,
    instead,
    of_any_file,
    of_squad,
    squad,
    sub,
)

from xadapt.evaluation.submission_files import (
    SUBMISSION_TASKS,
    read_gold_answers,
    read_lines,
    read_pairs,
    read_predicted_answers,
)

ANSWERS = '{\n"q1": "Rome",\n"q2": "Ada"\n}\n'


def submission(file: str, reader: Callable[[Path], Any]) -> Callable[[Path], Any]:
    return lambda root: reader(root / file)


FORMS = {
    "predicted labels": Form(
        "test-de.tsv", "neutral\nentailment\nneutral\n",
        submission("test-de.tsv", lambda path: read_lines(path, SUBMISSION_TASKS["xnli"], gold=False)),
    ),
    "predicted tags": Form(
        "test-de.tsv", "NOUN\nVERB\n\nDET\nX\n",
        submission("test-de.tsv", lambda path: read_lines(path, SUBMISSION_TASKS["udpos"], gold=False)),
    ),
    "predicted pairs": Form("test-de.tsv", "de-1\ten-5\nde-2\ten-6\n", submission("test-de.tsv", lambda path: read_pairs(path, "de", gold=False))),
    "predicted answers": Form(
        "test-de.json", ANSWERS,
        submission("test-de.json", lambda path: read_predicted_answers(path, questions={"q1": [], "q2": []})),
    ),
    "label answers": Form(
        "test-de.json", squad(), submission("test-de.json", lambda path: read_gold_answers(path, SUBMISSION_TASKS["xquad"]))
    ),
}  # fmt: skip
JSONS = ("predicted answers", "label answers")
LABELS = ("predicted labels", "predicted tags")
REFUSED: list[Refusal] = [
    ("cut off", "predicted labels", lambda content: content[:-4], ("line 3", "'neut'")),
    ("blank text", "predicted labels", sub("entailment", " "), ("line 2", "''")),
    ("missing label", "predicted labels", sub("entailment", ""), ("line 2", "''")),
    ("unknown label", "predicted labels", sub("entailment", "entailmnt"), ("line 2", "Did you mean 'entailment'")),
    ("blank lines", "predicted labels", sub("neutral", "\nneutral"), ("line 1", "''")),
    ("too many columns", "predicted labels", sub("entailment", "It rains.\tentailment"), ("line 2", "unknown label")),
    ("another form", "predicted labels", instead(ANSWERS), ("line 1", "'{'")),
    ("megabyte", "predicted labels", sub("entailment", MEGABYTE), ("line 2", "xxx")),
    ("NUL", "predicted labels", sub("entailment", "entail\0ment"), ("line 2", "unknown label")),
    ("megabyte", "predicted tags", sub("VERB", MEGABYTE), ("line 2", "xxx")),
    ("NUL", "predicted tags", sub("VERB", "VE\0RB"), ("line 2", "unknown label")),
    ("cut off", "predicted tags", lambda content: content.rstrip()[:-3], ("line 4", "'DE'")),
    ("unknown label", "predicted tags", sub("VERB", "VERV"), ("line 2", "Did you mean 'VERB'")),
    ("too many columns", "predicted tags", sub("VERB", "rains\tVERB"), ("line 2", "unknown label")),
    ("another form", "predicted tags", instead(ANSWERS), ("line 1", "'{'")),
    ("cut off", "predicted pairs", sub("\ten-6\n", ""), ("line 2", "a tab")),
    ("blank text", "predicted pairs", sub("en-6", ""), ("line 2", "a tab")),
    ("blank lines", "predicted pairs", sub("de-2", "\nde-2"), ("line 2", "a tab")),
    ("bad reference", "predicted pairs", sub("de-2", "fr-2"), ("line 2", "fr-2")),
    ("duplicate", "predicted pairs", sub("de-2\ten-6", "de-1\ten-5"), ("line 2", "line 1")),
    ("megabyte", "predicted pairs", sub("en-6", MEGABYTE), ("line 2", "xxx")),
    ("NUL", "predicted pairs", sub("en-6", "en-6\0"), ("line 2", "en-6")),
    ("too few columns", "predicted pairs", sub("de-2\t", "de-2 "), ("line 2", "a tab")),
    ("too many columns", "predicted pairs", sub("en-6", "en-6\t1"), ("line 2", "a tab")),
    ("another form", "predicted pairs", instead(ANSWERS), ("line 1", "'{'")),
    ("cut off", "predicted answers", lambda content: content[:-5], ("line 3", "not JSON")),
    ("NUL", "predicted answers", sub("Ada", "A\0da"), ("line 3", "not JSON")),
    ("missing label", "predicted answers", sub('"Ada"', "null"), ("line 3", "'q2'", "None")),
    ("unknown label", "predicted answers", sub('"Ada"', "7"), ("line 3", "'q2'", "7")),
    ("unknown label", "predicted answers", sub('"Ada"', "9" * 5000), ("not JSON",)),
    ("bad reference", "predicted answers", sub("q2", "q9"), ("line 3", "'q9'")),
    ("bad reference", "predicted answers", sub("q2", "\\ud800"), ("line 3",)),
    ("duplicate", "predicted answers", sub("q2", "q1"), ("line 3", "'q1' stands twice")),
    ("another form", "predicted answers", instead("[1, 2]"), ("not an object",)),
    ("another form", "predicted answers", instead('{"a":' * 100_000), ("nested too deeply",)),
    ("another form", "predicted answers", instead(FORMS["predicted tags"].good), ("line 1", "not JSON")),
    ("cut off", "label answers", lambda content: content[: len(content) // 2], ("line 2", "not JSON")),
    ("missing label", "label answers", instead(changed(answers=None)), ("question 1", "'answers'")),
    ("missing label", "label answers", instead(changed(answers=[{"text": None}])), ("line 3", "'q2'", "not a text")),
    ("unknown label", "label answers", instead(changed(answers=[{"text": 7}])), ("line 3", "'q2'", "not a text")),
    ("misaligned", "label answers", instead(changed(answers={"text": ["Ada"]})), ("question 1", "'answers'")),
    ("blank text", "label answers", instead(changed(id=None)), ("question 1", "field id", "None")),
    ("duplicate", "label answers", sub('"q2"', '"q1"'), ("line 3", "'q1' stands twice")),
    ("duplicate", "label answers", sub('"question": "Who?"', '"id": "q3"'), ("'id' stands twice",)),
]  # fmt: skip
READ: list[Reading] = [
    *((kind, name, sub(': "Ada"', f': "{new}"'), ("Ada", read))
      for name in ("predicted answers", "label answers")
      for kind, new, read in (("megabyte", MEGABYTE, MEGABYTE), ("NUL", "a\\u0000b", "a\0b"), ("surrogate", "\\ud800", "\ud800"))
      if (kind, name) != ("NUL", "predicted answers")),
    ("blank text", "predicted answers", sub("Ada", ""), ("Ada", "")),
]  # fmt: skip
NO_CELL = {
    **{("misaligned", name): "a line, or a key with its value, holds all that belongs together" for name in FORMS if name != "label answers"},
    **{("bad reference", name): "nothing in it names anything else" for name in (*LABELS, "label answers")},
    **{("duplicate", name): "a line has no id" for name in LABELS},
    **{(kind, "predicted pairs"): "a label is an id: see bad reference" for kind in ("missing label", "unknown label")},
    **{("too many columns", name): "JSON has no columns, and more keys than are wanted are common" for name in JSONS},
    **{("too few columns", name): "a line holds one label" for name in LABELS},
    ("too few columns", "predicted answers"): "an object holds keys with values, else it is no JSON",
    ("blank text", "predicted tags"): "a blank line ends a sentence: score_submission compares where they end",
    ("missing label", "predicted tags"): "a blank line ends a sentence",
}  # fmt: skip
CELLS = [
    *(
        replace(cell, named=(), reads=lambda good: []) if (cell.form, cell.named) == ("predicted pairs", ("empty",)) else cell
        for cell in chain.from_iterable(of_any_file(name, "not JSON" if name in JSONS else "empty") for name in FORMS)
    ),  # mining that finds no pair scores 0
    *of_squad("label answers"), *cells_of(REFUSED, READ),
]  # fmt: skip


def test_the_matrix_has_no_gap() -> None:
    check_matrix(CELLS, NO_CELL, kinds=TEXT_KINDS, forms=FORMS)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_what_is_bad_is_located_and_what_is_not_is_read(tmp_path: Path, cell: Cell) -> None:
    check_cell(tmp_path, cell, FORMS)


@pytest.mark.parametrize("name", FORMS)
def test_a_folder_of_the_files_name_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / FORMS[name].file).mkdir()
    refused(lambda: FORMS[name].read(tmp_path), FORMS[name].file, "cannot be read")
