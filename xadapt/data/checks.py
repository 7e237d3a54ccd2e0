"""What each format wants of a source's columns; what cannot be used is refused with its file, row and column."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from xadapt.errors import UserError, short, unknown
from xadapt.tasks import Task

At = Callable[[int], str]  # where a row stands, for messages: its file and number
Columns = dict[str, Sequence[Any]]
NOWHERE = -1  # the offset of an answer whose text does not stand in its context
SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair is no character: no tokenizer and no file takes it


@dataclass(frozen=True)
class _Source:
    """A source's columns under the format's fields; names are the label names behind its integers."""

    task: Task
    columns: Mapping[str, Sequence[Any]]
    names: Sequence[str]
    at: At
    offsets: bool

    def place(self, row: int, field: str) -> str:
        return f"{self.at(row)}, column '{self.task.columns[field]}'"

    def texts(self, field: str) -> Sequence[str]:
        return checked_texts(self.columns[field], self.task.columns[field], self.at)

    def labels(self, ids: Mapping[object, int]) -> list[int]:
        return [self.label(ids, raw, row, "label") for row, raw in enumerate(self.columns["label"])]

    def label(self, ids: Mapping[object, int], raw: object, row: int, field: str) -> int:
        # a float equals the integer and True equals 1: what is neither a name nor an integer is no label
        if not isinstance(raw, str | int) or isinstance(raw, bool) or raw not in ids:
            place = f"{self.place(row, field)} (task '{self.task.name}')"
            raise unknown("label", raw, self.task.labels, place=place, remedy=self._remedy(raw))
        return ids[raw]

    def _remedy(self, raw: object) -> str:
        """What a user's task file may say of a label that it does not have."""
        if not self.task.own or not isinstance(raw, str | int) or isinstance(raw, bool):
            return ""
        if isinstance(raw, int):
            return "Numbers are labels if the task file says in source_labels which label 0 is, 1, and so on."
        return f"If it is another name of one of them, the task file may say so: aliases: {{{short(raw)}: LABEL}}."

    def label_ids(self) -> dict[object, int]:
        """Every spelling a source may use, to the spec's id: the name itself, or the source's own integer."""
        ids: dict[object, int] = {name: i for i, name in enumerate(self.task.labels)}
        ids |= {alias: ids[name] for alias, name in self.task.aliases.items()}
        return ids | {raw: ids[name] for raw, name in enumerate(self.names) if name in ids}


def checked_columns(
    task: Task, columns: Mapping[str, Sequence[Any]], *, names: Sequence[str], at: At, offsets: bool = True
) -> Columns:
    """The columns of a format's fields with labels as the spec's ids.

    names are the labels that a source's integers stand for; without offsets, answers need not stand in their context.
    Raises UserError, at the row and column, for whatever the format cannot use.
    """
    return _CHECKS[task.format](_Source(task, columns, names, at, offsets))


def checked_texts(values: Sequence[Any], column: str, at: At) -> Sequence[str]:
    """The values themselves; UserError for what is no text, blank, or holds half of a surrogate pair."""
    for row, text in enumerate(values):
        if fault := _fault(text):
            raise UserError(f"{at(row)}, column '{column}': {fault}")
    return values


def check_distinct(keys: Iterable[object], column: str, at: At) -> None:
    """UserError for a key that stands twice, naming both rows."""
    first: dict[object, int] = {}
    for row, key in enumerate(keys):
        if first.setdefault(key, row) != row:
            shown = short(key[-1] if isinstance(key, tuple) else key)
            raise UserError(f"{at(row)}, column '{column}': {shown} stands in {at(first[key])} too; remove one of them")


def _fault(text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        return f"{short(text)} is not a text; correct or remove the row"
    if _has_surrogate(text):
        return "half of a surrogate pair (\\ud800 to \\udfff) is no character; correct the text"
    return ""


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and SURROGATE.search(text) is not None


def _classification(source: _Source) -> Columns:
    texts = {field: source.texts(field) for field in source.columns if field != "label"}
    return {**texts, "label": source.labels(source.label_ids())}


def _tagging(source: _Source) -> Columns:
    ids, tags = source.label_ids(), []
    for row, (tokens, raw) in enumerate(zip(source.columns["tokens"], source.columns["tags"], strict=True)):
        for field, values in (("tokens", tokens), ("tags", raw)):
            if not isinstance(values, list):
                raise UserError(f"{source.place(row, field)}: {short(values)} is not a list; correct or remove the row")
        if not tokens or len(tokens) != len(raw):
            raise UserError(
                f"{source.place(row, 'tokens')}: {len(tokens)} tokens but {len(raw)} values in "
                f"'{source.task.columns['tags']}'; give each token one tag"
            )
        for at, token in enumerate(tokens):
            # a space of another kind is a token in real data; format 'tagging' makes it the unknown one
            if not isinstance(token, str) or not token.strip(" ") or _has_surrogate(token):
                raise UserError(f"{source.place(row, 'tokens')}: token {at} of {short(tokens)}: {_fault(token)}")
        tags.append([source.label(ids, tag, row, "tags") for tag in raw])
    return {"tokens": source.columns["tokens"], "tags": tags}


def _span(source: _Source) -> Columns:
    texts = {field: source.texts(field) for field in ("id", "context", "question")}
    check_distinct(texts["id"], source.task.columns["id"], source.at)
    answers = [
        _answers(raw, context if source.offsets else None, partial(source.place, row, "answers"))
        for row, (raw, context) in enumerate(zip(source.columns["answers"], texts["context"], strict=True))
    ]
    if not source.task.no_answer and [] in answers:
        raise UserError(
            f"{source.place(answers.index([]), 'answers')}: no answer, which task '{source.task.name}' "
            "does not know; remove the row or set no_answer in the spec"
        )
    return {**texts, "answers": answers}


def _answers(raw: object, context: str | None, place: Callable[[], str]) -> list[tuple[str, int]]:
    """SQuAD's answers as (text, first character) pairs, which stand in the context if it is given.

    There are none for a question without an answer.
    """
    if not (isinstance(raw, dict) and isinstance(raw.get("text"), list) and isinstance(raw.get("answer_start"), list)):
        raise UserError(f"{place()}: {short(raw)} has no lists `text` and `answer_start`; correct or remove the row")
    if len(raw["text"]) != len(raw["answer_start"]):
        raise UserError(
            f"{place()}: {len(raw['text'])} texts but {len(raw['answer_start'])} values in answer_start; give each one"
        )
    pairs = list(zip(raw["text"], raw["answer_start"], strict=True))
    for text, start in pairs:
        if fault := _answer_fault(text, start, context):
            raise UserError(f"{place()}: {fault}")
    return pairs


def _answer_fault(text: object, start: object, context: str | None) -> str:
    """What is wrong with an answer that should stand at the character `start` of the context; empty if nothing."""
    if not isinstance(text, str) or not isinstance(start, int) or isinstance(start, bool):
        return f"answer {short(text)} at {short(start)} has no text and whole answer_start; correct it"
    if not text.strip():
        return f"the answer {short(text)} is empty; correct or remove it"
    if context is None:
        return ""
    found = context[max(start, 0) : max(start, 0) + len(text)]
    if start < 0 or found != text:
        return (
            f"{short(text)} does not stand at character {short(start)} of the context (of {len(context)}) "
            f"but {short(found)}; correct answer_start"
        )
    return ""


def _choice(source: _Source) -> Columns:
    prompts, columns = source.texts("prompt"), source.columns
    number, names = len(source.task.labels), source.task.columns["choices"].split("|")
    for row, choices in enumerate(columns["choices"]):
        if not isinstance(choices, list) or len(choices) != number:
            raise UserError(f"{source.place(row, 'choices')}: {short(choices)} are not {number} texts; correct the row")
        for at, text in enumerate(choices):
            if fault := _fault(text):
                column = names[at] if len(names) == number else names[0]
                raise UserError(f"{source.at(row)}, column '{column}', choice {at}: {fault}")
    stems = columns["stem"] if "stem" in columns else [""] * len(prompts)
    for row, stem in enumerate(stems):  # it may be empty, as two thirds of hellaswag's are
        if not (isinstance(stem, str) and not stem.strip()) and (fault := _fault(stem)):
            raise UserError(f"{source.place(row, 'stem')}: {fault}")
    return {"prompt": prompts, "stem": stems, "choices": columns["choices"], "label": source.labels(source.label_ids())}


def _retrieval(source: _Source) -> Columns:
    return {field: [text.strip() for text in source.texts(field)] for field in ("source", "target")}


def _mining(source: _Source) -> Columns:
    """Sentences of two sides, of which a foreign one's gold names English ones by their ids, with spaces between."""
    sides, golds = source.columns["side"], source.columns["gold"]
    ids, texts = source.texts("id"), [text.strip() for text in source.texts("text")]
    for row, side in enumerate(sides):
        if side not in ("foreign", "english"):
            raise unknown("side", side, ("foreign", "english"), place=source.place(row, "side"))
    check_distinct(zip(sides, ids, strict=True), source.task.columns["id"], source.at)
    english = {name for side, name in zip(sides, ids, strict=True) if side == "english"}
    for row, (side, gold) in enumerate(zip(sides, golds, strict=True)):
        if not isinstance(gold, str):
            raise UserError(f"{source.place(row, 'gold')}: {short(gold)} is no id; leave it empty for none")
        if side == "english" and gold.strip():
            raise UserError(
                f"{source.place(row, 'gold')}: {short(gold)}, but only foreign sentences have gold; empty it"
            )
        if strange := sorted(set(gold.split()) - english):
            raise UserError(
                f"{source.place(row, 'gold')}: no English sentence has the id {short(strange[0])}; correct it"
            )
    if not any(map(str.strip, golds)):
        raise UserError(f"{source.place(0, 'gold')}: no sentence has gold; without, a score means nothing")
    for side in ("foreign", "english"):
        counts = Counter(text for of, text in zip(sides, texts, strict=True) if of == side)
        if 1 not in counts.values():
            raise UserError(
                f"{source.at(sides.index(side))}: every {side} sentence stands there twice; such are no candidates"
            )
    return {"side": sides, "id": ids, "text": texts, "gold": golds}


def _mlm(source: _Source) -> Columns:
    return {"text": source.texts("text")}


_CHECKS: Mapping[str, Callable[[_Source], Columns]] = {
    "classification": _classification, "tagging": _tagging, "span": _span, "choice": _choice, "retrieval": _retrieval,
    "mining": _mining, "mlm": _mlm,
}  # fmt: skip
