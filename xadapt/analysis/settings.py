"""Which results may stand in one table: the same encoder, rows, data type and caps, by what they are, not by name."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import PurePath

from xadapt.analysis.facts import Content, Facts

_HEX = re.compile(r"[0-9a-f]{16,}")


@dataclass(frozen=True)
class Planned:
    """An evaluation with the plan it is of, a study's point, and the line that names the study's caps and base names."""

    plan: Hashable
    line: str
    facts: Facts


@dataclass
class _Data:
    """Rows that can be one body of data: no split of it has two contents."""

    places: set[str] = field(default_factory=set)
    contents: dict[Content, str] = field(default_factory=dict)

    def contradicts(self, other: "_Data") -> bool:
        """Whether a split has other rows in the other."""
        return any(self.contents[key] != other.contents[key] for key in self.contents.keys() & other.contents.keys())

    def takes(self, other: "_Data") -> bool:
        """Whether nothing contradicts that the other is of the same data, and something says that it is."""
        alike = self.contents.keys() & other.contents.keys() or self.places & other.places
        return bool(alike) and not self.contradicts(other)

    def add(self, other: "_Data") -> None:
        self.places |= other.places
        self.contents |= other.contents


def settings_of(evaluations: Sequence[Planned]) -> list[str]:
    """The setting of each evaluation; equal where encoder, data type, data and line are.

    Data are the same where no split of them has two contents and either a split is shared or they were read from one
    place. A setting is its line, with what tells it from others of the same line: the start of a hash, the data type.
    """
    numbers, bodies = _bodies(evaluations)
    identities = [(e.facts.backbone, e.facts.dtype, number) for e, number in zip(evaluations, numbers, strict=True)]
    # what the encoder and the data are called is no difference
    lines: dict[tuple[str, Hashable], str] = {}
    for e, identity in zip(evaluations, identities, strict=True):
        key = (_caps(e.line), identity)
        lines[key] = min(e.line, lines.get(key, e.line))
    evaluations = [
        replace(e, line=lines[_caps(e.line), identity]) for e, identity in zip(evaluations, identities, strict=True)
    ]
    by_line: dict[str, list[tuple[str, str, int]]] = defaultdict(list)
    for evaluation, identity in zip(evaluations, identities, strict=True):
        if identity not in by_line[evaluation.line]:
            by_line[evaluation.line].append(identity)
    names = {
        (line, identity): name
        for line, found in by_line.items()
        for identity, name in zip(found, _names(line, found, bodies), strict=True)
    }
    return [names[e.line, identity] for e, identity in zip(evaluations, identities, strict=True)]


def _caps(line: str) -> str:
    """A setting's line without the names of encoder and data."""
    return line[line.find("; train ") :]


def digits(identity: str) -> str:
    """The first eight digits of the hash that an identity holds, or of its own."""
    found = _HEX.search(identity)
    return found[0][:8] if found else hashlib.sha256(identity.encode()).hexdigest()[:8]


def _bodies(evaluations: Iterable[Planned]) -> tuple[list[int], list[_Data]]:
    """The number of the body of data behind each evaluation, and the bodies.

    What one plan read is of one body, unless it contradicts itself; plans come in their order.
    """
    plans: dict[tuple[str, Hashable], list[_Data]] = defaultdict(list)
    read = []
    for e in evaluations:
        data, parts = _Data({e.facts.place} - {""}, dict(e.facts.contents)), plans[e.line, e.plan]
        part = next((part for part in parts if not part.contradicts(data)), None)
        if part is None:
            parts.append(part := _Data())
        part.add(data)
        read.append(part)
    bodies: list[_Data] = []
    numbers: dict[int, int] = {}
    for part in (part for parts in plans.values() for part in parts):
        numbers[id(part)] = len(bodies)
        bodies.append(part)
    while pair := next(
        (p for p in combinations(sorted(set(numbers.values())), 2) if bodies[p[0]].takes(bodies[p[1]])), None
    ):
        into, joined = pair
        bodies[into].add(bodies[joined])
        numbers = {part: into if number == joined else number for part, number in numbers.items()}
    return [numbers[id(part)] for part in read], bodies


def _names(line: str, identities: Sequence[tuple[str, str, int]], bodies: Sequence[_Data]) -> list[str]:
    """The line of each, with what differs between them behind it."""
    backbones, dtypes, data = (list(dict.fromkeys(column)) for column in zip(*identities, strict=True))
    told = dict(zip(data, _data_names([bodies[number] for number in data]), strict=True))
    names = []
    for backbone, dtype, body in identities:
        parts = [f"backbone {digits(backbone)}"] if len(backbones) > 1 else []
        parts += [told[body]] if len(data) > 1 else []
        parts += [dtype] if len(dtypes) > 1 else []
        names.append(f"{line}; {', '.join(parts)}" if parts else line)
    return names


def _data_names(bodies: Sequence[_Data]) -> list[str]:
    """What tells bodies of data apart: a split of which they have different rows, else where they were read."""
    rows: dict[Content, set[str]] = defaultdict(set)
    for body in bodies:
        for key, identity in body.contents.items():
            rows[key].add(identity)
    differing = sorted(key for key, identities in rows.items() if len(identities) > 1)
    names = []
    for number, body in enumerate(bodies, start=1):
        told = next((key for key in differing if key in body.contents), None)
        name = f"{' '.join(told)} rows {digits(body.contents[told])}" if told else f"data of {_place(body, bodies)}"
        names.append(name if name not in names else f"{name} ({number})")
    return names


def _place(body: _Data, bodies: Sequence[_Data]) -> str:
    """Where data were read, by as much of the path's end as tells it from the others."""
    path = PurePath(min(body.places, default="an unknown place"))
    others = [PurePath(place) for other in bodies if other is not body for place in other.places]
    for length in range(1, len(path.parts) + 1):
        if all(other.parts[-length:] != path.parts[-length:] for other in others):
            return str(PurePath(*path.parts[-length:]))
    return str(path)
