"""Inference: a premise scene with one entailed, one contradicted and one neutral hypothesis scene.

A triple is drawn from a symmetric block over two claims S and T that say nothing about each other (an
adjective and a place, two verbs, ...). A premise states S and never T; its hypotheses state S
(entailment), the contrary of S (contradiction) or T (neutral). Which claim is S and which T, and which
of two contraries S is, is drawn evenly. So every premise occurs once with every label, and every hypothesis
is equally likely under every label: no word, length or position of one side can give the label away.
A hypothesis is about the premise's event, as in SNLI and MultiNLI.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from .scenes import Scene, VerbPair, concepts, details_for, pairs_of

LABELS = ("entailment", "neutral", "contradiction")
# What S and T are: two details, two verbs with opposites, two verbs with or without "not".
_KINDS = {"detail": 6, "antonym": 2, "polarity": 2}
# How general the objects are named; "specific" lets a general premise meet a specific hypothesis.
_LEVELS = {"restated": 4, "general": 4, "specific": 2}


@dataclass(frozen=True, slots=True)
class Triple:
    """A premise and its three hypotheses by label; the flags say which side opens with its time."""

    premise: Scene
    hypotheses: dict[str, Scene]
    premise_fronted: bool
    hypothesis_fronted: bool


@dataclass(frozen=True, slots=True)
class _Claims:
    """The premise's claim, its contrary and an independent claim, as values of Scene's fields."""

    stated: dict[str, Any]
    contrary: dict[str, Any]
    independent: dict[str, Any]


def triples(rng: random.Random, split: str) -> Iterator[Triple]:
    """Endless triples of scenes of `split`; no premise comes twice."""
    seen: set[Scene] = set()
    while True:
        triple = _draw(rng, split)
        if triple is not None and triple.premise not in seen:
            seen.add(triple.premise)
            yield triple


def _draw(rng: random.Random, split: str) -> Triple | None:
    """One triple, or None when the drawn agent and class have no fitting verbs in `split`."""
    inventory = concepts()
    kind = _weighted(rng, _KINDS)
    agent = rng.choice(inventory.roles if kind == "polarity" else inventory.agents)
    name = rng.choice(tuple(inventory.classes))
    pairs = pairs_of(agent, name, split)
    if kind == "detail":
        return _detail_triple(rng, agent, name, pairs) if pairs else None
    chosen = _unrelated(rng, pairs, opposites=kind == "antonym")
    return _verb_triple(rng, agent, name, chosen, kind) if chosen else None


def _detail_triple(rng: random.Random, agent: str, name: str, pairs: tuple[VerbPair, ...]) -> Triple:
    possible = details_for(agent)
    topic, other = rng.sample(possible, 2)
    rest = [detail for detail in possible if detail not in (topic, other)]
    extras, kept = rng.sample(rest, rng.randint(2, len(rest))), rng.choice((0, 1))
    if "place" in (topic, other) and "time" in rest:
        # Being in two places is only a contradiction at one time: both sides name it.
        extras, kept = ["time", *(detail for detail in extras if detail != "time")], 1
    value = _value(rng, topic)
    claims = _Claims(
        {topic: value}, {topic: rng.choice(concepts().contraries(topic, value))}, {other: _value(rng, other)}
    )
    verb = {"verb": rng.choice(rng.choice(pairs).verbs)}
    background = {detail: _value(rng, detail) for detail in extras} | verb
    shared = dict(list(background.items())[:kept]) | verb
    return _assemble(rng, agent, name, claims, background, shared, _weighted(rng, _LEVELS))


def _verb_triple(rng: random.Random, agent: str, name: str, pairs: tuple[VerbPair, VerbPair], kind: str) -> Triple:
    negating = kind == "polarity"
    stated, independent = rng.choice(pairs[0].verbs), rng.choice(pairs[1].verbs)
    if negating:
        negated, other = rng.random() < 0.5, rng.random() < 0.5
        claims = _Claims(
            {"verb": stated, "negated": negated},
            {"verb": stated, "negated": not negated},
            {"verb": independent, "negated": other},
        )
        # Under "not" only the agent's trait can be dropped and leave the sentence entailed.
        extras = ["trait", *rng.sample(["adjective", "place", "time"], 2)]
        dropped = 1
    else:
        opposite = next(verb for verb in pairs[0].verbs if verb != stated)
        claims = _Claims({"verb": stated}, {"verb": opposite}, {"verb": independent})
        possible = details_for(agent)
        extras = rng.sample(possible, rng.randint(3, len(possible)))
        dropped = len(extras) - rng.choice((0, 1))
    background = {detail: _value(rng, detail) for detail in extras}
    shared = dict(list(background.items())[dropped:])
    level = "restated" if negating else _weighted(rng, _LEVELS)
    return _assemble(rng, agent, name, claims, background, shared, level)


def _assemble(
    rng: random.Random,
    agent: str,
    name: str,
    claims: _Claims,
    background: dict[str, Any],
    shared: dict[str, Any],
    level: str,
) -> Triple:
    """The four scenes; a "specific" block has as many general as specific words under every label."""
    member = rng.choice(concepts().classes[name])
    general_premise = level == "specific" and rng.random() < 0.5
    premise = Scene(agent, object=name if general_premise else member, **(background | claims.stated))
    thing = name if level == "general" else premise.object
    parts = {"entailment": claims.stated, "contradiction": claims.contrary, "neutral": claims.independent}
    hypotheses = {label: Scene(agent, object=thing, **(shared | claim)) for label, claim in parts.items()}
    if general_premise:
        hypotheses["neutral"] = replace(hypotheses["entailment"], object=member)
    elif level == "specific":
        hypotheses["neutral"] = replace(hypotheses["neutral"], object=name)
    return Triple(premise, hypotheses, rng.random() < 0.3, rng.random() < 0.2)


def _value(rng: random.Random, detail: str) -> str:
    return rng.choice(concepts().values(detail))


def _unrelated(rng: random.Random, pairs: tuple[VerbPair, ...], *, opposites: bool) -> tuple[VerbPair, VerbPair] | None:
    """Two verb pairs of different groups in random order, or None; `opposites` wants both to have one."""
    usable = [pair for pair in pairs if len(pair.verbs) == 2 or not opposites]
    found = [(a, b) for a in usable for b in usable if a.group != b.group]
    return rng.choice(found) if found else None


def _weighted(rng: random.Random, weights: dict[str, int]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]
