"""Split names of a spec: a split, a share of one, a sum of several; and rows of several data sets in proportion."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xadapt.data.rows import Rows, with_counts
from xadapt.errors import UserError
from xadapt.tasks.spec import Part, Split

_NAME = re.compile(r"([^\[\]]+)(?:\[(?:(\d+)%)?:(?:(\d+)%)?\])?")


@dataclass(frozen=True)
class Share:
    """The rows from `start` to `stop` percent of the splits in `names` together, in order."""

    names: tuple[str, ...]
    start: int = 0
    stop: int = 100

    @property
    def suffix(self) -> str:
        """What tells this share from the whole, empty for the whole."""
        return "" if (self.start, self.stop) == (0, 100) else f"[{self.start}%:{self.stop}%]"

    def bounds(self, rows: int) -> tuple[int, int]:
        """First and last row (exclusive) of the share among `rows`; neighbouring shares neither overlap nor gap."""
        return rows * self.start // 100, rows * self.stop // 100


def parse_share(name: str) -> Share:
    """`train`, `train_r1+train_r2` or `train[:90%]`, a share being one of the whole sum; UserError for anything else."""
    found = _NAME.fullmatch(name)
    if not found:
        raise UserError(f"split {name!r} is neither a name, a sum `a+b` nor a share `a[:90%]`")
    share = Share(tuple(found[1].split("+")), int(found[2] or 0), int(found[3] or 100))
    if not 0 <= share.start < share.stop <= 100:
        raise UserError(f"split {name!r}: give percentages from 0 to 100, the first below the second")
    return share


def shares(part: Part, split: Split) -> list[Share]:
    """What a part's split may be kept as, in the order in which it is looked for."""
    return [parse_share(name) for name in part.splits.get(split, ())]


def stand_in(used: Iterable[tuple[Part, Share]], split: Split) -> str:
    """The split whose rows stand for one that the data lacks, empty where none does; used is what each part gave.

    Only what a spec names behind a split's own name stands in: xquad names `validation` first, which is its test set.
    """
    found = dict[str, None]()
    for part, share in used:
        own = shares(part, split)[:1]
        if own != [share] and [first.names for first in own] == [(split,)]:
            found["+".join(share.names) + share.suffix] = None
    return " and ".join(found)


def in_turn(parts: Sequence[Rows], *, limit: int | None) -> Rows:
    """The rows of several languages as one: the first of each, the second of each, and so on; the first `limit`."""
    merged = merge(parts, [1] * len(parts), limit=limit)
    return replace(
        merged,
        lang="+".join(part.lang for part in parts),
        identity=" ".join(part.identity for part in parts),
    )


def merge(parts: Sequence[Rows], counts: Sequence[int], *, limit: int | None) -> Rows:
    """The rows of several data sets as one, each spread evenly over the whole, so that any prefix is a fair sample.

    counts are the parts' whole sizes, of which `parts` may hold the first rows only.
    """
    if len(parts) == 1:
        return parts[0]
    order = sorted(
        ((i + 0.5) / count, at, i)
        for at, (part, count) in enumerate(zip(parts, counts, strict=True))
        for i in range(len(part))
    )[:limit]
    columns: dict[str, Sequence[Any]] = {
        field: [parts[at].columns[field][i] for _, at, i in order] for field in parts[0].columns
    }
    return with_counts(replace(parts[0], place=" and ".join(part.place for part in parts), numbers=()), columns, parts)
