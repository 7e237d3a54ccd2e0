"""XTREME's submission layout: which files there are, and what stands in them, checked line by line.

A folder holds `<task>/test-<lang>.tsv`, for question answering `.json`. A .tsv has one answer a line: a label, a
tag with a blank line after each sentence, a line number, or two ids with a tab between. A prediction .json maps
question ids to answers, a label .json is SQuAD v1.1's.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from xadapt.data.files import parse_json, read_text
from xadapt.data.squad_json import list_of
from xadapt.errors import UserError, short, unknown
from xadapt.tasks import get_task

Kind = Literal["labels", "tags", "pairs", "answers"]
# From this many labels on, a file in which all are the same is taken for stripped; two may agree by chance.
CONSTANT_FROM = 3


@dataclass(frozen=True)
class SubmissionTask:
    """One of XTREME's nine tasks as its scorer sees it.

    kind says what the files hold; metrics are the numbers of a language, the headline first; valid names the
    labels that may stand in a file, any whole number where it is empty; placeholder is what XTREME's readers put
    where its download has stripped a label. rows says how many rows XTREME's test files have, where that is known.
    """

    name: str
    kind: Kind
    metrics: tuple[str, ...]
    languages: tuple[str, ...]
    valid: tuple[str, ...] = ()
    placeholder: str = ""
    rows: Mapping[str, int] = field(default_factory=dict)

    @property
    def suffix(self) -> str:
        """The ending of the task's files."""
        return ".json" if self.kind == "answers" else ".tsv"


_F1 = ("f1", "precision", "recall")
_QA = ("f1", "exact_match")
_ENTITY_TAGS = ("O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER")


def _task(
    name: str, kind: Kind, metrics: tuple[str, ...], languages: str, *,
    valid: tuple[str, ...] = (), placeholder: str = "", rows: Mapping[str, int] | int = 0,
) -> SubmissionTask:  # fmt: skip
    """rows may be one number for all languages; 0 where they are not known."""
    codes = tuple(languages.split())
    known = (dict.fromkeys(codes, rows) if rows else {}) if isinstance(rows, int) else dict(rows)
    return SubmissionTask(name, kind, metrics, codes, valid, placeholder, known)


_TATOEBA = "af ar bg bn de el es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr nl pt ru sw ta te th tl tr ur vi zh"
# Lewis et al. 2020 and Clark et al. 2020 count their questions so; LASER's Tatoeba has 1,000 pairs and fewer in some.
_MLQA_ROWS = {"ar": 5335, "de": 4517, "en": 11590, "es": 5253, "hi": 4918, "vi": 5495, "zh": 5137}
_TYDIQA_ROWS = {
    "ar": 921, "bn": 113, "en": 440, "fi": 782, "id": 565, "ko": 276, "ru": 812, "sw": 499, "te": 669,
}  # fmt: skip
_TATOEBA_ROWS = dict.fromkeys(_TATOEBA.split(), 1000) | {
    "jv": 205, "ka": 746, "kk": 575, "ml": 687, "sw": 390, "ta": 307, "te": 234, "th": 548,
}  # fmt: skip
_ALL = (
    _task(
        "xnli", "labels", ("accuracy",), "ar bg de el en es fr hi ru sw th tr ur vi zh",
        valid=get_task("xnli").labels, placeholder="neutral", rows=5010,
    ),
    _task("pawsx", "labels", ("accuracy",), "de en es fr ja ko zh", valid=("0", "1"), placeholder="0", rows=2000),
    _task(
        "udpos", "tags", _F1,
        "af ar bg de el en es et eu fa fi fr he hi hu id it ja kk ko mr nl pt ru ta te th tl tr ur vi yo zh",
        valid=get_task("udpos").labels, placeholder="X",
    ),
    _task(
        "panx", "tags", _F1,
        "af ar bg bn de el en es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr ms my nl pt ru sw ta te th tl "
        "tr ur vi yo zh",
        valid=_ENTITY_TAGS, placeholder="O",
    ),
    _task("xquad", "answers", _QA, "ar de el en es hi ru th tr vi zh", rows=1190),
    _task("mlqa", "answers", _QA, "ar de en es hi vi zh", rows=_MLQA_ROWS),
    _task("tydiqa", "answers", _QA, "ar bn en fi id ko ru sw te", rows=_TYDIQA_ROWS),
    _task("bucc2018", "pairs", _F1, "de fr ru zh"),
    _task("tatoeba", "labels", ("accuracy",), _TATOEBA, rows=_TATOEBA_ROWS),
)  # fmt: skip
SUBMISSION_TASKS: dict[str, SubmissionTask] = {task.name: task for task in _ALL}


def find_tasks(folder: Path, wanted: Collection[str] = ()) -> list[SubmissionTask]:
    """The tasks a folder of predictions has, in XTREME's order, or those of them that are wanted.

    Raises UserError if there is no such folder, it has a folder that is no task, none that is one, or not a wanted one.
    """
    for name in wanted:
        if name not in SUBMISSION_TASKS:
            raise unknown("task", name, SUBMISSION_TASKS, place="--tasks")
    if not folder.is_dir():
        raise UserError(f"there is no folder '{folder}'; give one that holds <task>/test-<lang>.tsv or .json")
    names = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    if strange := sorted(names - set(SUBMISSION_TASKS)):
        raise unknown("task", strange[0], SUBMISSION_TASKS, place=str(folder))
    if not names:
        raise UserError(f"'{folder}' holds no folder of a task; wanted are {', '.join(SUBMISSION_TASKS)}")
    if missing := [name for name in wanted if name not in names]:
        raise UserError(f"'{folder}' holds no folder '{missing[0]}'; it has {', '.join(sorted(names))}")
    return [task for task in SUBMISSION_TASKS.values() if task.name in (set(wanted) or names)]


def find_files(
    folder: Path, task: SubmissionTask, *, role: str = "predictions", languages: Collection[str] = ()
) -> dict[str, Path]:
    """The file of each of a task's languages, or of some of them, below a folder of predictions or labels.

    Raises UserError if one of them is missing or a file is of no language of the task's: XTREME's number is the mean
    over all.
    """
    inside, found = folder / task.name, {}
    wanted = [lang for lang in task.languages if lang in languages or not languages]
    if not inside.is_dir():
        raise UserError(f"there is no folder '{inside}' of {role}; give the folder above it, in XTREME's layout")
    for path in sorted(inside.glob("test-*")):
        if path.suffix != task.suffix:
            raise UserError(f"'{path}': files of {task.name} are named test-<lang>{task.suffix}; rename or remove it")
        lang = path.stem.removeprefix("test-")
        if lang not in task.languages:
            raise unknown("language", lang, task.languages, place=str(path))
        found[lang] = path
    if missing := [lang for lang in wanted if lang not in found]:
        raise UserError(
            f"'{inside}' has no test-<lang>{task.suffix} for {', '.join(missing)}: {task.name} is the mean over "
            f"{len(task.languages)} languages; add the missing, or score a part with --tasks or --languages"
        )
    return {lang: found[lang] for lang in wanted}


def read_lines(path: Path, task: SubmissionTask, *, gold: bool) -> list[str]:
    """The labels of a file, or its tags with an empty string for each line between sentences.

    gold says that it is a label file: it is refused if it holds placeholders. Raises UserError with file and line
    for anything else than a valid label.
    """
    lines = _lines(path)
    labels = [line for line in lines if line]
    if gold:
        _refuse_placeholders(labels, path, task)
    if not labels:
        raise UserError(f"'{path}' is empty: one answer a line is wanted")
    for number, line in enumerate(lines, start=1):
        if line or task.kind != "tags":
            _check_label(line, task, f"{path}, line {number}")
    return lines


def read_pairs(path: Path, lang: str, *, gold: bool) -> list[tuple[str, str]]:
    """The pairs of sentence ids of a file, the language's own first; raises UserError with file and line.

    gold says that it is a label file, which may not be empty: predictions without a pair score 0, as in XTREME.
    """
    first: dict[tuple[str, str], int] = {}
    for number, line in enumerate(_lines(path), start=1):
        place = f"{path}, line {number}"
        if not re.fullmatch(rf"{lang}-\d+\ten-\d+", line):
            raise UserError(f"{place}: {short(line)} is not {lang}-<number>, a tab and en-<number>")
        foreign, _, english = line.partition("\t")
        if (foreign, english) in first:
            before = first[foreign, english]
            raise UserError(f"{place}: {foreign} with {english} stands in line {before} already; remove one")
        first[foreign, english] = number
    if gold and not first:
        raise UserError(f"'{path}' is empty: one pair of ids a line is wanted")
    return list(first)


def read_predicted_answers(path: Path, *, questions: Mapping[str, Any]) -> dict[str, str]:
    """A file's answers by question id.

    Raises UserError with file and line for a question that is not among `questions`, one that stands twice, and
    an answer that is no text.
    """
    text = read_text(path, may_be_empty=True)

    def twice(key: str) -> UserError:
        return UserError(f"{path}, line {_line_of(text, key, 2)}: question {short(key)} stands twice; remove one")

    answers = parse_json(path, text, on_twice=twice)
    if not isinstance(answers, dict):
        raise UserError(f"'{path}' is not an object that maps question ids to answers")
    for key, answer in answers.items():
        if key not in questions:
            place = f"{path}, line {_line_of(text, key)}"
            raise UserError(
                f"{place}: the labels have no question {short(key)}; predict the questions of the label file"
            )
        if not isinstance(answer, str):
            place = f"{path}, line {_line_of(text, key)}"
            raise UserError(f'{place}: the answer to {short(key)} is {short(answer)}, not a text; write "" for none')
    return answers


def read_gold_answers(path: Path, task: SubmissionTask) -> dict[str, list[str]]:
    """A SQuAD v1.1 file's gold answers by question id; raises UserError if it is none or holds placeholders."""
    text, found = read_text(path, may_be_empty=True), dict[str, list[str]]()
    content = parse_json(path, text)
    pairs = list(_gold_pairs({"data": content} if isinstance(content, list) else content, path))
    for key, answers in pairs:
        if key in found:
            line = _line_of(text, key, 2, form=r'"id"\s*:\s*(?:{})')
            raise UserError(f"{path}, line {line}: question {short(key)} stands twice; remove one")
        if not all(isinstance(answer, str) for answer in answers):
            line = _line_of(text, key, form=r'"id"\s*:\s*(?:{})')
            raise UserError(f"{path}, line {line}: an answer to {short(key)} is not a text; correct it")
        found[key] = answers
    if not found:
        raise UserError(f"'{path}' holds no question")
    _refuse_placeholders([answer for answers in found.values() for answer in answers or [""]], path, task)
    return found


def _gold_pairs(content: Any, path: Path) -> Iterator[tuple[str, list[Any]]]:
    """The id and the answers' texts, unchecked, of each question in SQuAD's form."""
    for a, article in enumerate(list_of(content, "data", str(path))):
        for p, paragraph in enumerate(list_of(article, "paragraphs", f"{path}, article {a}")):
            place = f"{path}, article {a}, paragraph {p}"
            for q, question in enumerate(list_of(paragraph, "qas", place)):
                answers = list_of(question, "answers", f"{place}, question {q}")
                name = question.get("id")
                if not isinstance(name, str | int) or isinstance(name, bool):
                    raise UserError(f"{place}, question {q}, field id: {short(name)} is no id; correct it")
                yield str(name), [answer.get("text") if isinstance(answer, dict) else None for answer in answers]


def _refuse_placeholders(labels: Sequence[str], path: Path, task: SubmissionTask) -> None:
    constant = len(set(labels)) == 1 and (labels[0] == task.placeholder or len(labels) >= CONSTANT_FROM)
    if constant or not labels:
        what = f"all {len(labels)} labels are {short(labels[0])}" if labels else "there is no label"
        raise UserError(
            f"'{path}': {what}. XTREME's download strips the labels of its test sets, and a score against what stands "
            "in their place means nothing; take the labels from the data sets themselves"
        )


def _check_label(label: str, task: SubmissionTask, place: str) -> None:
    if task.valid and label not in task.valid:
        raise unknown("label", label[:60], task.valid, place=place)
    if not task.valid and not (label.isascii() and label.isdecimal()):
        raise UserError(f"{place}: {short(label)} is not the number of a line; write one a line")


def _lines(path: Path) -> list[str]:
    """A file's lines without white space around them and without blank ones at the end."""
    text = read_text(path, may_be_empty=True).rstrip()
    return [line.strip() for line in text.split("\n")] if text else []


def _line_of(text: str, key: str, occurrence: int = 1, *, form: str = r"(?:{})\s*:") -> int:
    """The line on which JSON has a key for that time, escaped or not; 1 where it is written in another way."""
    written = "|".join(re.escape(json.dumps(key, ensure_ascii=escaped)) for escaped in (True, False))
    places = [match.start() for match in re.finditer(form.replace("{}", written), text)]
    return text.count("\n", 0, places[occurrence - 1]) + 1 if len(places) >= occurrence else 1
