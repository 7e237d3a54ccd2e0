"""Users' own tasks: the same spec, read from a YAML file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from xadapt.errors import UserError, unknown
from xadapt.tasks.catalogue import BUILT_IN, TASKS
from xadapt.tasks.spec import Task


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
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{file} cannot be read as YAML: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file}: a task is a mapping of keys to values; configs/tasks/ has an example")
    if values.get("name") in BUILT_IN:
        raise UserError(f"{file}: name = '{values['name']}' is a task of the catalogue; choose another name")
    try:
        return Task.model_validate(values | {"own": True})
    except ValidationError as error:
        raise _located(error, file) from error


def stored_spec(task: Task) -> dict[str, Any]:
    """What a stage keeps of a task: name and version, and the whole spec of a user's own."""
    kept: dict[str, Any] = {"task": task.name, "task_version": task.version}
    return kept | ({"task_spec": task.model_dump(mode="json")} if task.own else {})


def task_of(stored: Mapping[str, Any]) -> Task:
    """The task that `stored_spec` kept, whether or not this process has read its file."""
    if "task_spec" in stored:
        return Task.model_validate(stored["task_spec"])
    return BUILT_IN[stored["task"]]


def _find(path: Path) -> Path:
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
    """The first problem pydantic found, in the project's words."""
    problem = error.errors(include_url=False)[0]
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
    given = "" if problem["type"] == "missing" else f" = {str(problem.get('input'))[:80]!r}"
    return UserError(f"{file}: {key}{given}: {problem['msg']}")
