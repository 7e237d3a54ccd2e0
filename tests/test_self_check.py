"""The self-check: every artefact has one, honest loading passes it, and what checksums cannot see is refused."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from silent_reporter import Silent
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from xadapt.errors import UserError
from xadapt.models.backbone import Backbone
from xadapt.study.executors import Outcome, run_plan
from xadapt.study.plan import Plan, make_plan
from xadapt.study.recipe_file import make_recipe
from xadapt.study.self_check import CHECK, ROWS, TOKENS, regime_of, verify_check
from xadapt.study.stage import Stage
from xadapt.study.store import Result, Store

SMALL = {"reduction_factor": 4, "training": {"learning_rate": 1e-2}}


def planned(backbone: Path, **changes: Any) -> Plan:
    values: dict[str, Any] = {
        "backbone": str(backbone), "data": "embedded", "targets": ["udpos", "tatoeba"], "languages": ["de"],
        "intermediate": ["mnli"], "regimes": {"adapter": {"compositions": ["stack"], **SMALL}},
        "training": {"max_steps": 2, "per_device_train_batch_size": 8, "dtype": "float32"},
        "max_train_samples": 24, "max_eval_samples": 8, "max_predict_samples": 8,
    }  # fmt: skip
    return make_plan(make_recipe(values | changes, place="the test"))


def ran(plan: Plan, store: Store) -> dict[str, Outcome]:
    return {outcome.stage.label: outcome for outcome in run_plan(plan, store, Silent())}


@pytest.fixture(scope="module")
def study(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store]:
    """Artefacts of every kind, all evaluated."""
    store = Store(tmp_path_factory.mktemp("runs"))
    plan = planned(
        tiny_backbone,
        intermediate=["mnli", "hellaswag"],
        regimes={
            "full": {"compositions": ["continue"]},
            "adapter": {"compositions": ["stack", "fusion", "average", "multitask"], **SMALL},
            "lora": {"compositions": ["stack"]},
        },
        mixture={"mlm_ratio": 0.2},
    )
    outcomes = ran(plan, store)
    assert {outcome.status for outcome in outcomes.values()} == {"succeeded"}, [o.error for o in outcomes.values()]
    return plan, store


def models(study: tuple[Plan, Store]) -> dict[str, Result]:
    plan, store = study
    return {stage.label: store.verified(stage) for stage in plan.stages if stage.kind != "evaluate"}


def test_every_artefact_has_a_small_check_of_all_its_heads(study: tuple[Plan, Store]) -> None:
    seen = set()
    for result in models(study).values():
        kept = load_file(result.folder / CHECK)
        by_task: dict[str, dict[str, Tensor]] = {}
        for key, tensor in kept.items():
            name, _, part = key.rpartition("/")
            by_task.setdefault(name, {})[part] = tensor
        for name, parts in by_task.items():
            sequences = ROWS * (4 if name == "hellaswag" else 1)
            assert parts["input_ids"].shape[0] == parts["pooled"].shape[0] == sequences
            assert parts["input_ids"].shape[1] <= TOKENS
            assert ("logits" in parts) == (name not in ("encoder", "mlm"))
        expected = {part["name"] for part in result.manifest["spec"].get("tasks", ())}
        assert by_task.keys() == expected or len(by_task) == 1
        seen |= by_task.keys()
    assert seen == {"encoder", "mnli", "hellaswag", "mlm", "udpos"}


def test_another_backbone_of_the_same_shapes_is_refused(
    study: tuple[Plan, Store], tiny_backbone: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_backbone, other)
    tensors = load_file(other / "model.safetensors")
    name = next(key for key in tensors if "layer.1.intermediate.dense.weight" in key)
    tensors[name] = torch.roll(tensors[name], 1, dims=0)
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    for label, result in models(study).items():
        regime = regime_of(result)
        verify_check(result, regime.load(Backbone(str(tiny_backbone)), result.folder))
        if ", full" in label:
            continue  # its encoder is its own
        with pytest.raises(UserError, match="hidden states") as refused:
            verify_check(result, regime.load(Backbone(str(other)), result.folder))
        assert str(result.folder) in str(refused.value)


def loaded(study: tuple[Plan, Store], backbone: Path, label: str) -> tuple[Result, PreTrainedModel]:
    result = models(study)[label]
    return result, regime_of(result).load(Backbone(str(backbone)), result.folder)


def other_epsilon(encoder: nn.Module) -> None:
    for module in encoder.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-3  # XLM-R's is 1e-5


def residual_twice(encoder: nn.Module) -> None:
    for name, module in encoder.named_modules():
        if name.endswith("output.LayerNorm"):
            module.register_forward_hook(lambda _, inputs, output: output + inputs[0])


def not_a_number(encoder: nn.Module) -> None:
    with torch.no_grad():
        next(encoder.parameters()).fill_(torch.nan)


@pytest.mark.parametrize("change", [other_epsilon, residual_twice, not_a_number])
def test_a_library_that_computes_something_else_is_refused(
    study: tuple[Plan, Store], tiny_backbone: Path, change: Callable[[nn.Module], None]
) -> None:
    label = next(label for label in models(study) if label.startswith("train udpos, adapter"))
    result, encoder = loaded(study, tiny_backbone, label)
    verify_check(result, encoder)
    change(encoder)
    with pytest.raises(UserError, match=r"hidden states"):
        verify_check(result, encoder)


@contextmanager
def eager(encoder: PreTrainedModel) -> Iterator[None]:
    encoder.config._attn_implementation = "eager"
    yield


@contextmanager
def math_kernel(encoder: PreTrainedModel) -> Iterator[None]:
    with sdpa_kernel(SDPBackend.MATH):
        yield


@contextmanager
def two_threads(encoder: PreTrainedModel) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def autocast(encoder: PreTrainedModel) -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield


@pytest.mark.parametrize("way", [eager, math_kernel, two_threads, autocast])
def test_other_kernels_threads_and_precisions_pass(study: tuple[Plan, Store], tiny_backbone: Path, way: Any) -> None:
    for label in models(study):
        result, encoder = loaded(study, tiny_backbone, label)
        with way(encoder):
            verify_check(result, encoder)


def committed_again(store: Store, stage: Stage, root: Path, change: Callable[[Path], None]) -> Store:
    """A store with a stage's files changed and its checksums right, and with all it needs."""
    other = Store(root)
    for need in stage.needs:
        shutil.copytree(store.folder(need), other.folder(need))

    def work(folder: Path) -> dict[str, Any]:
        shutil.copytree(store.folder(stage), folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()
        change(folder)
        return store.verified(stage).record

    other.run(stage, work, waiting=lambda: None)
    return other


def flip_adapter(folder: Path) -> None:
    file = folder / "adapter.safetensors"
    tensors = load_file(file)
    name = next(key for key in tensors if key.endswith("adapter_up.weight"))
    tensors[name][0] *= -1
    save_file(tensors, file)


def flip_head(folder: Path) -> None:
    file = folder / "head.safetensors"
    tensors = load_file(file)
    tensors["out_proj.weight"][0, 0] += 0.5
    save_file(tensors, file)


def forget_check(folder: Path) -> None:
    (folder / CHECK).unlink()


@pytest.mark.parametrize(
    ("changed", "change", "failing"),
    [
        ("train mnli, adapter", flip_adapter, {"train udpos", "evaluate tatoeba"}),
        ("train udpos, adapter, stack mnli", flip_adapter, {"evaluate udpos"}),
        ("train udpos, adapter, stack mnli", flip_head, {"evaluate udpos"}),
        ("train mnli, adapter", forget_check, set()),
        ("train udpos, adapter, stack mnli", forget_check, set()),
    ],
)
def test_changed_weights_with_right_checksums_are_refused_wherever_they_are_used(
    tiny_backbone: Path, tmp_path: Path, changed: str, change: Callable[[Path], None], failing: set[str]
) -> None:
    """An artefact without a check is an older version's and passes."""
    plan, store = planned(tiny_backbone), Store(tmp_path / "first")
    ran(plan, store)
    stage = next(stage for stage in plan.stages if stage.label == changed)
    other = committed_again(store, stage, tmp_path / "second", change)
    outcomes = ran(plan, other)
    failed = {label: outcome for label, outcome in outcomes.items() if outcome.status == "failed"}
    assert {" ".join(label.split(" ")[:2]).rstrip(",") for label in failed} == failing
    for outcome in failed.values():
        assert isinstance(outcome.error, UserError)
        assert str(other.folder(stage)) in str(outcome.error)
        assert not other.folder(outcome.stage).exists()


def test_a_package_that_is_gone_is_named_in_the_refusal(study: tuple[Plan, Store], tiny_backbone: Path) -> None:
    """The error is the check's, not one about the package."""
    result, encoder = loaded(study, tiny_backbone, next(iter(models(study))))
    packages = {**result.manifest["provenance"]["packages"], "no-such-package": "1.2.3"}
    manifest = {**result.manifest, "provenance": {**result.manifest["provenance"], "packages": packages}}
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.5)
    with pytest.raises(UserError, match=r"no-such-package 1\.2\.3.*not installed"):
        verify_check(replace(result, manifest=manifest), encoder)
