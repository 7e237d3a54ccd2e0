"""How a plan is run on this machine, none of which changes a result; torch-free."""

import re
from dataclasses import dataclass
from typing import Literal

from xadapt.errors import UserError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class SaveEvery:
    """How often a training keeps a checkpoint: every so many steps, or seconds."""

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, text: str, *, place: str = "--save-every") -> "SaveEvery":
        """From `200` (steps), `30s`, `10m` or `2h`; UserError for anything else."""
        found = re.fullmatch(r"(\d{1,9})([smh]?)", text.strip())
        if not found or not int(found[1]):
            raise UserError(f"{place} {text}: give a number of steps, such as 200, or a time, such as 90s, 10m or 2h")
        number, unit = int(found[1]), found[2]
        return cls(seconds=number * _UNITS[unit]) if unit else cls(steps=number)


@dataclass(frozen=True)
class Execution:
    """How stages are run.

    save_every says when trainings keep checkpoints; together, that trainings of modules that can share the passes of one
    encoder do; retry_in_fp32, that a training in bfloat16 that diverges goes on in float32 from its last checkpoint.
    executor says who runs them: this machine, or a Ray cluster at address. jobs is how many stages run at once; None is
    one a GPU here, and as many as there is room for on Ray.
    """

    save_every: SaveEvery = SaveEvery(seconds=600.0)
    together: bool = False
    retry_in_fp32: bool = False
    jobs: int | None = None
    executor: Literal["local", "ray"] = "local"
    address: str | None = None


# what is not said otherwise
DEFAULT = Execution()
