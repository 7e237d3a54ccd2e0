"""Choices: English multiple choice in which the passage, and never a choice itself, tells the right one.

hellaswag and cosmos_qa offer what the four scenes of a square tell, each scene being the right one as
often as any other. commonsense_qa asks what a word of the question implies: which thing is of the class it
names, or which class is that of the thing it names. Fruits and vegetables are never offered together, as a
tomato may pass for either.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

from .grammar import Language, load_language
from .grids import Grid, bystander, square
from .passages import ASKED, answer_text
from .scenes import Row, Scene, concepts, draw_scene, generator

_LETTERS = ("A", "B", "C", "D", "E")
_ALIKE = ("fruit", "vegetable")


def hellaswag(lang: str, split: str) -> Iterator[Row]:
    """Rows with ind, ctx_a, ctx_b, endings and label; ctx_b names agent and time, the endings tell the rest."""
    language = load_language(lang)
    rng = generator("suite", "hellaswag", split)
    for ind, right in enumerate(_positions(rng, 4)):
        grid = square(rng, split, rng.choice(("object", "place", "number")), ("agent", "time"))
        scenes = _ordered(rng, grid.scenes, right)
        yield {
            "ind": ind,
            "ctx_a": _passage(language, rng, grid, split),
            "ctx_b": _halves(language, scenes[right])[0],
            "endings": [_halves(language, scene)[1] for scene in scenes],
            "label": str(right),
        }


def cosmos_qa(lang: str, split: str) -> Iterator[Row]:
    """Rows with context, question, answer0 to answer3 and label."""
    language = load_language(lang)
    rng = generator("suite", "cosmos_qa", split)
    for right in _positions(rng, 4):
        kind = rng.choice(tuple(ASKED))
        grid = square(rng, split, ASKED[kind])
        scenes = _ordered(rng, grid.scenes, right)
        question = language.question(kind, grid.question(rng, scenes[right]))
        answers = [answer_text(language, kind, scene) for scene in scenes]
        yield {
            "context": _passage(language, rng, grid, split),
            "question": language.text(question),
            **{f"answer{i}": answer for i, answer in enumerate(answers)},
            "label": right,
        }


def commonsense_qa(lang: str, split: str) -> Iterator[Row]:
    """Rows with question, choices (label, text) and answerKey; a class on offer is right as often as any other."""
    language = load_language(lang)
    rng = generator("suite", "commonsense_qa", split)
    for right in _positions(rng, len(_LETTERS)):
        scene, own, other = _classes(rng, split)
        member = rng.random() < 0.5
        scene = replace(scene, object=own if member else rng.choice(concepts().classes[own]))
        names = [*other[:right], own, *other[right:]]
        if member:
            asks = "Which of these might they be?"
            texts = [_word(language, "object", rng.choice(concepts().classes[name])) for name in names]
        else:
            asks = "What kind of things are they?"
            texts = [_word(language, "object_class", name) for name in names]
        yield {
            "question": f"{language.text(language.tokens(scene, fronted=rng.random() < 0.3))} {asks}",
            "choices": {"label": list(_LETTERS), "text": texts},
            "answerKey": _LETTERS[right],
        }


def _classes(rng: random.Random, split: str) -> tuple[Scene, str, list[str]]:
    """A scene, the class of its object and the other classes on offer; of those alike, one class stands for both."""
    while True:
        scene, alike = draw_scene(rng, split), rng.choice(_ALIKE)
        own = _class_of().get(scene.object, scene.object)
        names = [name for name in concepts().classes if name == alike or name not in _ALIKE]
        if own in names:
            return scene, own, rng.sample([name for name in names if name != own], len(_LETTERS) - 1)


def _positions(rng: random.Random, count: int) -> Iterator[int]:
    """Endless places for the right choice, each of them once in every run of `count`."""
    while True:
        yield from rng.sample(range(count), count)


def _ordered(rng: random.Random, scenes: Sequence[Scene], right: int) -> list[Scene]:
    """The scenes in random order: whichever comes to stand at `right` is the one in question."""
    ordered = rng.sample(scenes, len(scenes))
    return [*ordered[1 : right + 1], ordered[0], *ordered[right + 1 :]]


def _halves(language: Language, scene: Scene) -> tuple[str, str]:
    """A scene's sentence from its time to its agent, and what follows."""
    tokens, slots = language.marked(scene, fronted=True)
    cut = max(i for i, slot in enumerate(slots) if slot.startswith("agent_phrase")) + 1
    text, starts = language.placed(tokens)
    return text[: starts[cut] - len(language.joiner)], text[starts[cut] :]


def _passage(language: Language, rng: random.Random, grid: Grid, split: str) -> str:
    scenes = [*grid.scenes, *([bystander(rng, split, grid)] if rng.random() < 0.4 else [])]
    rng.shuffle(scenes)
    return language.gap.join(language.text(language.tokens(s, fronted=rng.random() < 0.3)) for s in scenes)


def _word(language: Language, section: str, concept: str) -> str:
    return language.text(language.form(section, concept, "form"))


@cache
def _class_of() -> dict[str, str]:
    return {member: name for name, members in concepts().classes.items() for member in members}
