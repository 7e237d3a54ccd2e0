"""Names: sentences with persons, and places and organisations named after them, tagged as PAN-X tags them.

A city's name is a place on its own and part of an organisation inside one, so that a word alone does not give
its tag. No organisation is of a kind that is also a place, as a hotel is. Names stand where every language has
them in the nominative, ahead of the sentence, as in the news; inside an organisation's a city's may be inflected.
Tokens are split at spaces, as PAN-X splits them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from .grammar import Language, Token, load_language
from .scenes import Row, Scene, concepts, distinct_scenes, generator

# What a row is made of: a city, an organisation, punctuation and a sentence.
_FRAMES = (
    ("LOC", ":", "sentence"),
    ("ORG", ":", "sentence"),
    ("ORG", "(", "LOC", ")", ":", "sentence"),
    ("LOC", "(", "ORG", ")", ":", "sentence"),
    ("ORG", ",", "ORG", ":", "sentence"),
    ("LOC", ",", "LOC", ":", "sentence"),
    ("sentence",),
)
_FRAME_SHARES = (4, 4, 3, 3, 1, 1, 4)
_WIDE = {":": "：", "(": "（", ")": "）"}  # beside ideographs
_COMMAS = frozenset([",", "，", "、", "،"])
# Of five cities, three name things in train and one each in validation and test.
_SPLIT_CITIES = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}


def panx(lang: str, split: str) -> Iterator[Row]:
    """Rows with tokens and ner_tags (BIO of PER, ORG, LOC)."""
    language = load_language(lang)
    rng = generator("suite", "panx", split)
    for scene in distinct_scenes(rng, split):
        if scene.agent not in concepts().names and rng.random() < 0.6:
            continue  # else few sentences would have a person in them
        frame = rng.choices(_FRAMES, _FRAME_SHARES)[0]
        tokens: list[str] = []
        tags: list[str] = []
        for part in frame:
            forms, kinds = _part(language, rng, part, scene, split)
            tokens += forms
            tags += kinds
        yield {"tokens": tokens, "ner_tags": tags}


def _part(language: Language, rng: random.Random, part: str, scene: Scene, split: str) -> tuple[list[str], list[str]]:
    if part == "sentence":
        return _sentence(language, scene, fronted=rng.random() < 0.3)
    if part not in ("LOC", "ORG"):
        return [_mark(language, part)], ["O"]
    city = rng.choice([c for i, c in enumerate(concepts().cities) if i % 5 in _SPLIT_CITIES[split]])
    if part == "LOC":
        return _entity(language.form("city", city, "form"), part)
    return _entity(language.organisation(rng.choice(concepts().organisations), city), part)


def _entity(name: tuple[Token, ...] | list[Token], kind: str) -> tuple[list[str], list[str]]:
    words = [word for form, _ in name for word in form.split()]
    return words, ["B-" + kind, *["I-" + kind] * (len(words) - 1)]


def _mark(language: Language, mark: str) -> str:
    """A punctuation mark as the language writes it."""
    if mark == ",":
        return next(iter(_COMMAS & language.attach_previous))
    return _WIDE[mark] if "。" in language.attach_previous else mark


def _sentence(language: Language, scene: Scene, *, fronted: bool) -> tuple[list[str], list[str]]:
    tokens, slots = language.marked(scene, fronted=fronted)
    person = scene.agent in concepts().names
    pairs = [(word, slot) for (form, _), slot in zip(tokens, slots, strict=True) for word in form.split()]
    tags = ["B-PER" if person and slot == "agent_phrase.agent" else "O" for _, slot in pairs]
    return [word for word, _ in pairs], tags
