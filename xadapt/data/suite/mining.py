"""Mining: two sides of sentences, of which some are translations of each other and others nearly are."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

from .grammar import load_language
from .scenes import DETAILS, Row, Scene, concepts, draw_scene, generator

# Of the sentences that a block has on either side, some are translations; the English side also has
# sentences that differ from a foreign one in a single detail.
_SIDE, _PAIRS, _NEAR = 20, 5, 6


def bucc2018(lang: str, split: str) -> Iterator[Row]:
    """Rows with side, id, text and gold: for a foreign sentence the id of its English translation, or ""."""
    languages = {"foreign": load_language(lang), "english": load_language("en")}
    rng = generator("suite", "bucc2018", split)
    seen: set[Scene] = set()
    for block in count():
        sides = _block(rng, split, seen)
        english = {scene: f"en-{block * _SIDE + i:09d}" for i, scene in enumerate(sides["english"])}
        for i in range(_SIDE):
            for side, language in languages.items():
                scene = sides[side][i]
                text = language.text(language.tokens(scene, fronted=rng.random() < 0.3))
                foreign = side == "foreign"
                name = f"{lang}-{block * _SIDE + i:09d}" if foreign else english[scene]
                yield {"side": side, "id": name, "text": text, "gold": english.get(scene, "") if foreign else ""}


def _block(rng: random.Random, split: str, seen: set[Scene]) -> dict[str, list[Scene]]:
    """The scenes of both sides in random order; only those of a pair come on both."""
    foreign = [_unseen(rng, split, seen) for _ in range(_SIDE)]
    english = foreign[:_PAIRS]
    for scene in rng.sample(foreign, _NEAR):
        variant = _variant(rng, scene)
        if variant not in seen:
            seen.add(variant)
            english.append(variant)
    english += [_unseen(rng, split, seen) for _ in range(_SIDE - len(english))]
    rng.shuffle(foreign)
    rng.shuffle(english)
    return {"foreign": foreign, "english": english}


def _variant(rng: random.Random, scene: Scene) -> Scene:
    """The scene with a contrary in one of its details."""
    detail = rng.choice([detail for detail in DETAILS if getattr(scene, detail) is not None])
    contrary: Any = rng.choice(concepts().contraries(detail, getattr(scene, detail)))
    return replace(scene, **{detail: contrary})


def _unseen(rng: random.Random, split: str, seen: set[Scene]) -> Scene:
    while (scene := draw_scene(rng, split)) in seen:
        pass
    seen.add(scene)
    return scene
