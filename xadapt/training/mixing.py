"""Which task each step of a training sees: one alone, or several in proportion to their sizes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from xadapt.formats import Features, Format
from xadapt.training.batching import optimizer_batches, steps_per_epoch
from xadapt.training.robust import Perturbation
from xadapt.training.settings import Mixing

# parts the draw of a task from the draws of its rows, which use (seed, epoch)
_TASK_DRAW = 1 << 40


@dataclass(frozen=True)
class TrainingPart:
    """One task's rows in a training.

    name picks its head where there are several; auxiliary says that it has a fixed share of the steps; perturbation
    moves its words.
    """

    format: Format
    features: Features
    name: str = ""
    auxiliary: bool = False
    perturbation: Perturbation | None = None


def probabilities(parts: Sequence[TrainingPart], mixing: Mixing) -> list[float]:
    """The share of steps each part gets: p ~ min(n, cap)^(1 / temperature), what is auxiliary mlm_ratio of all.

    Source: Phang et al. 2020 (jiant's proportional sampler with a cap).
    """
    sizes = [min(len(part.features), mixing.cap) ** (1 / mixing.temperature) for part in parts]
    main = sum(size for size, part in zip(sizes, parts, strict=True) if not part.auxiliary)
    ratio = mixing.mlm_ratio if any(part.auxiliary for part in parts) else 0.0
    return [ratio if part.auxiliary else (1 - ratio) * s / main for s, part in zip(sizes, parts, strict=True)]


def mixture_epoch(parts: Sequence[TrainingPart], mixing: Mixing, batch_size: int) -> int:
    """Steps that see as many examples of the main parts as these have, each up to the cap where there are several."""
    sizes = [len(part.features) for part in parts if not part.auxiliary]
    sizes = [min(size, mixing.cap) for size in sizes] if len(sizes) > 1 else sizes
    ratio = mixing.mlm_ratio if any(part.auxiliary for part in parts) else 0.0
    return round(sum(steps_per_epoch(size, batch_size) for size in sizes) / (1 - ratio))


def mixed_batches(
    parts: Sequence[TrainingPart], mixing: Mixing, *, batch_size: int, seed: int, start: int = 0
) -> Iterator[tuple[TrainingPart, list[int]]]:
    """The part and the rows of every step from `start` on, without end.

    Each step is of one task, drawn from seed and step alone: a stream that starts later goes on as the whole one
    would. A single part is drawn from in its own order, epoch after epoch.
    """
    share = np.array(probabilities(parts, mixing)).cumsum()
    streams = [_endless(part, batch_size=batch_size, seed=seed) for part in parts]
    for step in count():
        # the sum may end a rounding below one
        at = 0 if len(parts) == 1 else int(np.searchsorted(share[:-1], _uniform(seed, step), side="right"))
        rows = next(streams[at])
        if step >= start:
            yield parts[at], rows


def _uniform(seed: int, step: int) -> float:
    return float(np.random.default_rng((seed, _TASK_DRAW + step)).random())


def _endless(part: TrainingPart, *, batch_size: int, seed: int) -> Iterator[list[int]]:
    for epoch in count():
        yield from optimizer_batches(part.features.lengths, batch_size=batch_size, seed=seed, epoch=epoch)
