"""Users' own tasks: the same spec, read from a YAML file."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from xadapt.errors import UserError, short, unknown
from xadapt.tasks.catalogue import BUILT_IN, TASKS
from xadapt.tasks.plain_yaml import parse_yaml
from xadapt.tasks.span_labels import tagging_metrics
from xadapt.tasks.spec import Task

LARGEST = 100_000  # bytes of a task file: a second's reading
_SHOWN = 20  # missing keys that a message lists
PLACEHOLDERS = ("{lang}", "{name}", "{lower}", "{iso3}")


def add_task_file(path: str | Path) -> Task:
    """Read a task file and make its task known by name for the rest of the process.

    Raises UserError naming file and key, and for a name that the catalogue has.
    """
    task = read_task_file(path)
    TASKS[task.name] = task
    return task


def read_task_file(path: str | Path) -> Task:
    """The task that a YAML file describes, in the spec's own keys; UserError naming file and key."""
    file = _find(Path(path))
    values = _read(file)
    if not isinstance(values, dict):
        raise UserError(f"{file}: a task is a mapping of keys to values; configs/tasks/ has an example")
    name = values.get("name")
    if isinstance(name, str) and name in BUILT_IN:
        raise UserError(f"{file}: name = '{name}' is a task of the catalogue; choose another name")
    try:
        task = Task.model_validate(values | {"own": True})
    except ValidationError as error:
        raise _located(error, file) from error
    _check_values(task, values, file)
    _check_templates(task, file)
    try:
        return task.model_copy(update={"metrics": tagging_metrics(task)})
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def stored_spec(task: Task) -> dict[str, Any]:
    """What a stage keeps of a task: name and version, and the whole spec of a user's own."""
    kept: dict[str, Any] = {"task": task.name, "task_version": task.version}
    return kept | ({"task_spec": task.model_dump(mode="json", exclude_defaults=True)} if task.own else {})


def task_of(stored: Mapping[str, Any]) -> Task:
    """The task that `stored_spec` kept, whether or not this process has read its file."""
    if "task_spec" in stored:
        return Task.model_validate(stored["task_spec"])
    return BUILT_IN[stored["task"]]


def _read(file: Path) -> Any:
    if (size := file.stat().st_size) > LARGEST:
        raise UserError(f"{file} has {size} bytes, a task file at most {LARGEST}; give the task's file, not its data")
    try:
        data = file.read_bytes()
        return parse_yaml(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}, line {line}: not UTF-8; write the file as UTF-8") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as YAML: {error}") from error


def _check_values(task: Task, values: Mapping[str, Any], file: Path) -> None:
    """UserError for what a spec's types let pass and no task can mean."""
    for at, label in enumerate(task.labels):
        if not label.strip():
            raise UserError(f"{file}: labels.{at} is empty; give the label a name")
    if {"label", "tags"} & set(task.columns) and not (task.labels or task.open_labels):
        raise UserError(f"{file}: labels: format {task.format} needs the names of the labels; list them")
    for key, codes in (("languages", task.languages), ("own_languages", [own.code for own in task.own_languages])):
        if twice := [code for at, code in enumerate(codes) if code in codes[:at]]:
            raise UserError(f"{file}: {key}: '{twice[0]}' stands twice; remove one")
    if not all([task.splits, *task.splits.values()]):
        raise UserError(f"{file}: splits is empty, or one of them; name the splits that the sources have")
    if not task.languages:
        raise UserError(f"{file}: languages is empty; name at least one")
    regimes = sorted({name for known in BUILT_IN.values() for name in known.optimisation} | {"lora"})
    for regime in task.optimisation:
        if regime not in regimes:
            raise unknown("regime", regime, regimes, place=f"{file}: optimisation")
    numbers = {
        f"optimisation.{regime}.{key}": value
        for regime, given in values.get("optimisation", {}).items()
        for key, value in given.items()
    }
    numbers |= {key: values.get(key) for key in ("version", "max_seq_length", "max_skipped")}
    for key, value in numbers.items():
        if isinstance(value, bool):  # which Python takes for 0 or 1
            raise UserError(f"{file}: {key} = {value}: Input should be a number")


def _check_templates(task: Task, file: Path) -> None:
    """UserError for braces that `fill` cannot fill, or would fill with more than a language's names."""
    parts = {"": task.parts[0], **{f"more.{at}.": part for at, part in enumerate(task.more)}}
    parts |= {"translated.": task.translated} if task.translated else {}
    templates = {
        f"{at}{key}": template
        for at, part in parts.items()
        for key, template in (
            ("mirror", part.mirror), ("hub.config", part.hub.config), ("hub.id_prefix", part.hub.id_prefix)
        )
    }  # fmt: skip
    for key, template in templates.items():
        rest = template
        for placeholder in PLACEHOLDERS:
            rest = rest.replace(placeholder, "")
        if wrong := re.search(r"\{[^}]*\}?|\}", rest):
            raise unknown("placeholder", wrong[0], PLACEHOLDERS, place=f"{file}: {key} = {short(template)}")
        if "\0" in template:
            raise UserError(f"{file}: {key} = {short(template)}: no path holds the character NUL; remove it")


def _find(path: Path) -> Path:
    with suppress(OSError):  # a name too long for the system is no file either
        if path.is_file():
            return path
    import xadapt_configs

    folder = Path(next(iter(xadapt_configs.__path__))) / "tasks"
    shipped = {file.name: file for file in sorted(folder.glob("*.yaml"))}
    for name in (path.name, f"{path.name}.yaml"):
        if name in shipped and path.parent in (Path("."), Path("configs/tasks")):
            return shipped[name]
    raise unknown("task file", path.name, shipped, place=f"--task-file '{path}' (no such file)")


def _located(error: ValidationError, file: Path) -> UserError:
    """All keys that are missing, and the first other problem that pydantic found, in the project's words."""
    problems = error.errors(include_url=False)
    missing = [".".join(map(str, problem["loc"])) for problem in problems if problem["type"] == "missing"]
    others = [str(_problem(problem, file)) for problem in problems if problem["type"] != "missing"][:1]
    keys = f"missing: {', '.join(missing[:_SHOWN])}{', ...' if len(missing) > _SHOWN else ''}"
    lacks = [f"{file}: {keys}; xadapt tasks schema says what each key means"] if missing else []
    return UserError("; ".join([*(text.rstrip(".") for text in others), *lacks] if lacks else others))


def _problem(problem: ErrorDetails, file: Path) -> UserError:
    *parents, last = [str(part) for part in problem["loc"]] or [""]
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, ValueError):
        return UserError(f"{file}: {cause}")
    if problem["type"] == "extra_forbidden":
        section = Task.model_fields.get(parents[0]) if parents else None
        model = section.annotation if section else Task
        fields = model.model_fields if isinstance(model, type) and issubclass(model, BaseModel) else Task.model_fields
        return unknown("key", last, fields, place=": ".join([str(file), *parents]))
    key = ".".join([*parents, last])
    return UserError(f"{file}: {key} = {short(problem.get('input'))}: {problem['msg'].replace('tuple', 'list')}")
