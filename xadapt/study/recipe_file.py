"""Recipes from YAML files: `extends`, `--set` overrides, and errors that name the key."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xadapt.errors import UserError, unknown
from xadapt.study.recipe import Recipe
from xadapt.study.recipe_errors import located
from xadapt.study.sweep import sweep_points
from xadapt.tasks.plain_yaml import parse_yaml


def load_recipe(path: str | Path, *, overrides: Sequence[str] = (), options: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe file, apply what it extends, `a.b=value` overrides and options given on the command line.

    A path that does not exist is looked up among the recipes that ship with xadapt. Raises UserError naming
    file and key.
    """
    file = find_recipe(Path(path))
    values = _read(file, seen=())
    for override in overrides:
        _set(values, override)
    values |= {name: value for name, value in (options or {}).items() if value is not None}
    values.setdefault("name", file.stem)
    return make_recipe(values, place=str(path))


def make_recipe(values: Mapping[str, Any], *, place: str, names: Mapping[str, str] | None = None) -> Recipe:
    """Validate a recipe, every point of its sweep too; UserError names the key at fault, its place, what is allowed and the nearest of it.

    names has what keys are called at the place, such as a command's options.
    """
    try:
        recipe = Recipe.model_validate(dict(values))
    except ValidationError as error:
        raise located(error, place, names) from error
    sweep_points(recipe, place=place)
    return recipe


def find_recipe(path: Path) -> Path:
    """The file itself, or the recipe of that name that ships with xadapt."""
    with suppress(OSError):  # a name too long for the system is no file either
        if path.is_file():
            return path
    import xadapt_configs

    folder = Path(next(iter(xadapt_configs.__path__)))
    shipped = {file.name: file for file in sorted(folder.glob("*.yaml"))}
    for name in (path.name, f"{path.name}.yaml"):
        if name in shipped and path.parent in (Path("."), Path("configs")):
            return shipped[name]
    raise unknown("recipe", path.name, shipped, place=f"'{path}' (no such file)")


def _read(file: Path, *, seen: tuple[Path, ...]) -> dict[str, Any]:
    if file.resolve() in seen:
        raise UserError(f"{file}: `extends` goes round in a circle: {' -> '.join(p.name for p in seen)}")
    try:
        values = parse_yaml(file.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as error:
        raise UserError(f"{file} cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file}: a recipe is a mapping of keys to values")
    if isinstance(listed := values.get("task_files"), list):  # a path in a file is meant from where the file lies
        values["task_files"] = [str(_beside(file, str(path))) for path in listed]
    if isinstance(folders := values.get("modules"), dict):
        values["modules"] = {name: str(_beside(file, str(path))) for name, path in folders.items()}
    parent = values.pop("extends", None)
    if parent is None:
        return values
    below = find_recipe(file.parent / str(parent))
    return _merge(_read(below, seen=(*seen, file.resolve())), values)


def _beside(file: Path, path: str) -> Path:
    there = file.parent / path
    return there if there.exists() else Path(path)


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    if "seed" not in above or "seeds" not in above:  # the nearer of the two is meant
        _forget_other_seeds(merged, above)
    return merged


def _forget_other_seeds(values: dict[str, Any], given: Iterable[str]) -> None:
    for key, other in (("seed", "seeds"), ("seeds", "seed")):
        if key in given:
            values.pop(other, None)


def _set(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise UserError(f"--set '{override}' is not of the form a.b=value")
    if isinstance(swept := values.get("sweep"), Mapping) and path in swept:
        raise UserError(f"--set '{override}': the recipe sweeps {path}; override --set 'sweep.{path}=[{text}]'")
    _forget_other_seeds(values, [path])
    *parents, last = path.split(".")
    if parents[:1] == ["sweep"]:  # what is swept has dots in its name
        parents, last = ["sweep"], path.removeprefix("sweep.")
    for key in parents:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise UserError(f"--set '{override}': '{key}' is a value, not a section")
    try:
        values[last] = parse_yaml(text)
    except ValueError as error:
        raise UserError(f"--set '{override}' has no YAML value: {error}") from error
