"""How many parameters a regime trains on a backbone, by formula from its config alone; torch-free."""

import json
from dataclasses import dataclass
from pathlib import Path

from xadapt.regimes.specs import AdapterSpec, FullSpec, LoraSpec, LoraTarget, RegimeSpec

# rows of the query and key projections of a LoRA fusion
LORA_FUSION_WIDTH = 16


@dataclass(frozen=True)
class EncoderShape:
    """The sizes of an XLM-R encoder."""

    layers: int
    hidden: int
    intermediate: int
    pieces: int
    positions: int
    types: int

    @classmethod
    def of(cls, folder: Path) -> "EncoderShape":
        """Read from the config.json of a backbone's folder."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return cls(
            config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"], config["vocab_size"],
            config["max_position_embeddings"], config["type_vocab_size"],
        )  # fmt: skip

    def linear(self, target: LoraTarget) -> tuple[int, int]:
        """Inputs and outputs of a linear layer that LoRA may be put on."""
        match target:
            case "intermediate.dense":
                return self.hidden, self.intermediate
            case "output.dense":
                return self.intermediate, self.hidden
            case _:
                return self.hidden, self.hidden


def trainable_parameters(spec: RegimeSpec, shape: EncoderShape) -> int:
    """Parameters that move, the task's head aside."""
    match spec:
        case FullSpec():
            return _encoder(shape)
        case AdapterSpec():
            return _places(spec, shape) * _bottleneck(shape.hidden, int(shape.hidden // spec.reduction_factor))
        case LoraSpec():
            return shape.layers * sum(_delta(spec, *shape.linear(target)) for target in spec.target_modules)


def fusion_parameters(spec: RegimeSpec, shape: EncoderShape) -> int:
    """Parameters of a fusion over modules of this kind, whatever their number; 0 where there is none."""
    match spec:
        case FullSpec():
            return 0
        case AdapterSpec():  # query and key with biases, value without
            return _places(spec, shape) * (3 * shape.hidden**2 + 2 * shape.hidden)
        case LoraSpec():
            return shape.layers * LORA_FUSION_WIDTH * sum(sum(shape.linear(target)) for target in spec.target_modules)


def _encoder(shape: EncoderShape) -> int:
    d, norm = shape.hidden, 2 * shape.hidden
    embeddings = (shape.pieces + shape.positions + shape.types) * d + norm
    attention = 4 * (d * d + d) + norm
    feed_forward = 2 * d * shape.intermediate + shape.intermediate + d + norm
    return embeddings + shape.layers * (attention + feed_forward)


def _places(spec: AdapterSpec, shape: EncoderShape) -> int:
    return shape.layers * (2 if spec.config == "double_seq_bn" else 1)


def _bottleneck(hidden: int, size: int) -> int:
    size = max(size, 1)
    return 2 * hidden * size + size + hidden


def _delta(spec: LoraSpec, inputs: int, outputs: int) -> int:
    return spec.r * (inputs + outputs) + (outputs if spec.use_dora else 0)
