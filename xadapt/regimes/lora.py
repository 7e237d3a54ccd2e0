"""LoRA of the library `peft` on a frozen encoder: alone, added to frozen ones, or on top of a fusion of them."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import PreTrainedModel

from xadapt.errors import UserError
from xadapt.models.backbone import Backbone
from xadapt.models.lora_folder import BELOW, Lora, average_loras, read_lora, read_single, write_lora
from xadapt.models.lora_fusion import FusedLoras, fuse_loras, is_fusion, numbered, read_fusion, write_fusion
from xadapt.models.packing import Parts, joined
from xadapt.regimes.specs import FusionSpec, LoraSpec

_HELD = "xadapt_loras"


@dataclass(frozen=True)
class _Held:
    """What an encoder holds, lowest first: a fusion if there is one, then LoRAs, whose deltas add up."""

    fused: FusedLoras | None = None
    loras: tuple[Lora, ...] = ()

    @property
    def slots(self) -> list[str]:
        """The LoRAs' names inside peft, which bears neither dots nor two of a name."""
        return [numbered(at, lora.name) for at, lora in enumerate(self.loras)]

    def check(self) -> None:
        """UserError where peft's sum would not be one: DoRA rescales what others have added."""
        if len(self.loras) > 1 or self.fused:
            for lora in self.loras:
                lora.check_additive("stacked")


class LoraRegime:
    """Only the LoRA moves, and a new fusion under it. A LoRA's folder is PEFT's; `below/` holds what it is stacked on.

    A stack adds up: every delta reads the same input, so that a fresh LoRA changes nothing. Frozen LoRAs see no
    dropout. DoRA stands alone: attach and average raise UserError for it anywhere else.
    """

    def __init__(self, spec: LoraSpec) -> None:
        self.spec = spec

    def attach(
        self, backbone: Backbone, *, name: str | None, start: Path | None = None, below: Path | None = None,
        fuse: Sequence[Path] = (), fusion: FusionSpec | None = None,
    ) -> PreTrainedModel:  # fmt: skip
        """A frozen encoder with LoRA `name` on top of `below` or of a new fusion; only what is new is trainable."""
        assert name or fuse, "something is trained"
        assert not (below and fuse), "a fusion is the lowest"
        held = _read(below) if below else _Held()
        if fuse:
            held = _Held(fused=FusedLoras(tuple(_alone(folder, "fused") for folder in fuse)))
        if name:
            top = self._continued(start, name) if start else Lora(name, self._config(), {})
            held = replace(held, loras=(*held.loras, top))
        encoder = _build(backbone, held, trained=name is not None)
        new = [f".{held.slots[-1]}."] if name else []
        _free(encoder, [*new, ".fusion_"] if fuse else new)
        return encoder

    def trainable(self, encoder: PreTrainedModel) -> Iterator[tuple[str, nn.Parameter]]:
        yield from ((name, parameter) for name, parameter in encoder.named_parameters() if parameter.requires_grad)

    def penalty(self, encoder: PreTrainedModel) -> None:
        return None

    def save(self, encoder: PreTrainedModel, folder: Path, *, name: str | None) -> None:
        """Write LoRA `name` to the folder, or the fusion without a name, and what lies below to `below/`, lowest last."""
        held: _Held = getattr(encoder, _HELD)
        assert (held.loras[-1].name if held.loras else None) == name, "what is trained lies on top"
        for at in reversed(range(len(held.loras))):
            write_lora(replace(held.loras[at], tensors=_tensors(encoder, held.slots[at])), folder)
            folder = folder / BELOW
        if held.fused:
            write_fusion(encoder, held.fused, folder)

    def load(self, backbone: Backbone, folder: Path, *, merged: bool = False) -> PreTrainedModel:
        """The encoder with all that a folder holds; `merged` adds the LoRAs to the weights, a fusion stays."""
        encoder = _build(backbone, _read(folder), trained=False)
        return _merge(encoder) if merged else encoder

    def average(self, folders: Sequence[Path], weights: Sequence[float], folder: Path, *, name: str) -> None:
        """Write the LoRA whose delta is the weighted mean of the folders' deltas, exactly; see average_loras."""
        loras = [_alone(each, "averaged") for each in folders]
        write_lora(average_loras(loras, weights, name=name), folder)

    def _continued(self, start: Path, name: str) -> Lora:
        """A LoRA that goes on from a folder's, under the dropout of this training."""
        before = _alone(start, "continued")
        return replace(before, name=name, config={**before.config, "lora_dropout": self.spec.lora_dropout})

    def _config(self) -> dict[str, Any]:
        """The configuration of a new LoRA as PEFT writes it."""
        spec = self.spec
        config = LoraConfig(
            r=spec.r, lora_alpha=spec.lora_alpha, target_modules=_pattern(spec.target_modules),
            lora_dropout=spec.lora_dropout, use_rslora=spec.use_rslora, use_dora=spec.use_dora, inference_mode=True,
        )  # fmt: skip
        content: dict[str, Any] = json.loads(json.dumps(config.to_dict()))
        return content

    def attach_several(self, backbone: Backbone, seeds: Mapping[str, int]) -> "SeveralLoras":
        """A frozen encoder with new LoRAs side by side, each drawn after `torch.manual_seed` of its seed."""
        encoder, wrapped = backbone.encoder(), None
        for name, seed in seeds.items():
            torch.manual_seed(seed)
            config = LoraConfig.from_peft_type(**self._config())
            if wrapped is None:
                wrapped = get_peft_model(encoder, config, adapter_name=_slot(name))
            else:
                wrapped.add_adapter(_slot(name), config)
        return SeveralLoras(encoder, {name: Lora(name, self._config(), {}) for name in seeds})


class SeveralLoras:
    """LoRAs of one configuration on one frozen encoder; every token goes through one of them.

    PEFT's own mixed batches are for inference only.
    """

    def __init__(self, encoder: PreTrainedModel, loras: Mapping[str, Lora]) -> None:
        self.encoder, self.loras = encoder, loras
        self.free(loras)
        for layer in encoder.modules():
            if isinstance(layer, LoraLayer):
                layer.forward = partial(self._forward, layer)

    def free(self, names: Collection[str]) -> None:
        """Make the parameters of these LoRAs trainable, and no others."""
        _free(self.encoder, [f".{_slot(name)}." for name in names])

    def route(self, parts: Parts) -> None:
        """Whose each token of an input [rows, tokens] is from now on."""
        self.parts = parts

    def save(self, folder: Path, *, name: str) -> None:
        """Write one LoRA as `LoraRegime.save` writes it alone."""
        write_lora(replace(self.loras[name], tensors=_tensors(self.encoder, _slot(name))), folder)

    def _forward(self, layer: LoraLayer, x: Tensor) -> Tensor:
        result = layer.base_layer(x)
        parts = self.parts(x.shape[1])
        sizes = [part.tokens for part in parts]
        found = []
        for part, mine, base in zip(parts, torch.split(x, sizes, 1), torch.split(result, sizes, 1), strict=True):
            with part.own():
                found.append(_adapted(layer, _slot(part.name), mine, base))
        return joined(found).to(result.dtype)


def _slot(name: str) -> str:
    """The name inside peft of a LoRA that stands alone."""
    return numbered(0, name)


def _adapted(layer: LoraLayer, slot: str, x: Tensor, result: Tensor) -> Tensor:
    """A layer's result for x with one LoRA, given that without: what PEFT's forward does for each active one."""
    a, b, dropout = layer.lora_A[slot], layer.lora_B[slot], layer.lora_dropout[slot]
    x = layer._cast_input_dtype(x, a.weight.dtype)
    adapted: Tensor
    if slot in layer.lora_variant:
        adapted = layer.lora_variant[slot].forward(layer, active_adapter=slot, x=x, result=result)
    else:
        adapted = result + b(a(dropout(x))) * layer.scaling[slot]
    return adapted


def _pattern(targets: Sequence[str]) -> str:
    """What matches just these linear layers of every layer, also under a head's prefix.

    As plain names PEFT would compare ends, and `output.dense` would catch `attention.output.dense` too.
    """
    places = {"query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value"}
    names = [places.get(target, target).replace(".", r"\.") for target in targets]
    return rf"(.*\.)?layer\.\d+\.({'|'.join(names)})"


def _alone(folder: Path, verb: str) -> Lora:
    if is_fusion(folder):
        raise UserError(f"{folder} is a fusion and cannot be {verb}; give a LoRA that stands alone")
    return read_single(folder, verb)


def _read(folder: Path) -> _Held:
    """What a folder and those below it hold."""
    if is_fusion(folder):
        return _Held(fused=read_fusion(folder))
    held = _read(folder / BELOW) if (folder / BELOW).is_dir() else _Held()
    return replace(held, loras=(*held.loras, read_lora(folder)))


def _build(backbone: Backbone, held: _Held, *, trained: bool) -> PreTrainedModel:
    """A wholly frozen encoder with everything in its place and active; `trained` keeps the topmost's dropout."""
    held.check()
    encoder, wrapped = backbone.encoder(), None
    for lora, slot in zip(held.loras, held.slots, strict=True):
        config = LoraConfig.from_peft_type(**lora.config)
        if not (trained and lora is held.loras[-1]):
            config.lora_dropout = 0.0
        if wrapped is None:
            wrapped = get_peft_model(encoder, config, adapter_name=slot)
        else:
            wrapped.add_adapter(slot, config)
        _load_tensors(encoder, lora, slot)
    if wrapped is not None:
        wrapped.base_model.set_adapter(held.slots)
    if held.fused:
        fuse_loras(encoder, held.fused)
    encoder.requires_grad_(False)  # last, for making LoRAs active frees them
    setattr(encoder, _HELD, held)
    return encoder


def _load_tensors(encoder: PreTrainedModel, lora: Lora, slot: str) -> None:
    if not lora.tensors:
        return
    expected = {name: tensor.shape for name, tensor in _tensors(encoder, slot).items()}
    if expected != {name: tensor.shape for name, tensor in lora.tensors.items()}:
        raise UserError(f"the tensors of LoRA '{lora.name}' do not fit this backbone; use the one it was trained on")
    set_peft_model_state_dict(encoder, dict(lora.tensors), adapter_name=slot)


def _tensors(encoder: PreTrainedModel, slot: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = get_peft_model_state_dict(encoder, adapter_name=slot, save_embedding_layers=False)
    return found


def _free(encoder: PreTrainedModel, parts: Sequence[str]) -> None:
    """Make the parameters trainable whose names hold one of these parts."""
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(any(part in name for part in parts))


def _merge(encoder: PreTrainedModel) -> PreTrainedModel:
    """Add the LoRAs to the weights they lie beside and take peft's wrapping off; a fusion keeps its place."""
    wrapped = [(name, module) for name, module in encoder.named_modules() if isinstance(module, LoraLayer)]
    for name, module in wrapped:
        module.merge()
        encoder.set_submodule(name, module.base_layer)
    if wrapped:
        del encoder.peft_config
    delattr(encoder, _HELD)
    return encoder
