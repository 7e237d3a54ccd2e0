"""Rows: the embedded suite's tasks, renderers over the same scenes in the columns of the real data sets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import islice

from xadapt.errors import UserError, unknown

from .ccg import ccg
from .choices import commonsense_qa, cosmos_qa, hellaswag
from .grammar import languages, load_language
from .inference import LABELS, triples
from .mining import bucc2018
from .names import panx
from .paraphrase import pawsx, qqp
from .passages import span_renderer
from .scenes import Row, distinct_scenes, generator

# Raise it with any change that alters rows other than through the data files.
SUITE_VERSION = 3


def suite_rows(task: str, lang: str, split: str, limit: int | None = None) -> list[Row]:
    """Rows of an embedded task, the same on every machine; fewer rows are always the first of more.

    Columns: "id", then those of the real data set:
    mnli, anli, xnli: premise, hypothesis, label ("entailment", "neutral", "contradiction")
    qqp: question1, question2, label ("not_duplicate", "duplicate")
    pawsx: sentence1, sentence2, label ("different", "paraphrase")
    squad, squad_v2, xquad, mlqa, tydiqa: title, context, question, answers (text, answer_start: lists, empty
        where squad_v2 has no answer; offsets in characters of the context)
    hellaswag: ind, ctx_a, ctx_b, endings (4), label ("0" to "3"); cosmos_qa: context, question, answer0 to
        answer3, label (int); commonsense_qa: question, choices (label, text: lists of 5), answerKey
    udpos: tokens, pos_tags (UPOS); panx: tokens, ner_tags (BIO); ccg: tokens, tags (CCG categories)
    tatoeba: source_sentence (in `lang`), target_sentence (English), source_lang, target_lang
    bucc2018: side ("foreign", "english"), id, text, gold (the English id of a foreign sentence, or "")
    mlm: text (several sentences)
    Row i is about the same scenes in every language.
    Raises ValueError for a task, language or split that the suite lacks.
    """
    valid = task_languages(task, split)
    if lang not in valid:
        raise unknown("language", lang, valid, place=f"the embedded suite's {task}, split {split!r}")
    if limit is not None and limit < 0:
        raise UserError(f"limit={limit} for the embedded suite's {task}: give 0 or more, or None for all")
    render, size = _TASKS[task].render, suite_size(task, split)
    wanted = islice(render(lang, split), size if limit is None else min(limit, size))
    return [{"id": f"{task}-{split}-{i}"} | row for i, row in enumerate(wanted)]


def suite_size(task: str, split: str) -> int:
    """The number of rows of an embedded task's split in one language; raises ValueError for unknown names."""
    if task not in _TASKS:
        raise unknown("task", task, _TASKS, place="the embedded suite")
    sizes = _TASKS[task].sizes
    if split not in sizes:
        raise unknown("split", split, sizes, place=f"the embedded suite's {task}")
    return sizes[split]


def task_languages(task: str, split: str) -> tuple[str, ...]:
    """The languages of an embedded task's split; raises ValueError for unknown names."""
    suite_size(task, split)
    if split == "train" and task != "mlm":
        return _ENGLISH
    known = _TASKS[task]
    return tuple(code for code in known.languages if not known.spans or load_language(code).asks)


@cache
def suite_identity() -> str:
    """The sha256 (hex) of the suite's version and data files: equal identities mean equal rows."""
    digest = hashlib.sha256(str(SUITE_VERSION).encode())
    for name in ("_concepts", *languages()):
        content = files(__package__).joinpath(f"languages/{name}.yaml").read_bytes()
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _nli(task: str) -> Callable[[str, str], Iterator[Row]]:
    def render(lang: str, split: str) -> Iterator[Row]:
        language = load_language(lang)
        rng = generator("suite", task, split)
        for triple in triples(rng, split):
            premise = language.text(language.tokens(triple.premise, fronted=triple.premise_fronted))
            for label in rng.sample(LABELS, len(LABELS)):
                tokens = language.tokens(triple.hypotheses[label], fronted=triple.hypothesis_fronted)
                yield {"premise": premise, "hypothesis": language.text(tokens), "label": label}

    return render


def _udpos(lang: str, split: str) -> Iterator[Row]:
    language = load_language(lang)
    rng = generator("suite", "udpos", split)
    scenes = distinct_scenes(rng, split)
    for scene in scenes:
        joined, fronted = rng.random() < 0.3, rng.random() < 0.3
        tokens = language.coordinated(scene, next(scenes)) if joined else language.tokens(scene, fronted=fronted)
        yield {"tokens": [form for form, _ in tokens], "pos_tags": [tag for _, tag in tokens]}


def _tatoeba(lang: str, split: str) -> Iterator[Row]:
    foreign, english = load_language(lang), load_language("en")
    rng = generator("suite", "tatoeba", split)
    for scene in distinct_scenes(rng, split):
        fronted = rng.random() < 0.3
        yield {
            "source_sentence": foreign.text(foreign.tokens(scene, fronted=fronted)),
            "target_sentence": english.text(english.tokens(scene, fronted=fronted)),
            "source_lang": lang,
            "target_lang": "en",
        }


def _mlm(lang: str, split: str) -> Iterator[Row]:
    language = load_language(lang)
    rng = generator("suite", "mlm", split)
    scenes = distinct_scenes(rng, split)
    for scene in scenes:
        told = [scene, *islice(scenes, rng.randint(2, 4))]
        sentences = (language.tokens(each, fronted=rng.random() < 0.3) for each in told)
        yield {"text": language.gap.join(map(language.text, sentences))}


@dataclass(frozen=True)
class _Task:
    """A task's renderer, the sizes of its splits and its languages; `spans` wants question templates."""

    render: Callable[[str, str], Iterator[Row]]
    sizes: Mapping[str, int]
    languages: tuple[str, ...]
    spans: bool = False


_INTERMEDIATE = {"train": 50_000, "validation": 1_000}
_TARGET = {"train": 50_000, "validation": 500, "test": 500}
_UNSEEN = {"validation": 500, "test": 500}
_ENGLISH = ("en",)
_EVERY = languages()
_TASKS = {
    "mnli": _Task(_nli("mnli"), _INTERMEDIATE, _ENGLISH),
    "anli": _Task(_nli("anli"), _INTERMEDIATE, _ENGLISH),
    "qqp": _Task(qqp, _INTERMEDIATE, _ENGLISH),
    "squad": _Task(span_renderer("squad"), _INTERMEDIATE, _ENGLISH),
    "squad_v2": _Task(span_renderer("squad_v2", unanswerable=True), _INTERMEDIATE, _ENGLISH),
    "hellaswag": _Task(hellaswag, _INTERMEDIATE, _ENGLISH),
    "cosmos_qa": _Task(cosmos_qa, _INTERMEDIATE, _ENGLISH),
    "commonsense_qa": _Task(commonsense_qa, _INTERMEDIATE, _ENGLISH),
    "ccg": _Task(ccg, _INTERMEDIATE, _ENGLISH),
    "mlm": _Task(_mlm, {"train": 50_000, "validation": 500}, _EVERY),
    "xnli": _Task(_nli("xnli"), _UNSEEN, _EVERY),
    "pawsx": _Task(pawsx, _TARGET, ("de", "en", "es", "fr", "ja", "ko", "zh")),
    "udpos": _Task(_udpos, _TARGET, _EVERY),
    "panx": _Task(panx, _TARGET, _EVERY),
    "xquad": _Task(
        span_renderer("xquad"),
        {"validation": 500},
        ("ar", "de", "el", "en", "es", "hi", "ru", "th", "tr", "vi", "zh"),
        spans=True,
    ),
    "mlqa": _Task(span_renderer("mlqa"), _UNSEEN, ("ar", "de", "en", "es", "hi", "vi", "zh"), spans=True),
    "tydiqa": _Task(
        span_renderer("tydiqa"),
        {"train": 50_000, "validation": 500},
        ("ar", "en", "fi", "id", "ko", "ru", "sw"),
        spans=True,
    ),
    "bucc2018": _Task(bucc2018, {"validation": 2_000, "test": 2_000}, ("de", "fr", "ru", "zh")),
    "tatoeba": _Task(_tatoeba, {"validation": 500}, tuple(code for code in _EVERY if code != "en")),
}
