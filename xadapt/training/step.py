"""One optimizer batch, cut into micro-batches."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from xadapt.training.mixing import TrainingPart


@dataclass(frozen=True)
class Step:
    """One optimizer batch: its number, the part it is of, and the micro-batches: their features and these padded."""

    number: int
    part: TrainingPart
    features: list[list[int]]
    batches: list[dict[str, Tensor]]

    @property
    def examples(self) -> int:
        """How many features all micro-batches have together."""
        return sum(map(len, self.features))

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """The rows and the padded tokens of each micro-batch."""
        tokens = [batch["input_ids"].numel() for batch in self.batches]
        return [(len(rows), size) for rows, size in zip(self.features, tokens, strict=True)]

    @property
    def tokens(self) -> int:
        """How many tokens all micro-batches have together, padding aside."""
        return sum(int(batch["attention_mask"].sum()) for batch in self.batches)

    @cached_property
    def units(self) -> int:
        """What the loss of the whole step is a mean over."""
        return sum(self.part.format.units(batch["labels"]) for batch in self.batches)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A micro-batch's share of the step's loss."""
        return self.part.format.loss(logits, labels) / self.units
