"""The one training loop: every regime, every format, selection on English dev only."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from xadapt.errors import UserError
from xadapt.formats.features import collate
from xadapt.training.batching import micro_batches
from xadapt.training.cost import counted_flops
from xadapt.training.dropout import CpuDropout
from xadapt.training.mixing import TrainingPart, mixed_batches, mixture_epoch
from xadapt.training.optimizer import make_optimizer, make_schedule
from xadapt.training.settings import Mixing, TrainingSettings


class Monitor(Protocol):
    """Told of every step and selection; the log file and the progress bar are monitors."""

    def step(self, step: int, total: int, values: dict[str, Any]) -> None: ...

    def selection(self, step: int, epoch: float, metrics: dict[str, float], best: bool) -> None: ...


@dataclass
class FitResult:
    """What a training did.

    losses holds the mean loss of every step; best_metric the dev score of the parameters that were kept, taken
    at best_step; decay the product of (1 - learning_rate * weight_decay) up to there; seconds and
    examples_per_second cover the training steps alone, padding the share of padded positions. flops_per_step counts
    forward and backward pass of the first step.
    """

    losses: list[float] = field(default_factory=list)
    best_metric: float = -math.inf
    best_step: int = 0
    decay: float = 1.0
    seconds: float = 0.0
    examples: int = 0
    tokens: int = 0
    positions: int = 0
    flops_per_step: int = 0

    @property
    def examples_per_second(self) -> float:
        return self.examples / self.seconds if self.seconds else 0.0

    @property
    def padding(self) -> float:
        return 1 - self.tokens / self.positions if self.positions else 0.0


@dataclass(frozen=True)
class Step:
    """One optimizer batch: its number, the part it is of, and the micro-batches: their features and these padded."""

    number: int
    part: TrainingPart
    features: list[list[int]]
    batches: list[dict[str, Tensor]]

    @property
    def examples(self) -> int:
        """How many features all micro-batches have together."""
        return sum(map(len, self.features))

    @cached_property
    def units(self) -> int:
        """What the loss of the whole step is a mean over."""
        return sum(self.part.format.units(batch["labels"]) for batch in self.batches)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A micro-batch's share of the step's loss."""
        return self.part.format.loss(logits, labels) / self.units


def make_accelerator(dtype: str) -> Accelerator:
    """An Accelerator for "float32" or "bfloat16", whatever an earlier stage of this process ran in."""
    AcceleratorState._reset_state(reset_partial_state=False)
    return Accelerator(mixed_precision="bf16" if dtype == "bfloat16" else "no")


def default_token_budget(device: torch.device) -> int:
    """Padded tokens a forward pass takes at once.

    On a CPU few: activations of 1,024 tokens stay in its caches and are handed out again by the allocator, where
    those of 4,096 are mapped anew each time (measured a quarter slower). A GPU wants many.
    """
    return 1024 if device.type == "cpu" else 32768


class Training:
    """One training of one model: rows of one task or of several in, the best parameters left in the model.

    evaluate gives the dev metrics of the model as it stands, the headline under `metric`. penalty is added to the
    loss of every step. token_budget bounds the padded tokens of a micro-batch and changes nothing but memory.
    """

    def __init__(
        self, model: nn.Module, parts: Sequence[TrainingPart], settings: TrainingSettings, *, seed: int,
        pad_token_id: int, accelerator: Accelerator, evaluate: Callable[[], dict[str, float]], metric: str,
        monitors: list[Monitor], mixing: Mixing | None = None, penalty: Callable[[], Tensor | None] = lambda: None,
        token_budget: int | None = None,
    ) -> None:  # fmt: skip
        self.parts, self.settings, self.mixing, self.seed = parts, settings, mixing or Mixing(), seed
        self.pad_token_id, self.accelerator, self.penalty = pad_token_id, accelerator, penalty
        self.evaluate, self.metric, self.monitors = evaluate, metric, monitors
        self.token_budget = token_budget or default_token_budget(accelerator.device)
        self.steps_per_epoch = mixture_epoch(parts, self.mixing, settings.batch_size)
        self.total_steps = settings.max_steps or math.ceil(self.steps_per_epoch * settings.num_train_epochs)
        self.trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        optimizer = make_optimizer(self.trainable, settings)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.schedule = make_schedule(self.optimizer, settings, self.total_steps)
        self.result = FitResult()
        self._decay = 1.0
        self._best: dict[str, Tensor] = {}

    def run(self) -> FitResult:
        """Train to the last step, then put the best parameters back; UserError where loss or gradient is not finite."""
        torch.manual_seed(self.seed)
        for number, part, indices in self.order():
            started = time.perf_counter()
            self.model.train()
            with counted_flops() if number == 1 else nullcontext() as counter:
                step = self.prepare(number, part, indices)
                loss, penalty = self._backward(step), self._penalise()
            if counter:
                self.result.flops_per_step = counter.get_total_flops()
            self.apply(step, loss, penalty=penalty, started=started)
        self.restore_best()
        return self.result

    def order(self) -> Iterator[tuple[int, TrainingPart, list[int]]]:
        """The number of every step, from 1, the part it is of and its rows."""
        batches = mixed_batches(self.parts, self.mixing, batch_size=self.settings.batch_size, seed=self.seed)
        for number, (part, indices) in zip(range(1, self.total_steps + 1), batches, strict=False):
            yield number, part, indices

    def prepare(self, number: int, part: TrainingPart, indices: Sequence[int]) -> Step:
        """Cut a step's rows and pad them."""
        cut = list(micro_batches(indices, part.features.lengths, token_budget=self.token_budget))
        batches = [collate(part.features, rows, self.pad_token_id, draw=(self.seed, number)) for rows in cut]
        for batch in batches:
            self.result.tokens += int(batch["attention_mask"].sum())
            self.result.positions += batch["attention_mask"].numel()
        return Step(number, part, cut, batches)

    def apply(self, step: Step, loss: float, *, started: float, penalty: float = 0.0) -> None:
        """Take the step once its gradient is there, tell of it, and select if it is time.

        loss is the step's, started the clock's reading (`time.perf_counter`) when it began. Raises UserError where
        loss or gradient is not finite.
        """
        self._check_finite("loss", loss + penalty, step.number)
        norm = self._clip()
        self._check_finite("gradient norm", norm, step.number)
        self._update()
        self.result.losses.append(loss + penalty)
        self.result.examples += step.examples
        self.result.seconds += time.perf_counter() - started
        values = {"loss": loss + penalty, "grad_norm": norm, "learning_rate": self._used_learning_rate}
        values |= {"examples_per_second": self.result.examples_per_second, "epoch": step.number / self.steps_per_epoch}
        self._tell(step.number, values | self._of_several(step.part) | ({"penalty": penalty} if penalty else {}))
        if self._selects(step.number):
            self._select(step.number)

    def _tell(self, step: int, values: Mapping[str, Any]) -> None:
        for monitor in self.monitors:
            monitor.step(step, self.total_steps, dict(values))

    def _of_several(self, part: TrainingPart) -> dict[str, str]:
        """The task of a step, where there are several."""
        return {"task": part.name} if len(self.parts) > 1 else {}

    def _backward(self, step: Step) -> float:
        """Accumulate the gradient of the mean loss over the optimizer batch; the loss."""
        total = 0.0
        for features, padded in zip(step.features, step.batches, strict=True):
            batch = {name: tensor.to(self.accelerator.device) for name, tensor in padded.items()}

            def run(batch: dict[str, Tensor] = batch) -> Tensor:
                return step.loss(self.model(**batch, **self._of_several(step.part)), batch["labels"])

            with self._dropout(), self._moved_words(step, features, batch, run):
                loss = run()
            self.accelerator.backward(loss)
            total += loss.item()
        return total

    def _moved_words(
        self, step: Step, features: list[int], batch: dict[str, Tensor], loss: Callable[[], Tensor]
    ) -> AbstractContextManager[object]:
        """Robust training's movement of the words, where the part has one."""
        if step.part.perturbation is None:
            return nullcontext()
        draw = (self.seed, step.number)
        return step.part.perturbation.perturbed(self.model, batch, loss, indices=features, draw=draw)

    def _penalise(self) -> float:
        """Add the penalty's gradient to the step's; its value."""
        penalty = self.penalty()
        if penalty is None:
            return 0.0
        self.accelerator.backward(penalty)
        return penalty.item()

    def _dropout(self) -> AbstractContextManager[object]:
        return CpuDropout() if self.accelerator.device.type == "cpu" else nullcontext()

    def _check_finite(self, what: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            raise UserError(
                f"the {what} is {value} at step {step}: training diverged at learning_rate "
                f"{self.settings.learning_rate:g}; lower --learning-rate or set --dtype float32"
            )

    def _clip(self) -> float:
        """Clip the gradient; its norm before."""
        parameters = [parameter for _, parameter in self.trainable]
        limit = self.settings.max_grad_norm or math.inf
        return float(self.accelerator.clip_grad_norm_(parameters, limit))

    def _update(self) -> None:
        self._used_learning_rate = float(self.schedule.get_last_lr()[0])
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._decay *= 1 - self._used_learning_rate * self.settings.weight_decay

    def _selects(self, step: int) -> bool:
        every = self.settings.eval_steps
        return step == self.total_steps or step % self.steps_per_epoch == 0 or bool(every and step % every == 0)

    def _select(self, step: int) -> None:
        metrics = self.evaluate()
        best = metrics[self.metric] > self.result.best_metric
        if best:
            self.result.best_metric, self.result.best_step = metrics[self.metric], step
            self.result.decay = self._decay
            if step < self.total_steps:
                self._best = {name: parameter.detach().cpu().clone() for name, parameter in self.trainable}
            else:
                self._best = {}
        for monitor in self.monitors:
            monitor.selection(step, step / self.steps_per_epoch, metrics, best)

    def restore_best(self) -> None:
        """Put the best parameters back."""
        for name, parameter in self.trainable if self._best else ():
            parameter.data.copy_(self._best[name])
