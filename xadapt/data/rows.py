"""Canonical rows: a source's columns under the format's field names, labels as the spec's ids, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xadapt.errors import UserError, unknown
from xadapt.tasks import Task


@dataclass(frozen=True)
class Rows:
    """The rows of one task, language and split.

    columns maps the format's fields (`tasks.spec.FORMAT_FIELDS`) to lists of equal length; labels and tags are
    indices into `task.labels`. identity names the content (it enters stage keys); place is for error messages.
    """

    task: str
    lang: str
    split: str
    columns: Mapping[str, Sequence[Any]]
    identity: str
    place: str

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def canonical_rows(
    task: Task, lang: str, split: str, raw: Mapping[str, Sequence[Any]], *, identity: str, place: str,
    label_names: Sequence[str] | None = None,
) -> Rows:  # fmt: skip
    """Check a source's columns against the spec and translate labels to the spec's ids.

    raw holds the source's columns; label_names is the source's own id order where it stores one, else the
    spec's `source_labels` is assumed. Raises UserError naming place, row and column for an empty split, a
    missing column, an empty text, misaligned tokens and tags, or a label outside the spec.
    """
    for field, column in task.columns.items():
        if column not in raw:
            raise unknown("column", column, raw, place=f"the spec of task '{task.name}' ({field}): {place} lacks it")
    columns = {field: raw[column] for field, column in task.columns.items()}
    if not len(next(iter(columns.values()))):
        raise UserError(f"{place}: the {split} split of task '{task.name}' is empty; give a split with rows")
    names = tuple(label_names or task.source_labels)
    check = {"classification": _classification, "tagging": _tagging, "retrieval": _retrieval}[task.format]
    return Rows(task.name, lang, split, check(task, columns, names, place), identity, place)


def _classification(
    task: Task, columns: Mapping[str, Sequence[Any]], names: Sequence[str], place: str
) -> dict[str, Sequence[Any]]:
    label_column = task.columns["label"]
    ids = _label_ids(task, names)
    texts = {field: _texts(columns[field], task.columns[field], place) for field in ("text_a", "text_b")}
    labels = [
        _label(task, ids, raw, f"{place}, row {i}, column '{label_column}'") for i, raw in enumerate(columns["label"])
    ]
    return {**texts, "label": labels}


def _tagging(
    task: Task, columns: Mapping[str, Sequence[Any]], names: Sequence[str], place: str
) -> dict[str, Sequence[Any]]:
    ids = _label_ids(task, names)
    column = task.columns["tags"]
    tags = []
    for i, (tokens, row_tags) in enumerate(zip(columns["tokens"], columns["tags"], strict=True)):
        if tokens is None or row_tags is None or not len(tokens) or len(tokens) != len(row_tags):
            raise UserError(
                f"{place}, row {i}: {len(tokens or ())} tokens but {len(row_tags or ())} values in '{column}'"
            )
        if not (isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)):
            raise UserError(f"{place}, row {i}, column '{task.columns['tokens']}': {tokens!r} is not a list of texts")
        tags.append([_label(task, ids, raw, f"{place}, row {i}, column '{column}'") for raw in row_tags])
    return {"tokens": columns["tokens"], "tags": tags}


def _retrieval(
    task: Task, columns: Mapping[str, Sequence[Any]], names: Sequence[str], place: str
) -> dict[str, Sequence[Any]]:
    return {
        field: [text.strip() for text in _texts(columns[field], task.columns[field], place)]
        for field in ("source", "target")
    }


def _texts(values: Sequence[Any], column: str, place: str) -> Sequence[str]:
    for i, text in enumerate(values):
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{place}, row {i}, column '{column}': {text!r} is not a text; correct or remove the row")
    return values


def _label_ids(task: Task, names: Sequence[str]) -> dict[object, int]:
    """Every spelling a source may use, to the spec's id: the name itself, or the source's own integer."""
    ids: dict[object, int] = {name: i for i, name in enumerate(task.labels)}
    for raw, name in enumerate(names):
        if name in ids:
            ids[raw] = ids[name]
    return ids


def _label(task: Task, ids: Mapping[object, int], raw: object, place: str) -> int:
    if isinstance(raw, bool | list | dict) or raw not in ids:
        raise unknown("label", raw, task.labels, place=f"{place} (task '{task.name}')")
    return ids[raw]
