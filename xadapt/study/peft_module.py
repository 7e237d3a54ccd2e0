"""What a PEFT folder of a LoRA says, in our specs: one rank and scale for all layers, no head; read without torch.

A delta is s B A x. Rows of zeros under A and columns of zeros beside B add nothing, and B may be multiplied by what s
is divided by. So a module whose layers have ranks and scales of their own is one of the largest rank and one scale.
"""

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xadapt.errors import UserError, short
from xadapt.regimes.specs import LoraSpec
from xadapt.study.spec_values import validated

Shapes = Mapping[str, Sequence[int]]

# what the spec says, what the tensors say, and what a trained delta no longer depends on
_FIELDS = ("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora")
_IDLE = {
    *_FIELDS, "peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision",
    "inference_mode", "megatron_core", "qalora_group_size", "ensure_weight_tying", "runtime_config", "target_modules",
    "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "rank_pattern", "alpha_pattern",
}  # fmt: skip
_PLAIN: dict[str, Sequence[Any]] = {
    "bias": ("none",),
    # the others move the encoder's own weights when training begins
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal"),
}
_CONSTANT = ": it adds constants to what a layer gives, which no B A x is, so that it could be neither stacked, fused nor averaged"
_WHY = {"bias": _CONSTANT, "lora_bias": _CONSTANT}
_TENSOR = re.compile(r"(?:^|\.)layer\.\d+\.(.+)\.lora_(?:A|B|magnitude_vector)(?:\.weight)?$")
_PLACES = {
    "attention.self.query": "query", "attention.self.key": "key", "attention.self.value": "value",
    **{name: name for name in ("attention.output.dense", "intermediate.dense", "output.dense")},
}  # fmt: skip
_WRAPPING = "base_model.model."
# what transformers calls the heads of its XLM-R models, and PEFT writes into modules_to_save for a task_type
_HEADS = ("classifier", "score", "qa_outputs", "lm_head")
_A, _B = ".lora_A.weight", ".lora_B.weight"
_NAME = re.compile(r"[\w.]+")
_SHOWN = 8  # names in a note


@dataclass(frozen=True)
class PeftModule:
    """The spec of a LoRA, what B of each linear layer is to be multiplied by, and the tensors of its head.

    factors has the layers by their names in the file.
    """

    spec: LoraSpec
    factors: Mapping[str, float]
    head: tuple[str, ...]


def read_peft_module(config: Mapping[str, Any], file: Path, shapes: Shapes) -> PeftModule:
    """What a PEFT configuration and the shapes of its tensors say; UserError for what no spec of ours can."""
    if config["peft_type"] != "LORA":
        raise UserError(
            f"{file}: peft_type is {short(config['peft_type'])}; of PEFT's modules only 'LORA' can be imported"
        )
    for key, value in config.items():
        strange = value not in _PLAIN[key] if key in _PLAIN else value and key not in _IDLE
        if strange:
            why = _WHY.get(key, "")
            raise UserError(
                f"{file}: `{key}` is {short(value)}, which regime lora does not have{why}; train it without"
            )
    for key in ("r", "lora_alpha"):
        if key not in config:
            raise UserError(f"{file} has no `{key}`; save the module again")
    _check_saved(config, file)
    head = tuple(name for name in shapes if _at_a_head(name.removeprefix(_WRAPPING)))
    deltas = {name: shape for name, shape in shapes.items() if name not in head}
    numbers = {key: config[key] for key in _FIELDS if key in config} | {"target_modules": _targets(deltas, file)}
    spec = validated(LoraSpec, numbers, file)
    ranks, alphas = (_pattern(config, key, file) for key in ("rank_pattern", "alpha_pattern"))
    if not (ranks or alphas):
        return PeftModule(spec, {}, head)
    found = _ranks(deltas, ranks, spec.r, file)
    levelled = validated(LoraSpec, numbers | {"r": max(found.values())}, file)
    return PeftModule(levelled, _factors(levelled, alphas, found, file), head)


def head_note(module: PeftModule, config: Mapping[str, Any]) -> str:
    """What is left out of a module's folder, in its configuration and among its tensors; empty for nothing."""
    named = [*(f"modules_to_save {name}" for name in _saved(config)), *module.head]
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return ", ".join(short(name)[1:-1] for name in named[:_SHOWN]) + more


def _at_a_head(name: str) -> bool:
    return name.partition(".")[0] in _HEADS


def _saved(config: Mapping[str, Any]) -> list[Any]:
    saved = config.get("modules_to_save") or []
    return saved if isinstance(saved, list) else [saved]


def _check_saved(config: Mapping[str, Any], file: Path) -> None:
    """UserError for parts of the encoder that were trained with the LoRA; heads may be left out."""
    for name in _saved(config):
        if not (isinstance(name, str) and _at_a_head(name)):
            raise UserError(
                f"{file}: modules_to_save has {short(name)}, a part of the encoder, which was trained with the LoRA and "
                f"without which it means little; train it without (heads may stand there: {', '.join(_HEADS)})"
            )


def _targets(deltas: Shapes, file: Path) -> list[str]:
    found = set()
    for name in deltas:
        place = _TENSOR.search(name)
        if place is None or place[1] not in _PLACES:
            raise UserError(f"{file}: tensor '{short(name)[1:-1]}' lies at none of {', '.join(_PLACES)}")
        found.add(_PLACES[place[1]])
    return [target for target in _PLACES.values() if target in found]


def _pattern(config: Mapping[str, Any], key: str, file: Path) -> dict[str, float]:
    """Numbers by the names of layers, or by what PEFT takes for regular expressions and nobody here ever runs."""
    pattern = config.get(key) or {}
    if not isinstance(pattern, dict) or not all(
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        for value in pattern.values()
    ):
        raise UserError(f"{file}: `{key}` is {short(pattern)}, not numbers by the names of layers; save it again")
    return pattern


def _of_layer(pattern: Mapping[str, float], layer: str, default: float) -> float:
    """PEFT's rule for plain names: the first that the layer's name is, or ends in after a dot."""
    name = layer.removeprefix(_WRAPPING)
    return next((value for key, value in pattern.items() if f".{name}".endswith(f".{key}")), default)


def _ranks(deltas: Shapes, pattern: Mapping[str, float], default: int, file: Path) -> dict[str, int]:
    """The ranks of the linear layers, which their tensors have; UserError where the file says otherwise.

    What a regular expression stands for is not looked at: any number that the file has is a layer's then.
    """
    plain, found = all(map(_NAME.fullmatch, pattern)), {}
    for layer in (name.removesuffix(_A) for name in deltas if name.endswith(_A)):
        a, b = deltas[f"{layer}{_A}"], deltas.get(f"{layer}{_B}", ())
        said = {_of_layer(pattern, layer, default)} if plain else {default, *pattern.values()}
        if (len(a), len(b)) != (2, 2) or a[0] != b[1] or a[0] not in said:
            raise UserError(
                f"{file}: `r` and `rank_pattern` give {short(layer)} the rank {' or '.join(map(short, sorted(said)))}, and "
                f"its tensors have the shapes {short(list(a))} and {short(list(b))}; save the module again"
            )
        found[layer] = a[0]
    return found


def _factors(spec: LoraSpec, alphas: Mapping[str, float], ranks: Mapping[str, int], file: Path) -> dict[str, float]:
    """What B of each layer is multiplied by, that the module's one scale may stand for all."""
    for name in alphas:
        if not _NAME.fullmatch(name):
            raise UserError(
                f"{file}: `alpha_pattern` has {short(name)}, and only plain names of layers are read, no regular "
                f"expressions: write the names of its layers there"
            )
    scale = spec.lora_alpha / _divisor(spec, spec.r)
    return {
        layer: _of_layer(alphas, layer, spec.lora_alpha) / _divisor(spec, rank) / scale for layer, rank in ranks.items()
    }


def _divisor(spec: LoraSpec, rank: int) -> float:
    return math.sqrt(rank) if spec.use_rslora else rank
