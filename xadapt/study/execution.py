"""How a plan is run on this machine, none of which changes a result; torch-free."""

from dataclasses import dataclass
from typing import Literal

from xadapt.training.settings import SaveEvery

TEN_MINUTES = SaveEvery(seconds=600.0)


@dataclass(frozen=True)
class Execution:
    """How stages are run.

    save_every says when trainings keep checkpoints; together, that trainings of modules that can share the passes of one
    encoder do; retry_in_fp32, that a training in bfloat16 that diverges goes on in float32 from its last checkpoint;
    deterministic, that a GPU adds numbers up in one order, without which what is done again there differs in last digits.
    executor says who runs them: this machine, or a Ray cluster at address. jobs is how many stages run at once; None is
    one a GPU here, and as many as there is room for on Ray.
    """

    save_every: SaveEvery = TEN_MINUTES
    together: bool = False
    retry_in_fp32: bool = False
    deterministic: bool = False
    jobs: int | None = None
    executor: Literal["local", "ray"] = "local"
    address: str | None = None


# what is not said otherwise
DEFAULT = Execution()
