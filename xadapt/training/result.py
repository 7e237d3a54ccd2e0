"""What a training did, and who is told of it on the way."""

import math
from dataclasses import dataclass, field
from typing import Any, Protocol


class Monitor(Protocol):
    """Told of every step and selection; the log file and the progress bar are monitors."""

    def step(self, step: int, total: int, values: dict[str, Any]) -> None: ...

    def selection(self, step: int, epoch: float, metrics: dict[str, float], best: bool) -> None: ...


@dataclass
class FitResult:
    """What a training did.

    losses holds the mean loss of every step; best_metric the dev score of the parameters that were kept, taken
    at best_step; decay the product of (1 - learning_rate * weight_decay) up to there; selected is the last step whose dev
    score was taken. seconds and examples_per_second cover the training steps alone, padding the share of padded
    positions. flops_per_step counts forward and backward pass of the first step; resumed are the steps behind which it
    was stopped and went on.
    """

    losses: list[float] = field(default_factory=list)
    best_metric: float = -math.inf
    best_step: int = 0
    decay: float = 1.0
    seconds: float = 0.0
    examples: int = 0
    tokens: int = 0
    positions: int = 0
    flops_per_step: int = 0
    selected: int = 0
    resumed: list[int] = field(default_factory=list)

    @property
    def examples_per_second(self) -> float:
        return self.examples / self.seconds if self.seconds else 0.0

    @property
    def padding(self) -> float:
        return 1 - self.tokens / self.positions if self.positions else 0.0
