"""What pydantic finds wrong with a value, in the project's words: the value, its place, what it may be; torch-free."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from xadapt.errors import UserError, short, unknown

_KINDS = {
    "integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "a text", "array": "a list",
    "object": "keys with values", "null": "null",
}  # fmt: skip
_BOUNDS = {
    "exclusiveMinimum": "greater than", "minimum": "at least", "exclusiveMaximum": "less than", "maximum": "at most",
}  # fmt: skip
_JsonSchema = Mapping[str, Any]


class FieldError(UserError):
    """The first problem that pydantic found, at a key of a section that may lie in another."""

    def __init__(self, error: ValidationError, model: type[BaseModel], *, within: Sequence[str] = ()) -> None:
        self.problem = error.errors(include_url=False)[0]
        self.path = [str(part) for part in self.problem["loc"]]
        self.within, self.schema = list(within), model.model_json_schema()
        super().__init__(str(self.at("")))

    @property
    def cause(self) -> Exception | None:
        """What a validator of ours raised."""
        return self.problem.get("ctx", {}).get("error")

    def at(self, place: str, names: Mapping[str, str] | None = None) -> UserError:
        """The error for a place; names has what a key is called there, such as a command's option."""
        key = [*self.within, *self.path]
        if self.problem["type"] == "extra_forbidden":
            valid = _at(self.schema, self.path[:-1]).get("properties", {})
            return unknown("key", key[-1], valid, place=": ".join(filter(None, (place, ".".join(key[:-1])))))
        option = next((names[name] for name in _prefixes(key) if name in names), None) if names else None
        where = option or ": ".join(filter(None, (place, ".".join(key))))
        given, schema = self.problem["input"], _at(self.schema, self.path)
        if self.cause:
            return UserError(f"{where}: {self.cause}")
        literals = _literals(schema)
        if self.problem["type"] == "missing":
            return UserError(f"{where} is missing: give {' or '.join(literals) or _allowed(schema)}")
        if literals:
            return unknown("value", given, literals, place=where)
        return UserError(f"{where}{' ' if option else ' = '}{short(given)} is not allowed: give {_allowed(schema)}")


def _prefixes(key: Sequence[str]) -> list[str]:
    """A key and those that it lies in, the whole first."""
    return [".".join(key[:end]) for end in range(len(key), 0, -1)]


def _at(schema: _JsonSchema, path: Sequence[str]) -> _JsonSchema:
    """The part of a model's JSON schema that says what may stand at a key, or in a list."""
    found: _JsonSchema = schema
    for part in path:
        found = _not_null(schema, found)
        inner = found.get("properties", {}).get(part) or found.get("additionalProperties") or found.get("items")
        found = inner if isinstance(inner, dict) else {}
    return _not_null(schema, found)


def _not_null(whole: _JsonSchema, part: _JsonSchema) -> _JsonSchema:
    """What a reference stands for, and of what may be left out the other choice, marked as nullable."""
    if "$ref" in part:
        return _not_null(whole, whole["$defs"][part["$ref"].rpartition("/")[2]])
    choices = [choice for choice in part.get("anyOf", ()) if choice.get("type") != "null"]
    return {**_not_null(whole, choices[0]), "nullable": True} if len(choices) == 1 else part


def _literals(schema: _JsonSchema) -> list[str]:
    found = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return [str(name) for name in found]


def _allowed(schema: _JsonSchema) -> str:
    """What a value may be: its kind, its bounds or form."""
    kind = _KINDS.get(schema.get("type", ""), "another value")
    if items := _literals(schema.get("items", {})):
        kind += f" of {', '.join(items)}"
    bounds = [f"{words} {schema[name]:.12g}" for name, words in _BOUNDS.items() if name in schema]
    form = f"of the form {schema['pattern']}" if "pattern" in schema else ""
    said = " ".join(filter(None, (kind, " and ".join(bounds), form)))
    return f"{said}, or leave it out" if schema.get("nullable") else said
