"""The Regime protocol and the choice of one by its spec."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel

from xadapt.models.backbone import Backbone
from xadapt.regimes.specs import AdapterSpec, FullSpec, FusionSpec, LoraSpec, RegimeSpec


class Regime(Protocol):
    """Attach something trainable to a backbone, save it, load it for evaluation.

    attach gives the encoder to train as `name`: `start` is the artefact whose parameters it starts from
    (composition continue), `below` the artefact that stays frozen under it (stack), `fuse` are artefacts of modules
    that a new fusion, trainable too, combines under it. Without a name the fusion alone is trained. trainable yields
    the encoder's parameters that move; penalty is what a training adds to each step's loss, if anything. save writes
    a folder that load and the library of the regime can open; load with `merged` folds into the encoder's own weights
    what can be. average writes an artefact of the modules' weighted mean, to be put below another.
    """

    def attach(
        self, backbone: Backbone, *, name: str | None, start: Path | None = None, below: Path | None = None,
        fuse: Sequence[Path] = (), fusion: FusionSpec | None = None,
    ) -> PreTrainedModel: ...  # fmt: skip

    def trainable(self, encoder: PreTrainedModel) -> Iterator[tuple[str, nn.Parameter]]: ...

    def penalty(self, encoder: PreTrainedModel) -> Tensor | None: ...

    def save(self, encoder: PreTrainedModel, folder: Path, *, name: str | None) -> None: ...

    def load(self, backbone: Backbone, folder: Path, *, merged: bool = False) -> PreTrainedModel: ...

    def average(self, folders: Sequence[Path], weights: Sequence[float], folder: Path, *, name: str) -> None: ...


def open_regime(spec: RegimeSpec) -> Regime:
    """The regime a spec describes; its library is loaded now and no other's."""
    match spec:
        case FullSpec():
            from xadapt.regimes.full import FullRegime

            return FullRegime()
        case AdapterSpec():
            from xadapt.regimes.adapter import AdapterRegime

            return AdapterRegime(spec)
        case LoraSpec():
            from xadapt.regimes.lora import LoraRegime

            return LoraRegime(spec)
