"""Bottleneck adapters of the `adapters` library on a frozen encoder: alone, stacked, fused or averaged.

An adapter's folder is an AdapterHub adapter. A fusion's folder holds the library's own files of the fusion and, in
`fused/00-<name>/`, `fused/01-<name>/` and so on, the AdapterHub adapters it combines, in order. What either of them is
stacked on lies in `below/`.
"""

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

import adapters
import torch
from adapters.composition import Fuse, Split, Stack
from adapters.methods.bottleneck import BottleneckLayer, BottleneckState
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from xadapt.errors import UserError
from xadapt.models.backbone import Backbone, fitting
from xadapt.models.fusion import rewrite_fusion
from xadapt.models.packing import Parts, joined
from xadapt.regimes.specs import AdapterSpec, FusionSpec

_CONFIGS = {"seq_bn": adapters.SeqBnConfig, "double_seq_bn": adapters.DoubleSeqBnConfig}
_BELOW, _FUSED = "below", "fused"
_ADAPTER_CONFIG, _ADAPTER_WEIGHTS = "adapter_config.json", "adapter.safetensors"
_FUSION_CONFIG, _FUSION_WEIGHTS = "adapter_fusion_config.json", "model_adapter_fusion.safetensors"
_FUSION_LAYER = ".adapter_fusion_layer."


class AdapterRegime:
    """Only the adapter moves, or the attention of a fusion, or both."""

    def __init__(self, spec: AdapterSpec) -> None:
        self.spec = spec

    def attach(
        self, backbone: Backbone, *, name: str | None, start: Path | None = None, below: Path | None = None,
        fuse: Sequence[Path] = (), fusion: FusionSpec | None = None,
    ) -> PreTrainedModel:  # fmt: skip
        """A frozen encoder with adapter `name` active on top of `below`'s or of a new fusion of `fuse`.

        Trainable are `name` and the new fusion. Raises UserError if the adapters to fuse differ in configuration.
        """
        assert not (fuse and (below or start)), "a new fusion combines what it is given and nothing else"
        fusion = fusion or FusionSpec()
        encoder = _bare(backbone)
        elements = _load(encoder, below, reserved=name) if below else []
        if fuse:
            elements = [_fuse(encoder, fuse, reserved=name)]
        if name:
            _add(encoder, name, self._config(), start)
            encoder.train_adapter(name)  # freezes all else
            elements.append(name)
        if fuse:
            encoder.fusion_regularization = fusion.regularization
            _train_fusion(encoder, elements[0], alone=not name)
        _activate(encoder, elements, reference=fusion.reference)
        return encoder

    def trainable(self, encoder: PreTrainedModel) -> Iterator[tuple[str, nn.Parameter]]:
        yield from ((name, parameter) for name, parameter in encoder.named_parameters() if parameter.requires_grad)

    def penalty(self, encoder: PreTrainedModel) -> Tensor | None:
        """The squared distance of a trainable fusion's value matrices from the identity, times the spec's weight.

        The library's AdapterTrainer gives 0.01 of it to the optimizer one step late.
        """
        weight = getattr(encoder, "fusion_regularization", 0.0)
        values = [p for name, p in self.trainable(encoder) if _FUSION_LAYER in name and name.endswith("value.weight")]
        if not (weight and values):
            return None
        identity = torch.eye(len(values[0]), dtype=values[0].dtype, device=values[0].device)
        return weight * torch.stack([(value - identity).square().sum() for value in values]).sum()

    def save(self, encoder: PreTrainedModel, folder: Path, *, name: str | None) -> None:
        """Write adapter `name`, or the fusion alone, to the folder and what lies below it to `below/`, lowest last."""
        active = encoder.active_adapters
        elements = [active] if isinstance(active, Fuse) else list(active.children)
        assert elements[-1] == name or (name is None and isinstance(elements[-1], Fuse)), "what is trained lies on top"
        for element in reversed(elements):
            folder.mkdir(parents=True, exist_ok=True)
            if isinstance(element, Fuse):
                _save_fusion(encoder, element, folder)
            else:
                encoder.save_adapter(str(folder), element, use_safetensors=True)
            folder = folder / _BELOW

    def load(self, backbone: Backbone, folder: Path, *, merged: bool = False) -> PreTrainedModel:
        """The encoder under a folder's adapters; they are not linear, so that `merged` changes nothing."""
        encoder = _bare(backbone)
        _activate(encoder, _load(encoder, folder))
        return encoder

    def average(self, folders: Sequence[Path], weights: Sequence[float], folder: Path, *, name: str) -> None:
        """Write an adapter whose parameters are the weighted mean of the folders' adapters.

        The weights are divided by their sum. Raises UserError if one is negative or all are 0, or if the adapters
        differ in configuration. The parameters' mean, not the outputs', as in the library's `average_adapter`.
        """
        assert not any((source / _BELOW).is_dir() for source in folders), "a stack cannot be averaged"
        shares = _shares(weights, folders)
        config = _common_config(folders)
        total: dict[str, Tensor] = {}
        for source, share in zip(folders, shares, strict=True):
            for key, tensor in _renamed(source, name).items():
                total[key] = total.get(key, 0) + share * tensor.double()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _ADAPTER_CONFIG).write_text(json.dumps({**config, "name": name}, indent=2, sort_keys=True))
        dtypes = {key: tensor.dtype for key, tensor in _renamed(folders[0], name).items()}
        save_file({key: tensor.to(dtypes[key]) for key, tensor in total.items()}, folder / _ADAPTER_WEIGHTS)

    def _config(self) -> adapters.BnConfig:
        return _CONFIGS[self.spec.config](
            reduction_factor=self.spec.reduction_factor, non_linearity=self.spec.non_linearity
        )

    def attach_several(self, backbone: Backbone, seeds: Mapping[str, int]) -> "SeveralAdapters":
        """A frozen encoder with new adapters side by side, each drawn after `torch.manual_seed` of its seed."""
        bare: dict[int, tuple[PreTrainedModel, Tensor]] = {}
        for seed in seeds.values():
            if seed not in bare:  # the library draws while it prepares an encoder, too
                torch.manual_seed(seed)
                bare[seed] = _bare(backbone), torch.get_rng_state()
        encoder, _ = next(iter(bare.values()))
        for name, seed in seeds.items():
            torch.set_rng_state(bare[seed][1])
            encoder.add_adapter(name, config=self._config())
        return SeveralAdapters(encoder, list(seeds))


class SeveralAdapters:
    """Adapters of one configuration on one frozen encoder; every token goes through one of them.

    As the library's Split, by a cut for each input instead of one for all; its gradient is put together once, where
    that of slices is as long as the whole for each of them.
    """

    def __init__(self, encoder: PreTrainedModel, names: list[str]) -> None:
        self.encoder = encoder
        self.free(names)
        encoder.set_active_adapters(Split(*names, splits=0))
        for layer in encoder.modules():
            if isinstance(layer, BottleneckLayer):
                layer.compose_split = partial(self._compose, layer)

    def free(self, names: Collection[str]) -> None:
        """Make the parameters of these adapters trainable, and no others."""
        for key, parameter in self.encoder.named_parameters():
            parameter.requires_grad_(any(f".adapters.{name}." in key for name in names))

    def route(self, parts: Parts) -> None:
        """Whose each token of an input [rows, tokens] is from now on."""
        self.parts = parts

    def save(self, folder: Path, *, name: str) -> None:
        """Write one adapter as `AdapterRegime.save` writes it alone."""
        folder.mkdir(parents=True, exist_ok=True)
        self.encoder.save_adapter(str(folder), name, use_safetensors=True)

    def _compose(self, layer: BottleneckLayer, _: Split, state: BottleneckState, lvl: int = 0) -> BottleneckState:
        parts = self.parts(state.hidden_states.shape[1])
        sizes = [part.tokens for part in parts]
        state = layer.pre_block(parts[0].name, state)  # the same for all of one configuration
        hidden, residual = (torch.split(tensor, sizes, 1) for tensor in (state.hidden_states, state.adapter_residual))
        found = [
            layer.compose_single(part.name, state._replace(hidden_states=h, adapter_residual=r)).hidden_states
            for part, h, r in zip(parts, hidden, residual, strict=True)
        ]
        return state._replace(hidden_states=joined(found), last=parts[0].name)


# encoders


def _bare(backbone: Backbone) -> PreTrainedModel:
    encoder = backbone.encoder()
    adapters.init(encoder)
    encoder.requires_grad_(False)
    return encoder


def _add(encoder: PreTrainedModel, name: str, config: adapters.BnConfig, start: Path | None) -> None:
    """Add an adapter, new or with the parameters of another."""
    if start is None:
        encoder.add_adapter(name, config=config)
        return
    assert not (start / _BELOW).is_dir(), "continue starts from a single adapter"
    _load_adapter(encoder, start, name=name)


def _fuse(encoder: PreTrainedModel, folders: Sequence[Path], *, reserved: str | None) -> Fuse:
    """Load adapters and put a new fusion over them, with query, key and value, the latter near the identity."""
    assert not any((folder / _BELOW).is_dir() for folder in folders), "a stack cannot be fused"
    _common_config(folders)
    fuse = Fuse(*[_load_adapter(encoder, folder, reserved=reserved) for folder in folders])
    encoder.add_adapter_fusion(fuse, config="dynamic")
    return fuse


def _train_fusion(encoder: PreTrainedModel, fuse: Fuse, *, alone: bool) -> None:
    if alone:
        encoder.train_adapter_fusion(fuse)  # freezes all else
    for name, parameter in encoder.named_parameters():
        if _FUSION_LAYER in name:
            parameter.requires_grad_(True)


def _activate(encoder: PreTrainedModel, elements: list[Any], *, reference: bool = False) -> None:
    encoder.set_active_adapters(Stack(*elements) if len(elements) > 1 else elements[0])
    if not reference:
        rewrite_fusion(encoder)


# folders


def _load(encoder: PreTrainedModel, folder: Path, *, reserved: str | None = None) -> list[Any]:
    """Load a folder's adapter or fusion and all below it; names and Fuse blocks, lowest first."""
    under = _load(encoder, folder / _BELOW, reserved=reserved) if (folder / _BELOW).is_dir() else []
    load = _load_fusion if (folder / _FUSION_CONFIG).is_file() else _load_adapter
    return [*under, load(encoder, folder, reserved=reserved)]


def _load_adapter(
    encoder: PreTrainedModel, folder: Path, *, name: str | None = None, reserved: str | None = None
) -> str:
    """Load one adapter under its own name, numbered where the encoder has that name or it is reserved."""
    own = _config_of(folder)["name"]
    taken = {reserved, *encoder.adapters_config.adapters}
    free = name or next(n for n in chain([own], (f"{own}_{number}" for number in count(2))) if n not in taken)
    tensors = _renamed(folder, free)  # there must be such a file: without it the library would open a pickle
    with fitting(folder / _ADAPTER_WEIGHTS, tensors, encoder, part=f".adapters.{free}."):
        encoder.load_adapter(str(folder), load_as=free, set_active=False, use_safetensors=True)
    return free


def _load_fusion(encoder: PreTrainedModel, folder: Path, *, reserved: str | None = None) -> Fuse:
    """Load a fusion and its adapters; not by the library, which cannot give the adapters other names."""
    config = _config_of(folder, _FUSION_CONFIG)
    parts = sorted((folder / _FUSED).iterdir(), key=lambda part: int(part.name.partition("-")[0]))
    fuse = Fuse(*[_load_adapter(encoder, part, reserved=reserved) for part in parts])
    encoder.add_adapter_fusion(fuse, config=config["config"])
    old, new = (f"{_FUSION_LAYER}{name}." for name in (config["name"], fuse.name))
    tensors = {key.replace(old, new): tensor for key, tensor in load_file(_weights_of(folder, _FUSION_WEIGHTS)).items()}
    with fitting(folder / _FUSION_WEIGHTS, tensors, encoder, part=new):
        encoder.load_state_dict(tensors, strict=False)
    return fuse


def _save_fusion(encoder: PreTrainedModel, fuse: Fuse, folder: Path) -> None:
    encoder.save_adapter_fusion(str(folder), fuse, use_safetensors=True)
    for number, adapter in enumerate(fuse.children):
        part = folder / _FUSED / f"{number:02d}-{adapter}"
        part.mkdir(parents=True, exist_ok=True)
        encoder.save_adapter(str(part), adapter, use_safetensors=True)


def _config_of(folder: Path, file: str = _ADAPTER_CONFIG) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / file).read_text())
    return config


def _weights_of(folder: Path, file: str) -> Path:
    if not (folder / file).is_file():
        raise UserError(f"{folder} has no {file}; pickled weights are never opened")
    return folder / file


def _renamed(folder: Path, name: str) -> dict[str, Tensor]:
    """An adapter's tensors under the keys they would have as adapter `name`."""
    old, new = f".adapters.{_config_of(folder)['name']}.", f".adapters.{name}."
    return {key.replace(old, new): tensor for key, tensor in load_file(_weights_of(folder, _ADAPTER_WEIGHTS)).items()}


def _common_config(folders: Sequence[Path]) -> dict[str, Any]:
    """The folders' adapter_config.json, the first one's where names and origin differ."""
    first = _config_of(folders[0])
    for folder in folders[1:]:
        other = _config_of(folder)
        if any(first[key] != other[key] for key in ("config", "hidden_size", "model_type")):
            raise UserError(
                f"the adapters in {folders[0]} and {folder} differ in configuration and cannot be combined: train both "
                f"on one backbone with the same `config`, `reduction_factor` and `non_linearity`"
            )
    return first


def _shares(weights: Sequence[float], folders: Sequence[Path]) -> list[float]:
    """Weights divided by their sum."""
    assert len(weights) == len(folders) > 0, "a weight for each adapter"
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights) > 0:
        raise UserError(f"weights {list(weights)} give no average: give one for each adapter, none negative, not all 0")
    return [weight / sum(weights) for weight in weights]
