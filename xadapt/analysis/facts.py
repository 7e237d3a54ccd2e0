"""What made a number, flat: every value that can change it, by where it stands."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Fact = str | int | float | bool | None
Path = tuple[str, ...]
# the rows of a split that a result was made of or on: task, language, split
Content = tuple[str, str, str]
DEFAULT = "the task's own"
# the first part of a path that leads to what lies behind a target's own training; the second names what was trained
BEHIND = ">"


@dataclass(frozen=True)
class Facts:
    """What is behind an evaluation.

    own is the evaluation and the target's own training; behind, what its composition puts there, below the names of
    what was trained; common, of both, what cells of different targets share where nothing else was asked for, each fact
    with all that it may mean: a number that the task proposes itself is both that number and DEFAULT. contents names
    the rows by content, place says where they were read; imported are the tasks whose modules others trained.
    """

    backbone: str
    dtype: str
    place: str
    contents: Mapping[Content, str]
    own: Mapping[Path, Fact]
    behind: Mapping[Path, Fact] = field(default_factory=dict)
    common: Mapping[Path, frozenset[Fact]] = field(default_factory=dict)
    imported: tuple[str, ...] = ()


def flattened(value: Any, at: Path = ()) -> Iterator[tuple[Path, Fact]]:
    """The scalars in a nested value with where they stand; entries of a list that have a name by it, other lists as JSON."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flattened(inner, (*at, str(key)))
    elif isinstance(value, list | tuple):
        if value and all(isinstance(inner, Mapping) and "name" in inner for inner in value):
            for inner in value:
                yield from flattened(inner, (*at, str(inner["name"])))
        else:
            yield at, json.dumps(value, sort_keys=True)
    else:
        yield at, value
