"""The optimisation numbers of a training, under Hugging Face's names; torch-free."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from xadapt.errors import UserError
from xadapt.tasks import Task

Positive = Annotated[int, Field(gt=0)]
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class RobustSettings(BaseModel):
    """How English training input is made noisy, so that a model bears foreign words (Huang et al. 2021).

    adversarial moves each word embedding to where the loss is highest inside a ball (projected gradient ascent, their
    AT), random to anywhere in it (RS-RP); synonym replaces words (RS-DA).

    epsilon is the ball's radius as a share of the mean L2 norm of the backbone's word embeddings, since a LayerNorm
    follows them: what a movement does depends on their scale, which differs between backbones. The defaults, 0.05 and
    for random 0.5, are our own, not the paper's. On the embedded encoder, trained for a short while on the suite's
    mnli, the worst case within 0.05 raises the loss by a tenth, within 0.1 to that of guessing; random movements do
    nothing up to 0.5, half the distance of a word's nearest neighbour, and lead to guessing at 1.

    steps are those of the ascent, each step_size radii long. copies of each row are made with synonyms (the authors:
    3 for XNLI, 10 for PAWS-X), from the neighbour file `synonyms` (`data.synonyms`). A number that the method does not
    read may not be given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: Literal["adversarial", "random", "synonym"]
    epsilon: Annotated[float, Field(ge=0, le=10)] = 0.05
    steps: Positive = 3
    step_size: Annotated[float, Field(gt=0, le=2)] = 0.5
    copies: Positive = 3
    synonyms: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _random_moves_further(cls, given: Any) -> Any:
        random = isinstance(given, dict) and given.get("method") == "random"
        return {"epsilon": 0.5} | given if random else given

    @model_validator(mode="after")
    def _consistent(self) -> "RobustSettings":
        for name, field in type(self).model_fields.items():
            if name not in ("method", *self.read) and getattr(self, name) != field.default:
                raise ValueError(f"{name} means nothing to method {self.method}, which reads {', '.join(self.read)}")
        if self.method == "synonym" and not self.synonyms:
            raise ValueError("method synonym needs a file of neighbours: give its path as synonyms")
        return self

    @property
    def read(self) -> tuple[str, ...]:
        """The fields that the method reads."""
        return {
            "adversarial": ("epsilon", "steps", "step_size"),
            "random": ("epsilon",),
            "synonym": ("copies", "synonyms"),
        }[self.method]

    def stored(self) -> dict[str, Any]:
        """The method and what it reads; of a neighbour file the path, whose content is `Neighbours.identity`."""
        return self.model_dump(include={"method", *self.read})


class TrainingSettings(BaseModel):
    """Everything that can change a training's result, bar data, model and seed.

    Names are those of `transformers.TrainingArguments` and its example scripts. The optimizer takes
    per_device_train_batch_size * gradient_accumulation_steps EXAMPLES a step, however they are cut into
    micro-batches. max_steps, if given, overrides num_train_epochs. eval_steps, if given, adds selections on
    English dev between the ends of epochs. robust makes classification's training input noisy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-4
    num_train_epochs: Annotated[float, Field(gt=0)] = 3
    max_steps: Positive | None = None
    per_device_train_batch_size: Positive = 32
    gradient_accumulation_steps: Positive = 1
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    adam_epsilon: Annotated[float, Field(gt=0)] = 1e-8
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    max_seq_length: Annotated[int, Field(ge=8, le=512)] = 128
    eval_steps: Positive | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    robust: RobustSettings | None = None

    @property
    def batch_size(self) -> int:
        """Examples in one optimizer step."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    def stored(self) -> dict[str, Any]:
        """The numbers as stages keep them; nothing of what is not robust."""
        return self.model_dump(exclude={"robust"}) | ({"robust": self.robust.stored()} if self.robust else {})


@dataclass(frozen=True)
class SaveEvery:
    """How often a training keeps a checkpoint: every so many steps, or seconds; never, without either."""

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


class Mixing(BaseModel):
    """How often a step is of which task, where several are trained at once: p ~ min(n, cap)^(1 / temperature).

    mlm_ratio is the share of steps of masked language modelling mixed in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    cap: Positive = 2**17
    temperature: Annotated[float, Field(gt=0)] = 1.0
    mlm_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0


def check_robust(task: Task, settings: RobustSettings) -> None:
    """Refuse robust training of what it is not defined for: UserError for a task that is no classification."""
    if task.format != "classification":
        raise UserError(
            f"task '{task.name}' cannot be trained with --robust {settings.method}: its format is {task.format}, and "
            "robust training is for classification, where a label outlasts small changes of the words; "
            "leave --robust away for it"
        )
