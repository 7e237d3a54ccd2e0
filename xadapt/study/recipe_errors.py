"""What is wrong with a recipe, by key and with the nearest valid one."""

from collections.abc import Sequence

from pydantic import BaseModel, ValidationError

from xadapt.errors import UserError, unknown
from xadapt.study.recipe import Recipe
from xadapt.study.sections import AdapterSection, FullSection, FusionSection, LoraSection, MixtureSection, Regimes


def located(error: ValidationError, place: str) -> UserError:
    """The first problem that pydantic found in a recipe, in the project's words."""
    problem = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in problem["loc"])
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, UserError):
        return UserError(f"{place}: {cause}")
    if problem["type"] == "extra_forbidden":
        *parents, last = (str(part) for part in problem["loc"])
        section = _section(parents)
        return unknown("key", last, section.model_fields, place=": ".join(filter(None, (place, ".".join(parents)))))
    return UserError(f"{place}: {key or 'recipe'} = {problem.get('input')!r}: {problem['msg']}")


def _section(loc: Sequence[str]) -> type[BaseModel]:
    """The model whose keys are valid at a place in a recipe."""
    sections: dict[tuple[str, ...], type[BaseModel]] = {
        ("regimes",): Regimes, ("regimes", "full"): FullSection, ("regimes", "adapter"): AdapterSection,
        ("regimes", "lora"): LoraSection, ("mixture",): MixtureSection, ("fusion",): FusionSection,
    }  # fmt: skip
    return sections.get(tuple(loc), Recipe)
