"""Values of another's configuration as a spec of ours."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from xadapt.errors import UserError, short
from xadapt.regimes.specs import AdapterSpec, LoraSpec

Spec = TypeVar("Spec", AdapterSpec, LoraSpec)


def validated(kind: type[Spec], values: dict[str, Any], file: Path) -> Spec:
    """The spec with these values; UserError naming the file and the first value that it cannot have."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key, given = problem["loc"][0] if problem["loc"] else "", short(problem.get("input"))
        raise UserError(f"{file}: {key} = {given} cannot be imported: {problem['msg']}") from error
