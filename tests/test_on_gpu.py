"""What only a GPU can show: the same bytes after a stop in its own arithmetic, and its own memory running out."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_resume import KINDS, SETTINGS, STEPS, StopAt, everything, run, stopped
from test_together import TASKS, Make, log_of
from test_together import make as recipe_of  # noqa: F401 - a fixture
from test_together import run as run_together
from test_training import job, still, training  # noqa: F401 - still is a fixture
from torch import Tensor, nn

from xadapt.evaluation.attention import AttentionMeans
from xadapt.formats import mining
from xadapt.models.backbone import Backbone
from xadapt.models.fusion_attention import FusionAttention
from xadapt.study.store import Store
from xadapt.training.device import make_deterministic
from xadapt.training.prediction import predict_logits

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
MIB = 1 << 20


class Attending(nn.Module, FusionAttention):
    """A fusion that is told what it attends to."""


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(str(tiny_backbone))


@pytest.fixture
def deterministic() -> Iterator[None]:
    make_deterministic()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """What is in use now, what cuBLAS works with included, and 40 MiB more."""
    torch.nn.functional.linear(*(torch.ones(64, 64, device="cuda") for _ in range(2)), torch.ones(64, device="cuda"))
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 40 * MIB) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_stopped_after_any_step_it_goes_on_to_the_same_bytes(
    kind: str, dtype: str, backbone: Backbone, tmp_path: Path
) -> None:
    make, settings = KINDS[kind](backbone), SETTINGS.model_copy(update={"dtype": dtype})
    straight = make(tmp_path / "straight", settings=settings)
    run(straight)
    assert straight.accelerator.device.type == "cuda"
    expected = everything(straight, tmp_path / "straight")
    for at in range(1, STEPS):
        folder = tmp_path / str(at)
        stopped(make, folder, StopAt(at), settings=settings)
        resumed = make(folder, settings=settings)
        run(resumed)
        assert resumed.result.resumed == [at]
        assert everything(resumed, folder) == expected


@pytest.mark.usefixtures("little_memory")
def test_a_step_that_the_gpu_has_no_memory_for_is_cut_and_its_loss_is_the_same(still: Backbone) -> None:  # noqa: F811
    """What the backward pass of 1,024 rows keeps is several times 40 MiB."""
    settings = SETTINGS.model_copy(update={"per_device_train_batch_size": 1024, "max_steps": 3})
    whole = training(job(still, "full", "classification", rows=3000), settings, token_budget=2048).run()
    made = training(job(still, "full", "classification", rows=3000), settings, token_budget=10**6)
    cut = made.run()
    assert made.token_budget < 10**6, "it did not fit"
    assert cut.losses == pytest.approx(whole.losses, abs=1e-5)
    assert (cut.examples, cut.tokens) == (whole.examples, whole.tokens)


@pytest.mark.usefixtures("little_memory")
def test_predictions_that_the_gpu_has_no_memory_for_are_cut(still: Backbone) -> None:  # noqa: F811
    of = job(still, "seq_bn", "tagging", rows=12_000)
    model = of.model.to("cuda")

    def predicted(budget: int) -> list[Tensor]:
        found = predict_logits(
            model, of.features, pad_token_id=of.pad, token_budget=budget, device=torch.device("cuda")
        )
        return list(found)

    expected = predicted(2048)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    failed = torch.cuda.memory_stats()["num_ooms"]
    for logits, other in zip(predicted(10**6), expected, strict=True):
        torch.testing.assert_close(logits, other, rtol=0, atol=1e-5)
    assert torch.cuda.memory_stats()["num_ooms"] > failed, "it did not fit"


@pytest.mark.usefixtures("little_memory")
def test_mining_that_the_gpu_has_no_memory_for_finds_pairs_of_the_same_margins() -> None:
    """Of the same margins, since which of two equal ones comes first hangs on the last digit of a product."""
    torch.manual_seed(0)
    vectors = [torch.nn.functional.normalize(torch.randn(20_000, 32), dim=1) for _ in range(2)]
    expected = mining.mine(*vectors)
    failed = torch.cuda.memory_stats()["num_ooms"]
    found = mining.mine(*(side.to("cuda") for side in vectors))
    assert torch.cuda.memory_stats()["num_ooms"] > failed, "it did not fit"
    assert [margin for margin, *_ in found] == pytest.approx([margin for margin, *_ in expected], abs=1e-5)
    common = {pair[1:] for pair in found} & {pair[1:] for pair in expected}
    assert len(common) > 0.999 * len(expected)


def test_side_by_side_without_dropout_is_one_after_the_other(
    still: Backbone,  # noqa: F811
    recipe_of: Make,  # noqa: F811
    tmp_path: Path,
) -> None:
    recipe = recipe_of(backbone=str(still.folder))
    alone, together = (run_together(recipe, Store(tmp_path / str(at)), together=bool(at)) for at in range(2))
    for task in TASKS:
        losses = [[line["loss"] for line in log_of(found[task]) if "loss" in line] for found in (alone, together)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-3)


def test_what_a_fusion_attends_to_is_counted_where_it_is() -> None:
    """Masks come from the rows on the CPU, attention is on the GPU."""
    fusion, probabilities, means = Attending(), torch.rand(2, 4, 3).softmax(dim=-1), []
    for device in ("cpu", "cuda"):
        found = AttentionMeans(fusion, ["a", "b", "c"], layers=1)
        fusion.record(probabilities.to(device))
        found.watch([[0], [1]], torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]))
        found.add("en", [0, 1])
        means.append([of.attention for of in found.means()])
    assert means[0] == pytest.approx(means[1], abs=1e-6)
