"""The folder that XTREME's own download makes: tab-separated files and SQuAD's JSON, by task and language.

The download takes the labels out of its test files (google-research/xtreme issue 24): a column is missing, every
answer is empty, tatoeba's English side is sorted. Such files are refused, since a score against them is chance.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xadapt.data.bucc import mining_columns, read_bucc
from xadapt.data.checks import At
from xadapt.data.defects import is_blank
from xadapt.data.files import content_hash, read_lines
from xadapt.data.rows import PIECE, Rows, canonical_rows
from xadapt.data.splits import shares
from xadapt.data.squad_json import answer_texts, question_columns, read_questions
from xadapt.data.tagged import read_token_lines
from xadapt.errors import UserError, unknown
from xadapt.tasks import Task
from xadapt.tasks.spec import Split

# the files of each split, first the task's own side where there are two; MNLI's own dev sets are not in the download
LAYOUT: dict[str, dict[Split, tuple[str, ...]]] = {
    "mnli": {"train": ("xnli/train-en.tsv",), "validation": ("xnli/dev-en.tsv",)},
    "xnli": {"validation": ("xnli/dev-{lang}.tsv",), "test": ("xnli/test-{lang}.tsv",)},
    **{
        name: {
            "train": (f"{name}/train-{{lang}}.tsv",),
            "validation": (f"{name}/dev-{{lang}}.tsv",),
            "test": (f"{name}/test-{{lang}}.tsv",),
        }
        for name in ("pawsx", "udpos", "panx")
    },
    "squad": {"train": ("squad/train-v1.1.json",), "validation": ("squad/dev-v1.1.json",)},
    "xquad": {"test": ("xquad/xquad.{lang}.json",)},
    "mlqa": {"test": ("mlqa/MLQA_V1/test/test-context-{lang}-question-{lang}.json",)},
    "tydiqa": {
        "train": ("tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.{lang}.train.json",),
        "validation": ("tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.{lang}.train.json",),
        "test": ("tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.{lang}.dev.json",),
    },
    "bucc2018": {
        "validation": tuple(f"bucc2018/{{lang}}-en.dev.{side}" for side in ("{lang}", "en", "gold")),
        "test": tuple(f"bucc2018/{{lang}}-en.test.{side}" for side in ("{lang}", "en", "gold")),
    },
    "tatoeba": {"test": ("tatoeba/{lang}-en.{lang}", "tatoeba/{lang}-en.en")},
}
# From so many labels on, all the same is no chance; from so many sentences on, neither is their alphabetical order.
CONSTANT_FROM, SORTED_FROM = 3, 8
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True)
class _Files:
    """The files of a split, and what it is for: the task, the language, the split."""

    task: Task
    lang: str
    split: Split
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class _Raw:
    """What some files hold under the spec's column names; at says where a row stands, faults which lack a text."""

    columns: dict[str, list[Any]]
    at: At | None = None
    faults: Mapping[int, str] = field(default_factory=dict)

    def cut(self, start: int, stop: int) -> "_Raw":
        """The rows from start to stop."""
        columns = {column: values[start:stop] for column, values in self.columns.items()}
        at, faults = self.at, {row - start: fault for row, fault in self.faults.items() if start <= row < stop}
        return _Raw(columns, at and (lambda row: at(start + row)), faults)


class XtremeSource:
    """Reads the folder that XTREME's `scripts/download_data.sh` makes (`download/`), test labels put back."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = f"xtreme:{root}"

    def identity(self, task: Task, lang: str, split: Split) -> str:
        share = shares(task.parts[0], split)[:1]
        return f"sha256:{content_hash(self._find(task, lang, split).paths)}{share[0].suffix if share else ''}"

    def load(self, task: Task, lang: str, split: Split, *, limit: int | None = None) -> Rows:
        files = self._find(task, lang, split)
        raw = _READERS[task.format](files)
        for share in shares(task.parts[0], split)[:1]:
            raw = raw.cut(*share.bounds(len(next(iter(raw.columns.values())))))
        identity, place = self.identity(task, lang, split), " and ".join(map(str, files.paths))
        return canonical_rows(
            task, lang, split, raw.columns, identity=identity, place=place, at=raw.at, limit=limit, faults=raw.faults
        )

    def pieces(
        self, task: Task, lang: str, split: Split, *, limit: int | None = None, size: int = PIECE
    ) -> Iterator[Rows]:
        return self.load(task, lang, split, limit=limit).pieces(size)

    def check(self, task: Task, lang: str, split: Split) -> None:
        _READERS[task.format](self._find(task, lang, split))

    def count(self, task: Task, lang: str, split: Split) -> int | None:
        return None  # sentences and questions are not told apart without reading them

    def languages(self, task: Task) -> list[str]:
        # a language of which one file is missing is there: that is said, loudly, where the file is read
        files = [path for paths in _splits(task).values() for path in paths]
        there = [lang for lang in task.languages if any((self.root / f.format(lang=lang)).is_file() for f in files)]
        return there or list(task.languages)

    def _find(self, task: Task, lang: str, split: Split) -> _Files:
        splits = _splits(task)
        if split not in splits:
            raise unknown(f"split of task '{task.name}'", split, splits, place="the layout of XTREME's download")
        if lang not in task.languages:
            raise unknown(f"language of task '{task.name}'", lang, task.languages, place="XTREME's download")
        paths = tuple(self.root / path.format(lang=lang) for path in splits[split])
        for path in paths:
            if path.suffix == ".gold" and not path.is_file():
                raise _stripped(path, "there is no such file")
            if not path.is_file():
                folder = path.parent
                inside = sorted(p.name for p in folder.iterdir())[:12] if folder.is_dir() else []
                raise UserError(
                    f"--data '{self.name}' has no {split} split of task '{task.name}' for '{lang}': there is no file "
                    f"{path}; '{folder}' holds {', '.join(inside) or 'nothing'}. Give the folder `download/` that "
                    "XTREME's scripts/download_data.sh makes, or `--data hub`"
                )
        return _Files(task, lang, split, paths)


def _splits(task: Task) -> Mapping[Split, tuple[str, ...]]:
    if task.name not in LAYOUT:
        raise unknown("task", task.name, LAYOUT, place="the layout of XTREME's download (--data xtreme:DIR)")
    return LAYOUT[task.name]


def _pairs(files: _Files) -> _Raw:
    """Two texts and a label a line, under the spec's column names."""
    task, (path,) = files.task, files.paths
    rows = _unquoted([line.split("\t") for line in read_lines(path)])
    if all(len(row) == 2 for row in rows):
        raise _stripped(path, "there is no column of labels")
    for number, row in enumerate(rows, start=1):
        if len(row) != 3:
            raise UserError(f"{path}, line {number}: {len(row)} columns where two texts and a label are wanted")
    _refuse_constant(files, [row[2] for row in rows])
    valid, faults = {*task.labels, *task.aliases}, dict[int, str]()
    for number, row in enumerate(rows, start=1):
        for at in (0, 1):
            if not row[at].strip():
                fault = f"{path}, line {number}, column {at + 1}: the text is empty; correct or remove the line"
                faults.setdefault(number - 1, fault)
        if row[2] not in valid:
            raise unknown("label", row[2], sorted(valid), place=f"{path}, line {number}, column 3")
    columns = (task.columns[field] for field in ("text_a", "text_b", "label"))
    return _Raw({column: [row[at] for row in rows] for at, column in enumerate(columns)}, None, faults)


def _unquoted(rows: list[list[str]]) -> list[list[str]]:
    """Take off the quotation marks that the download's csv writer puts round a text with some, which it doubles.

    A file in which any other quotation mark stands was written otherwise, and is kept as it is.
    """
    marked = [field for row in rows for field in row if '"' in field]
    if not all(_QUOTED.fullmatch(field) for field in marked):
        return rows
    return [[field[1:-1].replace('""', '"') if '"' in field else field for field in row] for row in rows]


def _tags(files: _Files) -> _Raw:
    """Sentences of a token and a tag a line; where every token carries the language (`en:Word`), without it."""
    task, (path,) = files.task, files.paths
    lines = read_lines(path)
    words = [line for line in lines if line.strip(" ")]
    if not any(line.partition("\t")[2] for line in words):
        raise _stripped(path, "there is no column of tags")
    prefix = f"{files.lang}:"
    if all(line.startswith(prefix) for line in words):
        lines = [line.removeprefix(prefix) for line in lines]
    _refuse_constant(files, [line.partition("\t")[2] for line in words])
    faults: dict[int, str] = {}
    tokens, tags = read_token_lines(path, lines, task.labels, faults=faults)
    return _Raw({task.columns["tokens"]: tokens, task.columns["tags"]: tags}, None, faults)


def _questions(files: _Files) -> _Raw:
    task, (path,) = files.task, files.paths
    questions = read_questions(path)
    texts = answer_texts(questions)
    if not any(texts) and not any(is_blank(question.context) for question in questions):
        raise _stripped(path, "no question has an answer")
    _refuse_constant(files, texts)
    columns = {task.columns[field]: values for field, values in question_columns(questions).items()}
    return _Raw(columns, lambda row: str(questions[row]))


def _sides(files: _Files) -> _Raw:
    """Sentences and their translations, which stand on the same line of two files."""
    sides = [[line.strip() for line in read_lines(path)] for path in files.paths]
    (path, other), (foreign, english) = files.paths, sides
    if len(foreign) != len(english):
        raise UserError(
            f"{other} has {len(english)} lines but {path} has {len(foreign)}: from line "
            f"{min(len(foreign), len(english)) + 1} on the sides do not answer to each other; fetch both again"
        )
    faults = {
        row: f"{file}, line {row + 1}: the sentence is empty; correct or remove it on both sides"
        for file, side in zip(files.paths, sides, strict=True)
        for row, sentence in enumerate(side)
        if not sentence
    }
    if len(english) >= SORTED_FROM and english == sorted(english):
        raise _stripped(other, "the sentences are sorted, so that they no longer answer to the other side's")
    return _Raw({files.task.columns["source"]: foreign, files.task.columns["target"]: english}, None, faults)


def _two_sides(files: _Files) -> _Raw:
    path = files.paths[0]
    mining = read_bucc(path.parent, files.lang, "dev" if files.split == "validation" else "test")
    if not mining.gold:
        raise _stripped(path.with_suffix(".gold"), "there are no gold pairs")
    return _Raw({files.task.columns[field]: values for field, values in mining_columns(mining).items()})


def _refuse_constant(files: _Files, labels: Sequence[str]) -> None:
    if files.split == "test" and len(labels) >= CONSTANT_FROM and len(set(labels)) == 1:
        raise _stripped(files.paths[0], f"all {len(labels)} labels are {labels[0][:60]!r}")


def _stripped(path: Path, what: str) -> UserError:
    return UserError(
        f"{path}: {what}. XTREME's download takes the labels out of its test sets (google-research/xtreme issue 24), "
        "and a score against what is left means nothing; put back the data sets' own file, or use `--data hub`"
    )


_READERS = {"classification": _pairs, "tagging": _tags, "span": _questions, "retrieval": _sides, "mining": _two_sides}
