"""What a regime offers whose modules can be trained side by side on one frozen encoder."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from transformers import PreTrainedModel

from xadapt.models.backbone import Backbone
from xadapt.models.packing import Parts
from xadapt.regimes.protocol import open_regime
from xadapt.regimes.specs import RegimeSpec


class SharedEncoder(Protocol):
    """One frozen encoder with several modules of one kind; every token goes through one of them.

    free makes the parameters of some modules trainable, and no others. route says whose each token of an input
    [rows, tokens] is, from then on. save writes what the regime's own `save` would write of a module alone.
    """

    encoder: PreTrainedModel

    def free(self, names: Collection[str]) -> None: ...

    def route(self, parts: Parts) -> None: ...

    def save(self, folder: Path, *, name: str) -> None: ...


@runtime_checkable
class Shareable(Protocol):
    """A regime that leaves the encoder as it is; attach_several takes the seed of each module by its name.

    Each module starts with the parameters that `attach` would give it after `torch.manual_seed` of its seed.
    """

    def attach_several(self, backbone: Backbone, seeds: Mapping[str, int]) -> SharedEncoder: ...


def attach_several(spec: RegimeSpec, backbone: Backbone, seeds: Mapping[str, int]) -> SharedEncoder:
    """A frozen encoder with new modules of the regime, all trainable; the regime must be Shareable."""
    regime = open_regime(spec)
    assert isinstance(regime, Shareable), f"regime '{spec.name}' moves the encoder itself"
    return regime.attach_several(backbone, seeds)
