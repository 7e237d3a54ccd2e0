"""The Regime protocol and the choice of one by its spec."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from torch import nn
from transformers import PreTrainedModel

from xadapt.models.backbone import Backbone
from xadapt.regimes.specs import AdapterSpec, FullSpec, RegimeSpec


class Regime(Protocol):
    """Attach something trainable to a backbone, save it, load it for evaluation.

    attach gives the encoder to train as `name`: `start` is the artefact whose parameters it starts from
    (composition continue), `below` the artefact that stays frozen under it (stack). trainable yields the
    encoder's parameters that move. save writes a folder that load and the library of the regime can open.
    """

    def attach(
        self, backbone: Backbone, *, name: str, start: Path | None = None, below: Path | None = None
    ) -> PreTrainedModel: ...

    def trainable(self, encoder: PreTrainedModel) -> Iterator[tuple[str, nn.Parameter]]: ...

    def save(self, encoder: PreTrainedModel, folder: Path, *, name: str) -> None: ...

    def load(self, backbone: Backbone, folder: Path) -> PreTrainedModel: ...


def open_regime(spec: RegimeSpec) -> Regime:
    """The regime a spec describes."""
    from xadapt.regimes.adapter import AdapterRegime
    from xadapt.regimes.full import FullRegime

    match spec:
        case FullSpec():
            return FullRegime()
        case AdapterSpec():
            return AdapterRegime(spec)
