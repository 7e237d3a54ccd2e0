"""What goes wrong in a step: numbers that are not finite, and memory that does not suffice."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from xadapt.errors import UserError


class Diverged(UserError):
    """A loss, a gradient or a parameter is not finite."""


def check_finite(
    loss: float, norm: float, named: Iterable[tuple[str, nn.Parameter]], *, step: int, learning_rate: float
) -> None:
    """Diverged, naming the first tensor at fault, unless the loss and the norm of the gradient are finite."""
    if math.isfinite(loss) and math.isfinite(norm):
        return
    named = list(named)
    fault = _first(named, "parameter")
    if fault is None and math.isfinite(loss):
        fault = _first(((name, p.grad) for name, p in named if p.grad is not None), "gradient of")
    what = fault or f"loss is {loss}"
    raise Diverged(
        f"training diverged at step {step}: the {what}, at learning_rate {learning_rate:g}; lower --learning-rate, or set "
        "--dtype float32 or, in bfloat16, --retry-in-fp32"
    )


def check_parameters(named: Iterable[tuple[str, nn.Parameter]], *, step: int, learning_rate: float) -> None:
    """Diverged unless every parameter is finite, for what is about to be kept."""
    if fault := _first(named, "parameter"):
        raise Diverged(
            f"training diverged at step {step}: the {fault}, at learning_rate {learning_rate:g}; lower --learning-rate"
        )


def _first(named: Iterable[tuple[str, Tensor]], what: str) -> str | None:
    """The first tensor that is not finite, with the number that it holds."""
    for name, tensor in named:
        strange = tensor.detach()[~torch.isfinite(tensor.detach())]
        if len(strange):
            return f"{what} {name} has {strange[0].item()}"
    return None


def halved(token_budget: int, sizes: Iterable[tuple[int, int]]) -> int:
    """The token budget that cuts smaller than the micro-batches that did not fit.

    sizes are their rows and padded tokens. UserError if all of them are single rows.
    """
    sizes = list(sizes)
    if all(rows == 1 for rows, _ in sizes):
        raise UserError(
            f"out of memory with one row of {max(tokens for _, tokens in sizes)} tokens at a time; lower --max-seq-length, or "
            "take a smaller backbone or a larger device"
        )
    return min(token_budget, max(tokens for rows, tokens in sizes if rows > 1)) // 2
