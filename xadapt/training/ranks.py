"""The processes that train one model: each takes a share of a step's rows, and all end with the same gradient.

`accelerate launch` starts them. Gradients are added up once a step, when all micro-batches are through: with gradients
of sums over rows divided by what the whole step has of them, the sum is that of one process.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

BUCKET = 1 << 24  # numbers added up at once


class Ranks:
    """This process among those of a training; alone, everything is as it is."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.count, self.rank = accelerator.num_processes, accelerator.process_index

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and tells."""
        return bool(self.rank == 0)

    def share(self, rows: Sequence[int], lengths: Sequence[int]) -> list[int]:
        """The rows of a step that this process takes; the long ones are dealt out evenly."""
        if self.count == 1:
            return list(rows)
        return sorted(rows, key=lambda row: -lengths[row])[self.rank :: self.count]

    def total(self, *numbers: float) -> list[float]:
        """The sums over all processes."""
        if self.count == 1:
            return list(numbers)
        summed: Tensor = self.accelerator.reduce(self._tensor(numbers), "sum")
        found: list[float] = summed.tolist()
        return found

    def of_main(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """The main process's numbers, in all: what is decided by them must not depend on a rounding."""
        if self.count == 1:
            return dict(numbers)
        return dict(zip(numbers, broadcast(self._tensor(numbers.values())).tolist(), strict=True))

    def gathered(self, state: Tensor) -> list[Tensor]:
        """A tensor of bytes of every process, by rank."""
        if self.count == 1:
            return [state]
        return list(self.accelerator.gather(state[None].to(self.accelerator.device)).cpu())

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every parameter the sum of its gradients in all processes; one that no process has stays without."""
        if self.count == 1:
            return
        parameters = list(parameters)
        there = self.total(*(float(parameter.grad is not None) for parameter in parameters))
        moved = [parameter for parameter, n in zip(parameters, there, strict=True) if n]
        for bucket in _buckets(moved):
            gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in bucket]
            flat: Tensor = self.accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "sum")
            for parameter, part in zip(bucket, torch.split(flat, [p.numel() for p in bucket]), strict=True):
                parameter.grad = part.view_as(parameter)

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            self.accelerator.wait_for_everyone()

    def _tensor(self, numbers: Iterable[float]) -> Tensor:
        return torch.tensor(list(numbers), dtype=torch.float64, device=self.accelerator.device)


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterable[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        bucket.append(parameter)
        if sum(each.numel() for each in bucket) >= BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket
