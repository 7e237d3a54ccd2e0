"""The plan: a recipe unfolded into stages and the cells they fill; torch-free."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xadapt.errors import UserError
from xadapt.regimes.specs import JOINT
from xadapt.study.planner import Planner
from xadapt.study.recipe import Recipe
from xadapt.study.stage import Stage


@dataclass(frozen=True)
class Cell:
    """One cell of the comparison and the evaluation that fills it; repeats marks a cell that is none's again.

    intermediate is empty, one task, or for a joint composition several, joined by commas.
    """

    regime: str
    composition: str
    intermediate: str
    target: str
    seed: int
    evaluation: Stage
    repeats: bool = False


@dataclass(frozen=True)
class Plan:
    """Stages in an order in which each comes after what it needs, the cells they fill, and what to tell."""

    stages: tuple[Stage, ...]
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()


def make_plan(recipe: Recipe, *, evaluate: bool = True) -> Plan:
    """Unfold a recipe; equal stages of different cells become one.

    Without targets the intermediate tasks are trained by themselves, or together as the compositions say; so are
    those that no composition takes up. Without `evaluate` the plan stops at the models and has no cells. Raises
    UserError if data or backbone cannot be identified.
    """
    if not recipe.targets and not recipe.intermediate:
        raise UserError(f"recipe '{recipe.name}' names neither `targets` nor `intermediate` tasks")
    planner = Planner(recipe)
    cells: list[Cell] = []
    trained: list[Stage] = []
    for regime, section in recipe.regimes.items():
        compositions = section.compositions
        if not recipe.targets or not set(compositions) - {"none"}:
            trained += _without_target(planner, regime, compositions if not recipe.targets else ("none",))
        for target in recipe.targets:
            for composition in compositions:
                for group in _groups(composition, recipe.intermediate):
                    evaluation, repeats = planner.cell(target, regime, composition, group)
                    of = ",".join(group)
                    cells.append(Cell(regime, composition, of, target, recipe.seed, evaluation, repeats))
    notes = tuple(dict.fromkeys(planner.notes))
    if not evaluate:
        models = [need for cell in cells for need in cell.evaluation.needs]
        return Plan(_in_order([*trained, *models]), (), notes)
    return Plan(_in_order([*trained, *(cell.evaluation for cell in cells)]), tuple(cells), notes)


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


def _in_order(wanted: Iterable[Stage]) -> tuple[Stage, ...]:
    """Every stage once, by key, behind what it needs."""
    found: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        for need in stage.needs:
            visit(need)
        found.setdefault(stage.key, stage)

    for stage in wanted:
        visit(stage)
    return tuple(found.values())
