"""Synonyms in the place of words: copies of classification rows for robust training (RS-DA of Huang et al. 2021)."""

import re
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random

from xadapt.data.files import content_hash, read_lines
from xadapt.data.rows import Rows
from xadapt.errors import UserError, short
from xadapt.tasks import get_task


@dataclass(frozen=True)
class Neighbours:
    """The synonyms of words, by the word in lower case; identity is the sha256 of the file at `place`."""

    of: Mapping[str, tuple[str, ...]]
    identity: str
    place: str


def read_neighbours(path: Path) -> Neighbours:
    """The synonyms in a UTF-8 file with lines of `word TAB neighbour neighbour ...`, such as counter-fitted neighbours.

    Raises UserError with file and line for a line of another form, a word that stands in two lines (whatever its
    case), and a neighbour that is the word or stands twice: each would change the odds of a draw.
    """
    of: dict[str, tuple[str, ...]] = {}
    first: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        place = f"{path}, line {number}"
        word, neighbours = _columns(line, place)
        if first.setdefault(word.lower(), number) != number:
            raise UserError(
                f"{place}: word {short(word)} stands in line {first[word.lower()]} too; put its neighbours in one line"
            )
        of[word.lower()] = neighbours
    return Neighbours(of, content_hash([path]), str(path))


def synonym_copies(rows: Rows, neighbours: Neighbours, *, copies: int, seed: int) -> Rows:
    """Copies of classification rows in which every word is a uniform draw from itself and its synonyms.

    The copies of a row stand one after the other. Each is a draw, none the original but by chance, as in the authors'
    code (uclanlp/Robust-XLT). A word is a run of letters, with apostrophes inside; what stands between words is kept,
    and so is a word's case, Capitalised or ALL CAPS. A draw depends on seed, row and copy alone. Raises UserError for
    rows of another format, and where no word of the rows has a synonym.
    """
    texts = [field for field in ("text_a", "text_b") if field in rows.columns]
    if not texts:
        raise UserError(
            f"the words of task '{rows.task}' cannot be replaced by synonyms: its format is "
            f"{get_task(rows.task).format}, and its labels may depend on the very words; use a classification task"
        )
    drawn: dict[str, list[str]] = {field: [] for field in texts}
    found = False
    for row in range(len(rows)):
        sentences = [_Sentence.of(rows.columns[field][row], neighbours.of) for field in texts]
        found = found or any(sentence.choices for sentence in sentences)
        for copy in range(copies):
            # a string seeds by its sha512, and random() gives the same numbers in every version of Python
            rng = Random(f"{seed} {row} {copy}")
            for field, sentence in zip(texts, sentences, strict=True):
                drawn[field].append(sentence.drawn(rng))
    if not found:
        raise UserError(
            f"no word of {rows.place} has a neighbour in {neighbours.place}, so that its copies would be all alike; "
            f"give a file with words of the language '{rows.lang}'"
        )
    columns = {field: [value for value in values for _ in range(copies)] for field, values in rows.columns.items()}
    tag = f"|synonyms={neighbours.identity}|copies={copies}|seed={seed}"
    return replace(rows, columns=columns | drawn, identity=rows.identity + tag, numbers=())


@dataclass(frozen=True)
class _Sentence:
    """A text in parts, and what each part with synonyms may become, by its place."""

    parts: list[str]
    choices: Mapping[int, tuple[str, ...]]

    @classmethod
    def of(cls, text: str, neighbours: Mapping[str, tuple[str, ...]]) -> "_Sentence":
        parts = _word().split(text)  # words at the odd places
        choices = {}
        for at in range(1, len(parts), 2):
            if synonyms := neighbours.get(parts[at].lower()):
                choices[at] = (parts[at], *(_cased(synonym, parts[at]) for synonym in synonyms))
        return cls(parts, choices)

    def drawn(self, rng: Random) -> str:
        parts = self.parts.copy()
        for at, words in self.choices.items():
            parts[at] = words[int(rng.random() * len(words))]
        return "".join(parts)


def _columns(line: str, place: str) -> tuple[str, tuple[str, ...]]:
    """The word of a line and its neighbours."""
    word, tab, side = line.partition("\t")
    neighbours = tuple(neighbour for neighbour in side.split(" ") if neighbour)
    if not tab or not neighbours:
        raise UserError(f"{place}: a word, a tab and its neighbours with spaces between are wanted, not {short(line)}")
    if not _word().fullmatch(word):
        raise UserError(
            f"{place}: {short(word)} is no word, that is letters alone, with apostrophes between; remove the line"
        )
    for at, neighbour in enumerate(neighbours):
        if len(neighbour.split()) != 1 or len(neighbour.strip()) != len(neighbour):
            raise UserError(f"{place}: neighbour {short(neighbour)} has a tab or a space of its own; put plain spaces")
        if neighbour.lower() in (word.lower(), *(before.lower() for before in neighbours[:at])):
            raise UserError(f"{place}: {short(neighbour)} stands there twice; remove one")
    return word, neighbours


def _cased(synonym: str, word: str) -> str:
    """A synonym in the case of the word it replaces; of a lower-case word as the file has it."""
    if len(word) > 1 and word.isupper():
        return synonym.upper()
    return synonym[:1].upper() + synonym[1:] if word[:1].isupper() else synonym


@cache
def _word() -> re.Pattern[str]:
    """A maximal run of letters and the marks they carry (many scripts write vowels so), with apostrophes inside."""
    marks = "".join(c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c).startswith("M"))
    letters = r"[^\W\d_]"
    run = rf"{letters}+(?:[{marks}]+{letters}*)*"
    return re.compile(rf"({run}(?:['’]{run})*)")
