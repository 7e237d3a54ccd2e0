"""Every key of a task file, from the spec itself: what may stand there, what without it, what it means."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from xadapt.tasks.spec import Task

_KINDS = {str: "text", int: "whole number", float: "number", bool: "true or false"}
_BELOW = {str(tuple): "[].", str(dict): ".<regime>."}
_BOUNDS = {"gt": "over", "ge": "from", "lt": "under", "le": "up to"}


@dataclass(frozen=True)
class Key:
    """One key: its path, what may stand there, its default or `required`, its meaning; all for people."""

    key: str
    value: str
    default: str
    meaning: str

    @property
    def record(self) -> dict[str, str]:
        """The same, for scripts."""
        return asdict(self)


def task_keys() -> list[Key]:
    """The keys of a task file, required ones first, nested ones behind their key; a part that comes twice stands once."""
    return list(_keys(Task, "", set()))


def _keys(model: type[BaseModel], within: str, seen: set[type]) -> Iterator[Key]:
    for name, field in sorted(model.model_fields.items(), key=lambda item: not item[1].is_required()):
        if (model, name) == (Task, "own"):  # said by reading a file
            continue
        kind = field.annotation
        yield Key(within + name, _value(field), _default(field), field.description or "")
        inner = next(_models(kind), None)
        if inner and inner not in seen:
            seen.add(inner)
            yield from _keys(inner, f"{within}{name}{_BELOW.get(str(get_origin(kind)), '.')}", seen)


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for part in get_args(kind):
        yield from _models(part)


def _value(field: FieldInfo) -> str:
    bounds = [
        f"{words} {value:g}"
        for at in field.metadata
        for name, words in _BOUNDS.items()
        if (value := getattr(at, name, None)) is not None
    ]
    return " ".join([_kind(field.annotation), *bounds])


def _kind(kind: Any) -> str:
    """A type in words."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(parts)
    if origin in (Union, UnionType):
        return " or ".join(_kind(part) for part in parts if part is not type(None))
    if origin is tuple:
        return f"list of {_kind(parts[0])}"
    if origin is dict:
        return f"{_kind(parts[1])} by {'split' if get_origin(parts[0]) is Literal else 'name'}"
    return _KINDS.get(kind, "keys")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if not value or isinstance(value, BaseModel) else str(value)
