"""Which results stand in one row: those that are equal in everything but the seed; and what tells rows apart."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

from xadapt.analysis.differences import Difference, told
from xadapt.analysis.facts import BEHIND, DEFAULT, Fact, Facts, Path
from xadapt.analysis.table import Row

_MISSING = object()


@dataclass(frozen=True)
class Entry:
    """A finished cell: the study, point and seed it is of, its setting, its row by name, its target, its facts."""

    run: Hashable
    setting: str
    row: Row
    target: str
    facts: Facts

    @cached_property
    def basis(self) -> str:
        """The same for cells of a target that differ in their composition, and what it puts behind the target, alone."""
        return _digest([self.setting, self.target, sorted(map(str, self.facts.own.items()))])

    @cached_property
    def identity(self) -> str:
        """The same for cells of a target that are equal in everything but the seed."""
        return _digest([self.basis, sorted(map(str, self.facts.behind.items()))])


class _Group:
    """Cells that make one row: of each target one kind."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self.entries = dict(entries)
        first = next(iter(self.entries.values()))
        self.row, self.setting = first.row, first.setting
        self.common: dict[Path, frozenset[Fact]] = {}
        self.consistent = True  # else what the targets share contradicts itself, as with numbers of one task alone
        for entry in self.entries.values():
            self._share(entry.facts.common)

    @property
    def pairs(self) -> set[tuple[str, str]]:
        return {(target, entry.identity) for target, entry in self.entries.items()}

    def agrees(self, other: "_Group") -> bool:
        """Whether both can be one row: no target of two kinds, and nothing shared that contradicts itself."""
        twice = self.entries.keys() & other.entries.keys()
        return (
            self.consistent
            and other.consistent
            and all(self.entries[target].identity == other.entries[target].identity for target in twice)
            and all(self.common[path] & other.common[path] for path in self.common.keys() & other.common.keys())
        )

    def join(self, other: "_Group") -> None:
        self.entries |= other.entries
        self._share(other.common)

    def values(self, path: Path) -> dict[str, Fact]:
        """A fact's value for each target that has it."""
        return {
            target: facts[path]
            for target, entry in self.entries.items()
            if path in (facts := entry.facts.own if path in entry.facts.own else entry.facts.behind)
        }

    def _share(self, common: Mapping[Path, frozenset[Fact]]) -> None:
        for path, values in common.items():
            self.common[path] = both = self.common.get(path, values) & values
            self.consistent &= bool(both)


def rows_of(entries: Sequence[Entry]) -> list[list[Row]]:
    """The rows that each cell stands in, mostly one, labelled by exactly what tells them from the others of a setting.

    Cells of one target are of one row if they are equal in all but the seed. Those of several targets are if one study
    made them so, or if nothing that targets share differs between them; what a task proposes itself is no difference.
    A cell whose numbers fit several rows, as those of the encoder itself do, stands in each.
    """
    runs: dict[tuple[str, Row, Hashable], dict[str, Entry]] = defaultdict(dict)
    for entry in entries:
        runs[entry.setting, entry.row, entry.run][entry.target] = entry
    groups: dict[tuple[str, Row], list[_Group]] = defaultdict(list)
    for (setting, row, _), cells in runs.items():
        groups[setting, row].append(_Group(cells))
    merged = {key: _merged(found) for key, found in groups.items()}
    labels = _labels([group for found in merged.values() for group in found])
    standing: dict[tuple[str, Row, str, str], list[Row]] = defaultdict(list)
    for (setting, row), found in merged.items():
        for group in found:
            for target, identity in sorted(group.pairs):
                standing[setting, row, target, identity].append(replace(row, variant=labels[id(group)]))
    return [standing[entry.setting, entry.row, entry.target, entry.identity] for entry in entries]


def differing_facts(entries: Iterable[Entry]) -> set[Path]:
    """The facts in which cells of one target and row by name differ, whatever their setting."""
    groups: dict[tuple[str, Row], list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[entry.target, entry.row].append(entry)
    return {
        path
        for group in groups.values()
        for path in _unequal([{**entry.facts.own, **entry.facts.behind} for entry in group])
    }


def _merged(groups: Sequence[_Group]) -> list[_Group]:
    """As few rows as can be; what another has too is part of it, and the most definite come first."""
    distinct = list({frozenset(group.pairs): group for group in groups}.values())
    maximal = [group for group in distinct if not any(group.pairs < other.pairs for other in distinct)]
    found: list[_Group] = []
    alone = {pair: _Group({pair[0]: group.entries[pair[0]]}) for group in distinct for pair in group.pairs}
    for group in sorted(
        [*maximal, *alone.values()],
        key=lambda group: (-len(group.common), sum(map(len, group.common.values())), sorted(group.pairs)),
    ):
        fitting = [row for row in found if row.agrees(group)]
        for row in fitting:
            row.join(group)
        if not fitting and group in maximal:
            found.append(group)
    return found


def _labels(groups: Sequence[_Group]) -> dict[int, str]:
    """What each row is called beside its name: what differs within its regime, or behind rows of its name."""
    found: dict[int, str] = {}
    regimes: dict[tuple[str, str], list[_Group]] = defaultdict(list)
    for group in groups:
        regimes[group.setting, group.row.regime].append(group)
    for within in regimes.values():
        own = {path: where for path, where in _differing(within).items() if not _is_behind(path)}
        named: dict[Row, list[_Group]] = defaultdict(list)
        for group in within:
            named[group.row].append(group)
        for alike in named.values():
            behind = {path: where for path, where in _differing(alike).items() if _is_behind(path)}
            told = _telling(dict(sorted((own | behind).items())), alike)
            for group, label in zip(alike, _distinct([_label(g, told) for g in alike], alike), strict=True):
                found[id(group)] = label
    return found


def _telling(paths: Mapping[Path, set[str]], groups: Sequence[_Group]) -> dict[Path, set[str]]:
    """The facts, and of a section that some rows lack as a whole one alone, which says as much as all of them.

    A section without its ratio, of masked language modelling, is not there: so the ratio is the one that is told.
    """
    found: dict[Hashable, Path] = {}
    for path in sorted(paths, key=lambda path: (not path[-1].endswith("ratio"), path)):
        values = [str(sorted(group.values(path).items(), key=str)) for group in groups]
        alike = tuple(values.index(value) for value in values)
        found.setdefault((path[:2], alike) if "[]" in values else path, path)
    return {path: paths[path] for path in sorted(found.values())}


def _is_behind(path: Path) -> bool:
    return path[0] in (BEHIND, "composition", "fusion")


def _differing(groups: Sequence[_Group]) -> dict[Path, set[str]]:
    """The facts in which rows differ, each with the targets of which it does; "" for what all targets share."""
    found = {path: {""} for path in _contradicting(groups)}
    for target in {target for group in groups for target in group.entries}:
        facts = [g.entries[target].facts for g in groups if target in g.entries]
        for path in _unequal([facts.own for facts in facts]) | _unequal([facts.behind for facts in facts]):
            found.setdefault(path, set()).add(target)
    return found


def _unequal(found: Sequence[Mapping[Path, Fact]]) -> set[Path]:
    """The facts that some have and others have not, or have otherwise."""
    if len(found) < 2:
        return set()
    paths = {path for facts in found for path in facts}
    return {path for path in paths if len({_plain(facts.get(path, _MISSING)) for facts in found}) > 1}


def _contradicting(groups: Sequence[_Group]) -> set[Path]:
    """The facts that some rows have otherwise than others have them, as far as that is not seen in one target.

    A row whose targets have numbers of their own says nothing in common, and is compared target by target where it can be.
    """
    having: dict[Path, list[_Group]] = defaultdict(list)
    for group in groups:
        for path in group.common:
            having[path].append(group)
    return {
        path
        for path, several in having.items()
        if not frozenset.intersection(*(frozenset(map(_plain, group.common[path])) for group in several))
        and (all(group.common[path] for group in several) or _apart(path, several))
    }


def _apart(path: Path, groups: Sequence[_Group]) -> bool:
    """Whether two rows have a fact of no target in common."""
    return any(not one.values(path).keys() & other.values(path).keys() for one, other in combinations(groups, 2))


def _plain(value: object) -> object:
    """What tells a value from others, True from 1."""
    return value if value is _MISSING else (type(value).__name__, value)


def _label(group: _Group, paths: Mapping[Path, set[str]]) -> str:
    imported = dict.fromkeys(name for entry in group.entries.values() for name in entry.facts.imported)
    return ", ".join([*(f"{name} imported" for name in imported), *told(_differences(group, paths))])


def _differences(group: _Group, paths: Mapping[Path, set[str]]) -> Iterator[Difference]:
    for path, where in paths.items():
        values = {
            target: value
            for target, value in group.values(path).items()
            if target in where or ("" in where and path in group.entries[target].facts.common)
        }
        if DEFAULT in group.common.get(path, ()):
            yield Difference(path, "", values.popitem()[1] if len(set(values.values())) == 1 else DEFAULT)
        elif len(set(map(_plain, values.values()))) == 1:
            yield Difference(path, "", next(iter(values.values())))
        else:
            yield from (Difference(path, target, value) for target, value in sorted(values.items(), key=str))


def _distinct(labels: Sequence[str], groups: Sequence[_Group]) -> list[str]:
    """The labels, those that stand twice with the start of a hash of what they stand for."""
    return [
        label if labels.count(label) == 1 else ", ".join(filter(None, (label, f"#{_digest(sorted(group.pairs))[:4]}")))
        for label, group in zip(labels, groups, strict=True)
    ]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
