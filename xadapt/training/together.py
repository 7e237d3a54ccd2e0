"""Several trainings over one frozen encoder in lockstep, a step of each of them in the same passes.

A training of a small module leaves a GPU half idle: its batches are small, and most of a step is the frozen encoder.
Since the modules share nothing that moves, the batches of all of them may go through the encoder side by side, each
token through its own training's module, and one backward pass of the sum of the losses gives each module its own
gradient. Everything else is a training's own: rows and their order, micro-batches, head, loss, optimizer, schedule,
selection.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor

from xadapt.models.packing import Context, Packing, Segment, routed_alone
from xadapt.models.task_model import AnyTaskModel, head_logits, reads_first_token_only
from xadapt.regimes.several import SharedEncoder
from xadapt.training.cost import counted_flops
from xadapt.training.dropout import CpuDropout
from xadapt.training.loop import FitResult, Step, Training

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
        while self.members:
            began = time.perf_counter()
            begun = [member.begin() for member in self.members]
            self._accumulate(begun)
            elapsed, positions = time.perf_counter() - began, sum(step.positions for step in begun)
            for step in begun:
                self.shared.route(routed_alone(step.member.name))
                if ended := step.end(elapsed * step.positions / positions):
                    self.members.remove(step.member)
                    yield step.member.name, ended
                    self.shared.encoder.to(step.member.training.accelerator.device)

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
        self.name, self.training, self.order = name, training, training.order()
        self.model = cast(AnyTaskModel, training.model)
        self.own: Context | None = None
        if training.accelerator.device.type == "cpu":
            self.own = partial(CpuDropout, torch.Generator().manual_seed(training.seed))

    def begin(self) -> "_Begun":
        return _Begun(self, self.training.prepare(*next(self.order)))


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

    def end(self, seconds: float) -> FitResult | Exception | None:
        """Apply the gradient; the result after the last step, an error if it is the last for one."""
        training = self.member.training
        try:
            training.apply(self.step, self.loss, started=time.perf_counter() - seconds)
            if self.step.number < training.total_steps:
                return None
            training.restore_best()
        except Exception as error:
            return error
        return training.result


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
