"""The optimisation numbers of a training, under Hugging Face's names; torch-free."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]


class TrainingSettings(BaseModel):
    """Everything that can change a training's result, bar data, model and seed.

    Names are those of `transformers.TrainingArguments` and its example scripts. The optimizer takes
    per_device_train_batch_size * gradient_accumulation_steps EXAMPLES a step, however they are cut into
    micro-batches. max_steps, if given, overrides num_train_epochs. eval_steps, if given, adds selections on
    English dev between the ends of epochs.
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

    @property
    def batch_size(self) -> int:
        """Examples in one optimizer step."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps
