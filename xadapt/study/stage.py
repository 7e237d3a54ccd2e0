"""The Stage: a node of a plan, named by the hash of what it is; torch-free."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

# raised whenever the same spec would give other numbers
STAGE_VERSIONS = {"train": 2, "average": 1, "import": 1, "evaluate": 1}
_PLAIN = {str, int, float, bool, type(None)}


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces; TypeError for anything without one stable form."""
    _check_stable(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _check_stable(value: object) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"key {key!r} of a stage spec is not a string")
            if type(inner) not in _PLAIN:  # most are, and large plans have many
                _check_stable(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            if type(inner) not in _PLAIN:
                _check_stable(inner)
    elif not (value is None or isinstance(value, str | int | float | bool)):
        raise TypeError(f"{type(value).__name__} {value!r} in a stage spec has no stable form")


def key_of(kind: str, version: int, spec: Mapping[str, Any], needs: Sequence[str]) -> str:
    """sha256 of what a stage is and of the keys of what it needs; TypeError for a spec without one stable form."""
    identity = {"kind": kind, "version": version, "spec": spec, "needs": list(needs)}
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()


@dataclass(frozen=True)
class Stage:
    """A node of the plan.

    spec is everything that can change the result (hashed); needs are the stages whose results it starts from
    (hashed by key); where says how to run it here: backbone and data as the user named them, and for which study (not hashed);
    label is for people; examples estimates the rows that pass through the encoder, None if unknown.
    """

    kind: Literal["train", "average", "import", "evaluate"]
    spec: Mapping[str, Any]
    needs: tuple["Stage", ...]
    where: Mapping[str, str]
    label: str
    examples: int | None = field(default=None, compare=False)

    @cached_property
    def key(self) -> str:
        """sha256 of what the stage is and of the keys of what it needs."""
        return key_of(self.kind, STAGE_VERSIONS[self.kind], self.spec, [stage.key for stage in self.needs])
