"""Paraphrase: sentences of two clauses, told again in another order, with or without an exchange between them.

A pair's second sentence puts the clauses, or the time in a clause, elsewhere than the first. Under "the same"
it tells what the first one tells; under "different" the clauses have exchanged their agents, objects, places or
times. A first sentence comes once with each label and the same order on the other side, and what an exchange makes
is drawn as often as what it was made from: the two sides hold the same words under both labels.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from .grammar import load_language
from .grids import Setting, settings
from .scenes import Row, Scene, concepts, generator

# What the clauses exchange, with all that belongs to it; the verb's own forms stay where they are.
_EXCHANGES = {
    "agent": ("agent", "trait"),
    "object": ("object", "adjective", "number"),
    "place": ("place",),
    "time": ("time",),
}
# What the questions of a pair can ask for, and the exchange that this leaves no words for.
_ASKED = {"who": "agent", "what": "object", "where": "place", "when": "time"}
_OPENINGS = ("", "I would like to know: ", "Please tell me: ", "Who can tell me this: ")

Clauses = tuple[Scene, Scene]


@dataclass(frozen=True, slots=True)
class Order:
    """Whether the second clause comes first, and which scenes open with their time."""

    flipped: bool
    fronted: tuple[bool, bool]


@dataclass(frozen=True, slots=True)
class Block:
    """Two clauses, what they are after an exchange, and the orders of the first and the second side."""

    clauses: Clauses
    exchanged: Clauses
    orders: tuple[Order, Order]


def blocks(rng: random.Random, split: str, kept: str | None = None) -> Iterator[Block]:
    """Endless blocks of scenes of `split`, none twice, that exchange anything but `kept`."""
    seen: set[Clauses] = set()
    while True:
        clauses, part = _clauses(rng, split, rng.choice([part for part in _EXCHANGES if part != kept]))
        if clauses and clauses not in seen:
            seen.add(clauses)
            yield Block(clauses, _exchange(clauses, part), _orders(rng))


def pawsx(lang: str, split: str) -> Iterator[Row]:
    """Rows with sentence1, sentence2 and label; two rows a block."""
    language = load_language(lang)
    rng = generator("suite", "pawsx", split)

    def tell(clauses: Clauses, order: Order) -> str:
        first, second = (0, 1) if not order.flipped else (1, 0)
        fronted = (order.fronted[first], order.fronted[second])
        return language.text(language.coordinated(clauses[first], clauses[second], fronted=fronted))

    for block in blocks(rng, split):
        first, second = block.orders
        sentence = tell(block.clauses, first)
        for label in rng.sample(("different", "paraphrase"), 2):
            clauses = block.clauses if label == "paraphrase" else block.exchanged
            yield {"sentence1": sentence, "sentence2": tell(clauses, second), "label": label}


def qqp(lang: str, split: str) -> Iterator[Row]:
    """Rows with question1, question2 and label; two rows a block, whose clauses ask for the same thing."""
    language = load_language(lang)
    rng = generator("suite", "qqp", split)
    streams = {kind: blocks(rng, split, kept) for kind, kept in _ASKED.items()}

    def ask(kind: str, clauses: Clauses, flipped: bool, opening: str) -> str:
        first, second = clauses[::-1] if flipped else clauses
        text = language.text(language.coordinated(first, second, asking=kind))
        return opening + (text[0].lower() + text[1:] if opening else text)

    while True:
        kind = rng.choice(tuple(streams))
        block = next(streams[kind])
        openings = rng.choices(_OPENINGS, (7, 1, 1, 1), k=2)
        flipped = openings[0] == openings[1] or rng.random() < 0.7  # the same words in the same order are no pair
        question = ask(kind, block.clauses, False, openings[0])
        for label in rng.sample(("not_duplicate", "duplicate"), 2):
            clauses = block.clauses if label == "duplicate" else block.exchanged
            yield {"question1": question, "question2": ask(kind, clauses, flipped, openings[1]), "label": label}


def _clauses(rng: random.Random, split: str, part: str) -> tuple[Clauses | None, str]:
    """Two clauses of `split` that stay in it when they exchange `part`; None where the draw has no two agents."""
    first = rng.choice(settings(split))
    # Only under one verb do all languages keep the words of a place; only in one class does the split stay.
    second = first if part == "place" else rng.choice(_settings_of(split, first.things if part == "object" else None))
    agents = [agent for agent in first.agents if agent in second.agents]
    if len(agents) < 2:
        return None, part
    return _fill(rng, (first, second), rng.sample(agents, 2), part), part


def _fill(rng: random.Random, pair: tuple[Setting, Setting], agents: list[str], part: str) -> Clauses | None:
    inventory = concepts()
    shared = rng.choice(pair[0].pair.verbs)
    verbs = (shared, shared) if part == "place" else [rng.choice(setting.pair.verbs) for setting in pair]
    things = [rng.choice(inventory.classes[setting.things]) for setting in pair]
    if things[0] == things[1]:
        return None
    negated = rng.random() < 0.2
    details = {"time": rng.sample(inventory.values("time"), 2)}
    if part == "place" or rng.random() < 0.6:
        details["place"] = rng.sample(inventory.values("place"), 2)
    scenes = []
    for i, (agent, verb, thing) in enumerate(zip(agents, verbs, things, strict=True)):
        told = {detail: values[i] for detail, values in details.items()}
        for detail, share in (("trait", 0.3), ("adjective", 0.4), ("number", 0.3)):
            barred = negated if detail == "number" else detail == "trait" and agent in inventory.names
            if rng.random() < share and not barred:
                told[detail] = rng.choice(inventory.values(detail))
        scenes.append(Scene(agent, verb, thing, negated=negated, **told))
    return scenes[0], scenes[1]


def _exchange(clauses: Clauses, part: str) -> Clauses:
    first, second = clauses
    fields = _EXCHANGES[part]
    return (
        replace(first, **{field: getattr(second, field) for field in fields}),
        replace(second, **{field: getattr(first, field) for field in fields}),
    )


def _orders(rng: random.Random) -> tuple[Order, Order]:
    """Two different orders."""
    while True:
        orders = [Order(rng.random() < 0.5, (rng.random() < 0.4, rng.random() < 0.4)) for _ in range(2)]
        if orders[0] != orders[1]:
            return orders[0], orders[1]


@cache
def _settings_of(split: str, things: str | None) -> tuple[Setting, ...]:
    return tuple(setting for setting in settings(split) if things in (None, setting.things))
