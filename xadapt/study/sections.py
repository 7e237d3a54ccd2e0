"""The sections of a recipe: one a regime, and one for each way to combine several intermediate tasks; torch-free."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from xadapt.errors import UserError
from xadapt.regimes.specs import AdapterSpec, FullSpec, FusionSpec, LoraSpec, RegimeSpec
from xadapt.training.settings import Mixing


class Section(BaseModel):
    """What all have in common: frozen, and no key that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FullSection(Section):
    """Full fine-tuning in this study: which compositions, and training numbers of its own."""

    compositions: tuple[str, ...] = ("none",)
    training: dict[str, Any] = {}

    @property
    def spec(self) -> RegimeSpec:
        return FullSpec()


class AdapterSection(AdapterSpec):
    """Adapters in this study: which compositions, the adapter's shape, and training numbers of its own."""

    compositions: tuple[str, ...] = ("none",)
    training: dict[str, Any] = {}

    @property
    def spec(self) -> RegimeSpec:
        return AdapterSpec.model_validate(self.model_dump(include=set(AdapterSpec.model_fields)))


class LoraSection(LoraSpec):
    """LoRA in this study: which compositions, the deltas' shape and places, and training numbers of its own."""

    compositions: tuple[str, ...] = ("none",)
    training: dict[str, Any] = {}

    @property
    def spec(self) -> RegimeSpec:
        return LoraSpec.model_validate(self.model_dump(include=set(LoraSpec.model_fields)))


RegimeSection = FullSection | AdapterSection | LoraSection


class Regimes(Section):
    """The regimes of a study, by name."""

    full: FullSection | None = None
    adapter: AdapterSection | None = None
    lora: LoraSection | None = None

    def items(self) -> list[tuple[str, RegimeSection]]:
        """The regimes that are there, by name."""
        sections = (("full", self.full), ("adapter", self.adapter), ("lora", self.lora))
        return [(name, section) for name, section in sections if section is not None]


class MixtureSection(Mixing):
    """Trainings on several tasks at once: how often each is seen, and training numbers of their own.

    With an mlm_ratio every intermediate training has that share of masked language modelling mixed in, on
    mlm_languages' text, by default English.
    """

    mlm_languages: tuple[str, ...] = ()
    training: dict[str, Any] = {}

    @model_validator(mode="after")
    def _has_a_share(self) -> "MixtureSection":
        if self.mlm_languages and not self.mlm_ratio:
            raise UserError("mlm_languages without an mlm_ratio mixes nothing in; give the share of steps as mlm_ratio")
        return self

    @property
    def mixing(self) -> Mixing:
        return Mixing.model_validate(self.model_dump(include=set(Mixing.model_fields)))


class FusionSection(FusionSpec):
    """Fusion in this study, and the training numbers of the stage that trains it."""

    training: dict[str, Any] = {}

    @property
    def spec(self) -> FusionSpec:
        return FusionSpec.model_validate(self.model_dump(include=set(FusionSpec.model_fields)))
