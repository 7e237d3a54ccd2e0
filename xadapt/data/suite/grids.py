"""Grids: scenes that are alike but for two details, which only together tell the scenes apart.

Every scene of a grid has a value of its own in the detail `asked`. In a square two other details take two
values each, in all four combinations; in a diagonal they take three each, the first with the first and so on.
To say which scene is meant takes both details, and no scene stands out before it is asked about.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, product
from typing import Any

from .scenes import DETAILS, Scene, VerbPair, concepts, draw_scene, split_of

# How often a detail that the grid does not need is told.
_TOLD = {"trait": 0.4, "adjective": 0.5, "number": 0.3, "place": 0.8, "time": 0.8}
_FEWEST_AGENTS = 4


@dataclass(frozen=True)
class Setting:
    """A class of objects, a verb pair and the agents that make scenes of one split with them."""

    things: str
    pair: VerbPair
    agents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """Scenes that differ in the two `varied` details and each in `asked`."""

    setting: Setting
    asked: str
    varied: tuple[str, str]
    scenes: tuple[Scene, ...]

    def question(self, rng: random.Random, scene: Scene) -> Scene:
        """The scene with some of the details left out that its question can do without."""
        optional = [d for d in DETAILS if d != self.asked and d not in self.varied]
        dropped: dict[str, Any] = {detail: None for detail in optional if rng.random() < 0.4}
        return replace(scene, **dropped)


@cache
def settings(split: str) -> tuple[Setting, ...]:
    """The settings of a split that have enough agents for a grid, at least one of them a role."""
    inventory = concepts()
    found = []
    for things, pair in product(inventory.classes, inventory.verbs):
        agents = tuple(a for a in inventory.agents if split_of(a, pair.verbs[0], things) == split)
        if len(agents) >= _FEWEST_AGENTS and set(agents) & set(inventory.roles):
            found.append(Setting(things, pair, agents))
    return tuple(found)


def square(rng: random.Random, split: str, asked: str, varied: tuple[str, str] | None = None) -> Grid:
    """Four scenes with all combinations of two values of two details, `varied` or any two that fit."""
    setting = rng.choice(settings(split))
    varied = varied or rng.choice(_varied(asked, len(setting.pair.verbs) == 2))
    values = [_values(rng, setting, detail, 2) for detail in varied]
    return _grid(rng, setting, asked, varied, list(product(*values)))


def diagonal(rng: random.Random, split: str, asked: str) -> Grid:
    """Three scenes, each with its own values of two details."""
    setting = rng.choice(settings(split))
    varied = rng.choice([pair for pair in _varied(asked, False) if not {"trait", "adjective"} & set(pair)])
    values = [_values(rng, setting, detail, 3) for detail in varied]
    return _grid(rng, setting, asked, varied, list(zip(*values, strict=True)))


def denial(rng: random.Random, grid: Grid) -> Scene:
    """One scene of the grid denied of another one's answer, so that "not" has to be read."""
    denied, other = rng.sample(grid.scenes, 2)
    return replace(denied, number=None, negated=True, **{grid.asked: getattr(other, grid.asked)})


def bystander(rng: random.Random, split: str, grid: Grid) -> Scene:
    """A scene that has nothing to do with the grid's."""
    while (scene := draw_scene(rng, split)).verb in grid.setting.pair.verbs:
        pass
    return scene


@cache
def _varied(asked: str, opposites: bool) -> list[tuple[str, str]]:
    """The pairs of details that can tell scenes apart when `asked` is asked for."""
    barred = {asked, "number", "verb" if not opposites else ""}
    barred |= {"agent": {"trait"}, "object": {"adjective"}}.get(asked, set())  # the answer names them
    usable = [detail for detail in ("agent", "verb", "object", *DETAILS) if detail not in barred]
    return [pair for pair in combinations(usable, 2) if set(pair) != {"agent", "trait"}]


def _values(rng: random.Random, setting: Setting, detail: str, count: int) -> list[str]:
    """Distinct values of a detail, which exclude each other."""
    inventory = concepts()
    if detail in DETAILS:
        pool: Sequence[str] = rng.choice([family for family in inventory.families[detail] if len(family) >= count])
    else:
        pools = {"agent": setting.agents, "verb": setting.pair.verbs, "object": inventory.classes[setting.things]}
        pool = pools[detail]
    return rng.sample(pool, count)


def _grid(
    rng: random.Random, setting: Setting, asked: str, varied: tuple[str, str], cells: Sequence[tuple[str, ...]]
) -> Grid:
    background = _background(rng, setting, {asked, *varied})
    answers = _values(rng, setting, asked, len(cells))
    scenes = [
        Scene(**(background | dict(zip(varied, cell, strict=True)) | {asked: answer}))
        for cell, answer in zip(cells, answers, strict=True)
    ]
    return Grid(setting, asked, varied, tuple(scenes))


def _background(rng: random.Random, setting: Setting, taken: set[str]) -> dict[str, Any]:
    """What all scenes of a grid share: agent, verb and object unless taken, and some details."""
    roles = set(concepts().roles)
    agents = [a for a in setting.agents if a in roles] if "trait" in taken else setting.agents
    core = {"agent": agents, "verb": setting.pair.verbs, "object": concepts().classes[setting.things]}
    shared = {part: rng.choice(pool) for part, pool in core.items() if part not in taken}
    for detail in DETAILS:
        if detail not in taken and rng.random() < _TOLD[detail] and (detail != "trait" or shared.get("agent") in roles):
            shared[detail] = rng.choice(concepts().values(detail))
    return shared
