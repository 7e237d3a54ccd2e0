"""Defects that real data sets have: offsets that do not fit are mended, rows without a usable text are left out."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xadapt.data.checks import NOWHERE, At, checked_columns
from xadapt.errors import UserError
from xadapt.tasks import Task
from xadapt.tasks.spec import Split

Columns = Mapping[str, Sequence[Any]]
# the fields in which a text is needed; a stem may be blank, an id names the row, and mining needs every sentence
_TEXTS = {
    "classification": ("text_a", "text_b"), "span": ("context", "question"), "choice": ("prompt",),
    "retrieval": ("source", "target"), "mlm": ("text",),
}  # fmt: skip


@dataclass
class Allowance:
    """How many rows of a split may be left out for a defect before the first of them is an error.

    rows says how many the split has, whatever part of it is read, so that neither a cap nor the cut into pieces
    decides; it is asked only where a row has a defect. Rows that the spec's `skip` leaves out do not count.
    """

    task: Task
    rows: Callable[[], int]
    left_out: int = 0
    first: str = ""
    most: int = 0

    def leave_out(self, fault: str | Callable[[], str]) -> None:
        """Count a row; UserError with what is wrong with the first one, once there are more than may be."""
        share, name = self.task.max_skipped, self.task.name
        if not self.left_out:
            rows = self.rows()
            self.first, self.most = fault if isinstance(fault, str) else fault(), int(round(share * rows, 6))
            self.first += f" (of {rows} rows up to {self.most} such are left out: max_skipped {share:g} of '{name}')"
        self.left_out += 1
        if self.left_out > self.most:
            raise UserError(self.first)


@dataclass(frozen=True)
class Defects:
    """The rows of some columns that cannot be used; the answers that were mended, and the rows in which one moved."""

    unusable: frozenset[int]
    answers: Mapping[int, Any]
    moved: frozenset[int]


def find_defects(task: Task, split: Split, columns: Columns, known: Iterable[int] = ()) -> Defects:
    """What is wrong with the rows, as far as one may be left out for it or mended; the rest is left to the checks.

    known are rows of which the reader says so. An answer that does not stand at its offset is looked for before it, since
    offsets are too large where white space was stripped off the context: the nearest place is taken. In training a row
    none of whose answers is found cannot be used; elsewhere answers are compared by their texts alone, and all stay.
    """
    unusable, answers, moved = {*known, *_without_a_text(task, columns)}, {}, set[int]()
    for row, raw in enumerate(columns["answers"] if task.format == "span" else ()):
        context = columns["context"][row]
        if row in unusable or not isinstance(context, str) or not _are_answers(raw):
            continue
        found = [_nearest(context, *answer) for answer in _pairs(raw)]
        kept = [at for at, start in enumerate(found) if start != NOWHERE or split != "train"]
        if [found[at] for at in kept] == raw["answer_start"]:
            continue
        answers[row] = {"text": [raw["text"][at] for at in kept], "answer_start": [found[at] for at in kept]}
        both = zip(found, raw["answer_start"], strict=True)
        moved |= {row} if any(start not in (NOWHERE, given) for start, given in both) else set()
        unusable |= set() if kept else {row}
    return Defects(frozenset(unusable), answers, frozenset(moved))


def fault_of(task: Task, columns: Columns, row: int, *, names: Sequence[str], at: At) -> str:
    """What is wrong with a row that cannot be used, with its place: what the check says of it alone."""
    try:
        checked_columns(
            task, {field: [values[row]] for field, values in columns.items()}, names=names, at=lambda _: at(row)
        )
    except UserError as error:
        return str(error)
    raise AssertionError(f"{at(row)} can be used")


def is_blank(text: object) -> bool:
    """Whether nothing stands where a text should; what is of another type is no such defect."""
    return text is None or (isinstance(text, str) and not text.strip())


def _without_a_text(task: Task, columns: Columns) -> Iterator[int]:
    for field in _TEXTS.get(task.format, ()):
        yield from (row for row, text in enumerate(columns.get(field, ())) if is_blank(text))
    if task.format == "choice":
        lists = enumerate(columns["choices"])
        yield from (row for row, choices in lists if isinstance(choices, list) and any(map(is_blank, choices)))
    elif task.format == "span":
        lists = enumerate(columns["answers"])
        yield from (row for row, raw in lists if _are_answers(raw) and any(map(is_blank, raw["text"])))
    elif task.format == "tagging":
        pairs = zip(columns["tokens"], columns["tags"], strict=True)
        yield from (row for row, pair in enumerate(pairs) if _lacks_a_token(*pair))


def _lacks_a_token(tokens: Any, tags: Any) -> bool:
    paired = isinstance(tokens, list) and isinstance(tags, list) and len(tokens) == len(tags)
    # a space of another kind is a token in real data
    return paired and not (tokens and all(isinstance(token, str) and token.strip(" ") for token in tokens))


def _are_answers(raw: Any) -> bool:
    """Whether these are SQuAD's answers by their types; whatever else is for the check to refuse."""
    texts, starts = (raw.get(key) if isinstance(raw, dict) else None for key in ("text", "answer_start"))
    if not (isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts)):
        return False
    return all(isinstance(text, str) for text in texts) and all(type(start) is int for start in starts)


def _pairs(raw: Mapping[str, list[Any]]) -> Iterable[tuple[str, int]]:
    return zip(raw["text"], raw["answer_start"], strict=True)


def _nearest(context: str, text: str, start: int) -> int:
    """The last place at or before `start` where the text stands; NOWHERE if there is none."""
    return context.rfind(text, 0, start + len(text)) if start >= 0 else NOWHERE
