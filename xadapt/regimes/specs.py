"""What a recipe may say of a regime, and which compositions each regime has; torch-free."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from xadapt.regimes.compositions import COMPOSITIONS, JOINT, check_composition

__all__ = [
    "COMPOSITIONS", "JOINT", "AdapterSpec", "FullSpec", "FusionSpec", "LoraSpec", "LoraTarget", "RegimeSpec",
    "check_composition",
]  # fmt: skip


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FullSpec(_Spec):
    """Every parameter of the encoder moves."""

    name: Literal["full"] = "full"


class AdapterSpec(_Spec):
    """Bottleneck adapters on a frozen encoder: Pfeiffer's placement (seq_bn) or Houlsby's (double_seq_bn).

    The library's parallel variant is not offered: below another adapter it is ignored, so that its stack would
    not be one.
    """

    name: Literal["adapter"] = "adapter"
    config: Literal["seq_bn", "double_seq_bn"] = "seq_bn"
    reduction_factor: Annotated[float, Field(gt=0, le=1024)] = 16
    non_linearity: Literal["relu", "gelu", "swish", "tanh"] = "relu"


LoraTarget = Literal["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]


class LoraSpec(_Spec):
    """Low-rank deltas on linear layers of a frozen encoder (Hu et al. 2021), under the names of `peft.LoraConfig`.

    A delta is scaled by lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora; use_dora learns the norms of the
    changed weight's columns apart (Liu et al. 2024), which lets it stand alone only.
    """

    name: Literal["lora"] = "lora"
    r: Annotated[int, Field(gt=0, le=1024)] = 16
    lora_alpha: Annotated[float, Field(gt=0)] = 32
    target_modules: Annotated[tuple[LoraTarget, ...], Field(min_length=1)] = ("query", "key", "value")
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    use_rslora: bool = False
    use_dora: bool = False


RegimeSpec = Annotated[FullSpec | AdapterSpec | LoraSpec, Field(discriminator="name")]


class FusionSpec(_Spec):
    """How the modules of several intermediate tasks are combined by attention.

    train_on says whose loss trains the attention: the intermediate tasks' mixture, or the target's, together with the
    target's own module. regularization weighs the penalty on the distance of AdapterFusion's value matrices from the
    identity (Pfeiffer et al. 2021; LoRA fusion has none), 0 for none. reference computes AdapterFusion as the
    library does, for comparison.
    """

    train_on: Literal["mixture", "target"] = "mixture"
    regularization: Annotated[float, Field(ge=0)] = 0.01
    reference: bool = False
