"""Modules that plain `adapters` or plain `peft` wrote: what they are, read without torch and without opening a pickle.

Both libraries call their configuration `adapter_config.json`; a PEFT one has a `peft_type`. Only that file and the
weights in safetensors are ever opened.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from xadapt.data.files import content_hash, parse_json, read_text
from xadapt.errors import UserError, short
from xadapt.regimes.specs import AdapterSpec, FullSpec, LoraSpec, RegimeSpec
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

# of a PEFT configuration: what the spec says, what the tensors say, and what a trained delta no longer depends on
_LORA_FIELDS = ("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora")
_LORA_IDLE = {
    *_LORA_FIELDS, "peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision",
    "inference_mode", "megatron_core", "qalora_group_size", "ensure_weight_tying", "runtime_config", "target_modules",
    "exclude_modules", "layers_to_transform", "layers_pattern",
}  # fmt: skip
_LORA_PLAIN: dict[str, Sequence[Any]] = {
    "bias": ("none",),
    # the others move the encoder's own weights when training begins
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal"),
}
_LORA_TENSOR = re.compile(r"(?:^|\.)layer\.\d+\.(.+)\.lora_(?:A|B|magnitude_vector)(?:\.weight)?$")
_LORA_PLACES = {
    "attention.self.query": "query", "attention.self.key": "key", "attention.self.value": "value",
    **{name: name for name in ("attention.output.dense", "intermediate.dense", "output.dense")},
}  # fmt: skip


Spec = TypeVar("Spec", AdapterSpec, LoraSpec)


@dataclass(frozen=True)
class ModuleFolder:
    """A module's folder: the regime it belongs to, its weights, and what names its content.

    module is the name its tensors bear, of an adapter alone; notes say what of the folder is not used.
    """

    path: Path
    regime: AdapterSpec | LoraSpec
    weights: Path
    identity: str
    module: str
    notes: tuple[str, ...]


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
    spec = _lora_spec(config, file, _tensor_names(weights)) if kind == "lora" else _adapter_spec(config, file)
    notes = [f"{folder / name} is not used: a target gets a head of its own" for name in ignored]
    identity = hashlib.sha256(content_hash([file, weights]).encode()).hexdigest()
    return ModuleFolder(folder, spec, weights, identity, str(config.get("name", "")), tuple(notes))


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
    return _validated(AdapterSpec, {"config": named, **numbers}, file)


def _lora_spec(config: Mapping[str, Any], file: Path, tensors: Sequence[str]) -> LoraSpec:
    if config["peft_type"] != "LORA":
        raise UserError(
            f"{file}: peft_type is {short(config['peft_type'])}; of PEFT's modules only 'LORA' can be imported"
        )
    if heads := config.get("modules_to_save"):
        raise UserError(
            f"{file}: modules_to_save is {short(heads)}: a head or encoder layer was trained with the LoRA, which "
            f"means little without it; train it on the bare encoder (`AutoModel`)"
        )
    for key, value in config.items():
        strange = value not in _LORA_PLAIN[key] if key in _LORA_PLAIN else value and key not in _LORA_IDLE
        if strange:
            raise UserError(f"{file}: `{key}` is {short(value)}, which regime lora does not have; train it without")
    found = set()
    for name in tensors:
        place = _LORA_TENSOR.search(name)
        if place is None or place[1] not in _LORA_PLACES:
            raise UserError(f"{file}: tensor '{short(name)[1:-1]}' lies at none of {', '.join(_LORA_PLACES)}")
        found.add(_LORA_PLACES[place[1]])
    targets = [target for target in _LORA_PLACES.values() if target in found]
    numbers = {key: config[key] for key in _LORA_FIELDS if key in config}
    return _validated(LoraSpec, {**numbers, "target_modules": targets}, file)


def _validated(kind: type[Spec], values: dict[str, Any], file: Path) -> Spec:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key, given = problem["loc"][0] if problem["loc"] else "", short(problem.get("input"))
        raise UserError(f"{file}: {key} = {given} cannot be imported: {problem['msg']}") from error


def _tensor_names(weights: Path) -> list[str]:
    """The names in a safetensors file's header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="np") as tensors:
            return list(tensors.keys())
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
