"""What a training costs: operations against a count by hand, memory that is seen, sums that count a stage once."""

from pathlib import Path
from typing import Any

import pytest
import torch

from xadapt.analysis.costs import HEADER, Cost, cost_grid
from xadapt.analysis.table import Row
from xadapt.formats import FORMATS
from xadapt.models.backbone import Backbone
from xadapt.models.task_model import TaskModel
from xadapt.regimes.protocol import open_regime
from xadapt.regimes.specs import AdapterSpec, FullSpec, LoraSpec, RegimeSpec
from xadapt.tasks import get_task
from xadapt.training.cost import counted_flops, peak_memory


def step_flops(spec: RegimeSpec, backbone: Backbone, rows: int, length: int) -> tuple[int, int]:
    """Operations of forward and backward, and of the forward alone, of a tagging model."""
    encoder = open_regime(spec).attach(backbone, name="udpos")
    head = FORMATS["tagging"].head(encoder.config.hidden_size, get_task("udpos"), 0.0)
    assert head is not None
    model = TaskModel(encoder, head).eval()
    ids = torch.randint(5, 90, (rows, length))
    with counted_flops() as whole:
        with counted_flops() as forward:
            loss = model(ids, torch.ones_like(ids)).sum()
        loss.backward()
    return whole.get_total_flops(), forward.get_total_flops()


def test_the_forward_is_what_a_count_by_hand_gives(tiny_backbone: Path) -> None:
    backbone = Backbone(str(tiny_backbone))
    config, rows, length = backbone.config, 3, 20
    d, inner, tokens = config.hidden_size, config.intermediate_size, rows * length
    layer = 2 * tokens * (4 * d * d + 2 * d * inner) + 2 * 2 * rows * length * length * d
    expected = config.num_hidden_layers * layer + 2 * tokens * d * len(get_task("udpos").labels)
    assert step_flops(FullSpec(), backbone, rows, length)[1] == expected


def test_a_full_step_is_three_forwards_and_a_modules_is_less(tiny_backbone: Path) -> None:
    backbone = Backbone(str(tiny_backbone))
    full, forward = step_flops(FullSpec(), backbone, 3, 20)
    assert 2.9 < full / forward < 3.3  # attention's backward computes its scores again
    for spec in (AdapterSpec(), LoraSpec()):
        whole, own = step_flops(spec, backbone, 3, 20)
        assert own > forward
        assert whole / own < 2.7


def test_the_peak_counts_what_is_gone_again() -> None:
    def peak_of(mib: int) -> float:
        with peak_memory(torch.device("cpu")) as peak:
            torch.ones(mib << 18).sum()
        return peak.mib

    small, large = peak_of(1), peak_of(400)
    assert large - small == pytest.approx(400, abs=60)
    assert peak_of(1) < large - 300, "an earlier peak is forgotten"


ROW = Row("adapter", "stack", "mnli")


def cost(task: str, **changes: Any) -> Cost:
    values = {
        "setting": "s", "regime": "adapter", "composition": "stack", "intermediate": "mnli", "task": task, "seed": 0,
        "trainable_parameters": 10, "flops_per_step": 2e9, "peak_memory_mib": 100.0, "seconds": 10.0, "examples": 50.0,
        "before": {"k": 30.0}, "evaluation_seconds": 4.0,
    }  # fmt: skip
    return Cost.model_validate(values | changes)


def test_what_several_targets_share_counts_once() -> None:
    costs = [
        cost("xnli"), cost("udpos", trainable_parameters=1234, flops_per_step=4e9, peak_memory_mib=90.0, examples=100.0),
        cost("tatoeba", trainable_parameters=None, flops_per_step=None, peak_memory_mib=None, seconds=None, examples=None),
    ]  # fmt: skip
    header, line = cost_grid({ROW: costs})
    assert tuple(header) == HEADER
    assert line == ["adapter · stack · mnli", "1,234", "3", "100", "30", "20", "7.5", "12"]


def test_times_are_means_over_seeds() -> None:
    costs = [cost("xnli"), cost("xnli", seed=1, before={"other": 50.0}, seconds=20.0, evaluation_seconds=8.0)]
    (_, line) = cost_grid({ROW: costs})
    assert line[4:] == ["40", "15", "3.3", "6"]


def test_what_is_not_known_is_no_zero() -> None:
    (_, line) = cost_grid({Row("adapter", "none", ""): [cost("tatoeba", composition="none", intermediate="", trainable_parameters=None, flops_per_step=None, peak_memory_mib=None, seconds=None, examples=None, before={}, evaluation_seconds=None)]})  # fmt: skip
    assert line == ["adapter · none", *["-"] * 7]
    assert cost_grid({}) == []
