"""Rows: the embedded suite's tasks, renderers over the same scenes in the columns of the real data sets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any

from xadapt.errors import UserError, unknown

from .grammar import languages, load_language
from .inference import LABELS, triples
from .scenes import distinct_scenes, generator

# Raise it with any change that alters rows other than through the data files.
SUITE_VERSION = 1

Row = dict[str, Any]


def suite_rows(task: str, lang: str, split: str, limit: int | None = None) -> list[Row]:
    """Rows of an embedded task, the same on every machine; fewer rows are always the first of more.

    Columns: "id", then those of the real data set: mnli and xnli premise, hypothesis, label ("entailment",
    "neutral", "contradiction"); udpos tokens, pos_tags (UPOS); tatoeba source_sentence (in `lang`),
    target_sentence (English), source_lang, target_lang. Row i is the same scene in every language.
    Raises ValueError for a task, language or split that the suite lacks.
    """
    valid = task_languages(task, split)
    if lang not in valid:
        raise unknown("language", lang, valid, place=f"the embedded suite's {task}, split {split!r}")
    if limit is not None and limit < 0:
        raise UserError(f"limit={limit} for the embedded suite's {task}: give 0 or more, or None for all")
    render, size = _TASKS[task][0], suite_size(task, split)
    wanted = islice(render(lang, split), size if limit is None else min(limit, size))
    return [{"id": f"{task}-{split}-{i}"} | row for i, row in enumerate(wanted)]


def suite_size(task: str, split: str) -> int:
    """The number of rows of an embedded task's split in one language; raises ValueError for unknown names."""
    if task not in _TASKS:
        raise unknown("task", task, _TASKS, place="the embedded suite")
    sizes = _TASKS[task][1]
    if split not in sizes:
        raise unknown("split", split, sizes, place=f"the embedded suite's {task}")
    return sizes[split]


def task_languages(task: str, split: str) -> tuple[str, ...]:
    """The languages of an embedded task's split; raises ValueError for unknown names."""
    suite_size(task, split)
    if task == "mnli" or (task == "udpos" and split == "train"):
        return ("en",)
    return tuple(code for code in languages() if task != "tatoeba" or code != "en")


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


_TASKS: dict[str, tuple[Callable[[str, str], Iterator[Row]], dict[str, int]]] = {
    "mnli": (_nli("mnli"), {"train": 50_000, "validation": 1_000}),
    "xnli": (_nli("xnli"), {"validation": 500, "test": 500}),
    "udpos": (_udpos, {"train": 50_000, "validation": 500, "test": 500}),
    "tatoeba": (_tatoeba, {"validation": 500}),
}
