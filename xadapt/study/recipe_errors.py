"""What is wrong with a recipe: the value, its key, what is allowed there and the nearest of it."""

from collections.abc import Mapping

from pydantic import ValidationError

from xadapt.errors import UserError
from xadapt.study.field_errors import FieldError
from xadapt.study.recipe import Recipe


def located(error: ValidationError, place: str, names: Mapping[str, str] | None = None) -> UserError:
    """The first problem pydantic found, in the project's words; names has what keys are called at the place."""
    found = FieldError(error, Recipe)
    if isinstance(found.cause, FieldError):
        return found.cause.at(place, names)
    return UserError(f"{place}: {found.cause}") if isinstance(found.cause, UserError) else found.at(place, names)
