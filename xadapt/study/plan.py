"""The plan: a recipe unfolded into stages and the cells they fill; torch-free."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from xadapt.errors import UserError
from xadapt.regimes.specs import JOINT
from xadapt.study.looked_up import LookedUp
from xadapt.study.planner import Planner, under_seed
from xadapt.study.recipe import Recipe
from xadapt.study.resolved import NOTHING, Resolved
from xadapt.study.stage import Stage
from xadapt.study.sweep import Point, sweep_points, value_text


@dataclass(frozen=True)
class Cell:
    """One cell of the comparison and the evaluation that fills it; repeats marks a cell that is none's again.

    intermediate is empty, one task, or for a joint composition several, joined by commas. point is the place of its
    sweep's point in the plan.
    """

    regime: str
    composition: str
    intermediate: str
    target: str
    seed: int
    evaluation: Stage
    repeats: bool = False
    point: int = 0


@dataclass(frozen=True)
class Plan:
    """Stages in an order in which each comes after what it needs, the cells they fill, and what to tell.

    points are those of the recipe's sweep; uses says, by key, how many cells (or models, where there are none) rest on a
    stage; resolved, what the recipe's open choices came to.
    """

    stages: tuple[Stage, ...]
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()
    points: tuple[Point, ...] = ()
    uses: Mapping[str, int] = field(default_factory=dict)
    resolved: Resolved = NOTHING


@dataclass(frozen=True)
class _Wanted:
    """A stage that a point asks for under a seed."""

    stage: Stage
    point: int
    seed: int


def make_plan(recipe: Recipe, *, evaluate: bool = True, kept: Resolved = NOTHING, update_data: bool = False) -> Plan:
    """Unfold a recipe, every point of its sweep under every seed; equal stages of different cells become one.

    Without targets the intermediate tasks are trained by themselves, or together as the compositions say; so are
    those that no composition takes up. Without `evaluate` the plan stops at the models and has no cells. kept is what an
    earlier plan of the same study came to; update_data takes the newest of the hub instead of its commits. Raises UserError if data or backbone cannot be identified.
    """
    points = sweep_points(recipe)
    if not recipe.targets and not points[0].recipe.intermediate:
        raise UserError(f"recipe '{recipe.name}' names neither `targets` nor `intermediate` tasks")
    found = LookedUp(recipe, kept, update_data=update_data)
    cells: list[Cell] = []
    trained: list[_Wanted] = []
    notes: list[str] = []
    for number, point in enumerate(points):
        planner = Planner(point.recipe, found)
        alone, filled = _trained_alone(planner), _cells(planner, number)
        for seed in point.recipe.every_seed:
            known: dict[int, Stage] = {}
            trained += [_Wanted(under_seed(stage, seed, known), number, seed) for stage in alone]
            cells += [replace(c, seed=seed, evaluation=under_seed(c.evaluation, seed, known)) for c in filled]
        notes += planner.notes
    wanted = [_Wanted(cell.evaluation, cell.point, cell.seed) for cell in cells]
    if not evaluate:
        wanted = [_Wanted(need, of.point, of.seed) for of in wanted for need in of.stage.needs]
    stages = _Asked(points, [*trained, *wanted])
    cells = [replace(cell, evaluation=stages.found[cell.evaluation.key]) for cell in cells] if evaluate else []
    return Plan(
        tuple(stages.found.values()),
        tuple(cells),
        tuple(dict.fromkeys([*found.notes, *([] if update_data else found.moved()), *notes])),
        points,
        stages.uses,
        found.resolved,
    )


def _cells(planner: Planner, point: int) -> list[Cell]:
    found: list[Cell] = []
    recipe = planner.recipe
    for regime, section in recipe.regimes.items():
        for target in recipe.targets:
            for composition in section.compositions:
                for group in _groups(composition, recipe.intermediate):
                    evaluation, repeats = planner.cell(target, regime, composition, group)
                    of = ",".join(group)
                    found.append(
                        Cell(regime, composition, of, target, recipe.every_seed[0], evaluation, repeats, point)
                    )
    return found


def _trained_alone(planner: Planner) -> list[Stage]:
    """What no target asks for: all without targets, and the intermediate tasks that no composition takes up."""
    found: list[Stage] = []
    for regime, section in planner.recipe.regimes.items():
        if not planner.recipe.targets:
            found += _without_target(planner, regime, section.compositions)
        elif not set(section.compositions) - {"none"}:
            found += _without_target(planner, regime, ("none",))
    return found


def _without_target(planner: Planner, regime: str, compositions: Iterable[str]) -> list[Stage]:
    """The modules, or models, that a recipe without targets asks for."""
    names = planner.recipe.intermediate
    found: list[Stage] = []
    for composition in compositions:
        if composition in JOINT:
            found.append(planner.joint(composition, regime, _sorted(names)))
        else:
            found += [planner.train_intermediate(name, regime) for name in names]
    return found


def _groups(composition: str, intermediate: Sequence[str]) -> list[tuple[str, ...]]:
    """The intermediate tasks of each cell of a composition: none, one each, or all at once."""
    if composition == "none":
        return [()]
    return [_sorted(intermediate)] if composition in JOINT else [(name,) for name in intermediate]


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    """In an order that does not depend on how they were listed."""
    return tuple(sorted(set(names)))


class _Asked:
    """Every stage once, by key, behind what it needs, with how often it is asked for.

    Where a stage is asked for by some seeds or points alone, its label says which.
    """

    def __init__(self, points: Sequence[Point], wanted: Sequence[_Wanted]) -> None:
        seeds = {of.seed for of in wanted}
        self._texts = {name: [value_text(point.values[name]) for point in points] for name in points[0].hidden}
        self._several = {"seed": len(seeds), **{name: len(set(texts)) for name, texts in self._texts.items()}}
        self.found: dict[str, Stage] = {}
        self.uses: Counter[str] = Counter()
        self._behind: dict[str, tuple[Stage, ...]] = {}
        self._askers: dict[str, set[tuple[int, int]]] = defaultdict(set)
        for of in wanted:
            for stage in self._with_needs(of.stage):
                self.found.setdefault(stage.key, stage)
                self.uses[stage.key] += 1
                self._askers[stage.key].add((of.point, of.seed))
        if any(many > 1 for many in self._several.values()):
            for key, stage in self.found.items():
                self.found[key] = self._labelled(key, stage)

    def _with_needs(self, stage: Stage) -> tuple[Stage, ...]:
        """The stage and all that it rests on, each once, needs first."""
        if stage.key not in self._behind:
            found = {inner.key: inner for need in stage.needs for inner in self._with_needs(need)}
            self._behind[stage.key] = (*found.values(), stage)
        return self._behind[stage.key]

    def _labelled(self, key: str, stage: Stage) -> Stage:
        askers = self._askers[key]
        own = {"seed": {str(seed) for _, seed in askers}}
        own |= {name: {texts[at] for at, _ in askers} for name, texts in self._texts.items()}
        told = [f"{name} {next(iter(of))}" for name, of in own.items() if len(of) == 1 < self._several[name]]
        label = f"{stage.label} ({', '.join(told)})" if told else stage.label
        known = replace(stage, needs=tuple(self.found[need.key] for need in stage.needs), label=label)
        known.__dict__["key"] = key  # the label is no part of it
        return known
