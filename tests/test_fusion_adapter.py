"""AdapterFusion and averaged adapters: exact against the library `adapters`, on disk, in training.

The tests named `test_library_...` pin behaviour of adapters 1.3 that xadapt/regimes/adapter.py goes round.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import adapters
import pytest
import torch
from adapters.composition import Average, Fuse, Stack
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel, XLMRobertaModel

from xadapt.errors import UserError
from xadapt.models.backbone import Backbone
from xadapt.models.fusion_attention import FusionAttention, fusion_layers
from xadapt.models.task_model import last_layer_of_first_token
from xadapt.regimes.adapter import AdapterRegime
from xadapt.regimes.specs import AdapterSpec, FusionSpec

Folders = dict[str, list[Path]]

LAYERS, HIDDEN = 2, 32
TARGET = "udpos"
NAMES = ("mnli", "qqp", "sst2", "cosmosqa", "hellaswag", "socialiqa", "commonsenseqa", "ccg", "squad")
PLACES = {"seq_bn": 1, "double_seq_bn": 2}  # adapters in a layer
REGIMES = {
    "seq_bn": AdapterRegime(AdapterSpec()),
    "double_seq_bn": AdapterRegime(AdapterSpec(config="double_seq_bn", reduction_factor=8, non_linearity="gelu")),
}
REFERENCE = FusionSpec(reference=True)

every_config = pytest.mark.parametrize("config", REGIMES)
every_target = pytest.mark.parametrize("target", [TARGET, None], ids=["target", "alone"])


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(str(tiny_backbone))


@pytest.fixture(scope="module")
def folders(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Nine adapters of each configuration, all far from the identity and from each other."""
    root = tmp_path_factory.mktemp("adapters")
    return {
        config: [adapter(config, backbone, root / config / name, name=name, seed=n) for n, name in enumerate(NAMES)]
        for config in REGIMES
    }


def adapter(config: str, backbone: Backbone, folder: Path, *, name: str, seed: int) -> Path:
    regime = REGIMES[config]
    torch.manual_seed(seed)
    encoder = regime.attach(backbone, name=name)
    shake(encoder, seed)
    regime.save(encoder, folder, name=name)
    return folder


def shake(encoder: PreTrainedModel, seed: int) -> None:
    """Move every trainable parameter, as a training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


def fused(
    config: str, backbone: Backbone, parts: Sequence[Path], name: str | None = TARGET, fusion: FusionSpec | None = None
) -> PreTrainedModel:
    """A fusion, with or without a target adapter on top, whose parameters are far from those it starts with."""
    torch.manual_seed(76)
    encoder = REGIMES[config].attach(backbone, name=name, fuse=parts, fusion=fusion)
    shake(encoder, 77)
    return encoder


def batch(padded: bool = True) -> dict[str, Tensor]:
    ids = torch.tensor([[0, *range(20, 38), 2], [0, *range(40, 47), 2, *([1] * 11 if padded else range(60, 71))]])
    return {"input_ids": ids, "attention_mask": (ids != 1).long()}


def outputs(encoder: PreTrainedModel) -> Tensor:
    """Hidden states of every layer for a padded batch, without dropout."""
    encoder.eval()
    with torch.no_grad():
        return torch.stack(encoder(**batch(), output_hidden_states=True).hidden_states)


def outputs_and_gradients(encoder: PreTrainedModel, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Last hidden states and the gradients of a loss that sees all of them, drawn from one seed."""
    torch.manual_seed(5)
    encoder.zero_grad()
    hidden = encoder(**inputs).last_hidden_state.float()
    directions = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(6))
    (hidden * directions).sum().backward()
    return hidden.detach(), {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}


def assert_close_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal to 1e-4 of the largest entry of each parameter's gradient."""
    assert found.keys() == expected.keys()
    largest = max(float(tensor.abs().max()) for tensor in expected.values())
    for name, tensor in expected.items():
        # the gradient of a key's bias is zero but for rounding when there is no dropout
        least = 1e-2 * largest if name.endswith("key.bias") else 0.0
        scale = max(float(tensor.abs().max()), least)
        assert float((found[name] - tensor).abs().max()) <= 1e-4 * scale, name


def parameters(encoder: PreTrainedModel) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in encoder.named_parameters()}


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def plain(backbone: Backbone) -> PreTrainedModel:
    """An encoder that only the library knows."""
    model = XLMRobertaModel.from_pretrained(backbone.folder, add_pooling_layer=False)
    adapters.init(model)
    return model


# exactness


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "full"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("number", [1, 3, 9])
@every_target
@every_config
def test_outputs_and_gradients_are_the_librarys(
    config: str, target: str | None, number: int, training: bool, padded: bool, backbone: Backbone,
    folders: Folders,
) -> None:  # fmt: skip
    """In training mode dropout, 0.1 everywhere, draws the same masks for both."""
    rewrite = fused(config, backbone, folders[config][:number], target).train(training)
    library = fused(config, backbone, folders[config][:number], target, REFERENCE).train(training)
    library.load_state_dict(rewrite.state_dict())
    expected, gradients = outputs_and_gradients(library, batch(padded))
    hidden, found = outputs_and_gradients(rewrite, batch(padded))
    torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-5)
    assert fusion_layers(rewrite)
    assert not fusion_layers(library)
    assert_close_gradients(found, gradients)


def test_dropout_of_the_fusion_acts_on_the_scores(backbone: Backbone, folders: Folders) -> None:
    encoder = fused("seq_bn", backbone, folders["seq_bn"][:3], None).train()
    for layer in fusion_layers(encoder):
        layer.recording = True
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    encoder.encoder.layer[0].output.adapter_fusion_layer["mnli,qqp,sst2"].dropout.p = 1.0
    encoder(**batch())
    recorded = fusion_layers(encoder)[0].probabilities
    assert recorded is not None
    torch.testing.assert_close(recorded, torch.full_like(recorded, 1 / 3))


@every_config
def test_the_key_s_bias_moves_only_through_dropout(config: str, backbone: Backbone, folders: Folders) -> None:
    encoder = fused(config, backbone, folders[config][:3])
    largest = {}
    for training in (True, False):
        _, found = outputs_and_gradients(encoder.train(training), batch())
        largest[training] = max(float(g.abs().max()) for name, g in found.items() if name.endswith("key.bias"))
    assert largest[False] < 1e-4 * largest[True]


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.elements = max(self.elements, tensor.numel())
        return made


def test_no_tensor_holds_every_adapters_output(backbone: Backbone, folders: Folders) -> None:
    """Neither made, forwards or backwards, nor kept for the backward pass."""
    inputs = {name: tensor.repeat(4, 2) for name, tensor in batch(padded=False).items()}
    every_output = inputs["input_ids"].numel() * 9 * HIDDEN
    largest: dict[bool, tuple[int, int]] = {}
    for reference in (False, True):
        encoder = fused("seq_bn", backbone, folders["seq_bn"], fusion=FusionSpec(reference=reference))
        saved: list[int] = []

        def keep(tensor: Tensor, saved: list[int] = saved) -> Tensor:
            saved.append(tensor.untyped_storage().nbytes() // tensor.element_size())
            return tensor

        with Largest() as made, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            outputs_and_gradients(encoder, inputs)
        largest[reference] = (made.elements, max(saved))
    assert max(largest[False]) < every_output
    assert min(largest[True]) >= every_output


@pytest.mark.parametrize("reference", [False, True])
@every_config
def test_gradient_checkpointing_changes_no_gradient(
    config: str, reference: bool, backbone: Backbone, folders: Folders
) -> None:
    encoder = fused(config, backbone, folders[config][:3], fusion=FusionSpec(reference=reference)).train()
    hidden, gradients = outputs_and_gradients(encoder, batch())
    encoder.gradient_checkpointing_enable()
    again, found = outputs_and_gradients(encoder, batch())
    torch.testing.assert_close(again, hidden)
    assert_close_gradients(found, gradients)


@every_config
def test_bf16_is_as_near_as_the_librarys(config: str, backbone: Backbone, folders: Folders) -> None:
    exact, _ = outputs_and_gradients(fused(config, backbone, folders[config]).eval(), batch())
    errors = {}
    for reference in (False, True):
        encoder = fused(config, backbone, folders[config], fusion=FusionSpec(reference=reference)).eval()
        with torch.autocast("cpu", torch.bfloat16):
            hidden, gradients = outputs_and_gradients(encoder, batch())
        assert all(bool(tensor.isfinite().all()) for tensor in (hidden, *gradients.values()))
        errors[reference] = float((hidden - exact).square().mean().sqrt())
    assert errors[False] < 1.5 * errors[True]


@every_target
@every_config
def test_the_last_layer_of_the_first_token_alone_changes_nothing(
    config: str, target: str | None, backbone: Backbone, folders: Folders
) -> None:
    encoder = fused(config, backbone, folders[config][:3], target).eval()
    layers = fusion_layers(encoder)
    for layer in layers:
        layer.recording = True
    whole = encoder(**batch()).last_hidden_state
    attended = [layer.probabilities for layer in layers]
    with last_layer_of_first_token(encoder):
        short = encoder(**batch()).last_hidden_state
    torch.testing.assert_close(short, whole[:, :1], rtol=0, atol=1e-6)
    for layer, before in zip(layers, attended, strict=True):
        assert layer.probabilities is not None
        assert before is not None
        tokens = layer.probabilities.shape[1]
        torch.testing.assert_close(layer.probabilities, before[:, :tokens])
    last = layers[-1].probabilities
    assert last is not None
    assert last.shape == (2, 1, 3)


# attention


@every_config
def test_the_recorded_attention_is_the_librarys(config: str, backbone: Backbone, folders: Folders) -> None:
    encoder = fused(config, backbone, folders[config][:3]).eval()
    layers = fusion_layers(encoder)
    assert len(layers) == LAYERS * PLACES[config]
    for layer in layers:
        layer.recording = True
    encoder(**batch())
    library = fused(config, backbone, folders[config][:3], fusion=REFERENCE).eval()
    library.load_state_dict(encoder.state_dict())
    found = library(**batch(), output_adapter_fusion_attentions=True).adapter_fusion_attentions["mnli,qqp,sst2"]
    expected = [place for layer in range(LAYERS) for place in found[layer].values()]
    for recorded, array in zip(layers, expected, strict=True):
        assert recorded.probabilities is not None
        assert not recorded.probabilities.requires_grad
        torch.testing.assert_close(recorded.probabilities.sum(-1), torch.ones(2, 20))
        torch.testing.assert_close(recorded.probabilities, torch.from_numpy(array), rtol=1e-4, atol=1e-5)
    assert float(recorded.probabilities.std()) > 0.05, "the attention differs from token to token"


def test_no_attention_is_kept_unasked(backbone: Backbone, folders: Folders) -> None:
    encoder = fused("seq_bn", backbone, folders["seq_bn"][:3])
    outputs(encoder)
    layers = fusion_layers(encoder)
    assert [layer.probabilities for layer in layers] == [None] * LAYERS
    layers[0].recording = True
    outputs(encoder)
    assert [layer.probabilities is None for layer in layers] == [False, True]
    layers[0].recording = False
    outputs(encoder)
    assert layers[0].probabilities is None


def test_fusions_that_are_modules_are_found_in_order() -> None:
    class Gate(torch.nn.Module, FusionAttention):
        pass

    gates = [Gate(), Gate()]
    assert fusion_layers(torch.nn.Sequential(gates[0], torch.nn.ReLU(), gates[1])) == gates
    assert fusion_layers(torch.nn.ReLU()) == []


# what moves


def trainable_formula(config: str, target: bool) -> int:
    """Query, key and value, biases for the first two, at each place; then the target's down and up projection."""
    inner = {"seq_bn": HIDDEN // 16, "double_seq_bn": HIDDEN // 8}[config]
    fusion = 3 * HIDDEN**2 + 2 * HIDDEN
    module = 2 * HIDDEN * inner + inner + HIDDEN
    return LAYERS * PLACES[config] * (fusion + (module if target else 0))


@every_target
@every_config
def test_the_trainable_count_is_the_formulas(
    config: str, target: str | None, backbone: Backbone, folders: Folders
) -> None:
    encoder = REGIMES[config].attach(backbone, name=target, fuse=folders[config])
    expected = trainable_formula(config, target is not None)
    assert sum(p.numel() for _, p in REGIMES[config].trainable(encoder)) == expected
    assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) == expected


def steps(regime: AdapterRegime, encoder: PreTrainedModel) -> None:
    """Three steps of AdamW, penalty included."""
    optimizer = torch.optim.AdamW([p for _, p in regime.trainable(encoder)], lr=1e-2)
    for _ in range(3):
        encoder.train().zero_grad()
        loss = encoder(**batch()).last_hidden_state[..., 0].sum()
        penalty = regime.penalty(encoder)
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()


@every_target
@every_config
def test_only_fusion_and_target_move(
    config: str, target: str | None, backbone: Backbone, folders: Folders, tmp_path: Path
) -> None:
    regime = REGIMES[config]
    encoder = regime.attach(backbone, name=target, fuse=folders[config][:3])
    before = parameters(encoder)
    steps(regime, encoder)
    moved = {name for name, tensor in parameters(encoder).items() if not torch.equal(tensor, before[name])}
    assert moved == {
        name for name in before if ".adapter_fusion_layer." in name or (target and f".adapters.{target}." in name)
    }
    regime.save(encoder, tmp_path, name=target)
    written = tmp_path / "below" / "fused" if target else tmp_path / "fused"
    for number, source in enumerate(folders[config][:3]):
        assert hashes(written / f"{number:02d}-{NAMES[number]}") == hashes(source)
    bare = backbone.encoder().state_dict()
    found = {name: t for name, t in encoder.state_dict().items() if name in bare}
    assert len(found) == len(bare)
    assert all(torch.equal(found[name], bare[name]) for name in bare)


@every_config
def test_a_trained_fusion_stays_frozen_below_a_target(
    config: str, backbone: Backbone, folders: Folders, tmp_path: Path
) -> None:
    regime = REGIMES[config]
    alone = fused(config, backbone, folders[config][:3], None)
    regime.save(alone, tmp_path / "fusion", name=None)
    encoder = regime.attach(backbone, name=TARGET, below=tmp_path / "fusion")
    assert encoder.active_adapters == Stack(Fuse(*NAMES[:3]), TARGET)
    assert {".adapters.udpos." in name for name, _ in regime.trainable(encoder)} == {True}
    assert regime.penalty(encoder) is None
    steps(regime, encoder)
    regime.save(encoder, tmp_path / "target", name=TARGET)
    assert hashes(tmp_path / "target" / "below") == hashes(tmp_path / "fusion")
    assert not torch.allclose(outputs(encoder), outputs(alone), atol=1e-3)
    assert torch.equal(outputs(regime.load(backbone, tmp_path / "target")), outputs(encoder))


def test_the_penalty_is_the_librarys(backbone: Backbone, folders: Folders) -> None:
    for config, regime in REGIMES.items():
        encoder = fused(config, backbone, folders[config][:3])
        found, expected = regime.penalty(encoder), encoder.get_fusion_regularization_loss()
        assert found is not None
        torch.testing.assert_close(found, expected)
        values = [p for name, p in regime.trainable(encoder) if name.endswith("value.weight")]
        torch.testing.assert_close(torch.autograd.grad(found, values), torch.autograd.grad(expected, values))
        tenfold = regime.penalty(fused(config, backbone, folders[config][:3], fusion=FusionSpec(regularization=0.1)))
        torch.testing.assert_close(tenfold, 10 * expected)


def test_there_is_no_penalty_without_a_trainable_fusion(backbone: Backbone, folders: Folders) -> None:
    regime = REGIMES["seq_bn"]
    assert regime.penalty(fused("seq_bn", backbone, folders["seq_bn"], fusion=FusionSpec(regularization=0))) is None
    assert regime.penalty(regime.attach(backbone, name=TARGET)) is None
    assert regime.penalty(regime.attach(backbone, name=TARGET, below=folders["seq_bn"][0])) is None


# folders


@every_target
@every_config
def test_saving_and_loading(
    config: str, target: str | None, backbone: Backbone, folders: Folders, tmp_path: Path
) -> None:
    regime = REGIMES[config]
    encoder = fused(config, backbone, folders[config], target)
    regime.save(encoder, tmp_path / "first", name=target)
    loaded = regime.load(backbone, tmp_path / "first", merged=True)
    assert torch.equal(outputs(loaded), outputs(encoder))
    assert len(fusion_layers(loaded)) == LAYERS * PLACES[config]
    regime.save(loaded, tmp_path / "second", name=target)
    assert hashes(tmp_path / "first") == hashes(tmp_path / "second")
    fusion = tmp_path / "first" / "below" if target else tmp_path / "first"
    assert sorted(path.name for path in (fusion / "fused").iterdir()) == [f"{n:02d}-{x}" for n, x in enumerate(NAMES)]
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert path.suffix in (".json", ".safetensors"), "nothing is pickled"
        assert json.loads(path.read_text()) if path.suffix == ".json" else load_file(path)


def test_a_fusion_and_its_target_can_lie_below_another(backbone: Backbone, folders: Folders, tmp_path: Path) -> None:
    regime = REGIMES["seq_bn"]
    regime.save(fused("seq_bn", backbone, folders["seq_bn"][:2]), tmp_path / "middle", name=TARGET)
    top = regime.attach(backbone, name="xnli", below=tmp_path / "middle")
    shake(top, 3)
    assert top.active_adapters == Stack(Fuse("mnli", "qqp"), TARGET, "xnli")
    regime.save(top, tmp_path / "top", name="xnli")
    assert torch.equal(outputs(regime.load(backbone, tmp_path / "top")), outputs(top))


@every_config
def test_the_folders_open_in_the_library(config: str, backbone: Backbone, folders: Folders, tmp_path: Path) -> None:
    encoder = fused(config, backbone, folders[config][:3])
    REGIMES[config].save(encoder, tmp_path, name=TARGET)
    model = plain(backbone)
    for part in sorted((tmp_path / "below" / "fused").iterdir()):
        model.load_adapter(str(part), use_safetensors=True)
    name = model.load_adapter_fusion(str(tmp_path / "below"), use_safetensors=True)
    model.load_adapter(str(tmp_path), use_safetensors=True)
    model.active_adapters = Stack(Fuse(*name.split(",")), TARGET)
    torch.testing.assert_close(outputs(model), outputs(encoder), rtol=0, atol=1e-5)


def test_equal_names_are_numbered_and_the_order_is_kept(backbone: Backbone, folders: Folders, tmp_path: Path) -> None:
    """mnli learnt in two languages, udpos as an intermediate and as the target task."""
    regime = REGIMES["seq_bn"]
    german = adapter("seq_bn", backbone, tmp_path / "german", name="mnli", seed=50)
    same = adapter("seq_bn", backbone, tmp_path / "same", name=TARGET, seed=51)
    parts = [same, folders["seq_bn"][0], folders["seq_bn"][1], german]
    encoder = fused("seq_bn", backbone, parts)
    assert list(encoder.active_adapters[0]) == ["udpos_2", "mnli", "qqp", "mnli_2"]
    regime.save(encoder, tmp_path / "first", name=TARGET)
    loaded = regime.load(backbone, tmp_path / "first")
    assert torch.equal(outputs(loaded), outputs(encoder))
    regime.save(loaded, tmp_path / "second", name=TARGET)
    assert hashes(tmp_path / "first") == hashes(tmp_path / "second")
    written = [load_file(tmp_path / "first/below/fused" / f"{n:02d}-{x}" / "adapter.safetensors")
               for n, x in enumerate(encoder.active_adapters[0])]  # fmt: skip
    for tensors, source in zip(written, parts, strict=True):
        expected = load_file(source / "adapter.safetensors")
        assert [tuple(tensor.shape) for tensor in tensors.values()] == [tuple(t.shape) for t in expected.values()]
        assert all(torch.equal(*pair) for pair in zip(tensors.values(), expected.values(), strict=True))


def test_a_fusion_below_a_target_of_the_same_name_as_a_part(
    backbone: Backbone, folders: Folders, tmp_path: Path
) -> None:
    regime = REGIMES["seq_bn"]
    alone = fused("seq_bn", backbone, folders["seq_bn"][:2], None)
    regime.save(alone, tmp_path / "fusion", name=None)
    encoder = regime.attach(backbone, name="qqp", below=tmp_path / "fusion")
    assert encoder.active_adapters == Stack(Fuse("mnli", "qqp_2"), "qqp")
    with torch.no_grad():
        for _, parameter in regime.trainable(encoder):
            parameter.zero_()
    torch.testing.assert_close(outputs(encoder), outputs(alone), rtol=0, atol=1e-6)


def test_the_reference_is_left_to_the_library(backbone: Backbone, folders: Folders) -> None:
    assert not fusion_layers(fused("seq_bn", backbone, folders["seq_bn"][:3], fusion=REFERENCE))
    assert len(fusion_layers(fused("seq_bn", backbone, folders["seq_bn"][:3]))) == LAYERS


def test_what_cannot_be_fused(backbone: Backbone, folders: Folders, tmp_path: Path) -> None:
    regime = REGIMES["seq_bn"]
    with pytest.raises(UserError) as raised:
        regime.attach(backbone, name=TARGET, fuse=[folders["seq_bn"][0], folders["double_seq_bn"][1]])
    assert str(folders["seq_bn"][0]) in str(raised.value)
    assert str(folders["double_seq_bn"][1]) in str(raised.value)
    regime.save(regime.attach(backbone, name=TARGET, below=folders["seq_bn"][0]), tmp_path, name=TARGET)
    with pytest.raises(AssertionError, match="stack"):
        regime.attach(backbone, name=TARGET, fuse=[folders["seq_bn"][0], tmp_path])


def test_pickled_fusions_are_never_opened(backbone: Backbone, folders: Folders, tmp_path: Path) -> None:
    encoder = fused("seq_bn", backbone, folders["seq_bn"][:2], None)
    REGIMES["seq_bn"].save(encoder, tmp_path, name=None)
    encoder.save_adapter_fusion(str(tmp_path), "mnli,qqp", use_safetensors=False)
    (tmp_path / "model_adapter_fusion.safetensors").unlink()
    with pytest.raises(UserError):
        REGIMES["seq_bn"].load(backbone, tmp_path)


# averages


def in_library(backbone: Backbone, parts: Sequence[Path], activate: Callable[[PreTrainedModel], None]) -> Tensor:
    model = plain(backbone)
    for part in parts:
        model.load_adapter(str(part), use_safetensors=True)
    activate(model)
    return outputs(model)


@pytest.mark.parametrize("weights", [(1, 1, 1), (0.5, 2, 0), (3, 1, 1)])
@every_config
def test_the_average_is_the_librarys(
    config: str, weights: tuple[float, ...], backbone: Backbone, folders: Folders, tmp_path: Path
) -> None:
    regime, parts = REGIMES[config], folders[config][:3]
    regime.average(parts, weights, tmp_path / "mean", name="mean")
    model = plain(backbone)
    for part in parts:
        model.load_adapter(str(part), use_safetensors=True)
    model.average_adapter("mean", list(NAMES[:3]), weights=list(weights), set_active=True)
    encoder = regime.load(backbone, tmp_path / "mean")
    expected = {name: tensor for name, tensor in model.state_dict().items() if ".adapters.mean." in name}
    found = {name: tensor for name, tensor in encoder.state_dict().items() if ".adapters." in name}
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(outputs(encoder), outputs(model), rtol=0, atol=1e-6)
    regime.save(encoder, tmp_path / "again", name="mean")
    assert hashes(tmp_path / "again") == hashes(tmp_path / "mean")


def test_the_average_of_equal_adapters_is_that_adapter(backbone: Backbone, folders: Folders, tmp_path: Path) -> None:
    source = folders["seq_bn"][0]
    REGIMES["seq_bn"].average([source] * 3, [0.1, 0.2, 0.4], tmp_path, name=NAMES[0])
    assert hashes(tmp_path) == hashes(source)


def test_an_average_can_lie_below_a_target(backbone: Backbone, folders: Folders, tmp_path: Path) -> None:
    regime = REGIMES["seq_bn"]
    regime.average(folders["seq_bn"][:3], [1, 1, 1], tmp_path / "mean", name="mean")
    encoder = regime.attach(backbone, name=TARGET, below=tmp_path / "mean")
    assert encoder.active_adapters == Stack("mean", TARGET)


@pytest.mark.parametrize("weights", [(1, -1, 1), (0, 0, 0), (1, float("nan"), 1), (1, float("inf"), 1)])
def test_weights_that_give_no_average(weights: tuple[float, ...], folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        REGIMES["seq_bn"].average(folders["seq_bn"][:3], weights, tmp_path / "mean", name="mean")
    assert not (tmp_path / "mean").exists()


def test_adapters_that_differ_have_no_average(backbone: Backbone, folders: Folders, tmp_path: Path) -> None:
    wide = AdapterRegime(AdapterSpec(reduction_factor=8))
    wide.save(wide.attach(backbone, name="wide"), tmp_path / "wide", name="wide")
    parts = [folders["seq_bn"][0], folders["seq_bn"][1], tmp_path / "wide"]
    with pytest.raises(UserError) as raised:
        wide.average(parts, [1, 1, 1], tmp_path / "mean", name="mean")
    assert str(parts[0]) in str(raised.value)
    assert str(parts[2]) in str(raised.value)
    assert not (tmp_path / "mean").exists()


# what the library does


@pytest.fixture
def library(backbone: Backbone, folders: Folders) -> Iterator[PreTrainedModel]:
    """A model of the library's with two adapters."""
    model = plain(backbone)
    for part in folders["seq_bn"][:2]:
        model.load_adapter(str(part), use_safetensors=True)
    return model


def test_library_average_composition_divides_twice(backbone: Backbone, folders: Folders, tmp_path: Path) -> None:
    """Why averages are taken of parameters: Average(a, a), weights 1/2, is not a."""
    source = folders["seq_bn"][0]
    copy = tmp_path / "copy"
    REGIMES["seq_bn"].average([source], [1], copy, name="copy")
    alone = in_library(backbone, [source], lambda model: model.set_active_adapters("mnli"))
    same = in_library(backbone, [source, copy], lambda model: model.set_active_adapters(Average("mnli", "copy")))
    twice = Average("mnli", "copy", weights=[1.0, 1.0], normalize_weights=False)
    assert not torch.allclose(same, alone, atol=1e-2)
    torch.testing.assert_close(
        in_library(backbone, [source, copy], lambda model: model.set_active_adapters(twice)), alone
    )


@pytest.mark.parametrize("name", [None, "both"])
def test_library_named_fusions_are_not_restored(
    name: str | None, library: PreTrainedModel, backbone: Backbone, tmp_path: Path
) -> None:
    """Why a fusion gets no name: a setup's file forgets it."""
    fuse = Fuse("mnli", "qqp", name=name)
    library.add_adapter_fusion(fuse)
    library.save_adapter_setup(str(tmp_path), fuse, use_safetensors=True)
    if name is None:
        plain(backbone).load_adapter_setup(str(tmp_path), use_safetensors=True)
    else:
        with pytest.raises(ValueError, match="AdapterFusion"):
            plain(backbone).load_adapter_setup(str(tmp_path), use_safetensors=True)


def test_library_train_adapter_refuses_a_stack_on_a_fusion(library: PreTrainedModel) -> None:
    """Why `train_adapter` gets the target alone, and the fusion is freed by hand."""
    library.add_adapter_fusion(Fuse("mnli", "qqp"))
    library.add_adapter(TARGET, config="seq_bn")
    with pytest.raises(TypeError):
        library.train_adapter(Stack(Fuse("mnli", "qqp"), TARGET))


def test_library_fusions_need_their_adapters_first(
    library: PreTrainedModel, backbone: Backbone, tmp_path: Path
) -> None:
    library.add_adapter_fusion(Fuse("mnli", "qqp"))
    library.save_adapter_fusion(str(tmp_path), Fuse("mnli", "qqp"), use_safetensors=True)
    with pytest.raises(ValueError, match="mnli"):
        plain(backbone).load_adapter_fusion(str(tmp_path), use_safetensors=True)


def test_library_fusions_cannot_be_loaded_over_renamed_adapters(
    library: PreTrainedModel, backbone: Backbone, folders: Folders, tmp_path: Path
) -> None:
    """Why the regime reads a fusion's file itself."""
    library.add_adapter_fusion(Fuse("mnli", "qqp"))
    library.save_adapter_fusion(str(tmp_path), Fuse("mnli", "qqp"), use_safetensors=True)
    model = plain(backbone)
    for part, name in zip(folders["seq_bn"], ("first", "second"), strict=False):
        model.load_adapter(str(part), load_as=name, use_safetensors=True)
    with pytest.raises(ValueError, match="mnli"):
        model.load_adapter_fusion(str(tmp_path), load_as="first,second", use_safetensors=True)
