"""Bottleneck adapters of the `adapters` library on a frozen encoder, alone or stacked on a frozen one."""

import json
from collections.abc import Iterator
from pathlib import Path

import adapters
from adapters.composition import Stack
from torch import nn
from transformers import PreTrainedModel

from xadapt.errors import UserError
from xadapt.models.backbone import Backbone
from xadapt.regimes.specs import AdapterSpec

_CONFIGS = {"seq_bn": adapters.SeqBnConfig, "double_seq_bn": adapters.DoubleSeqBnConfig}
_BELOW = "below"


class AdapterRegime:
    """Only the adapter moves. Its folder is a valid AdapterHub adapter; what it is stacked on lies in `below/`."""

    def __init__(self, spec: AdapterSpec) -> None:
        self.spec = spec

    def attach(
        self, backbone: Backbone, *, name: str, start: Path | None = None, below: Path | None = None
    ) -> PreTrainedModel:
        """A frozen encoder with adapter `name` active on top of `below`'s, only `name` trainable."""
        encoder = _bare(backbone)
        under = _load(encoder, below) if below else []
        if start:
            loaded = _load(encoder, start, name=name)
            assert loaded == [name], "continue starts from a single adapter"
        else:
            encoder.add_adapter(name, config=self._config())
        encoder.train_adapter(name)
        _activate(encoder, [*under, name])
        return encoder

    def trainable(self, encoder: PreTrainedModel) -> Iterator[tuple[str, nn.Parameter]]:
        yield from ((name, parameter) for name, parameter in encoder.named_parameters() if parameter.requires_grad)

    def save(self, encoder: PreTrainedModel, folder: Path, *, name: str) -> None:
        """Write adapter `name` to the folder and the adapters below it to `below/`, lowest last."""
        active = list(encoder.active_adapters.children)
        assert active[-1] == name, "the trained adapter lies on top"
        for adapter in reversed(active):
            encoder.save_adapter(str(folder), adapter, use_safetensors=True)
            folder = folder / _BELOW

    def load(self, backbone: Backbone, folder: Path) -> PreTrainedModel:
        encoder = _bare(backbone)
        _activate(encoder, _load(encoder, folder))
        return encoder

    def _config(self) -> adapters.BnConfig:
        return _CONFIGS[self.spec.config](
            reduction_factor=self.spec.reduction_factor, non_linearity=self.spec.non_linearity
        )


def _bare(backbone: Backbone) -> PreTrainedModel:
    encoder = backbone.encoder()
    adapters.init(encoder)
    encoder.requires_grad_(False)
    return encoder


def _load(encoder: PreTrainedModel, folder: Path, *, name: str | None = None) -> list[str]:
    """Load a folder's adapter and all below it; their names, lowest first."""
    under = _load(encoder, folder / _BELOW) if (folder / _BELOW).is_dir() else []
    if not (folder / "adapter.safetensors").is_file():  # without it the library would open a pickle
        raise UserError(f"{folder} has no adapter.safetensors; pickled weights are never opened")
    load_as = name or json.loads((folder / "adapter_config.json").read_text())["name"]
    encoder.load_adapter(str(folder), load_as=load_as, set_active=False, use_safetensors=True)
    return [*under, load_as]


def _activate(encoder: PreTrainedModel, names: list[str]) -> None:
    encoder.set_active_adapters(Stack(*names) if len(names) > 1 else names[0])
