"""Scenes: who does what to what, where, when and how many, as concept ids of no language."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

Row = dict[str, Any]  # a rendered example, in the columns of the real data set
DETAILS = ("trait", "adjective", "number", "place", "time")


@dataclass(frozen=True, slots=True)
class Scene:
    """One event in concept ids of languages/_concepts.yaml; None where the scene leaves a detail open."""

    agent: str
    verb: str
    object: str
    trait: str | None = None
    adjective: str | None = None
    number: str | None = None
    place: str | None = None
    time: str | None = None
    negated: bool = False


@dataclass(frozen=True)
class VerbPair:
    """One verb, or a verb and its opposite, with the group inside which verbs may clash."""

    group: str
    verbs: tuple[str, ...]


@dataclass(frozen=True)
class Concepts:
    """The inventory: concept ids by kind, and what excludes what."""

    roles: tuple[str, ...]
    names: tuple[str, ...]
    verbs: tuple[VerbPair, ...]
    classes: Mapping[str, tuple[str, ...]]
    families: Mapping[str, tuple[tuple[str, ...], ...]]
    cities: tuple[str, ...]
    organisations: tuple[str, ...]

    @property
    def agents(self) -> tuple[str, ...]:
        return self.roles + self.names

    def values(self, detail: str) -> tuple[str, ...]:
        """Every value that a detail (trait, adjective, number, place, time) can take."""
        return tuple(value for family in self.families[detail] for value in family)

    def contraries(self, detail: str, value: str) -> list[str]:
        """The values of a detail that exclude the given one."""
        family = next(family for family in self.families[detail] if value in family)
        return [other for other in family if other != value]

    def ids(self) -> dict[str, tuple[str, ...]]:
        """Concept ids by the section of a language file that must give words for them."""
        members = tuple(member for group in self.classes.values() for member in group)
        verbs = tuple(verb for pair in self.verbs for verb in pair.verbs)
        kinds = {"role": self.roles, "name": self.names, "verb": verbs, "object": members}
        kinds |= {"city": self.cities, "organisation": self.organisations}
        return kinds | {"object_class": tuple(self.classes)} | {d: self.values(d) for d in DETAILS}


@cache
def concepts() -> Concepts:
    """The inventory of languages/_concepts.yaml, read once per process."""
    raw = read_yaml("languages/_concepts.yaml")
    pairs = tuple(VerbPair(group, tuple(p)) for group, listed in raw["verbs"].items() for p in listed)
    families = {
        "trait": tuple(map(tuple, raw["traits"])),
        "adjective": tuple(map(tuple, raw["adjectives"])),
        "number": (tuple(raw["numbers"]),),
        "place": (tuple(raw["places"]),),
        "time": tuple(map(tuple, raw["times"].values())),
    }
    classes = {name: tuple(members) for name, members in raw["objects"].items()}
    cities, organisations = tuple(raw["cities"]), tuple(raw["organisations"])
    return Concepts(tuple(raw["roles"]), tuple(raw["names"]), pairs, classes, families, cities, organisations)


def read_yaml(name: str) -> dict[str, Any]:
    """A data file of this folder as nested mappings and lists of strings (YAML's "no" stays a word)."""
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    loaded: dict[str, Any] = yaml.load(files(__package__).joinpath(name).read_text("utf-8"), Loader=loader)
    return loaded


def generator(*parts: str) -> random.Random:
    """A random generator seeded by the given strings alone, the same in every process."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


@cache
def split_of(agent: str, verb: str, object_class: str) -> str:
    """The split that owns every scene with this agent, verb (or its opposite) and class of object.

    The split hangs on these three alone, so that no sentence of one split can occur in another, whatever
    details, polarity or level of generality it is told with.
    """
    pair = next(p for p in concepts().verbs if verb in p.verbs)
    digest = hashlib.sha256(f"{agent}|{pair.verbs[0]}|{object_class}".encode()).digest()
    return "train" if digest[0] < 180 else "validation" if digest[0] < 218 else "test"


@cache
def pairs_of(agent: str, object_class: str, split: str) -> tuple[VerbPair, ...]:
    """The verb pairs that make scenes of `split` with this agent and class of object."""
    return tuple(p for p in concepts().verbs if split_of(agent, p.verbs[0], object_class) == split)


def draw_scene(rng: random.Random, split: str) -> Scene:
    """A random scene of `split` with between one and four details; only scenes without number are negated."""
    inventory = concepts()
    pairs: tuple[VerbPair, ...] = ()
    while not pairs:
        agent, name = rng.choice(inventory.agents), rng.choice(tuple(inventory.classes))
        pairs = pairs_of(agent, name, split)
    verb = rng.choice(rng.choice(pairs).verbs)
    thing = name if rng.random() < 0.15 else rng.choice(inventory.classes[name])
    negated = rng.random() < 0.25
    possible = details_for(agent, negated=negated)
    chosen = sorted(rng.sample(possible, rng.randint(1, min(4, len(possible)))))
    details = {detail: rng.choice(inventory.values(detail)) for detail in chosen}
    return Scene(agent, verb, thing, negated=negated, **details)


def details_for(agent: str, *, negated: bool = False) -> list[str]:
    """The details that may be told of this agent: a named person has no trait, a negation no number."""
    barred = {"trait"} if agent in concepts().names else set()
    return [detail for detail in DETAILS if detail not in (barred | {"number"} if negated else barred)]


def distinct_scenes(rng: random.Random, split: str) -> Iterator[Scene]:
    """Endless scenes of `split`, none twice."""
    seen: set[Scene] = set()
    while True:
        scene = draw_scene(rng, split)
        if scene not in seen:
            seen.add(scene)
            yield scene


def scene_count() -> int:
    """How many distinct scenes the inventory can make, counting every choice of open details."""
    inventory = concepts()
    open_values = {detail: len(inventory.values(detail)) + 1 for detail in DETAILS}
    agents = len(inventory.roles) * open_values["trait"] + len(inventory.names)
    verbs = sum(len(pair.verbs) for pair in inventory.verbs)
    things = sum(len(members) + 1 for members in inventory.classes.values())
    settings = open_values["adjective"] * open_values["place"] * open_values["time"]
    return agents * verbs * things * settings * (open_values["number"] + 1)
