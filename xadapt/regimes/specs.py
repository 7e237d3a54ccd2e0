"""What a recipe may say of a regime, and which compositions each regime has; torch-free."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from xadapt.errors import UserError, unknown

COMPOSITIONS: dict[str, tuple[str, ...]] = {
    "full": ("none", "continue"),
    "adapter": ("none", "continue", "stack"),
}


class FullSpec(BaseModel):
    """Every parameter of the encoder moves."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Literal["full"] = "full"


class AdapterSpec(BaseModel):
    """Bottleneck adapters on a frozen encoder: Pfeiffer's placement (seq_bn) or Houlsby's (double_seq_bn).

    The library's parallel variant is not offered: below another adapter it is ignored, so that its stack would
    not be one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Literal["adapter"] = "adapter"
    config: Literal["seq_bn", "double_seq_bn"] = "seq_bn"
    reduction_factor: Annotated[float, Field(gt=0, le=1024)] = 16
    non_linearity: Literal["relu", "gelu", "swish", "tanh"] = "relu"


RegimeSpec = Annotated[FullSpec | AdapterSpec, Field(discriminator="name")]


def check_composition(regime: str, composition: str, *, place: str) -> None:
    """Raise UserError unless the regime exists and has this composition; the message lists the pairs that exist."""
    if regime not in COMPOSITIONS:
        raise unknown("regime", regime, COMPOSITIONS, place=place)
    every = list(dict.fromkeys(name for names in COMPOSITIONS.values() for name in names))
    if composition not in every:
        raise unknown("composition", composition, every, place=place)
    if composition not in COMPOSITIONS[regime]:
        pairs = "; ".join(f"{name}: {', '.join(names)}" for name, names in COMPOSITIONS.items())
        raise UserError(
            f"regime '{regime}' has no composition '{composition}' in {place}: it needs a module apart from the "
            f"encoder. Pairs that exist: {pairs}."
        )
