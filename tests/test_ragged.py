"""Compact lists of ints: they read, compare and index as the lists do, and their lengths need no tokens."""

from typing import Any

import numpy as np
import pytest

from xadapt.data.ragged import Ragged, RaggedOffsets
from xadapt.formats import Features

LISTS = [[0, 9, 2], [], [7], [0, 8, 7, 6, 2], []]


def test_ragged_lists_read_as_lists() -> None:
    ragged = Ragged.of(LISTS)
    assert (list(ragged), len(ragged), [*reversed(ragged)]) == (LISTS, 5, LISTS[::-1])
    assert [ragged[i] for i in range(-5, 5)] == LISTS * 2
    assert (ragged[1:4], ragged[::-2]) == (LISTS[1:4], LISTS[::-2])
    assert type(ragged[0][0]) is int
    assert {tuple(ids): i for i, ids in enumerate(ragged)}[0, 9, 2] == 0
    assert Ragged.of(ragged) is ragged
    assert Ragged.joined([ragged, Ragged.of([]), ragged]) == LISTS * 2
    for at in (5, -6):
        with pytest.raises(IndexError):
            ragged[at]


@pytest.mark.parametrize("other", [LISTS[:4], [*LISTS, []], [[0, 9], [2], [7], [0, 8, 7, 6, 2], []], [*LISTS[:4], [1]]])
def test_ragged_lists_equal_their_like_alone(other: list[list[int]]) -> None:
    ragged = Ragged.of(LISTS)
    assert ragged == LISTS
    assert ragged == LISTS
    assert ragged == Ragged.of(LISTS)
    assert ragged != other
    assert other != ragged
    assert ragged != Ragged.of(other)
    assert ragged != 5


def test_offsets_read_as_they_were() -> None:
    lists = [[None, (0, 4, True), (4, 9, False), None], [], [(0, 0, True)], [None]]
    assert list(RaggedOffsets.of(lists)) == lists
    assert type(RaggedOffsets.of(lists)[0][1][2]) is bool


def test_lengths_are_read_off_the_boundaries() -> None:
    untouchable: Any = None
    assert Features(Ragged(untouchable, np.array([0, 3, 3, 8])), None, range(3)).lengths == [3, 0, 5]
    assert Features(Ragged(untouchable, np.array([0, 3, 3, 8, 9])), None, range(2), sequences=2).lengths == [6, 10]
    assert Features([[1, 2, 3], [], [1], [1, 2]], None, range(2), sequences=2).lengths == [6, 4]
