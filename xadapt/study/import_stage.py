"""The import stage: a module that plain `adapters` or plain `peft` wrote becomes an artefact like one of ours."""

from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import pad

from xadapt.errors import UserError
from xadapt.regimes.protocol import open_regime
from xadapt.regimes.specs import LoraSpec
from xadapt.study.module_folder import ModuleFolder, read_module_folder
from xadapt.study.self_check import Example, write_check
from xadapt.study.surroundings import REGIME_SPEC, Surroundings

# what stands before the encoder's own names: PEFT's wrapping, and that of a model with a head
_PREFIXES = ("base_model.model.", "roberta.")


def import_module(around: Surroundings) -> dict[str, Any]:
    """Write the module in our own layout; the stage's record.

    A new module of the same shape is written first and then given the folder's tensors, so that nothing of the
    folder's configuration is passed on. Raises UserError for a tensor that the backbone has no place for.
    """
    spec, folder, backbone = around.stage.spec, around.folder, around.backbone
    given = read_module_folder(around.stage.where["module"])
    if given.identity != spec["content"]:
        raise UserError(f"{given.path} has changed since the study was planned; run it again")
    regime, name = open_regime(REGIME_SPEC.validate_python(spec["regime"])), spec["task"]
    regime.save(regime.attach(backbone, name=name), folder, name=name)
    weights = folder / given.weights.name
    tensors = _fitted(given, _ours(load_file(weights), given, name), backbone.name)
    save_file(tensors, weights, metadata={"format": "pt"})
    write_check(folder, regime.load(backbone, folder), [Example.of_sentences(backbone.tokenizer)])
    return {"library": "peft" if given.regime.name == "lora" else "adapters", "tensors": len(tensors)}


def _ours(tensors: Mapping[str, Tensor], given: ModuleFolder, name: str) -> dict[str, tuple[str, Tensor]]:
    """Our tensors by the bare names that the folder's should have, each with the name it has here."""
    return {
        _bare(key).replace(f".adapters.{name}.", f".adapters.{given.module}."): (key, tensor)
        for key, tensor in tensors.items()
    }


def _bare(key: str) -> str:
    """A tensor's name in the encoder itself."""
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    return key


def _fitted(given: ModuleFolder, ours: Mapping[str, tuple[str, Tensor]], backbone: str) -> dict[str, Tensor]:
    """The folder's tensors under our names, as fp32; UserError naming the first that does not fit."""
    try:
        tensors = load_file(given.weights).items()
        theirs = {_bare(key): (key, tensor) for key, tensor in tensors if key not in given.head}
    except SafetensorError as error:
        raise UserError(f"{given.weights} is damaged ({error}); fetch it again") from error
    remedy = f"give the encoder it was trained on with --backbone, which is '{backbone}' now"
    found: dict[str, Tensor] = {}
    for bare, (name, mine) in ours.items():
        if bare not in theirs:
            raise UserError(f"{given.weights} has no tensor '{bare}', which the backbone needs; {remedy}")
        key, tensor = theirs[bare]
        tensor = _levelled(tensor, key, given)
        if tensor.shape != mine.shape:
            raise UserError(
                f"{given.weights}: tensor '{key}' has shape {list(tensor.shape)}, but the backbone takes "
                f"{list(mine.shape)}; {remedy}"
            )
        fitted = tensor.to(mine.dtype)
        if not (tensor.is_floating_point() and fitted.isfinite().all()):
            raise UserError(f"{given.weights}: tensor '{key}' holds something else than finite numbers; fetch it again")
        found[name] = fitted.contiguous()
    if more := sorted(key for bare, (key, _) in theirs.items() if bare not in ours):
        raise UserError(f"{given.weights}: the backbone has no place for tensor '{more[0]}'; {remedy}")
    return found


def _levelled(tensor: Tensor, key: str, given: ModuleFolder) -> Tensor:
    """A tensor of a LoRA at the rank and scale of the whole module: zeros behind, and B times its layer's factor."""
    layer, _, part = key.partition(".lora_")
    if layer not in given.factors or not tensor.is_floating_point() or part not in ("A.weight", "B.weight"):
        return tensor
    assert isinstance(given.regime, LoraSpec)
    if part == "A.weight":
        return pad(tensor, (0, 0, 0, given.regime.r - tensor.shape[0]))
    return pad(tensor.double() * given.factors[layer], (0, given.regime.r - tensor.shape[1]))
