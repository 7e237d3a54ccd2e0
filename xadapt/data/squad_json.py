"""Questions from files in SQuAD's JSON: articles, paragraphs, questions; checked one by one."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xadapt.data.defects import is_blank
from xadapt.data.files import parse_json, read_text
from xadapt.errors import UserError, short


@dataclass(frozen=True)
class Question:
    """One question of a file: an id, and what stands there, unchecked; its str is its place."""

    id: str
    context: Any
    question: Any
    answers: Any
    path: Path
    text: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.path}, line {_line_of(self.text, self.id)}, question '{self.id}'"


def read_questions(path: Path) -> list[Question]:
    """The questions of a SQuAD file, in order.

    Raises UserError with file and line for what is not JSON of this form, an empty id, and one that stands twice.
    """
    text = read_text(path)
    questions: dict[str, Question] = {}
    for question in _questions(path, text):
        if question.id in questions:
            second = _line_of(text, question.id, 2)
            raise UserError(f"{question}: the id stands again in line {second}; remove one of the two")
        questions[question.id] = question
    if not questions:
        raise UserError(f"{path} holds no question; fetch it again")
    return list(questions.values())


def answer_texts(questions: Sequence[Question]) -> list[str]:
    """Every answer's text, an empty one for a question without any, whatever else is wrong with them."""
    found = []
    for question in questions:
        answers = question.answers if isinstance(question.answers, list) else []
        found += [str(answer.get("text", "")) for answer in answers if isinstance(answer, dict)] or [""]
    return found


def question_columns(questions: Sequence[Question]) -> dict[str, list[Any]]:
    """The columns id, context, question and answers (lists `text` and `answer_start`) that SQuAD has on the hub.

    Raises UserError with file, line and question for what is no list of answers.
    """
    answers = [_answers(question) for question in questions]
    return {
        "id": [q.id for q in questions], "context": [q.context for q in questions],
        "question": [q.question for q in questions], "answers": answers,
    }  # fmt: skip


def _answers(question: Question) -> dict[str, list[Any]]:
    answers = [] if is_blank(question.context) else question.answers  # a row that cannot be used, whatever they are
    if not isinstance(answers, list):
        raise UserError(f"{question}, field answers: there is no answer; correct or remove the question")
    if strange := [answer for answer in answers if not isinstance(answer, dict)]:
        raise UserError(f"{question}, field answers: {short(strange[0])} has no text and answer_start; correct it")
    return {key: [answer.get(key) for answer in answers] for key in ("text", "answer_start")}


def _questions(path: Path, text: str) -> Iterator[Question]:
    for a, article in enumerate(list_of(parse_json(path, text), "data", str(path))):
        for p, paragraph in enumerate(list_of(article, "paragraphs", f"{path}, article {a}")):
            place = f"{path}, article {a}, paragraph {p}"
            for q, raw in enumerate(list_of(paragraph, "qas", place)):
                name = raw.get("id") if isinstance(raw, dict) else None
                if not (isinstance(name, str) and name.strip()):
                    raise UserError(
                        f"{place}, question {q}, field id: {short(name)} is not a text; correct or remove it"
                    )
                yield Question(name, paragraph.get("context"), raw.get("question"), raw.get("answers"), path, text)


def list_of(value: Any, key: str, place: str) -> list[Any]:
    """The list that an object has under a key; UserError if it is no object or has none."""
    inside = value.get(key) if isinstance(value, dict) else None
    if not isinstance(inside, list):
        raise UserError(f"{place}: there is no list '{key}'; SQuAD v1.1's form is data, paragraphs, qas, answers")
    return inside


def _line_of(text: str, name: str, occurrence: int = 1) -> int:
    """The line of the occurrence-th `"id": name`; 1 where the name is written in yet another way."""
    forms = "|".join(re.escape(json.dumps(name, ensure_ascii=escaped)) for escaped in (True, False))
    places = [found.start() for found in re.finditer(rf'"id"\s*:\s*(?:{forms})', text)]
    return text.count("\n", 0, places[min(occurrence, len(places)) - 1]) + 1 if places else 1
