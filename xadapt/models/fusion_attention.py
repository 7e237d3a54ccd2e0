"""What a fusion paid attention to: the probabilities of its last forward pass, for evaluation to read."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

_LISTED = "xadapt_fusion_layers"


class FusionAttention:
    """Attention over fused modules at one place of an encoder, as a mixin of whatever computes it.

    Whoever wants the probabilities sets `recording` and reads `probabilities`, [batch, tokens, modules] and
    detached, after a forward pass; tokens is 1 where the layer computes the first token alone. While `recording`
    is off nothing is kept.
    """

    recording: bool = False
    probabilities: Tensor | None = None

    def record(self, probabilities: Tensor) -> None:
        """Keep the probabilities of this forward pass if somebody asked for them."""
        self.probabilities = probabilities.detach() if self.recording else None


def list_fusion_layers(encoder: nn.Module, layers: Iterable[FusionAttention]) -> None:
    """Note the encoder's fusions, in layer order, where they are no submodules of its own."""
    setattr(encoder, _LISTED, tuple(layers))  # a tuple, so that nn.Module registers nothing


def fusion_layers(encoder: nn.Module) -> list[FusionAttention]:
    """The encoder's fusions in layer order; empty without any."""
    listed: Any = getattr(encoder, _LISTED, ())
    return [*listed, *(module for module in encoder.modules() if isinstance(module, FusionAttention))]
