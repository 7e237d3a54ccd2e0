"""Several trainings over one frozen encoder in lockstep, a step of each of them in the same passes.

A training of a small module leaves a GPU half idle: its batches are small, and most of a step is the frozen encoder.
Since the modules share nothing that moves, the batches of all of them may go through the encoder side by side, each
token through its own training's module, and one backward pass of the sum of the losses gives each module its own
gradient. Everything else is a training's own: rows and their order, micro-batches, head, loss, optimizer, schedule,
selection.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import cast

import torch
from torch import Tensor

from xadapt import interruption
from xadapt.interruption import Interrupted
from xadapt.memory import out_of_memory, release_memory
from xadapt.models.packing import Context, Packing, Segment, routed_alone
from xadapt.models.task_model import AnyTaskModel, head_logits, reads_first_token_only
from xadapt.regimes.several import SharedEncoder
from xadapt.training.cost import counted_flops
from xadapt.training.dropout import CpuDropout
from xadapt.training.faults import Diverged
from xadapt.training.loop import Training
from xadapt.training.mixing import TrainingPart
from xadapt.training.result import FitResult
from xadapt.training.state import random_states, restorable, set_random_states
from xadapt.training.step import Step

Ended = tuple[str, FitResult | Exception]


class Together:
    """Trainings by the names of their modules, whose models share one encoder.

    Losses, gradients and parameters are those of `Training.run`, one training after the other, but for the order in
    which floating-point numbers are added. On a CPU that holds under dropout too: each training draws its masks from a
    generator of its own, in the shapes in which it would draw them alone. On other devices the masks are as many but
    others, and equal results need a dropout of 0.
    """

    def __init__(self, shared: SharedEncoder, trainings: Mapping[str, Training]) -> None:
        self.shared = shared
        self.members = [_Member(name, training) for name, training in trainings.items()]
        # what a pass holds is no more than one training alone would
        self.budget = max(training.token_budget for training in trainings.values())

    def run(self) -> Iterator[Ended]:
        """Train all to their ends; each name with its result, as it ends, or with what ended it.

        While a name is given out, the encoder is routed to its module alone, with the best parameters in place, and may
        be moved to another device. The seconds of a step are shared out by padded tokens. What goes wrong in a
        training's own part of a step ends that training alone, what goes wrong in a pass is raised.
        """
        self._start()
        yield from self._settled()
        while self.members:
            began = time.perf_counter()
            while (begun := self._gradients()) is None:
                release_memory()
            elapsed, positions = time.perf_counter() - began, sum(step.positions for step in begun)
            for step in begun:
                if error := step.apply(elapsed * step.positions / positions):
                    yield from self._ended(step.member, error)
            yield from self._settled()

    def _start(self) -> None:
        """Begin all, or let all go on from the latest step that all can go on from: they move in lockstep."""
        trainings = [member.training for member in self.members]
        whole = [
            {c.step for c in t.checkpoints.all() if restorable(t, c)} if t.checkpoints else set() for t in trainings
        ]
        step = max(set.intersection(*whole), default=0)
        for training in trainings:
            training.start(step)
        assert all(training.steps == step for training in trainings), "what was whole a moment ago"

    def _settled(self) -> Iterator[Ended]:
        """After a step of all: selections, ends, and checkpoints of all at once; Interrupted where a stop is asked for."""
        try:
            for member in list(self.members):
                self.shared.route(routed_alone(member.name))
                if ended := member.settle():
                    yield from self._ended(member, ended)
            due = [m.training for m in self.members if m.training.due()]
            for member in list(self.members) if due else ():
                try:
                    member.training.save()
                except Exception as error:  # its parameters are not finite, or there is no room
                    yield from self._ended(member, error)
            if self.members:
                interruption.check()
        except Interrupted:
            for member in self.members:
                with suppress(Diverged):  # it keeps the checkpoint before
                    member.training.save()
            raise

    def _ended(self, member: "_Member", ended: FitResult | Exception) -> Iterator[Ended]:
        self.shared.route(routed_alone(member.name))
        self.members.remove(member)
        yield member.name, ended
        self.shared.encoder.to(member.training.accelerator.device)

    def _gradients(self) -> "list[_Begun] | None":
        """A step of all members with its gradient; None, with nothing drawn or moved, where memory did not suffice."""
        states = [random_states(member.training) for member in self.members]
        begun = [member.begin() for member in self.members]
        try:
            self._accumulate(begun)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            for step, state in zip(begun, states, strict=True):
                step.member.training.optimizer.zero_grad(set_to_none=True)
                set_random_states(step.member.training, state)
            # the largest give way first; where all are single rows, one fails and ends them
            worst = max(begun, key=lambda step: max(tokens for _, tokens in step.step.sizes))
            worst.member.training.cut_smaller(worst.step)
            self.budget = min(self.budget, *(step.member.training.token_budget for step in begun))
            return None
        for step in begun:
            step.member.ahead = None
        return begun

    def _accumulate(self, begun: "Sequence[_Begun]") -> None:
        """Add up the gradients of a step of all members."""
        for step in begun:
            if not (step.member.model.training and self.shared.encoder.training):
                step.member.model.train()
        # the first step counts the operations of each member by itself
        first, rest = [s for s in begun if s.step.number == 1], [s for s in begun if s.step.number > 1]
        for step in first:
            with counted_flops() as counter:
                for batch in step.batches:
                    self._pass([(step, batch)])
            step.member.training.result.flops_per_step = counter.get_total_flops()
        for chosen in _passes(rest, self.budget):
            self._pass(chosen)

    def _pass(self, chosen: "Sequence[tuple[_Begun, _Batch]]") -> None:
        """Forward and backward of some micro-batches at once, of different members."""
        accelerator = chosen[0][0].member.training.accelerator
        encoder, device = self.shared.encoder, accelerator.device
        packing = Packing([step.segment(batch) for step, batch in chosen], device=device)
        self.shared.route(packing.parts)
        losses = []
        with accelerator.autocast():
            states = packing.hidden_states(encoder)
        for (step, batch), hidden in zip(chosen, states, strict=True):
            labels = batch["labels"].to(device)
            with accelerator.autocast(), (step.member.own or nullcontext)():
                logits = head_logits(encoder, step.head, hidden, labels)
            losses.append(step.step.loss(logits.float(), labels))
        accelerator.backward(torch.stack(losses).sum())
        for (step, _), loss in zip(chosen, torch.stack(losses).tolist(), strict=True):
            step.loss += loss


class _Member:
    """One of the trainings: what it sees next, and what its dropout is drawn from."""

    def __init__(self, name: str, training: Training) -> None:
        self.name, self.training = name, training
        self.model = cast(AnyTaskModel, training.model)
        self.own: Context | None = None
        # the rows of the next step, until its gradient is there
        self.ahead: tuple[int, TrainingPart, list[int]] | None = None
        if training.accelerator.device.type == "cpu":
            training.generator = torch.Generator()
            self.own = partial(CpuDropout, training.generator)

    @cached_property
    def order(self) -> Iterator[tuple[int, TrainingPart, list[int]]]:
        return self.training.order()

    def begin(self) -> "_Begun":
        self.ahead = self.ahead or next(self.order)
        return _Begun(self, self.training.prepare(*self.ahead))

    def settle(self) -> FitResult | Exception | None:
        """Select if it is time; the result after the last step, an error if it is the last for one."""
        training = self.training
        try:
            training.select_if_due()
            if training.steps < training.total_steps:
                return None
            training.restore_best()
        except Exception as error:
            return error
        return training.result


_Batch = dict[str, Tensor]


@dataclass
class _Begun:
    """A member's step, on the way: its loss as far as it is added up."""

    member: _Member
    step: Step
    loss: float = 0.0

    @property
    def batches(self) -> Sequence[_Batch]:
        return self.step.batches

    @property
    def positions(self) -> int:
        return sum(batch["input_ids"].numel() for batch in self.batches)

    @property
    def head(self) -> torch.nn.Module:
        return self.member.model.head_of(self.step.part.name)

    def segment(self, batch: _Batch) -> Segment:
        short, name = reads_first_token_only(self.head), self.member.name
        return Segment(name, batch["input_ids"], batch["attention_mask"], short, self.member.own)

    def apply(self, seconds: float) -> Exception | None:
        """Apply the gradient; the error if that is not possible."""
        try:
            self.member.training.apply(self.step, self.loss, started=time.perf_counter() - seconds)
        except Exception as error:
            return error
        return None


def _passes(begun: Sequence[_Begun], budget: int) -> Iterator[list[tuple[_Begun, _Batch]]]:
    """Micro-batches that go together: of each member one at most, in its order, in the budget of padded tokens.

    Two of one member in a pass would draw their dropout in another order than alone.
    """
    waiting = [(step, list(reversed(step.batches))) for step in begun]
    while waiting:
        chosen: list[tuple[_Begun, _Batch]] = []
        room = budget
        for step, batches in waiting:
            if not chosen or batches[-1]["input_ids"].numel() <= room:
                batch = batches.pop()
                chosen.append((step, batch))
                room -= batch["input_ids"].numel()
        yield chosen
        waiting = [(step, batches) for step, batches in waiting if batches]
