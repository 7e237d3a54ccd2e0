"""What specs of earlier versions say otherwise than those of this one, change by change; torch-free."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xadapt.errors import UserError
from xadapt.models.identity import backbone_identity, old_folder_identity, unhashed_then
from xadapt.study.hub_identities import content_identity
from xadapt.tasks.span_labels import tagging_metrics
from xadapt.tasks.user import task_of


@dataclass(frozen=True)
class Made:
    """A result as a manifest of an earlier version has it: its stage's kind and spec, its record, and where it was made.

    where has the backbone and the data as the user named them then.
    """

    kind: str
    spec: Mapping[str, Any]
    record: Mapping[str, Any]
    where: Mapping[str, Any]


class CannotCarry(ValueError):
    """Why a result of an earlier version cannot stand for one of this."""


# one change of what specs say: the spec of a result as this version writes it; CannotCarry where it cannot be told
Conversion = Callable[[Made], Mapping[str, Any]]


def encoder_by_content(made: Made) -> Mapping[str, Any]:
    """An encoder of the hub was named by its commit; of a folder's files those count now that are opened.

    A folder that is gone, or holds another encoder by now, keeps its name, which is right for most and found for none else.
    """
    old = made.spec["backbone"]
    if old.startswith("hub:"):
        return {**made.spec, "backbone": _content(old, None, f"encoder {old}")}
    folder = Path(made.where.get("backbone", "")).expanduser()
    try:
        if old.startswith("sha256:") and old == old_folder_identity(folder):
            if unhashed := unhashed_then(folder):
                raise CannotCarry(
                    f"{', '.join(unhashed)} of its encoder did not count then and may have changed; make it again"
                )
            return {**made.spec, "backbone": backbone_identity(str(folder))}
    except (UserError, OSError):
        return made.spec
    return made.spec


def rows_by_content(made: Made) -> Mapping[str, Any]:
    """Rows of the hub were named by the commit of their repository."""
    return {key: _rows_by_content(value, made.spec) for key, value in made.spec.items()}


def _rows_by_content(value: Any, within: Mapping[str, Any]) -> Any:
    """A part of a spec with the rows in it by content; within is the section that names their task."""
    if isinstance(value, list):
        return [_rows_by_content(inner, within) for inner in value]
    if isinstance(value, Mapping):
        return {key: _rows_by_content(inner, value if "data" in value else within) for key, inner in value.items()}
    if isinstance(value, str) and value.startswith("hub:") and "/" in value.rpartition("@")[2]:
        return _content(value, within, f"rows {value}")
    return value


def commits_of(spec: Mapping[str, Any]) -> dict[str, str]:
    """The commits at which an earlier version read the hub, by the names that a study keeps them under."""
    named = re.findall(r"hub:([^@\s+\"]+)@([0-9a-f]{40})(/?)", json.dumps(spec))
    return {f"{'datasets' if rows else 'models'}/{name}@main": commit for name, commit, rows in named}


def _content(old: str, of: Mapping[str, Any] | None, what: str) -> str:
    found = content_identity(old, task_of(of) if of is not None else None)
    if found is None:
        raise CannotCarry(
            f"what {what} is by content cannot be told without the hub; try again where it can be reached"
        )
    return found


def span_f1_by_its_name(made: Made) -> Mapping[str, Any]:
    """f1 of a user's tagging task counted runs of equal tags, also where its labels mark spans."""
    for part in [made.spec, *made.spec.get("tasks", [])]:
        for stored in (part, part.get("dev", {})):
            if "task_spec" in stored and tagging_metrics(task := task_of(stored)) != task.metrics:
                raise CannotCarry(f"its f1 of task '{task.name}' counted runs of equal tags, not spans; make it again")
    return made.spec


CONVERSIONS: tuple[Conversion, ...] = (encoder_by_content, rows_by_content, span_f1_by_its_name)
