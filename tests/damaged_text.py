"""Damage to text files: what they hold when good, what is done to their bytes, and how the answer is looked at."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from damage import Cell, refused

MEGABYTE = "x" * 1_000_000
BOM = b"\xef\xbb\xbf"
Change = Callable[[bytes], bytes]
Refusal = tuple[str, str, Change, tuple[str, ...]]  # kind, form, what is done, the parts of the message
Reading = tuple[str, str, Change, tuple[str, str]]  # and which text of what is read is another then


@dataclass(frozen=True)
class Form:
    """A kind of text file: where it lies, what a good one holds, and how one is read; beside are the files it needs."""

    file: str
    good: str
    read: Callable[[Path], Any]
    beside: tuple[tuple[str, str], ...] = ()


QUESTIONS = [
    {"id": "q1", "question": "Where?", "answers": [{"text": "Rome", "answer_start": 13}]},
    {"id": "q2", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}]},
]


def squad(questions: list[dict[str, Any]] = QUESTIONS, **paragraph: Any) -> str:
    """SQuAD's JSON, a question a line from the second line on."""
    inside = {"context": "Ada lives in Rome. It rains there.", "qas": questions} | paragraph
    return json.dumps({"data": [{"paragraphs": [inside]}]}).replace('{"id"', '\n{"id"')


def changed(**values: Any) -> str:
    """The same, the second question changed."""
    return squad([QUESTIONS[0], QUESTIONS[1] | values])


def sub(old: str, new: str) -> Change:
    def do(content: bytes) -> bytes:
        assert old.encode() in content
        return content.replace(old.encode(), new.encode(), 1)

    return do


def instead(text: str) -> Change:
    return lambda _: text.encode()


def of_any_file(name: str, empty: str = "empty") -> Iterator[Cell]:
    """What every text file may suffer; empty is part of the message for one without content."""
    yield Cell("no bytes", name, lambda _: b"", (empty,))
    yield Cell("no rows", name, lambda _: BOM + b"\r\n \n\n", (empty,))
    yield Cell("byte order mark", name, lambda content: BOM + content)
    yield Cell("CRLF", name, lambda content: content.replace(b"\n", b"\r\n"))
    yield Cell("no last newline", name, bytes.rstrip)
    yield Cell("blank lines", name, lambda content: content + b"\r\n\n \n")
    # UTF-8 has no halves of surrogate pairs: their bytes are not UTF-8
    for kind, bad in (("not UTF-8", b"\xe9"), ("surrogate", b"\xed\xa0\x80")):
        yield Cell(kind, name, lambda content, bad=bad: content.replace(b"\n", b"\n" + bad, 1), ("line 2", "UTF-8"))


def of_squad(name: str) -> Iterator[Cell]:
    """JSON that is not of SQuAD's form."""
    for kind, content, named in (
        ("too few columns", '{"data": [{"paragraphs": [{"context": "a"}]}]}', ("article 0, paragraph 0", "'qas'")),
        ("too few columns", '{"data": [{}]}', ("article 0", "'paragraphs'")),
        ("too few columns", '{"version": "1.1"}', ("'data'",)),
        ("another form", '{"data": {"a": 1}}', ("'data'",)),
        ("another form", '{"data": [7]}', ("article 0", "'paragraphs'")),
        ("another form", "7", ("'data'",)),
        ("another form", '{"data": [' * 100_000, ("nested too deeply",)),
        ("no rows", '{"data": []}', ("no question",)),
    ):  # fmt: skip
        yield Cell(kind, name, instead(content), named)


def cells_of(refusals: Iterable[Refusal], readings: Iterable[Reading]) -> list[Cell]:
    return [
        *(Cell(kind, name, do, named) for kind, name, do, named in refusals),
        *(
            Cell(kind, name, do, reads=lambda good, swap=swap: swapped(good, *swap))
            for kind, name, do, swap in readings
        ),
    ]


def swapped(value: Any, old: str, new: str) -> Any:
    """The same lists, tuples and mappings with one text in place of another."""
    if isinstance(value, dict):
        return {swapped(key, old, new): swapped(inside, old, new) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(swapped(inside, old, new) for inside in value)
    return new if value == old else value


def check_cell(root: Path, cell: Cell, forms: Mapping[str, Form]) -> None:
    """Read the good file and the damaged one: the damage is refused, naming the file, or what is read is as it should be."""
    form = forms[cell.form]

    def fill(content: bytes) -> None:
        for name, text in ((form.file, content), *((name, text.encode()) for name, text in form.beside)):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(text)

    fill(form.good.encode())
    good = form.read(root)
    fill(cell.do(form.good.encode()))
    if cell.harmless:
        assert form.read(root) == (cell.reads(good) if cell.reads else good)
    else:
        refused(lambda: form.read(root), str(root / form.file), *cell.named)
