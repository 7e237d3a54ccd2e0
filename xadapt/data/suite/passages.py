"""Passages: several scenes as the sentences of a text, with questions that one of them answers, or none.

A question asks for one detail of a scene and names the two that tell it from the scenes around it, so the
kind of question, the place in the passage and any single word leave all sentences equally likely. In squad_v2
a passage has one question that is answered and one that pairs a detail of one sentence with a detail of
another: both are made of the same words, each of which the passage holds once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from .grammar import QUESTIONS, Language, load_language
from .grids import bystander, denial, diagonal, square
from .scenes import Row, Scene, generator

ASKED = {"who": "agent", "what": "object", "where": "place", "when": "time", "how_many": "number"}


@dataclass(frozen=True, slots=True)
class Passage:
    """Scenes in the order of the text, and questions with the index of the scene that answers, if one does."""

    title: str
    kind: str
    scenes: tuple[Scene, ...]
    fronted: tuple[bool, ...]
    questions: tuple[tuple[Scene, int | None], ...]


def span_renderer(task: str, *, unanswerable: bool = False) -> Callable[[str, str], Iterator[Row]]:
    """The renderer of a span task: rows with title, context, question, answers; two questions a passage."""

    def render(lang: str, split: str) -> Iterator[Row]:
        language = load_language(lang)
        rng = generator("suite", task, split)
        while True:
            passage = draw_passage(rng, split, unanswerable=unanswerable)
            context, spans = told(language, passage)
            for question, target in passage.questions:
                start, end = spans[target] if target is not None else (0, 0)
                yield {
                    "title": passage.title,
                    "context": context,
                    "question": language.text(language.question(passage.kind, question)),
                    "answers": {
                        "text": [context[start:end]] if end else [],
                        "answer_start": [start] if end else [],
                    },
                }

    return render


def draw_passage(rng: random.Random, split: str, *, unanswerable: bool = False) -> Passage:
    """A passage with two questions; with `unanswerable`, one of the two has no answer."""
    kind = rng.choice(tuple(ASKED))
    grid = (diagonal if unanswerable else square)(rng, split, ASKED[kind])
    scenes = list(grid.scenes)
    if unanswerable or rng.random() < 0.4:
        scenes.append(bystander(rng, split, grid))
    elif kind != "how_many" and rng.random() < 0.4:  # a negation has no number
        scenes.append(denial(rng, grid))
    rng.shuffle(scenes)
    first, second = rng.sample(grid.scenes, 2)
    if unanswerable:
        chimera = replace(first, **{grid.varied[1]: getattr(second, grid.varied[1])})
        asked: list[tuple[Scene, int | None]] = [(chimera, None), _about(rng.choice(grid.scenes), scenes)]
        rng.shuffle(asked)
    else:
        asked = [_about(first, scenes), _about(second, scenes)]
    questions = tuple((grid.question(rng, scene), target) for scene, target in asked)
    fronted = tuple(rng.random() < 0.3 for _ in scenes)
    return Passage(grid.setting.things, kind, tuple(scenes), fronted, questions)


def told(language: Language, passage: Passage) -> tuple[str, list[tuple[int, int]]]:
    """The text of a passage, and where in it each sentence that can answer gives what the questions ask for."""
    text, spans = "", []
    for scene, fronted in zip(passage.scenes, passage.fronted, strict=True):
        text += language.gap if text else ""
        tokens, slots = language.marked(scene, fronted=fronted)
        sentence, starts = language.placed(tokens)
        first, last = span_of(passage.kind, slots)
        end = starts[last] + len(language.bare(tokens[last][0]))
        spans.append((len(text) + starts[first], len(text) + end))
        text += sentence
    return text, spans


def span_of(kind: str, slots: Sequence[str]) -> tuple[int, int]:
    """The first and last token of a sentence that answer a kind of question; (0, -1) where none does."""
    slot = QUESTIONS[kind]
    at = [i for i, name in enumerate(slots) if name == slot or name.startswith(slot + ".")]
    if not at and kind == "how_many":  # a dual: the noun itself says how many
        at = [i for i, name in enumerate(slots) if name == "object_phrase.object"]
    return (at[0], at[-1]) if at else (0, -1)


def answer_text(language: Language, kind: str, scene: Scene) -> str:
    """The words of a scene's own sentence that answer a kind of question, as inside a sentence."""
    tokens, slots = language.marked(scene)
    first, last = span_of(kind, slots)
    return language.text(tokens[first : last + 1])


def _about(scene: Scene, scenes: Sequence[Scene]) -> tuple[Scene, int]:
    return scene, scenes.index(scene)
