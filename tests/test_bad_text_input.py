"""Bad text files of XTREME's download, CCGbank and raw text: a located error, or read as it should be."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from damage import TEXT_KINDS, Cell, check_matrix
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

from xadapt.data import open_source
from xadapt.tasks import get_task
from xadapt.tasks.spec import Split


def rows(data: str, task: str, lang: str, split: Split) -> Callable[[Path], Any]:
    """Read as rows, of which the columns, the label names and what was skipped are compared."""

    def read(root: Path) -> Any:
        found = open_source(data.format(root)).load(get_task(task), lang, split)
        return dict(found.columns), found.labels, found.skipped

    return read


XTREME, MIRROR = "xtreme:{}", "{}"
FORMS = {
    "pairs": Form(
        "xnli/dev-de.tsv", "It rains.\tIt is wet.\tentailment\nHe spoke.\tHe sang.\tneutral\nA cat.\tA dog.\tneutral\n",
        rows(XTREME, "xnli", "de", "validation"),
    ),
    "tags": Form(
        "udpos/dev-de.tsv", "It\tPRON\nrains\tVERB\n\nYes\tINTJ\nno\tINTJ\n\n", rows(XTREME, "udpos", "de", "validation")
    ),
    "questions": Form("squad/train-v1.1.json", squad(), rows(XTREME, "squad", "en", "train")),
    "sentences": Form(
        "tatoeba/de-en.de", "Ja.\nNein.\nGut.\n", rows(XTREME, "tatoeba", "de", "test"),
        (("tatoeba/de-en.en", "Yes.\nNo.\nWell.\n"),),
    ),
    "mining": Form(
        "bucc2018/de-en.dev.de", "de-1\tJa.\nde-2\tNein.\nde-3\tGut.\n", rows(XTREME, "bucc2018", "de", "validation"),
        (("bucc2018/de-en.dev.en", "en-1\tYes.\nen-2\tNo.\n"), ("bucc2018/de-en.dev.gold", "de-1\ten-1\n")),
    ),
    "gold pairs": Form(
        "bucc2018/de-en.dev.gold", "de-1\ten-1\nde-2\ten-2\n", rows(XTREME, "bucc2018", "de", "validation"),
        (("bucc2018/de-en.dev.en", "en-1\tYes.\nen-2\tNo.\n"), ("bucc2018/de-en.dev.de", "de-1\tJa.\nde-2\tNein.\n")),
    ),
    "derivations": Form(
        "ccg/train.auto",
        "ID=a.1 X\n(<T S 0 2> (<L N N N Ada N>) (<L V V V runs V>) )\nID=a.2 X\n(<T N 0 1> (<L N N N Yes N>) )\n",
        rows(MIRROR, "ccg", "en", "train"),
    ),
    "tagged tokens": Form("ccg/train.tsv", "Ada\tN\nruns\tV\n\nYes\tN\nno\tN\n", rows(MIRROR, "ccg", "en", "train")),
    "tagged sentences": Form("ccg/train.tsv", "Ada runs\tN V\nYes no\tN N\n", rows(MIRROR, "ccg", "en", "train")),
    "raw text": Form("mlm/en/train.txt", "It rains.\nHe spoke.\nA cat.\n", rows(MIRROR, "mlm", "en", "train")),
}  # fmt: skip
REFUSED: list[Refusal] = [
    ("cut off", "pairs", sub("A dog.\tneutral\n", "A d"), ("line 3", "2 columns")),
    ("blank text", "pairs", sub("He spoke.", " "), ("line 2", "column 1", "empty")),
    ("missing label", "pairs", sub("sang.\tneutral", "sang.\t"), ("line 2", "column 3", "''")),
    ("unknown label", "pairs", sub("entailment", "entailmnt"), ("line 1", "column 3", "Did you mean 'entailment'")),
    ("unknown label", "pairs", sub("entailment", MEGABYTE), ("line 1", "column 3")),
    ("blank lines", "pairs", sub("It rains", "\nIt rains"), ("line 1", "1 columns")),
    ("blank lines", "pairs", sub("He spoke", "\nHe spoke"), ("line 2", "1 columns")),
    ("too few columns", "pairs", sub("spoke.\tHe", "spoke. He"), ("line 2", "2 columns")),
    ("too many columns", "pairs", sub("He spoke", "He\tspoke"), ("line 2", "4 columns")),
    ("another form", "pairs", instead(squad()), ("line 1", "1 columns")),
    ("cut off", "tags", sub("no\tINTJ\n\n", "no"), ("line 5", "1 columns")),
    ("blank text", "tags", sub("rains\t", " \t"), ("line 2", "column 1", "empty")),
    ("missing label", "tags", sub("VERB", ""), ("line 2", "column 2", "empty")),
    ("unknown label", "tags", sub("VERB", "VERV"), ("line 2", "column 2", "Did you mean 'VERB'")),
    ("too few columns", "tags", sub("rains\t", "rains "), ("line 2", "1 columns")),
    ("too many columns", "tags", sub("VERB", "VERB\tX"), ("line 2", "3 columns")),
    ("another form", "tags", instead(squad()), ("no column of tags",)),
    ("cut off", "questions", lambda content: content[: len(content) // 2], ("line 2", "not JSON")),
    ("surrogate", "questions", sub("Who?", "\\ud800"), ("line 3", "'q2'", "question", "surrogate")),
    ("surrogate", "questions", sub("rains there", "\\udc00"), ("line 2", "'q1'", "context", "surrogate")),
    ("blank text", "questions", sub("Who?", " "), ("line 3", "'q2'", "question")),
    ("blank text", "questions", instead(squad(context="\u3000")), ("line 2", "'q1'", "context")),
    ("blank text", "questions", instead(changed(answers=[{"text": " ", "answer_start": 3}])), ("line 3", "'q2'", "answers")),
    ("blank text", "questions", instead(changed(id="")), ("article 0, paragraph 0, question 1", "field id")),
    ("missing label", "questions", instead(changed(answers=[])), ("line 3", "'q2'", "no answer")),
    ("unknown label", "questions", instead(changed(answers=[{"text": 7, "answer_start": 0}])), ("line 3", "'q2'", "answers")),
    ("misaligned", "questions", instead(changed(answers={"text": ["Ada"], "answer_start": [0]})), ("line 3", "'q2'")),
    ("misaligned", "questions", instead(changed(answers=[{"text": "Ada"}])), ("line 3", "'q2'", "answer_start")),
    ("bad reference", "questions", sub('"answer_start": 13', '"answer_start": 12'), ("line 2", "'q1'", "character 12 ")),
    ("bad reference", "questions", sub('"answer_start": 0', '"answer_start": -34'), ("line 3", "'q2'", "character -34")),
    ("bad reference", "questions", sub('"answer_start": 0', '"answer_start": 1e400'), ("line 3", "'q2'", "inf")),
    ("bad reference", "questions", sub('"answer_start": 0', '"answer_start": 0.0'), ("line 3", "'q2'", "0.0")),
    ("bad reference", "questions", sub('"answer_start": 0', f'"answer_start": {"9" * 5000}'), ("not JSON",)),
    ("duplicate", "questions", sub('"q2"', '"q1"'), ("line 2", "'q1'", "line 3")),
    ("duplicate", "questions", instead('{"data": [],\n' + squad()[1:]), ("'data' stands twice",)),
    ("another form", "questions", instead(FORMS["pairs"].good), ("line 1", "not JSON")),
    ("cut off", "sentences", sub("Gut.\n", ""), ("de-en.en has 3", "line 3")),
    ("blank text", "sentences", sub("Nein.", " "), ("line 2", "empty")),
    ("misaligned", "sentences", sub("Gut.\n", "Gut.\nSo.\n"), ("de-en.en has 3", "line 4")),
    ("blank lines", "sentences", sub("Nein.", "\nNein."), ("line 4",)),
    ("cut off", "mining", sub("de-3\tGut.\n", "de-3"), ("line 3", "a tab")),
    ("blank text", "mining", sub("Nein.", " "), ("line 2", "column 2", "empty")),
    ("blank lines", "mining", sub("de-2", "\nde-2"), ("line 2", "a tab")),
    ("duplicate", "mining", sub("de-3", "de-1"), ("line 3", "'de-1'", "twice")),
    ("too few columns", "mining", sub("de-2\t", "de-2 "), ("line 2", "a tab")),
    ("too many columns", "mining", sub("Nein.", "Nein\t."), ("line 2", "a tab")),
    ("another form", "mining", instead(squad()), ("line 1", "a tab")),
    ("cut off", "gold pairs", sub("\ten-2\n", ""), ("line 2", "a tab")),
    ("blank text", "gold pairs", sub("en-2", " "), ("line 2", "column 2", "empty")),
    ("blank lines", "gold pairs", sub("de-2", "\nde-2"), ("line 2", "a tab")),
    ("duplicate", "gold pairs", sub("de-2\ten-2", "de-1\ten-1"), ("line 2", "twice")),
    ("bad reference", "gold pairs", sub("en-2", "en-9"), ("line 2", "'en-9'")),
    ("bad reference", "gold pairs", sub("de-2\ten-2", "en-2\tde-2"), ("line 2", "'en-2'")),
    ("megabyte", "gold pairs", sub("en-2", MEGABYTE), ("line 2", "xxx")),
    ("NUL", "gold pairs", sub("en-2", "en-\0002"), ("line 2", "en-")),
    ("too few columns", "gold pairs", sub("de-2\t", "de-2 "), ("line 2", "a tab")),
    ("too many columns", "gold pairs", sub("en-2", "en-2\ten-1"), ("line 2", "a tab")),
    ("another form", "gold pairs", instead(squad()), ("line 1", "a tab")),
    ("cut off", "derivations", sub("(<T N 0 1> (<L N N N Yes N>) )\n", ""), ("line 3", "no derivation")),
    ("cut off", "derivations", sub("Yes N>) )\n", "Ye"), ("line 4", "not a whole derivation")),
    ("blank text", "derivations", sub("V runs V", "V  V"), ("line 2", "not a whole derivation")),
    ("missing label", "derivations", sub("<L V V V", "<L  V V"), ("line 2", "not a whole derivation")),
    ("blank lines", "derivations", sub("ID=a.1", "\nID=a.1"), ("line 1", "a line ID=")),
    ("blank lines", "derivations", sub("ID=a.2", "\nID=a.2"), ("line 3", "a line ID=")),
    ("duplicate", "derivations", sub("a.2", "a.1"), ("line 3", "a.1", "line 1")),
    ("too few columns", "derivations", sub("<L V V V", "<L V V"), ("line 2", "not a whole derivation")),
    ("too many columns", "derivations", sub("<L V V V", "<L V V V V"), ("line 2", "not a whole derivation")),
    ("another form", "derivations", instead("Ada runs\tN V\n"), ("line 1", "a line ID=")),
    ("cut off", "tagged tokens", sub("no\tN\n", "no"), ("line 5", "1 columns")),
    ("blank text", "tagged tokens", sub("runs\t", "\t"), ("line 2", "column 1", "empty")),
    ("missing label", "tagged tokens", sub("runs\tV", "runs\t"), ("line 2", "column 2", "empty")),
    ("too few columns", "tagged tokens", sub("runs\t", "runs"), ("line 2", "1 columns")),
    ("too many columns", "tagged tokens", sub("runs\tV", "runs\tV\tV"), ("line 2", "3 columns")),
    ("another form", "tagged tokens", sub("runs\tV", "runs\tV V"), ("line 2", "several tokens")),
    ("cut off", "tagged sentences", sub("\tN N\n", "\tN"), ("line 2", "2 tokens but 1")),
    ("blank text", "tagged sentences", sub("Yes no", " "), ("line 2", "column 1", "empty")),
    ("missing label", "tagged sentences", sub("\tN N", "\t "), ("line 2", "column 2", "empty")),
    ("misaligned", "tagged sentences", sub("N V", "N"), ("line 1", "2 tokens but 1")),
    ("blank lines", "tagged sentences", sub("Yes", "\nYes"), ("line 1", "several tokens")),
    ("too few columns", "tagged sentences", sub("\tN N", " N N"), ("line 2", "1 columns")),
    ("too many columns", "tagged sentences", sub("\tN N", "\tN\tN"), ("line 2", "3 columns")),
    ("another form", "tagged sentences", instead(squad()), ("line 1", "1 columns")),
]  # fmt: skip
READ: list[Reading] = [
    *((kind, name, sub(old, new), (old, new))
      for name, old in (("pairs", "It rains."), ("tags", "rains"), ("sentences", "Nein."), ("mining", "Nein."),
                        ("derivations", "runs"), ("tagged tokens", "runs"), ("tagged sentences", "runs"), ("raw text", "He spoke."))
      for kind, new in (("megabyte", MEGABYTE), ("NUL", "a\0b"))),
    ("megabyte", "questions", sub("Who?", MEGABYTE), ("Who?", MEGABYTE)),
    ("NUL", "questions", sub("Who?", "a\\u0000b"), ("Who?", "a\0b")),
    ("blank lines", "tags", sub("It", "\n\r\nIt"), ("", "")), ("blank lines", "tags", sub("Yes", "\n\nYes"), ("", "")),
    ("blank lines", "tagged tokens", sub("Ada", "\n\nAda"), ("", "")),
    ("unknown label", "derivations", sub("<L V V V", "<L W V V"), ("V", "W")),  # labels are those of the rows
    ("unknown label", "tagged tokens", sub("runs\tV", "runs\tW"), ("V", "W")),
    ("unknown label", "tagged sentences", sub("N V", "N W"), ("V", "W")),
    ("another form", "sentences", sub("Nein.", "Ne\tin."), ("Nein.", "Ne\tin.")),  # anything is a sentence
    ("another form", "raw text", sub("He spoke.", "He\tspoke."), ("He spoke.", "He\tspoke.")),
]  # fmt: skip
NO_CELL = {
    **{("misaligned", name): "a line holds all that belongs together: see the columns" for name in FORMS if name not in ("questions", "sentences", "tagged sentences")},
    **{("bad reference", name): "nothing in it names anything else" for name in FORMS if name not in ("questions", "gold pairs")},
    **{("duplicate", name): "a line has no id" for name in ("pairs", "tags", "sentences", "tagged tokens", "tagged sentences", "raw text")},
    **{(kind, name): "a line is a text, whatever stands in it" for name in ("sentences", "raw text") for kind in ("missing label", "unknown label", "too few columns", "too many columns")},
    **{(kind, name): "a label is an id: see bad reference" for name in ("mining", "gold pairs") for kind in ("missing label", "unknown label")},
    ("too many columns", "questions"): "JSON has no columns, and more keys than are wanted are common",
    ("cut off", "raw text"): "any part of a text is one",
}  # fmt: skip


def blank_line_in_raw_text(good: Any) -> Any:
    """Blank lines of raw text are left out, and counted."""
    return {"text": good[0]["text"]}, good[1], 1


CELLS = [
    *chain.from_iterable(of_any_file(name) for name in FORMS), *of_squad("questions"), *cells_of(REFUSED, READ),
    *(Cell(kind, "raw text", sub("He", new + "He"), reads=blank_line_in_raw_text)
      for kind, new in (("blank lines", "\n"), ("blank text", " \u3000\n"))),
]  # fmt: skip


def test_the_matrix_has_no_gap() -> None:
    check_matrix(CELLS, NO_CELL, kinds=TEXT_KINDS, forms=FORMS)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_what_is_bad_is_located_and_what_is_not_is_read(tmp_path: Path, cell: Cell) -> None:
    check_cell(tmp_path, cell, FORMS)
