"""The sweep: a recipe with several values of a key, unfolded into one recipe a combination; torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from pydantic import ValidationError

from xadapt.errors import UserError, short, unknown
from xadapt.study.recipe import Recipe
from xadapt.study.recipe_errors import located
from xadapt.training.settings import TrainingSettings

_CAPS = ("max_train_samples", "max_intermediate_samples", "max_eval_samples", "max_predict_samples")
_PLAIN = ("intermediate", *_CAPS, "retrieval_layer")
_SECTIONS = ("regimes", "training", "tasks", "mixture", "fusion", "average")
# what has another way to be several, or would give no comparison
_REFUSED = {
    "seed": "give the seeds as `seeds: [0, 1]`",
    "seeds": "every point has all of them",
    "sweep": "give all its keys side by side",
    "targets": "list them in `targets`, since each is a column of its own",
    "languages": "scores on different languages do not compare; list them all",
    "backbone": "write a recipe for each, by `extends`, or give --backbone",
    "data": "write a recipe for each, by `extends`, or give --data",
    "together": "a result has one key with it and without",
}


@dataclass(frozen=True)
class Point:
    """One combination of a sweep's values, by key, and the recipe it makes; without a sweep the recipe itself.

    label tells a point from its neighbours in tables: the values that no row shows, joined by ` · `.
    """

    recipe: Recipe
    values: Mapping[str, Any]

    @property
    def hidden(self) -> dict[str, Any]:
        """The values that no row of a table shows: all but the intermediate tasks."""
        return {key: value for key, value in self.values.items() if key != "intermediate"}

    @property
    def unsaid(self) -> dict[str, Any]:
        """The values that neither a row nor the caps of a setting's line show."""
        return {key: value for key, value in self.hidden.items() if key not in _CAPS}

    @property
    def label(self) -> str:
        return " · ".join(value_text(value) for value in self.hidden.values())


def value_text(value: Any) -> str:
    """A swept value for people: `all` for none, a list joined by plus signs."""
    if isinstance(value, list | tuple):
        return "+".join(map(value_text, value))
    return "all" if value is None else str(value)


def sweep_points(recipe: Recipe, *, place: str = "the recipe") -> tuple[Point, ...]:
    """Every combination of a sweep's values, the last key's varying first; without a sweep one point without values.

    Each is validated as a recipe of its own. Raises UserError for keys that cannot be swept, and for a point that is no
    recipe, naming its values.
    """
    if not recipe.sweep:
        return (Point(recipe, {}),)
    swept = {key: _values(key, values, place) for key, values in recipe.sweep.items()}
    for key in swept:
        _check_key(key, place)
    given = recipe.model_dump(exclude={"sweep", "task_files"}, exclude_unset=True)
    points = (dict(zip(swept, values, strict=True)) for values in product(*swept.values()))
    return tuple(Point(_recipe(recipe, given, values, place), values) for values in points)


def _values(key: str, values: tuple[Any, ...], place: str) -> list[Any]:
    where = f"{place}: sweep.{key}"
    found = [[value] if key == "intermediate" and isinstance(value, str) else value for value in values]
    for at, value in enumerate(found):
        if value in found[:at]:
            raise UserError(f"{where}: {short(value)} stands twice; remove one")
        if any(isinstance(inner, Mapping) for inner in (value if isinstance(value, list) else [value])):
            raise UserError(f"{where}: {short(value)} is a section; sweep one of its keys, as training.learning_rate")
    if not found:
        raise UserError(f"{where} is empty; give its values as a list, or leave it out")
    return found


def _check_key(key: str, place: str) -> None:
    """UserError unless a key can be swept; what stands in a section is checked with the points."""
    head, dot, rest = key.partition(".")
    where = f"{place}: sweep"
    if reason := _REFUSED.get(head):
        raise UserError(f"{where}: '{key}' cannot be swept: {reason}")
    if head in Recipe.model_fields and head not in (*_PLAIN, *_SECTIONS):
        raise UserError(f"{where}: '{key}' is not a number of the study; sweep one of {', '.join(_nearby())}")
    if key.endswith(".compositions"):
        raise UserError(f"{where}: '{key}' cannot be swept: list them, since each is a row of its own")
    if head in _SECTIONS and not (dot and rest):
        raise UserError(f"{where}: '{key}' is a section; sweep one of its keys, as training.learning_rate")
    if head not in _SECTIONS and key not in _PLAIN:
        raise unknown("key", key, _nearby(), place=where)


def _nearby() -> list[str]:
    return [*_PLAIN, *(f"training.{name}" for name in TrainingSettings.model_fields if name != "robust")]


def _recipe(recipe: Recipe, given: Mapping[str, Any], values: Mapping[str, Any], place: str) -> Recipe:
    point: dict[str, Any] = dict(given)
    at = ", ".join(f"{key}={value_text(value)}" for key, value in values.items())
    where = f"{place}: sweep, {at}"
    for key, value in values.items():
        _put(point, key.split("."), value, where)
    try:
        # the files are known since the recipe itself was read
        return Recipe.model_validate(point).model_copy(update={"task_files": recipe.task_files})
    except ValidationError as error:
        raise located(error, where) from error


def _put(values: dict[str, Any], path: list[str], value: Any, where: str) -> None:
    """Set a nested value; what stands beside it is copied, since points share it."""
    key, *rest = path
    if not rest:
        values[key] = value
        return
    inner = values.get(key) or {}
    if not isinstance(inner, Mapping):
        raise UserError(f"{where}: '{key}' is a value, not a section")
    values[key] = dict(inner)
    _put(values[key], rest, value, where)


def swept_text(values: Mapping[str, Any]) -> str:
    """Keys with their values, as a setting's line names them."""
    return ", ".join(f"{key} {value_text(value)}" for key, value in values.items())
