"""CCGbank: words and their categories from the derivations of `.auto` files, or from tab-separated files.

An `.auto` file has two lines a sentence: `ID=wsj_0001.1 ...`, and the derivation, a tree of `(<T category head
children> ...)` with the words as leaves, `(<L category tag tag word category>)` (Hockenmaier and Steedman 2005).
"""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from xadapt.data.files import read_lines
from xadapt.data.rows import Rows, canonical_rows
from xadapt.data.tagged import Sentences, read_sentence_lines, read_token_lines
from xadapt.errors import UserError
from xadapt.tasks import Task
from xadapt.tasks.spec import Split

# the usual division of the Wall Street Journal's sections
SECTIONS: dict[Split, tuple[str, ...]] = {
    "train": tuple(f"{number:02}" for number in range(2, 22)),
    "validation": ("00",),
}
NAMES: dict[Split, tuple[str, ...]] = {"train": ("train",), "validation": ("validation", "dev")}
_LEAF = re.compile(r"\(<L (\S+) \S+ \S+ (\S+) \S+>\)")
_NODE = re.compile(r"\(<T \S+ \d+ \d+>")


def ccg_files(folder: Path, split: Split) -> list[Path]:
    """The files of a split below a folder, in order: `train.auto` or `train.tsv`, else the sections' `.auto` files.

    Empty if the folder has neither. Raises UserError if it has sections, but not all of the split's.
    """
    single = [folder / f"{name}{suffix}" for name in NAMES.get(split, ()) for suffix in (".auto", ".tsv")]
    if found := [file for file in single if file.is_file()]:
        return found[:1]
    sections: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("[0-9][0-9]/*.auto")):
        sections.setdefault(file.parent.name, []).append(file)
    wanted = SECTIONS.get(split, ())
    missing = [name for name in wanted if name not in sections]
    if sections and missing:
        raise UserError(
            f"'{folder}' has sections of CCGbank ({', '.join(sections)}), but the {split} split is {wanted[0]} to "
            f"{wanted[-1]}: add {', '.join(missing)}"
        )
    return [file for name in wanted for file in sections.get(name, ())]


def read_ccg(
    task: Task, lang: str, split: Split, files: Sequence[Path], *, identity: str, limit: int | None = None
) -> Rows:
    """The first `limit` sentences of the files, in order; UserError with file and line for what cannot be used."""
    if files[0].suffix == ".auto":
        read = list(islice(_derivations(files), limit))
        tokens, tags = [words for words, _ in read], [categories for _, categories in read]
    else:
        tokens, tags = (side[:limit] for side in _tab_separated(files[0]))
    place = str(files[0]) if len(files) == 1 else f"{files[0]} to {files[-1]}"
    raw = {task.columns["tokens"]: tokens, task.columns["tags"]: tags}
    return canonical_rows(task, lang, split, raw, identity=identity, place=place)


def _tab_separated(path: Path) -> Sentences:
    """A sentence a line where nothing but sentences with spaces stands in the file, else a token a line."""
    lines = read_lines(path)
    blank = any(not line.strip(" ") for line in lines)
    if not blank and any(" " in line for line in lines):
        return read_sentence_lines(path, lines)
    for number, line in enumerate(lines, start=1):
        if " " in line.strip(" "):
            raise UserError(
                f"{path}, line {number}: {line[:60]!r} has several tokens, but blank lines say that the file has one "
                "a line; remove the blank lines or give each token its line"
            )
    return read_token_lines(path, lines)


def _derivations(files: Sequence[Path]) -> Iterator[tuple[list[str], list[str]]]:
    """Words and categories of each sentence; an id may not come twice."""
    first: dict[str, str] = {}
    for path in files:
        waiting = ""  # the id whose derivation is the next line
        lines = read_lines(path)
        for number, line in enumerate(lines, start=1):
            place = f"{path}, line {number}"
            if line.startswith("ID=") == bool(waiting):
                wanted = f"the derivation of {waiting[:60]}" if waiting else "a line ID=..."
                raise UserError(f"{place}: {wanted} is wanted, not {line[:60]!r}; fetch the file again")
            if not waiting:
                waiting = line.removeprefix("ID=").partition(" ")[0]
                if first.setdefault(waiting, place) != place:
                    raise UserError(f"{place}: sentence {waiting[:60]} stands in {first[waiting]} too; remove one")
                continue
            waiting = ""
            yield _leaves(line, place)
        if waiting:
            raise UserError(
                f"{path}, line {len(lines)}: sentence {waiting[:60]} has no derivation; fetch the file again"
            )


def _leaves(line: str, place: str) -> tuple[list[str], list[str]]:
    """Words and categories of a derivation, of which nothing may be left but the brackets that close its nodes."""
    leaves = _LEAF.findall(line)
    rest, nodes = _NODE.subn("", _LEAF.sub("", line))
    if not leaves or rest.replace(" ", "") != ")" * nodes:
        raise UserError(f"{place}: not a whole derivation of <T and <L nodes: {line[:60]!r}; fetch the file again")
    return [word for _, word in leaves], [category for category, _ in leaves]
