"""One optimizer batch, cut into micro-batches."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import Tensor

from xadapt.models.task_model import AnyTaskModel
from xadapt.training.mixing import TrainingPart


@dataclass(frozen=True)
class Step:
    """One optimizer batch, or of several processes one's share of it.

    number and part say which; features are those of each micro-batch, batches these padded. examples counts the
    features of the whole step, and units what its loss is a mean over.
    """

    number: int
    part: TrainingPart
    features: list[list[int]]
    batches: list[dict[str, Tensor]]
    examples: int
    units: float

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """The rows and the padded tokens of each micro-batch."""
        tokens = [batch["input_ids"].numel() for batch in self.batches]
        return [(len(rows), size) for rows, size in zip(self.features, tokens, strict=True)]

    @property
    def tokens(self) -> int:
        """How many tokens all micro-batches have together, padding aside."""
        return sum(int(batch["attention_mask"].sum()) for batch in self.batches)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A micro-batch's share of the step's loss."""
        return self.part.format.loss(logits, labels) / self.units

    def moved_words(
        self,
        model: AnyTaskModel,
        features: list[int],
        batch: dict[str, Tensor],
        loss: Callable[[], Tensor],
        *,
        seed: int,
    ) -> AbstractContextManager[object]:
        """Robust training's movement of a micro-batch's words, where the part has one."""
        if self.part.perturbation is None:
            return nullcontext()
        return self.part.perturbation.perturbed(model, batch, loss, indices=features, draw=(seed, self.number))
