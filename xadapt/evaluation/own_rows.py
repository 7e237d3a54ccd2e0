"""A user's own rows for a trained task, block by block; torch-free."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from xadapt.data.checks import SURROGATE, checked_columns
from xadapt.data.rows import Rows
from xadapt.errors import UserError, short, unknown
from xadapt.evaluation.own_records import Kind, Record, read_records
from xadapt.tasks import Task

BLOCK = 256  # rows that are read, predicted and written together: what memory holds of a file of any size
LANGUAGE_FIELDS = ("lang", "language")
_GIVEN_BY_THE_MODEL = {"label", "tags", "answers"}


@dataclass(frozen=True)
class OwnRows:
    """A block of rows, with an id each: the row's own, or its number from 1. langs are what the rows say, "" for none."""

    rows: Rows
    ids: Sequence[str | int]
    langs: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)


def check_lang(lang: str | None, *, place: str = "--lang") -> None:
    """UserError for what is no language code; any language will do."""
    if lang is not None and not re.fullmatch("[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*", lang):
        raise UserError(f"{place} {short(lang)} is no language code; give one such as de or zh-Hant")


def read_own_rows(
    lines: Iterable[bytes], task: Task, *, name: str, kind: Kind, block: int = BLOCK
) -> Iterator[OwnRows]:
    """The rows of a file's lines, `block` at a time, in the format's fields with something in the place of labels.

    A field goes by the task's own column (`premise`) or the format's name (`text_a`), whichever the first row has;
    tokens may be a text, split at white space, and choices in CSV a JSON list. A row's `id` and its `lang` or
    `language` are kept, other fields passed over. Raises UserError naming line and field, and for a file without rows.
    """
    records = read_records(lines, name=name, kind=kind)
    spelt: dict[str, str] = {}
    number = 0
    while found := list(islice(records, block)):
        spelt = spelt or _spelling(task, found[0])
        yield _block(task, found, spelt, name, number)
        number += len(found)
    if not number:
        raise UserError(f"{name} has no rows; give one a line")


def _spelling(task: Task, first: Record) -> dict[str, str]:
    """The name each field goes by in the first row: the task's column or the format's own."""
    at, record = first
    found: dict[str, str] = {}
    for field, column in task.columns.items():
        if field in _GIVEN_BY_THE_MODEL | {"id"}:
            continue
        spellings = dict.fromkeys((column, field))
        chosen = next((spelling for spelling in spellings if _has(record, spelling)), None)
        if chosen is None:
            place = f"{at}, which task '{task.name}' reads as {' or '.join(spellings)}"
            raise unknown("field", column, record, place=place)
        found[field] = chosen
    return found


def _has(record: Mapping[str, Any], spelling: str) -> bool:
    return all(
        isinstance(record.get(head), dict) and inner in record[head] if dot else head in record
        for head, dot, inner in (part.partition(".") for part in spelling.split("|"))
    )


def _value(record: Mapping[str, Any], spelling: str) -> Any:
    if "|" in spelling:
        return [_value(record, part) for part in spelling.split("|")]
    head, dot, inner = spelling.partition(".")
    return record[head][inner] if dot else record[head]


def _block(task: Task, records: Sequence[Record], spelt: Mapping[str, str], name: str, before: int) -> OwnRows:
    def at(row: int) -> str:
        return records[row][0]

    for row, (_, record) in enumerate(records):
        for spelling in spelt.values():
            if not _has(record, spelling):
                raise UserError(f"{at(row)}: no field '{spelling}', which the first row has; give every row the same")
    columns = {field: [_value(record, spelling) for _, record in records] for field, spelling in spelt.items()}
    columns = {field: [_READ.get(field, _as_it_is)(value) for value in values] for field, values in columns.items()}
    for row, tokens in enumerate(columns.get("tokens", ())):
        if not (isinstance(tokens, list) and tokens):
            raise UserError(
                f"{at(row)}, column '{spelt['tokens']}': {short(tokens)} has no words; give a list or a text"
            )
    named = task.columns.get("id", "id")
    ids = [_id(record, named, before + row + 1, place) for row, (place, record) in enumerate(records)]
    langs = [_lang(record, spelt, place) for place, record in records]
    columns |= _placeholders(task, columns, len(records))
    # no_answer: the question's answers are not known; messages name fields as the file does
    asked = task.model_copy(update={"columns": {**task.columns, **spelt}, "no_answer": True})
    checked = checked_columns(asked, columns, names=task.labels, at=at)
    return OwnRows(Rows(task.name, "", "predict", checked, "", name, no_answer=task.no_answer), ids, langs)


def _placeholders(task: Task, columns: Mapping[str, Sequence[Any]], rows: int) -> dict[str, list[Any]]:
    """Something valid for what a model is to find, and ids by which questions are told apart."""
    made: dict[str, list[Any]] = {
        "tags": [[task.labels[0]] * len(tokens) for tokens in columns.get("tokens", ())],
        "label": list(task.labels[:1]) * rows,
        "answers": [{"text": [], "answer_start": []}] * rows,
        "id": [str(row) for row in range(rows)],
    }
    return {field: made[field] for field in task.columns if field in made}


def _id(record: Mapping[str, Any], column: str, number: int, place: str) -> str | int:
    given = record.get(column, record.get("id"))
    if given is None or given == "":
        return number
    if not isinstance(given, str | int) or isinstance(given, bool) or SURROGATE.search(str(given)):
        raise UserError(f"{place}, column 'id': {short(given)} is neither a text nor a number; correct or remove it")
    return given


def _lang(record: Mapping[str, Any], spelt: Mapping[str, str], place: str) -> str:
    """The row's own language, where a field says it that the task does not read as something else."""
    for field in LANGUAGE_FIELDS:
        if field not in spelt.values() and (given := record.get(field)):
            check_lang(str(given), place=f"{place}, field '{field}':")
            return str(given)
    return ""


def _as_it_is(value: Any) -> Any:
    return value


def _words(value: Any) -> Any:
    return value.split() if isinstance(value, str) else value


def _list(value: Any) -> Any:
    """A JSON list from a cell of a table."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value  # which the check refuses


_READ = {"tokens": _words, "choices": _list}
