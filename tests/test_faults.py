"""Steps that go wrong: numbers that are not finite are named, and too little memory changes no number."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import Job, changed, job, still, training  # noqa: F401 - still is a fixture
from torch import Tensor, nn

from xadapt.errors import UserError
from xadapt.formats import mining
from xadapt.models.backbone import Backbone
from xadapt.training.checkpoint import Checkpoints
from xadapt.training.faults import Diverged
from xadapt.training.loop import Training
from xadapt.training.prediction import predict_logits
from xadapt.training.settings import SaveEvery

LINE = "encoder.layer.1.output.dense.weight"


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(str(tiny_backbone))


class At:
    """A monitor that does something when a step is told of."""

    def __init__(self, step: int, act: Callable[[], None]) -> None:
        self.at, self.act = step, act

    def step(self, step: int, total: int, values: dict[str, Any]) -> None:
        if step == self.at:
            self.act()

    def selection(self, step: int, epoch: float, metrics: dict[str, float], best: bool) -> None: ...


def checkpointed(of: Job, folder: Path, *monitors: Any, **numbers: Any) -> Training:
    made = training(of, changed(max_steps=6, **numbers), monitors=list(monitors))
    made.checkpoints = Checkpoints(folder, SaveEvery(steps=1))
    return made


def diverged(made: Training) -> str:
    with pytest.raises(Diverged) as error:
        made.run()
    return str(error.value)


def test_a_weight_that_is_not_finite_is_named(backbone: Backbone, tmp_path: Path) -> None:
    of = job(backbone, "full")
    weight = of.model.encoder.get_parameter(LINE)

    def plant() -> None:
        weight.data[3, 4] = math.nan

    made = checkpointed(of, tmp_path, At(3, plant))
    told = diverged(made)
    assert LINE in told
    assert "nan" in told
    # step 3 was taken when it went wrong, and is not kept
    assert Checkpoints(tmp_path, SaveEvery()).steps() == [2, 1]


def test_a_gradient_that_is_not_finite_is_named(backbone: Backbone, tmp_path: Path) -> None:
    of = job(backbone, "full")
    at: list[int] = []
    of.model.encoder.get_parameter(LINE).register_hook(lambda grad: grad * (math.inf if len(at) == 3 else 1))
    made = checkpointed(of, tmp_path, At(3, lambda: at.extend([1, 2, 3])))
    told = diverged(made)
    assert f"gradient of encoder.{LINE}" in told
    assert "step 4" in told
    assert made.steps == 3
    assert Checkpoints(tmp_path, SaveEvery()).steps() == [3, 2]


def test_a_loss_that_is_not_finite_is_named(backbone: Backbone, tmp_path: Path) -> None:
    of = job(backbone)
    of.model.head.register_forward_hook(lambda *_: torch.full((8, 3), math.nan, requires_grad=True))
    made = checkpointed(of, tmp_path)
    assert "loss is nan" in diverged(made)
    assert Checkpoints(tmp_path, SaveEvery()).steps() == []


def test_a_learning_rate_that_is_far_too_high_ends_the_training_within_two_steps(
    backbone: Backbone, tmp_path: Path
) -> None:
    made = checkpointed(job(backbone, "full"), tmp_path, max_grad_norm=0.0, warmup_ratio=0.0)
    made.schedule.base_lrs = [1e20 for _ in made.schedule.base_lrs]
    for group in made.optimizer.param_groups:
        group["lr"] = 1e20
    diverged(made)
    assert made.steps <= 2
    for kept in Checkpoints(tmp_path, SaveEvery()).all():
        assert all(tensor.isfinite().all() for tensor in kept.tensors.values())


# memory


def bounded(model: nn.Module, tokens: int) -> list[int]:
    """Let the encoder refuse inputs of more padded tokens, as an allocator would; what it was given."""
    given: list[int] = []

    def refuse(_: nn.Module, __: object, kwargs: dict[str, Tensor]) -> None:
        given.append(kwargs["input_ids"].numel())
        if given[-1] > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate all there is")

    model.get_submodule("encoder").register_forward_pre_hook(refuse, with_kwargs=True)
    return given


@pytest.mark.parametrize("format", ["classification", "tagging"])
def test_too_little_memory_in_a_step_changes_no_number(format: str, still: Backbone) -> None:  # noqa: F811
    expected = training(job(still, "full", format), changed(max_steps=6)).run()
    of = job(still, "full", format)
    given = bounded(of.model, 150)
    found = training(of, changed(max_steps=6)).run()
    assert max(given) > 150 >= min(given)
    assert found.losses == pytest.approx(expected.losses, abs=1e-5)
    assert (found.examples, found.tokens) == (expected.examples, expected.tokens)
    late = given[len(given) // 2 :]
    assert max(late) <= 150, "what was learnt about the memory holds for the steps to come"


def test_a_step_that_did_not_fit_draws_the_same_dropout(backbone: Backbone) -> None:
    """Its draws, and those of all that follow, are those of steps that were cut to that size from the start."""
    of = job(backbone)
    made = training(of, changed(max_steps=4), token_budget=10**9)
    given = bounded(of.model, 100)
    made.run()
    assert max(given) > 100
    again = training(job(backbone), changed(max_steps=4), token_budget=made.token_budget)
    assert again.run().losses == made.result.losses


def test_one_row_that_does_not_fit_is_an_error_that_says_so(still: Backbone) -> None:  # noqa: F811
    of = job(still)
    bounded(of.model, 10)
    with pytest.raises(UserError, match="one row"):
        training(of, changed(max_steps=2)).run()


def test_too_little_memory_in_prediction_changes_no_logits(still: Backbone) -> None:  # noqa: F811
    of = job(still, "seq_bn", "tagging")

    def predicted() -> list[Tensor]:
        return predict_logits(
            of.model, of.features, pad_token_id=of.pad, token_budget=10**6, device=torch.device("cpu")
        )

    expected = predicted()
    given = bounded(of.model, 120)
    for logits, other in zip(predicted(), expected, strict=True):
        torch.testing.assert_close(logits, other, rtol=0, atol=1e-5)
    assert max(given) > 120 >= given[-1]


def test_too_little_memory_in_mining_finds_the_same_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    vectors = [nn.functional.normalize(torch.randn(300, 8), dim=1) for _ in range(2)]
    expected = mining.mine(*vectors)
    searched, sizes = mining._searched, list[int]()

    def refuse(queries: Tensor, keys: Tensor, k: int, size: int) -> tuple[Tensor, Tensor]:
        sizes.append(size)
        if size > 64:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return searched(queries, keys, k, size)

    monkeypatch.setattr(mining, "_searched", refuse)
    found = mining.mine(*vectors)
    assert [pair[1:] for pair in found] == [pair[1:] for pair in expected]
    assert [pair[0] for pair in found] == pytest.approx([pair[0] for pair in expected], abs=1e-6)
    assert min(sizes) == 64


def test_other_errors_of_a_step_are_raised(still: Backbone) -> None:  # noqa: F811
    of = job(still)

    def fail(*_: object) -> None:
        raise RuntimeError("made up")

    of.model.encoder.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="made up"):
        training(of, changed(max_steps=2)).run()
