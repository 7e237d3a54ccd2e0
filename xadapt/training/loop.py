"""The one training loop: every regime, every format, selection on English dev only."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from xadapt import interruption
from xadapt.formats.features import collate
from xadapt.interruption import Interrupted
from xadapt.memory import out_of_memory, release_memory
from xadapt.training.batching import micro_batches
from xadapt.training.checkpoint import Checkpoints
from xadapt.training.cost import counted_flops
from xadapt.training.device import default_token_budget
from xadapt.training.dropout import CpuDropout
from xadapt.training.faults import check_finite, check_parameters, halved
from xadapt.training.mixing import TrainingPart, mixed_batches, mixture_epoch
from xadapt.training.optimizer import make_optimizer, make_schedule
from xadapt.training.ranks import Ranks
from xadapt.training.result import FitResult, Monitor
from xadapt.training.settings import Mixing, TrainingSettings
from xadapt.training.state import begin_logs, captured, random_states, restore, set_random_states
from xadapt.training.step import Step


class Training:
    """One training of one model: rows of one task or of several in, the best parameters left in the model.

    evaluate gives the dev metrics of the model as it stands, the headline under `metric`. penalty is added to the
    loss of every step. token_budget bounds the padded tokens of a micro-batch and changes nothing but memory: it is halved
    where memory does not suffice. With checkpoints the state is kept as often as they say and where a stop is asked for,
    and a later training of the same goes on from there, to the last bit. What a CPU's dropout draws is from generator,
    without one from torch's own.
    """

    def __init__(
        self, model: nn.Module, parts: Sequence[TrainingPart], settings: TrainingSettings, *, seed: int,
        pad_token_id: int, accelerator: Accelerator, evaluate: Callable[[], dict[str, float]], metric: str,
        monitors: list[Monitor], mixing: Mixing | None = None, penalty: Callable[[], Tensor | None] = lambda: None,
        token_budget: int | None = None, checkpoints: Checkpoints | None = None,
    ) -> None:  # fmt: skip
        self.parts, self.settings, self.mixing, self.seed = parts, settings, mixing or Mixing(), seed
        self.pad_token_id, self.accelerator, self.penalty = pad_token_id, accelerator, penalty
        self.evaluate, self.metric, self.monitors = evaluate, metric, monitors
        self.token_budget = token_budget or default_token_budget(accelerator.device)
        self.steps_per_epoch = mixture_epoch(parts, self.mixing, settings.batch_size)
        self.total_steps = settings.max_steps or math.ceil(self.steps_per_epoch * settings.num_train_epochs)
        self.trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        optimizer = make_optimizer(self.trainable, settings)
        # gradients of several processes are added up by ranks, once a step, instead of by a wrapper of the model
        self.model = accelerator.prepare_model(model, evaluation_mode=True)
        self.optimizer, self.ranks = accelerator.prepare_optimizer(optimizer), Ranks(accelerator)
        self.schedule = make_schedule(self.optimizer, settings, self.total_steps)
        self.result = FitResult()
        self.checkpoints = checkpoints
        self.generator: torch.Generator | None = None
        self.decay, self._kept = 1.0, 0
        self.best: dict[str, Tensor] = {}

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return len(self.result.losses)

    def run(self) -> FitResult:
        """Train to the last step, then put the best parameters back.

        Raises Diverged where loss, gradient or parameters are not finite, and Interrupted once the state is kept.
        """
        self.start()
        try:
            self.settle()
            for number, part, indices in self.order():
                self._take(number, part, indices)
                self.settle()
        except Interrupted:
            self.save()
            raise
        self.restore_best()
        return self.result

    def start(self, at: int | None = None) -> None:
        """Begin, or go on from the latest whole checkpoint; `at` says which, 0 none.

        Of several processes the main one chooses, since the log is its own; RuntimeError where one cannot follow it.
        """
        if self.ranks.main:
            self._start(at)
        chosen = int(self.ranks.of_main({"step": self.steps})["step"])
        if not self.ranks.main:
            self._start(chosen)
        if any(self.ranks.total(self.steps != chosen)):
            raise RuntimeError(f"not every process has the checkpoint of step {chosen}")
        if self.checkpoints and self.ranks.main:
            self.checkpoints.forget_after(self.steps)

    def _start(self, at: int | None) -> None:
        seed = self.generator.manual_seed if self.generator else torch.manual_seed
        seed(self.seed + self.ranks.rank)
        found = self.checkpoints.all() if self.checkpoints and at != 0 else ()
        for checkpoint in found:
            if at in (None, checkpoint.step) and restore(self, checkpoint):
                self.result.resumed, self._kept = [*self.result.resumed, checkpoint.step], checkpoint.step
                return
        begin_logs(self)

    def order(self) -> Iterator[tuple[int, TrainingPart, list[int]]]:
        """The number of every step that is left, the part it is of and its rows; the first of all is number 1."""
        done = self.steps
        batches = mixed_batches(
            self.parts, self.mixing, batch_size=self.settings.batch_size, seed=self.seed, start=done
        )
        for number, (part, indices) in zip(range(done + 1, self.total_steps + 1), batches, strict=False):
            yield number, part, indices

    def _take(self, number: int, part: TrainingPart, indices: Sequence[int]) -> None:
        """One step, cut smaller for as long as memory does not suffice."""
        started = time.perf_counter()
        self.model.train()
        step = self.prepare(number, part, indices)
        while (found := self._gradient(step)) is None:
            release_memory()
            step = self.recut(step)
        self.ranks.add_gradients(parameter for _, parameter in self.trainable)
        loss, penalty = self.ranks.total(*found)
        self.apply(step, loss, penalty=penalty, started=started)

    def _gradient(self, step: Step) -> tuple[float, float] | None:
        """Accumulate a step's gradient; its loss and penalty, or, with nothing drawn or moved, None: it did not fit."""
        states = random_states(self)
        try:
            with counted_flops() if step.number == 1 else nullcontext() as counter:
                loss, penalty = self._backward(step), self._penalise()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            self.cut_smaller(step)
            set_random_states(self, states)
            return None
        if counter:
            self.result.flops_per_step = counter.get_total_flops()
        return loss, penalty

    def cut_smaller(self, step: Step) -> None:
        """Forget a step's gradient and halve the token budget; UserError if it was cut into single rows."""
        self.optimizer.zero_grad(set_to_none=True)
        self.token_budget = halved(self.token_budget, step.sizes)

    def prepare(self, number: int, part: TrainingPart, indices: Sequence[int]) -> Step:
        """Cut a step's rows, or this process's share of them, and pad them."""
        mine = self.ranks.share(indices, part.features.lengths)
        step = self.recut(Step(number, part, [mine], [], len(indices), 0))
        units = self.ranks.total(sum(part.format.units(batch["labels"]) for batch in step.batches))
        return replace(step, units=units[0])

    def recut(self, step: Step) -> Step:
        """The same rows, cut by the token budget as it is now."""
        features, rows = step.part.features, [row for rows in step.features for row in rows]
        cut = list(micro_batches(rows, features.lengths, token_budget=self.token_budget))
        batches = [collate(features, rows, self.pad_token_id, draw=(self.seed, step.number)) for rows in cut]
        return replace(step, features=cut, batches=batches)

    def apply(self, step: Step, loss: float, *, started: float, penalty: float = 0.0) -> None:
        """Take the step once its gradient is there, and tell of it.

        loss is the step's, started the clock's reading (`time.perf_counter`) when it began. Raises Diverged where
        loss or gradient is not finite.
        """
        norm = self._clip(loss + penalty, step.number)
        self._update()
        self.result.losses.append(loss + penalty)
        self.result.examples += step.examples
        tokens, positions = self.ranks.total(step.tokens, sum(tokens for _, tokens in step.sizes))
        self.result.tokens += int(tokens)
        self.result.positions += int(positions)
        self.result.seconds += time.perf_counter() - started
        values = {"loss": loss + penalty, "grad_norm": norm, "learning_rate": self._used_learning_rate}
        values |= {"examples_per_second": self.result.examples_per_second, "epoch": step.number / self.steps_per_epoch}
        self._tell(step.number, values | self._of_several(step.part) | ({"penalty": penalty} if penalty else {}))

    def settle(self) -> None:
        """After a step: select if it is time and not done, keep the state if it is due, leave if a stop is asked for."""
        self.select_if_due()
        due, stop = self.ranks.total(self.due(), interruption.requested() is not None)
        if due:
            self.save()
        if stop and self.steps < self.total_steps:
            interruption.request("another process")  # unless it was this one
            raise Interrupted(interruption.requested())

    def select_if_due(self) -> None:
        """Take the dev score after the last step, if it is time and was not done."""
        done = self.steps
        if done and self._selects(done) and self.result.selected < done:
            self._select(done)

    def due(self) -> bool:
        """Whether it is time for a checkpoint, which the main process says; behind the last step there is none."""
        inside = self._kept < self.steps < self.total_steps
        return self.ranks.main and self.checkpoints is not None and inside and self.checkpoints.due(self.steps)

    def save(self) -> None:
        """Keep the state as it is after the last step; Diverged, with nothing written, if it is not finite."""
        if self.checkpoints and self.steps:
            self._check_parameters()
            state, self._kept = captured(self), self.steps
            if self.ranks.main:
                self.checkpoints.write(state)
            self.ranks.wait()

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

            with self._dropout(), step.moved_words(self.model, features, batch, run, seed=self.seed):
                loss = run()
            self.accelerator.backward(loss)
            total += loss.item()
        return total

    def _penalise(self) -> float:
        """Add the penalty's gradient to the step's; its value."""
        penalty = self.penalty() if self.ranks.main else None
        if penalty is None:
            return 0.0
        self.accelerator.backward(penalty)
        return penalty.item()

    def _dropout(self) -> AbstractContextManager[object]:
        return CpuDropout(self.generator) if self.accelerator.device.type == "cpu" else nullcontext()

    def _check(self, loss: float, norm: float, step: int) -> None:
        rate = self.settings.learning_rate
        check_finite(loss, norm, self.model.named_parameters(), step=step, learning_rate=rate)

    def _check_parameters(self) -> None:
        check_parameters(self.trainable, step=self.steps, learning_rate=self.settings.learning_rate)

    def _clip(self, loss: float, step: int) -> float:
        """Clip the gradient once it is known to be finite; its norm before."""
        parameters = [parameter for _, parameter in self.trainable if parameter.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        self._check(loss, float(norm), step)
        limit = self.settings.max_grad_norm or math.inf
        nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return float(norm)

    def _update(self) -> None:
        self._used_learning_rate = float(self.schedule.get_last_lr()[0])
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.decay *= 1 - self._used_learning_rate * self.settings.weight_decay

    def _selects(self, step: int) -> bool:
        every = self.settings.eval_steps
        return step == self.total_steps or step % self.steps_per_epoch == 0 or bool(every and step % every == 0)

    def _select(self, step: int) -> None:
        self._check_parameters()
        with interruption.held() if self.ranks.count > 1 else nullcontext():  # or one of them leaves the others waiting
            metrics = self.ranks.of_main(self.evaluate())
        self.result.selected = step
        best = metrics[self.metric] > self.result.best_metric
        if best:
            self.result.best_metric, self.result.best_step = metrics[self.metric], step
            self.result.decay = self.decay
            if step < self.total_steps:
                self.best = {name: parameter.detach().cpu().clone() for name, parameter in self.trainable}
            else:
                self.best = {}
        for monitor in self.monitors:
            monitor.selection(step, step / self.steps_per_epoch, metrics, best)

    def restore_best(self) -> None:
        """Put the best parameters back."""
        for name, parameter in self.trainable if self.best else ():
            parameter.data.copy_(self.best[name])
