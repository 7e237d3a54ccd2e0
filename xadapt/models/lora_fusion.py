"""LoRA fusion: per-token attention over frozen LoRAs at each linear layer, computed in the space of their ranks."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from xadapt.errors import UserError, short
from xadapt.models.fusion_attention import FusionAttention
from xadapt.models.lora_folder import Lora, check_same_layers, read_object, read_single, write_lora

WIDTH = 16
_JSON, _WEIGHTS, _FUSED = "fusion.json", "fusion.safetensors", "fused"
_FORMAT = 1


class LoraFusion(nn.Module, FusionAttention):
    """A linear layer plus the mean of frozen LoRA deltas, weighed for each token by a trained attention.

    With z_i = A_i x and delta_i = s_i B_i z_i, a token's score of module i is (Q x) . (K delta_i) and its output
    W x + b + sum_i softmax(score)_i delta_i. Q [width, in] starts at zero, so that the start is the plain mean, and
    K [width, out] from a normal, so that Q's gradient is none but zero. No delta_i is ever computed: with
    M = K [s_1 B_1 .. s_N B_N] the score is (Q x) M_i z_i, and the sum one product with the p_i z_i side by side.
    Input [..., in], output [..., out]; shorter ranks are padded with zeros. docs/fusion.md has the derivation.
    """

    down: Tensor
    up: Tensor

    def __init__(
        self, base_layer: nn.Linear, loras: Sequence[tuple[Tensor, Tensor, float]], *, width: int = WIDTH
    ) -> None:
        """loras are (A [r, in], B [out, r], scale); their matrices are copied and stay frozen."""
        super().__init__()
        self.base_layer = base_layer
        self.modules_fused, self.rank, self.width = len(loras), max(a.shape[0] for a, _, _ in loras), width
        downs = [functional.pad(a, (0, 0, 0, self.rank - a.shape[0])) for a, _, _ in loras]
        ups = [functional.pad(b * scale, (0, self.rank - b.shape[1])) for _, b, scale in loras]
        like = base_layer.weight
        self.register_buffer("down", torch.cat(downs).detach().to(like))
        self.register_buffer("up", torch.cat(ups, dim=1).detach().to(like))
        self.fusion_query = nn.Parameter(torch.zeros(width, base_layer.in_features).to(like))
        self.fusion_key = nn.Parameter(
            (torch.randn(width, base_layer.out_features) * self.up.shape[0] ** -0.5).to(like)
        )

    def forward(self, input: Tensor) -> Tensor:
        apart = (*input.shape[:-1], self.modules_fused, self.rank)
        reduced = functional.linear(input, self.down).view(apart)
        asked = functional.linear(input, self.fusion_query) @ (self.fusion_key @ self.up)
        scores = (asked.view(apart) * reduced).sum(-1)
        probabilities = scores.float().softmax(-1)
        self.record(probabilities)
        weighed = (probabilities.to(reduced.dtype).unsqueeze(-1) * reduced).flatten(-2)
        output: Tensor = self.base_layer(input) + functional.linear(weighed, self.up)
        return output

    def extra_repr(self) -> str:
        return f"modules={self.modules_fused}, rank={self.rank}, width={self.width}"


@dataclass(frozen=True)
class FusedLoras:
    """The artefact of a fusion: frozen LoRAs, and the attention's tensors by linear layer, none before training."""

    loras: tuple[Lora, ...]
    width: int = WIDTH
    tensors: Mapping[str, Tensor] | None = None


def fuse_loras(encoder: nn.Module, fused: FusedLoras) -> None:
    """Put a LoraFusion round every linear layer that the LoRAs change, below what already wraps it.

    UserError for LoRAs that do not add up (DoRA) or change different layers, and for tensors of another encoder.
    """
    check_same_layers(fused.loras, "fused")
    pairs = [lora.pairs("fused") for lora in fused.loras]
    modules: dict[str, Any] = dict(encoder.named_modules())
    for layer, (a, b) in pairs[0].items():
        found = modules.get(layer)
        if found is None or (found.in_features, found.out_features) != (a.shape[1], b.shape[0]):
            raise UserError(f"the fused LoRAs do not fit this backbone at {layer}; use the one they were trained on")
        of = [(*each[layer], lora.scaling) for each, lora in zip(pairs, fused.loras, strict=True)]
        if isinstance(found, nn.Linear):
            encoder.set_submodule(layer, LoraFusion(found, of, width=fused.width))
        else:  # a trained LoRA of peft on top
            found.base_layer = LoraFusion(found.base_layer, of, width=fused.width)
    if fused.tensors is not None:
        _load_attention(encoder, fused.tensors)


def fusion_parameters(encoder: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The attention's parameters by the names they have in files: `<linear layer>.query` and `.key`."""
    for name, module in encoder.named_modules():
        if isinstance(module, LoraFusion):
            layer = name.removesuffix(".base_layer")
            yield f"{layer}.query", module.fusion_query
            yield f"{layer}.key", module.fusion_key


def write_fusion(encoder: nn.Module, fused: FusedLoras, folder: Path) -> None:
    """Write `fusion.json`, `fusion.safetensors` and the LoRAs as PEFT folders `fused/00-<name>/`, .."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [lora.name for lora in fused.loras]
    content = {"format": _FORMAT, "kind": "lora", "width": fused.width, "modules": names}
    (folder / _JSON).write_text(json.dumps(content, indent=1), encoding="utf-8")
    save_file({name: p.detach().cpu().contiguous() for name, p in fusion_parameters(encoder)}, folder / _WEIGHTS)
    for at, lora in enumerate(fused.loras):
        write_lora(lora, folder / _FUSED / numbered(at, lora.name))


def is_fusion(folder: Path) -> bool:
    """Whether a folder is the artefact of a fusion."""
    return (folder / _JSON).is_file()


def read_fusion(folder: Path) -> FusedLoras:
    """What write_fusion wrote; UserError for another format or missing parts."""
    content = read_object(folder / _JSON)
    if (content.get("kind"), content.get("format")) != ("lora", _FORMAT):
        shown = short({key: content.get(key) for key in ("kind", "format")})
        raise UserError(f"{folder / _JSON}: {shown} is not a LoRA fusion of format {_FORMAT}; train it again")
    if not (folder / _WEIGHTS).is_file():
        raise UserError(f"{folder} has no {_WEIGHTS}; train the fusion again")
    loras = tuple(
        read_single(folder / _FUSED / numbered(at, name), "fused") for at, name in enumerate(content["modules"])
    )
    return FusedLoras(loras, content["width"], load_file(folder / _WEIGHTS))


def numbered(at: int, name: str) -> str:
    """A name for a folder or a module that no other of the row has, whatever the names given."""
    return f"{at:02d}-{re.sub(r'[^A-Za-z0-9_+@-]', '-', name)}"


def _load_attention(encoder: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    parameters = dict(fusion_parameters(encoder))
    if {name: of.shape for name, of in parameters.items()} != {name: of.shape for name, of in tensors.items()}:
        raise UserError(f"the fusion's {len(tensors)} tensors are not those of its LoRAs ({len(parameters)})")
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[name])
