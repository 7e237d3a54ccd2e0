"""A user's own rows for a trained task, from JSON lines or CSV, block by block; torch-free."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from xadapt.data.checks import checked_columns
from xadapt.data.rows import Rows
from xadapt.errors import UserError, short, unknown
from xadapt.tasks import Task

BLOCK = 256  # rows that are read, predicted and written together: what memory holds of a file of any size
Kind = Literal["jsonl", "csv"]
Record = tuple[int, Mapping[str, Any]]  # a line's number and what it holds
_GIVEN_BY_THE_MODEL = {"label", "tags", "answers"}


@dataclass(frozen=True)
class OwnRows:
    """A block of rows, with an id each: the row's own, or its number from 1."""

    rows: Rows
    ids: Sequence[str | int]

    def __len__(self) -> int:
        return len(self.ids)


def kind_of(path: str) -> Kind:
    """How a file is to be read, by its name; JSON lines from stdin (`-`). UserError for another suffix."""
    suffix = ".jsonl" if path == "-" else Path(path).suffix.lower()
    if suffix not in (".jsonl", ".csv"):
        raise UserError(
            f"--input '{path}': only .jsonl and .csv are read; write one JSON object a line, or a CSV table"
        )
    return "csv" if suffix == ".csv" else "jsonl"


def check_lang(lang: str | None) -> None:
    """UserError for what is no language code; any language will do."""
    if lang is not None and not re.fullmatch("[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*", lang):
        raise UserError(f"--lang '{lang}' is no language code; give one such as de or zh-Hant")


def read_own_rows(
    lines: Iterable[bytes], task: Task, *, name: str, kind: Kind, block: int = BLOCK
) -> Iterator[OwnRows]:
    """The rows of a file's lines, `block` at a time, in the format's fields with something in the place of labels.

    A field goes by the task's own column (`premise`) or the format's name (`text_a`), whichever the first row has;
    tokens may be a text, split at white space, and choices in CSV a JSON list. Other fields are passed over. Raises
    UserError naming line and field, and for a file without rows.
    """
    texts = _decoded(lines, name)
    records = _csv_records(texts, name) if kind == "csv" else _json_records(texts, name)
    spelt: dict[str, str] = {}
    number = 0
    while found := list(islice(records, block)):
        spelt = spelt or _spelling(task, found[0], name)
        yield _block(task, found, spelt, name, number)
        number += len(found)
    if not number:
        raise UserError(f"{name} has no rows; give one a line")


def _decoded(lines: Iterable[bytes], name: str) -> Iterator[str]:
    """Lines as text, without a byte order mark."""
    for number, line in enumerate(lines, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{name}, line {number}: not UTF-8 (byte {line[error.start]:#04x}); write the file as UTF-8"
            ) from error


def _json_records(lines: Iterable[str], name: str) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{name}, line {number}: not JSON: {error}") from error
        if not isinstance(record, dict):
            raise UserError(f"{name}, line {number}: {short(record)} is not an object; give field names and values")
        yield number, record


def _csv_records(lines: Iterable[str], name: str) -> Iterator[Record]:
    reader = csv.reader(lines, strict=True)
    header: list[str] | None = None
    begins = 1
    try:
        for cells in reader:
            if header is None and cells:
                header = cells
                if twice := next((cell for at, cell in enumerate(cells) if cell in cells[:at]), None):
                    raise UserError(f"{name}, line {begins}: column '{twice}' stands twice; remove one")
            elif header and cells:
                if len(cells) != len(header):
                    raise UserError(f"{name}, line {begins}: {len(cells)} cells, but the header has {len(header)}")
                yield begins, dict(zip(header, cells, strict=True))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{name}, line {begins}: not CSV: {error}; quote cells that hold commas or line ends"
        ) from error


def _spelling(task: Task, first: Record, name: str) -> dict[str, str]:
    """The name each field goes by in the first row: the task's column or the format's own."""
    line, record = first
    found: dict[str, str] = {}
    for field, column in task.columns.items():
        if field in _GIVEN_BY_THE_MODEL | {"id"}:
            continue
        spellings = dict.fromkeys((column, field))
        chosen = next((spelling for spelling in spellings if _has(record, spelling)), None)
        if chosen is None:
            place = f"{name}, line {line}, which task '{task.name}' reads as {' or '.join(spellings)}"
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
        return f"{name}, line {records[row][0]}"

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
    ids = [_id(record, before + row + 1, at(row)) for row, (_, record) in enumerate(records)]
    columns |= _placeholders(task, columns, len(records))
    # no_answer: the question's answers are not known; messages name fields as the file does
    asked = task.model_copy(update={"columns": {**task.columns, **spelt}, "no_answer": True})
    checked = checked_columns(asked, columns, names=task.labels, at=at)
    return OwnRows(Rows(task.name, "", "predict", checked, "", name, no_answer=task.no_answer), ids)


def _placeholders(task: Task, columns: Mapping[str, Sequence[Any]], rows: int) -> dict[str, list[Any]]:
    """Something valid for what a model is to find, and ids by which questions are told apart."""
    made: dict[str, list[Any]] = {
        "tags": [[task.labels[0]] * len(tokens) for tokens in columns.get("tokens", ())],
        "label": list(task.labels[:1]) * rows,
        "answers": [{"text": [], "answer_start": []}] * rows,
        "id": [str(row) for row in range(rows)],
    }
    return {field: made[field] for field in task.columns if field in made}


def _id(record: Mapping[str, Any], number: int, place: str) -> str | int:
    given = record.get("id", "")
    if not isinstance(given, str | int) or isinstance(given, bool):
        raise UserError(f"{place}, column 'id': {short(given)} is neither a text nor a number; correct or remove it")
    return number if given == "" else given


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
