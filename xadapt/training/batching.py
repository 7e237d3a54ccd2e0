"""Batches: optimizer batches fixed in examples, similar lengths together, cut into micro-batches by tokens."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

WINDOW_BATCHES = 50


def optimizer_batches(lengths: Sequence[int], *, batch_size: int, seed: int, epoch: int) -> Iterator[list[int]]:
    """Yield one epoch's batches of row indices, each of batch_size examples (the last may be smaller).

    Rows are shuffled, then sorted by length inside windows of WINDOW_BATCHES batches, so that a batch holds
    similar lengths; the batches of a window come in random order. The order depends on seed, epoch and lengths
    alone, never on how batches are cut for memory.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    batches: list[list[int]] = []
    for start in range(0, len(order), WINDOW_BATCHES * batch_size):
        window = order[start : start + WINDOW_BATCHES * batch_size]
        window = window[np.argsort([-lengths[i] for i in window], kind="stable")]
        batches += [window[at : at + batch_size].tolist() for at in range(0, len(window), batch_size)]
    for at in rng.permutation(len(batches)):
        yield batches[at]


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Optimizer steps that see every example once."""
    return math.ceil(examples / batch_size)


def micro_batches(indices: Sequence[int], lengths: Sequence[int], *, token_budget: int) -> Iterator[list[int]]:
    """Cut indices, longest first, into runs whose padded size stays within token_budget (at least one row)."""
    ordered = sorted(indices, key=lambda i: -lengths[i])
    at = 0
    while at < len(ordered):
        rows = max(1, token_budget // lengths[ordered[at]])
        yield ordered[at : at + rows]
        at += rows
