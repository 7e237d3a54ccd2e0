"""Dropout on a CPU: right frequencies, right gradients, PyTorch's own wherever it does not apply."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from xadapt.training.dropout import CpuDropout


def seeded(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same function with the same draws at every call."""

    def call(*inputs: Tensor) -> Tensor:
        torch.manual_seed(3)
        with CpuDropout():
            return function(*inputs)

    return call


@pytest.mark.parametrize("p", [0.003, 0.1, 0.5, 0.9])
def test_drops_as_often_as_told_and_keeps_the_expectation(p: float) -> None:
    torch.manual_seed(0)
    n = 1_000_001
    with CpuDropout():
        output = functional.dropout(torch.ones(n), p)
    share = (output == 0).double().mean().item()
    assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / n)
    assert sorted(set(output.tolist())) == pytest.approx([0.0, 1 / (1 - p)], rel=1e-4)
    assert output.mean(dtype=torch.float64).item() == pytest.approx((1 - share) * output.max().item(), rel=1e-6)


def test_decisions_are_independent_of_their_neighbours() -> None:
    torch.manual_seed(0)
    with CpuDropout():
        kept = (functional.dropout(torch.ones(4, 250_000), 0.5) != 0).double().flatten() * 2 - 1
    for lag in (1, 2, 3, 4, 8, 250_000):
        assert abs((kept[lag:] * kept[:-lag]).mean().item()) < 5 / math.sqrt(len(kept) - lag)


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4)])
@pytest.mark.parametrize("contiguous", [True, False])
def test_the_gradient_passes_where_the_value_did(shape: tuple[int, ...], contiguous: bool) -> None:
    input = torch.randn(shape, dtype=torch.float64)
    input = (input if contiguous else input.mT.contiguous().mT if len(shape) > 1 else input).requires_grad_()
    assert torch.autograd.gradcheck(seeded(lambda x: functional.dropout(x, 0.4)), (input,))


@pytest.mark.parametrize("masked", [True, False])
def test_attention_is_softmax_then_dropout_then_values(masked: bool) -> None:
    query, key, value = torch.randn(3, 2, 4, 5, 6, dtype=torch.float64).unbind()
    mask = torch.zeros(2, 1, 5, 5, dtype=torch.float64).index_fill_(3, torch.tensor([4]), -1e9) if masked else None
    scores = query @ key.transpose(2, 3) / math.sqrt(6) + (mask if masked else 0.0)
    expected = seeded(lambda s: functional.dropout(s.softmax(dim=3), 0.3) @ value)(scores)
    attend = seeded(lambda *x: functional.scaled_dot_product_attention(*x, attn_mask=mask, dropout_p=0.3))
    torch.testing.assert_close(attend(query, key, value), expected)
    assert torch.autograd.gradcheck(attend, tuple(x.requires_grad_() for x in (query, key, value)))


@pytest.mark.parametrize("p", [0.0, 1.0, 1e-9])
def test_what_draws_nothing_is_left_to_pytorch(p: float) -> None:
    input = torch.randn(50)
    state = torch.get_rng_state()
    expected = functional.dropout(input, p)
    torch.set_rng_state(state)
    with CpuDropout():
        assert torch.equal(functional.dropout(input, p), expected)
        assert torch.equal(functional.dropout(input, 0.5, training=False), input)


@pytest.mark.parametrize(
    "options",
    [{"is_causal": True}, {"scale": 3.0}, {"attn_mask": torch.ones(5, 5, dtype=torch.bool)}, {"dropout_p": 0.0}],
)
def test_other_attention_is_left_to_pytorch(options: dict[str, Any]) -> None:
    inputs = torch.randn(3, 2, 4, 5, 6).unbind()
    options = {"dropout_p": 0.3, **options}
    torch.manual_seed(1)
    expected = functional.scaled_dot_product_attention(*inputs, **options)
    torch.manual_seed(1)
    with CpuDropout():
        assert torch.equal(functional.scaled_dot_product_attention(*inputs, **options), expected)


def test_modules_of_every_library_are_reached() -> None:
    module = torch.nn.Dropout(0.5)
    torch.manual_seed(5)
    with CpuDropout():
        inside = module(torch.ones(1000))
    torch.manual_seed(5)
    assert not torch.equal(inside, module(torch.ones(1000)))


def test_bfloat16_stays_bfloat16() -> None:
    with CpuDropout():
        assert functional.dropout(torch.ones(10, dtype=torch.bfloat16), 0.5).dtype == torch.bfloat16
