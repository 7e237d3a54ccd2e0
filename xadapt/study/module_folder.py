"""Modules that plain `adapters` or plain `peft` wrote: what they are, read without torch and without opening a pickle.

Both libraries call their configuration `adapter_config.json`; a PEFT one has a `peft_type`. Only that file and the
weights in safetensors are ever opened.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xadapt.data.files import content_hash, parse_json, read_text
from xadapt.errors import UserError, short
from xadapt.regimes.specs import AdapterSpec, FullSpec, LoraSpec, RegimeSpec
from xadapt.study.peft_module import head_note, read_peft_module
from xadapt.study.spec_values import validated
from xadapt.study.stage import Stage

CONFIG = "adapter_config.json"
LARGEST_CONFIG = 1_000_000  # bytes; the libraries' own have some thousand
_WEIGHTS = {"adapter": "adapter.safetensors", "lora": "adapter_model.safetensors"}
_SUFFIXES = ("", ".json", ".safetensors", ".md", ".txt")
_PARTS = {"below": "stacked on another module", "fused": "a fusion of others"}

# of a bottleneck adapter: what it may be, and what says where it lies
_PLAIN: dict[str, Any] = {
    "output_adapter": True, "original_ln_after": True, "ln_before": False, "ln_after": False, "is_parallel": False,
    "scaling": 1.0, "use_gating": False, "residual_before_ln": True, "adapter_residual_before_ln": False,
    "inv_adapter": None, "cross_adapter": False, "leave_out": [], "phm_layer": False, "architecture": None,
}  # fmt: skip
_PLACES: dict[str, dict[str, Any]] = {
    "seq_bn": {"mh_adapter": False, "original_ln_before": True},
    "double_seq_bn": {"mh_adapter": True, "original_ln_before": False},
}
# what counts in training alone, or for the kinds of adapter that are refused anyway
_ADAPTER_IDLE = re.compile(
    r"dropout|stochastic_depth|init_weights(_seed)?|inv_adapter_reduction_factor|.*phm.*|hyper.*"
)


@dataclass(frozen=True)
class ModuleFolder:
    """A module's folder: the regime it belongs to, its weights, and what names its content.

    module is the name its tensors bear, of an adapter alone; notes say what of the folder is not used. Of a LoRA, head
    are the tensors that are left out, and factors what B of a linear layer is multiplied by, where layers have ranks or
    scales of their own.
    """

    path: Path
    regime: AdapterSpec | LoraSpec
    weights: Path
    identity: str
    module: str
    notes: tuple[str, ...]
    head: tuple[str, ...] = ()
    factors: Mapping[str, float] = field(default_factory=dict)


def read_module_folder(path: str | Path) -> ModuleFolder:
    """What a folder holds; UserError for anything but one bottleneck adapter or LoRA in JSON and safetensors.

    Files of another kind (pickles, archives) are refused by their name, unopened.
    """
    folder = Path(path).expanduser()
    ignored = _check_files(folder)
    file = folder / CONFIG
    if not file.is_file():
        raise UserError(f"{folder} has no {CONFIG}; give the folder of an AdapterHub adapter or of a PEFT LoRA")
    if (size := file.stat().st_size) > LARGEST_CONFIG:
        raise UserError(f"{file} has {size} bytes, a configuration at most {LARGEST_CONFIG}; fetch it again")
    config = parse_json(file, read_text(file))
    if not isinstance(config, dict):
        raise UserError(f"{file} holds {short(config)}, not a module's configuration")
    kind = "lora" if "peft_type" in config else "adapter"
    weights = folder / _WEIGHTS[kind]
    if not weights.is_file():
        raise UserError(
            f"{folder} has no {weights.name}; save the module as safetensors (pickled weights are never opened)"
        )
    identity = hashlib.sha256(content_hash([file, weights]).encode()).hexdigest()
    if kind == "lora":
        found = read_peft_module(config, file, _tensor_shapes(weights))
        left = [f"{folder}: {head}" for head in [head_note(found, config)] if head]
        return ModuleFolder(
            folder, found.spec, weights, identity, "", tuple(map(_not_used, left)), found.head, found.factors
        )
    spec, notes = _adapter_spec(config, file), tuple(_not_used(str(folder / name)) for name in ignored)
    return ModuleFolder(folder, spec, weights, identity, str(config["name"]), notes)


def import_stage(
    path: str, name: str, wanted: RegimeSpec, *, backbone: str, where: Mapping[str, str]
) -> tuple[Stage, tuple[str, ...]]:
    """The stage that takes a folder's module for an intermediate task's, and what a user should be told.

    Raises UserError if the module is not of the study's regime.
    """
    found = read_module_folder(path)
    _check_regime(found, wanted, name)
    spec = {
        "backbone": backbone, "task": name, "regime": found.regime.model_dump(mode="json"), "content": found.identity,
    }  # fmt: skip
    label = f"import {name}, {found.regime.name}"
    return Stage("import", spec, (), {**where, "module": path}, label, 0), found.notes


def _not_used(what: str) -> str:
    return f"{what} is not used: a target gets a head of its own"


def _check_files(folder: Path) -> list[str]:
    """The heads in a folder, which nobody reads; UserError for what is no folder, or has files of another kind in it."""
    if folder.is_file():
        raise UserError(f"{folder} is a file, and archives and pickles are never opened; give the module's folder")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give that of an AdapterHub adapter or of a PEFT LoRA")
    inside = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    for entry in inside:
        if entry.is_dir() and entry.name in _PARTS:
            raise UserError(f"{folder} is {_PARTS[entry.name]} ({entry.name}/); give a module that stands alone")
        if not entry.is_dir() and entry.suffix.lower() not in _SUFFIXES:
            kinds = ", ".join(_SUFFIXES[1:])
            raise UserError(
                f"{entry}: a module's folder holds {kinds} files only; '{entry.suffix}' was not opened. Save the module "
                f"as safetensors, or copy what is needed into a folder of its own"
            )
    return [entry.name for entry in inside if entry.name in ("head_config.json", "model_head.safetensors")]


def _adapter_spec(config: Mapping[str, Any], file: Path) -> AdapterSpec:
    inner = config.get("config")
    if not isinstance(inner, dict):
        raise UserError(f"{file}: `config` is {short(inner)}, not an adapter's configuration; save it again")
    if (kind := config.get("model_type", "xlm-roberta")) != "xlm-roberta":
        raise UserError(f"{file}: model_type is {short(kind)}; only modules of 'xlm-roberta' encoders can be imported")
    if not isinstance(config.get("name"), str):
        raise UserError(f"{file}: `name` is {short(config.get('name'))}, not the adapter's name; save it again")
    shaped = {"mh_adapter", "original_ln_before", "reduction_factor", "non_linearity"}
    for key, value in inner.items():
        strange = value != _PLAIN[key] if key in _PLAIN else value and not _ADAPTER_IDLE.fullmatch(key)
        if strange and key not in shaped:
            raise UserError(
                f"{file}: `{key}` is {short(value)}, which regime adapter does not have: sequential bottleneck "
                f"adapters alone (seq_bn, double_seq_bn) can be stacked, fused and averaged here"
            )
    places = {key: inner.get(key) for key in ("mh_adapter", "original_ln_before")}
    named = next((name for name, place in _PLACES.items() if place == places), None)
    if named is None:
        raise UserError(
            f"{file}: {short(places)} is neither seq_bn nor double_seq_bn; such a module cannot be imported"
        )
    numbers = {key: inner[key] for key in ("reduction_factor", "non_linearity") if key in inner}
    return validated(AdapterSpec, {"config": named, **numbers}, file)


def _tensor_shapes(weights: Path) -> dict[str, list[int]]:
    """The shapes in a safetensors file's header, by name."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="np") as tensors:
            names = tensors.keys()
            return {name: tensors.get_slice(name).get_shape() for name in names}
    except SafetensorError as error:
        raise UserError(f"{weights} is damaged ({error}); fetch it again") from error


def _check_regime(found: ModuleFolder, wanted: RegimeSpec, name: str) -> None:
    """UserError unless a module has the shape that the study's own modules have; dropout is training's alone."""
    place = f"the module of {name} in {found.path}"
    if found.regime.name != wanted.name:
        kind = "there is none in full fine-tuning" if isinstance(wanted, FullSpec) else f"not {wanted.name}"
        raise UserError(f"{place} is of regime {found.regime.name}, {kind}; take --regime {found.regime.name}")
    mine, theirs = (_shape(spec) for spec in (wanted, found.regime))
    if other := {key: value for key, value in theirs.items() if mine[key] != value}:
        asked = ", ".join(f"{key} {short(mine[key])}" for key in other)
        given = ", ".join(f"{key}: {short(value)}" for key, value in other.items())
        raise UserError(
            f"{place} is not of the study's shape ({asked}); give regime {wanted.name} the module's own: {given}"
        )


def _shape(spec: RegimeSpec) -> dict[str, Any]:
    values = spec.model_dump(mode="json", exclude={"lora_dropout"})
    return {key: sorted(value) if isinstance(value, list) else value for key, value in values.items()}
