"""Canonical rows: a source's columns under the format's field names, labels as the spec's ids, checked."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from xadapt.data.checks import At, checked_columns
from xadapt.data.defects import Allowance, Defects, fault_of, find_defects
from xadapt.errors import UserError, unknown
from xadapt.tasks import Task
from xadapt.tasks.spec import Split

PIECE = 4096  # rows of a split that are held at a time where it is read in pieces


@dataclass(frozen=True)
class Rows:
    """The rows of one task, language and split.

    columns maps the format's fields (`tasks.spec.FORMAT_FIELDS`) to lists of equal length; labels and tags are
    indices into `task.labels`. identity names the content (it enters stage keys); place is for error messages;
    skipped counts the rows left out, since the spec says so or for a defect, repaired those of which an answer's
    offset was mended; no_answer is the spec's; labels names the ids where the spec leaves the labels open; stand_in
    names the split whose rows stand for one that the data lacks. numbers are the rows' places in the split before any
    was left out, none where they come from several splits.
    """

    task: str
    lang: str
    split: str
    columns: Mapping[str, Sequence[Any]]
    identity: str
    place: str
    skipped: int = 0
    no_answer: bool = False
    labels: tuple[str, ...] = ()
    stand_in: str = ""
    repaired: int = 0
    numbers: Sequence[int] = field(default=(), compare=False, repr=False)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, at: slice) -> "Rows":
        """Some of the rows."""
        columns = {field: values[at] for field, values in self.columns.items()}
        return replace(self, columns=columns, numbers=self.numbers[at])

    def behind(self, at: int) -> "Rows":
        """The rows from `at` on, of which those before have counted what was skipped and repaired."""
        return replace(self[at:], skipped=0, repaired=0) if at else self

    def pieces(self, size: int) -> Iterator["Rows"]:
        """The rows in runs of `size`; what was skipped and repaired counts with the first."""
        for at in range(0, len(self), size):
            yield self.behind(at)[:size]

    def relabelled(self, labels: Sequence[str]) -> "Rows":
        """The rows with tags as ids of `labels`; names that are not among them come behind, where no head predicts."""
        names = (*labels, *sorted(set(self.labels) - set(labels)))
        ids = {name: i for i, name in enumerate(names)}
        tags = [[ids[self.labels[tag]] for tag in row] for row in self.columns["tags"]]
        return replace(self, columns={**self.columns, "tags": tags}, labels=names)


def joined(pieces: Sequence[Rows]) -> Rows:
    """Pieces of one split, in order, as one."""
    if len(pieces) == 1:
        return pieces[0]
    columns = {field: [value for piece in pieces for value in piece.columns[field]] for field in pieces[0].columns}
    return with_counts(replace(pieces[0], numbers=[n for piece in pieces for n in piece.numbers]), columns, pieces)


def with_counts(rows: Rows, columns: Mapping[str, Sequence[Any]], parts: Iterable[Rows]) -> Rows:
    """The rows with other columns, made of parts whose counts add up."""
    counts = [(part.skipped, part.repaired) for part in parts]
    skipped, repaired = map(sum, zip(*counts, strict=True))
    return replace(rows, columns=columns, skipped=skipped, repaired=repaired)


def canonical_rows(
    task: Task, lang: str, split: Split, raw: Mapping[str, Sequence[Any]], *, identity: str, place: str,
    at: At | None = None, label_names: Sequence[str] | None = None, limit: int | None = None, may_be_empty: bool = False,
    faults: Mapping[int, str] | None = None, allowance: Allowance | None = None, first: int = 0,
) -> Rows:  # fmt: skip
    """Check a source's columns against the spec and translate labels to the spec's ids; the first `limit` rows.

    raw holds the source's columns; at says where a row stands, by default its number in `place`; label_names is the
    source's own id order where it stores one, else the spec's `source_labels` is assumed. Of rows that lack a text the
    reader may say so itself, by faults; they are left out and counted as far as the allowance goes, by default that of
    these rows. A piece of a split may_be_empty, and begins with the split's row `first`. Raises UserError naming place,
    row and column for an empty split, a missing column, more rows with a defect than are allowed, misaligned tokens and
    tags, or a label outside the spec.
    """
    check_columns(task, raw, place)
    columns = {field: _column(column, raw) for field, column in task.columns.items()}
    at, names, faults = (
        at or (lambda row: f"{place}, row {row}"),
        tuple(label_names or task.source_labels),
        faults or {},
    )
    count = len(next(iter(columns.values())))
    found = find_defects(task, split, columns, faults)
    kept, skipped, bad = _kept(task, columns, found.unusable, limit)
    allowance = allowance or Allowance(task, lambda: count)
    for row in bad:
        allowance.leave_out(faults.get(row) or partial(fault_of, task, columns, row, names=names, at=at))
    if not (kept or may_be_empty):
        raise without_rows(task, split, place)
    columns = _mended(columns, kept, found)
    if task.open_labels:
        task = task.model_copy(update={"labels": _labels_found(columns["tags"], names)})
    checked = checked_columns(task, columns, names=names, at=lambda row: at(kept[row]), offsets=split == "train")
    return Rows(
        task.name, lang, split, checked, identity, place, skipped, task.no_answer,
        labels=task.labels if task.open_labels else (), repaired=len(found.moved.intersection(kept)),
        numbers=[first + row for row in kept] if len(kept) < count else range(first, first + count),
    )  # fmt: skip


def check_columns(task: Task, there: Collection[str], place: str) -> None:
    """UserError for a column that the spec names and a source lacks."""
    for name in task.source_columns:
        if name not in there:
            raise unknown("column", name, there, place=f"the spec of task '{task.name}': {place} lacks it")


def without_rows(task: Task, split: Split, place: str) -> UserError:
    """The error for a split of which no row can be used."""
    return UserError(f"{place}: the {split} split of task '{task.name}' is empty; give a split with rows")


def _mended(columns: Mapping[str, Sequence[Any]], kept: Sequence[int], found: Defects) -> dict[str, Sequence[Any]]:
    """The rows that are kept, with their answers where they stand."""
    chosen: dict[str, Sequence[Any]] = {field: [values[row] for row in kept] for field, values in columns.items()}
    if found.answers:
        chosen["answers"] = [found.answers.get(row, raw) for row, raw in zip(kept, chosen["answers"], strict=True)]
    return chosen


def _labels_found(rows: Sequence[Any], names: Sequence[str]) -> tuple[str, ...]:
    """The tags that occur, sorted by name; what is no tag is left to the check to refuse."""
    tags = {tag for row in rows if isinstance(row, list) for tag in row if isinstance(tag, str | int)}
    found = {names[tag] if isinstance(tag, int) and 0 <= tag < len(names) else tag for tag in tags}
    return tuple(sorted(tag for tag in found if isinstance(tag, str) and tag.strip()))


def _column(column: str, raw: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
    """`a`, the field `a.b` of structures, or lists made of `a|b|c`; None where a structure lacks the field."""
    if "|" in column:
        return [list(values) for values in zip(*(_column(name, raw) for name in column.split("|")), strict=True)]
    name, dot, inner = column.partition(".")
    return [value.get(inner) if isinstance(value, dict) else None for value in raw[name]] if dot else raw[name]


def _kept(
    task: Task, columns: Mapping[str, Sequence[Any]], unusable: Collection[int], limit: int | None
) -> tuple[Sequence[int], int, list[int]]:
    """The numbers of the first `limit` rows that can be used; how many were left out before the last of them; and
    those of them, or of all where there are no more than the limit, that the spec would have kept.
    """
    told = {i for field, values in task.skip.items() for i, raw in enumerate(columns[field]) if _plain(raw) in values}
    dropped, rows = told.union(unusable), range(len(next(iter(columns.values()))))
    kept = [i for i in rows if i not in dropped][:limit] if dropped else rows[:limit]
    stop = kept[-1] if limit is not None and len(kept) == limit else len(rows)
    bad = sorted(i for i in unusable if i < stop and i not in told)
    return kept, sum(i < kept[-1] for i in dropped) if limit and kept else len(dropped), bad


def _plain(raw: object) -> object:
    return raw if isinstance(raw, int | str) and not isinstance(raw, bool) else None


def joined_splits(dev: Rows, test: Rows) -> Rows:
    """The rows of both splits of a mining task as one, under a column `split`."""
    columns = {field: [*dev.columns[field], *test.columns[field]] for field in test.columns}
    columns["split"] = ["validation"] * len(dev) + ["test"] * len(test)
    return with_counts(replace(test, numbers=()), columns, (dev, test))
