"""Lists of unequal length in one array: 4 bytes a token, where Python's lists of ints take nine times that."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import Any, Generic, Self, SupportsIndex, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")
Offset = tuple[int, int, bool] | None


class _Lists(Sequence[list[Item]], Generic[Item]):
    """Lists that lie end to end in `flat`, the i-th from bounds[i] to bounds[i + 1]; each is made when it is asked for."""

    def __init__(self, flat: NDArray[np.int32], bounds: NDArray[np.int64]) -> None:
        self.flat, self.bounds = flat, bounds

    @classmethod
    def cut(cls, flat: NDArray[np.int32], lengths: NDArray[Any]) -> Self:
        """The lists of these lengths."""
        return cls(flat, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)]))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The lists of all parts, one after the other."""
        flat, lengths = ([getattr(part, name) for part in parts] for name in ("flat", "lengths"))
        return cls.cut(np.concatenate(flat), np.concatenate(lengths))

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.bounds)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @overload
    def __getitem__(self, at: SupportsIndex) -> list[Item]: ...
    @overload
    def __getitem__(self, at: slice) -> list[list[Item]]: ...
    def __getitem__(self, at: SupportsIndex | slice) -> list[Item] | list[list[Item]]:
        if isinstance(at, slice):
            return [self[i] for i in range(len(self))[at]]
        i = range(len(self))[at]  # counts from the end where negative, and raises IndexError
        return self._read(self.flat[self.bounds[i] : self.bounds[i + 1]])

    def __iter__(self) -> Iterator[list[Item]]:
        return (self._read(self.flat[start:stop]) for start, stop in pairwise(self.bounds))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, _Lists):
            return np.array_equal(self.bounds, other.bounds) and np.array_equal(self.flat, other.flat)
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # like a list's

    @abstractmethod
    def _read(self, values: NDArray[np.int32]) -> list[Item]: ...


class Ragged(_Lists[int]):
    """Lists of ints; equals the lists themselves."""

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> "Ragged":
        """The same ints, without a copy where they are ragged already; OverflowError beyond 32 bits."""
        if isinstance(lists, Ragged):
            return lists
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        return cls.cut(np.fromiter(chain.from_iterable(lists), np.int32, lengths.sum()), lengths)

    def padded(self, at: Sequence[int], fill: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Some of the lists [len(at), longest], `fill` behind their ends; and a mask of what is theirs."""
        chosen = np.asarray(at, np.int64)
        starts, stops = self.bounds[chosen, None], self.bounds[chosen + 1, None]
        places = starts + np.arange((stops - starts).max())
        mine = places < stops
        values = np.full(places.shape, fill, np.int64)
        values[mine] = self.flat[places[mine]]
        return values, mine

    def _read(self, values: NDArray[np.int32]) -> list[int]:
        found: list[int] = values.tolist()
        return found


class RaggedOffsets(_Lists[Offset]):
    """Lists of (first, last, whether it counts) or None, `flat` being [tokens, 3] with -1 for None."""

    @classmethod
    def of(cls, lists: Sequence[Sequence[Offset]]) -> "RaggedOffsets":
        if isinstance(lists, RaggedOffsets):
            return lists
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        numbers = chain.from_iterable(offset or (-1, -1, 0) for each in lists for offset in each)
        return cls.cut(np.fromiter(numbers, np.int32, 3 * lengths.sum()).reshape(-1, 3), lengths)

    def _read(self, values: NDArray[np.int32]) -> list[Offset]:
        rows: list[Any] = values.tolist()
        return [None if first < 0 else (first, last, bool(counts)) for first, last, counts in rows]
