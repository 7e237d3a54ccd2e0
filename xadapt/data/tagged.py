"""Sentences with a tag a word from text files: one word a line, or one sentence a line."""

from collections.abc import Collection, Sequence
from pathlib import Path

from xadapt.errors import UserError, unknown

Sentences = tuple[list[list[str]], list[list[str]]]


def read_token_lines(
    path: Path, lines: Sequence[str], labels: Collection[str] = (), *, faults: dict[int, str] | None = None
) -> Sentences:
    """Tokens and tags of `token TAB tag` lines, a blank line behind each sentence.

    labels are the tags there may be, any where it is empty. Raises UserError with file and line for another number of
    columns, an empty tag, an unknown one and, unless faults is given to note it by the sentence's number, an empty token.
    """
    tokens: list[list[str]] = [[]]
    tags: list[list[str]] = [[]]
    for number, line in enumerate(lines, start=1):
        if not line.strip(" "):
            if tokens[-1]:
                tokens.append([])
                tags.append([])
            continue
        token, tag = _columns(line, ("token", "tag"), f"{path}, line {number}", faults, len(tokens) - 1)
        if labels and tag not in labels:
            raise unknown("tag", tag, labels, place=f"{path}, line {number}, column 2")
        tokens[-1].append(token)
        tags[-1].append(tag)
    return tokens, tags


def read_sentence_lines(path: Path, lines: Sequence[str]) -> Sentences:
    """Tokens and tags of `tokens TAB tags` lines, with spaces between tokens and between tags.

    Raises UserError with file and line for another number of columns, and where there are not as many tags as tokens.
    """
    tokens, tags = [], []
    for number, line in enumerate(lines, start=1):
        place = f"{path}, line {number}"
        # split at the plain space only: a token may hold another, such as the no-break one
        sides = _columns(line, ("tokens", "tags"), place)
        words, categories = ([word for word in side.split(" ") if word] for side in sides)
        if len(words) != len(categories):
            raise UserError(f"{place}: {len(words)} tokens but {len(categories)} tags; give each token one tag")
        tokens.append(words)
        tags.append(categories)
    return tokens, tags


def _columns(
    line: str, names: tuple[str, str], place: str, faults: dict[int, str] | None = None, row: int = 0
) -> tuple[str, str]:
    columns = line.split("\t")
    if len(columns) != 2:
        raise UserError(
            f"{place}: {len(columns)} columns where {names[0]}, a tab and {names[1]} are wanted: {line[:60]!r}"
        )
    for at, (value, name) in enumerate(zip(columns, names, strict=True), start=1):
        if not value.strip(" "):
            fault = f"{place}, column {at}: the {name} is empty; correct or remove the line"
            if faults is None or at > 1:
                raise UserError(fault)
            faults.setdefault(row, fault)
    return columns[0], columns[1]
