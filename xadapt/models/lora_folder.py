"""LoRA modules as files: a PEFT folder read, written and averaged without a model."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from xadapt.errors import UserError, short

BELOW = "below"
_CONFIG, _WEIGHTS, _NAME = "adapter_config.json", "adapter_model.safetensors", "lora.json"
_FORMAT = 1
_PREFIX = "base_model.model."
# what of a PEFT configuration makes a module more than one low-rank delta of one rank and scale
_MORE = ("use_dora", "lora_bias", "rank_pattern", "alpha_pattern", "modules_to_save", "layer_replication")


@dataclass(frozen=True)
class Lora:
    """One LoRA: PEFT's configuration as in its file, and tensors by the encoder's own names.

    tensors hold `<linear layer>.lora_A.weight` [r, in] and `.lora_B.weight` [out, r]; none before the first training.
    """

    name: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def scaling(self) -> float:
        """What the delta B A x is multiplied by."""
        r = self.config["r"]
        return float(self.config["lora_alpha"] / (math.sqrt(r) if self.config.get("use_rslora") else r))

    def check_additive(self, verb: str) -> None:
        """UserError unless the module does nothing but add its delta; verb says what was to be done with it."""
        if more := [key for key in _MORE if self.config.get(key)]:
            raise UserError(
                f"LoRA '{self.name}' has {' and '.join(more)} and cannot be {verb}: what it does is not one low-rank "
                f"delta beside others. Train it with `use_dora: false` (and nothing else of the kind), or take "
                f"composition none or continue."
            )

    def pairs(self, verb: str) -> dict[str, tuple[Tensor, Tensor]]:
        """A [r, in] and B [out, r] of every linear layer, by its name; UserError as in check_additive, and for others."""
        self.check_additive(verb)
        layers = dict.fromkeys(
            key.removesuffix(".lora_A.weight").removesuffix(".lora_B.weight") for key in self.tensors
        )
        expected = {f"{layer}.lora_{part}.weight" for layer in layers for part in "AB"}
        if wrong := sorted(expected ^ self.tensors.keys()):
            raise UserError(f"LoRA '{self.name}' is not whole: '{wrong[0]}' is missing, or does not belong there")
        return {
            layer: (self.tensors[f"{layer}.lora_A.weight"], self.tensors[f"{layer}.lora_B.weight"]) for layer in layers
        }


def read_lora(folder: Path) -> Lora:
    """The LoRA of a PEFT folder, whatever lies below it; UserError for anything else, and for pickled weights."""
    config = read_object(folder / _CONFIG)
    if config.get("peft_type") != "LORA":
        raise UserError(f"{folder / _CONFIG}: peft_type {short(config.get('peft_type'))} is not 'LORA'")
    if not (folder / _WEIGHTS).is_file():
        raise UserError(f"{folder} has no {_WEIGHTS}; pickled weights are never opened")
    try:
        tensors = load_file(folder / _WEIGHTS)
    except SafetensorError as error:
        raise UserError(f"{folder / _WEIGHTS} is damaged ({error}); train or fetch it again") from error
    name = str(read_object(folder / _NAME)["name"]) if (folder / _NAME).is_file() else folder.name
    return Lora(name, config, {key.removeprefix(_PREFIX): tensor for key, tensor in tensors.items()})


def read_single(folder: Path, verb: str) -> Lora:
    """The LoRA of a folder in which nothing lies below it; UserError otherwise."""
    if (folder / BELOW).is_dir():
        raise UserError(
            f"{folder} is stacked on what lies in {BELOW}/ and cannot be {verb}; give LoRAs that stand alone"
        )
    return read_lora(folder)


def write_lora(lora: Lora, folder: Path) -> None:
    """Write a PEFT folder whose bytes depend on the module alone, with no path of this machine in it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**lora.config, "base_model_name_or_path": None}
    (folder / _CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    (folder / _NAME).write_text(json.dumps({"format": _FORMAT, "name": lora.name}), encoding="utf-8")
    tensors = {_PREFIX + key: tensor.detach().cpu().contiguous() for key, tensor in lora.tensors.items()}
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})


def average_loras(loras: Sequence[Lora], weights: Sequence[float], *, name: str) -> Lora:
    """The LoRA whose delta is exactly the weighted mean of the deltas, of rank r_1 + .. + r_N.

    weights are positive or zero and are divided by their sum. A's are put on top of each other and B's, times weight
    and scale, side by side (PEFT's `combination_type="cat"`). UserError for weights that make no mean, for modules
    that are no plain LoRA and for modules of different layers.
    """
    shares = _shares(weights, len(loras))
    pairs = [lora.pairs("averaged") for lora in loras]
    check_same_layers(loras, "averaged")
    tensors: dict[str, Tensor] = {}
    for layer in pairs[0]:
        scaled = [s * lora.scaling * of[layer][1] for s, lora, of in zip(shares, loras, pairs, strict=True)]
        tensors[f"{layer}.lora_A.weight"] = torch.cat([of[layer][0] for of in pairs])
        tensors[f"{layer}.lora_B.weight"] = torch.cat(scaled, dim=1)
    r = sum(lora.config["r"] for lora in loras)
    return Lora(name, {**loras[0].config, "r": r, "lora_alpha": r, "use_rslora": False}, tensors)


def check_same_layers(loras: Sequence[Lora], verb: str) -> None:
    """UserError unless all are deltas of the same linear layers of encoders of one shape."""
    shapes = [{layer: (a.shape[1], b.shape[0]) for layer, (a, b) in sorted(lora.pairs(verb).items())} for lora in loras]
    for lora, found in zip(loras, shapes, strict=True):
        if found != shapes[0]:
            first, other = _targets(shapes[0]), _targets(found)
            raise UserError(
                f"LoRA '{lora.name}' ({other}) and '{loras[0].name}' ({first}) cannot be {verb} together: they change "
                f"other layers. Train both with the same target_modules on the same backbone."
            )


def _targets(shapes: Mapping[str, tuple[int, int]]) -> str:
    kinds = sorted({layer.split(".", 3)[-1] for layer in shapes})
    return f"{len(shapes)} layers: {', '.join(kinds)}"


def _shares(weights: Sequence[float], count: int) -> list[float]:
    if len(weights) != count or not count:
        raise UserError(f"{len(weights)} weights for {count} LoRAs to be averaged: give one a LoRA")
    total = sum(weights)
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not 0 < total < math.inf:
        raise UserError(f"weights {short(list(weights))} make no mean: give finite numbers from 0 up, not all 0")
    return [weight / total for weight in weights]


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; UserError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path.parent} is no LoRA artefact: it has no {path.name}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {short(content)}, not an object")
    return content
