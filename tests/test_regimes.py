"""The contract of full fine-tuning and adapters, and what of the library `adapters` it stands on.

Compositions of several tasks are in test_fusion_adapter.py, test_compositions.py and test_mixing.py, LoRA in test_lora.py.

The tests named `test_library_...` pin behaviour of adapters 1.3 that the regimes rely on or go round. One that
fails after an upgrade says: look at xadapt/regimes/adapter.py and regimes/specs.py again.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import adapters
import pytest
import torch
from adapters.composition import Stack
from fingerprints import digest, hashes
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel, Trainer, TrainingArguments, XLMRobertaModel

from xadapt.data.sources import EmbeddedSource
from xadapt.formats import FORMATS
from xadapt.models.backbone import Backbone, load_encoder
from xadapt.models.heads import ClassificationHead
from xadapt.models.task_model import TaskModel
from xadapt.regimes.protocol import open_regime
from xadapt.regimes.specs import COMPOSITIONS, AdapterSpec, FullSpec, RegimeSpec
from xadapt.tasks import get_task
from xadapt.training.device import make_accelerator
from xadapt.training.loop import Training
from xadapt.training.mixing import TrainingPart
from xadapt.training.settings import TrainingSettings

SPECS: dict[str, RegimeSpec] = {
    "full": FullSpec(),
    "seq_bn": AdapterSpec(),
    "double_seq_bn": AdapterSpec(config="double_seq_bn", reduction_factor=8, non_linearity="gelu"),
}
CASES = [
    pytest.param(name, composition, id=f"{name}-{composition}")
    for name, spec in SPECS.items()
    for composition in COMPOSITIONS[spec.name]
    if composition in ("none", "continue", "stack")
]
ADAPTERS = ["seq_bn", "double_seq_bn"]
BEFORE, TARGET = "mnli", "udpos"

every_case = pytest.mark.parametrize(("name", "composition"), CASES)
every_regime = pytest.mark.parametrize("name", SPECS)
every_adapter = pytest.mark.parametrize("name", ADAPTERS)


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(str(tiny_backbone))


@pytest.fixture(scope="module")
def befores(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An artefact of each regime whose parameters are far from those it started with."""
    folders = {}
    for name, spec in SPECS.items():
        regime = open_regime(spec)
        torch.manual_seed(7)
        encoder = regime.attach(backbone, name=BEFORE)
        shake(encoder)
        folders[name] = tmp_path_factory.mktemp(name)
        regime.save(encoder, folders[name], name=BEFORE)
    return folders


def shake(encoder: PreTrainedModel) -> None:
    """Move every trainable parameter, as a training would."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))


def attached(name: str, composition: str, backbone: Backbone, befores: Mapping[str, Path], seed: int = 1) -> PreTrainedModel:  # fmt: skip
    torch.manual_seed(seed)
    return open_regime(SPECS[name]).attach(
        backbone,
        name=TARGET,
        start=befores[name] if composition == "continue" else None,
        below=befores[name] if composition == "stack" else None,
    )


def outputs(encoder: PreTrainedModel) -> Tensor:
    """Hidden states of every layer for a padded batch, without dropout."""
    ids = torch.tensor([[0, *range(20, 38), 2], [0, *range(40, 47), 2, *[1] * 11]])
    encoder.eval()
    with torch.no_grad():
        found = encoder(input_ids=ids, attention_mask=(ids != 1).long(), output_hidden_states=True).hidden_states
    return torch.stack(found)


def parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def base_of(encoder: PreTrainedModel) -> dict[str, Tensor]:
    """The parameters a plain XLM-R has."""
    return {name: tensor for name, tensor in parameters(encoder).items() if ".adapters." not in name}


def train(encoder: PreTrainedModel, backbone: Backbone, steps: int = 2) -> TaskModel:
    task, form = get_task(TARGET), FORMATS["tagging"]
    rows = EmbeddedSource().load(task, "en", "train", limit=16)
    head = form.head(encoder.config.hidden_size, task, 0.1)
    assert head is not None
    model = TaskModel(encoder, head)
    values = iter(range(steps + 1))
    numbers = TrainingSettings(
        learning_rate=1e-2, max_steps=steps, per_device_train_batch_size=8, warmup_ratio=0, weight_decay=0.01
    )
    Training(
        model, [TrainingPart(form, form.encode(rows, task, backbone.tokenizer, 64))], numbers, seed=1, pad_token_id=1,
        accelerator=make_accelerator("float32"), evaluate=lambda: {"f1": float(next(values))}, metric="f1",
        monitors=[],
    ).run()  # fmt: skip
    return model


# what moves


def adapter_formula(spec: AdapterSpec, hidden: int, layers: int) -> int:
    """Down and up projection with biases, once or twice a layer."""
    bottleneck = max(1, int(hidden // spec.reduction_factor))
    one = (hidden * bottleneck + bottleneck) + (bottleneck * hidden + hidden)
    return layers * one * {"seq_bn": 1, "double_seq_bn": 2}[spec.config]


def encoder_formula(backbone: Backbone) -> int:
    config = backbone.config
    hidden, inner = config.hidden_size, config.intermediate_size
    tables = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    attention = 4 * (hidden * hidden + hidden) + 2 * hidden
    feed_forward = hidden * inner + inner + inner * hidden + hidden + 2 * hidden
    return tables * hidden + 2 * hidden + config.num_hidden_layers * (attention + feed_forward)


@every_case
def test_the_trainable_count_is_the_formulas(
    name: str, composition: str, backbone: Backbone, befores: dict[str, Path]
) -> None:
    encoder = attached(name, composition, backbone, befores)
    spec = SPECS[name]
    expected = adapter_formula(spec, 32, 2) if isinstance(spec, AdapterSpec) else encoder_formula(backbone)
    assert sum(parameter.numel() for _, parameter in open_regime(spec).trainable(encoder)) == expected
    assert sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad) == expected


@pytest.mark.parametrize("config", ADAPTERS)
@pytest.mark.parametrize("reduction_factor", [1, 2, 3, 16, 32, 64, 0.5])
def test_the_reduction_factor_sets_the_width(config: Any, reduction_factor: float, backbone: Backbone) -> None:
    spec = AdapterSpec(config=config, reduction_factor=reduction_factor)
    regime = open_regime(spec)
    encoder = regime.attach(backbone, name=TARGET)
    assert sum(p.numel() for _, p in regime.trainable(encoder)) == adapter_formula(spec, 32, 2)


@pytest.mark.parametrize("non_linearity", ["relu", "gelu", "swish", "tanh"])
def test_the_non_linearity_acts(non_linearity: Any, backbone: Backbone) -> None:
    def of(spec: AdapterSpec) -> Tensor:
        torch.manual_seed(0)
        encoder = open_regime(spec).attach(backbone, name=TARGET)
        shake(encoder)
        return outputs(encoder)

    found = {other: of(AdapterSpec(non_linearity=other)) for other in ("relu", "gelu", "swish", "tanh")}
    assert sum(torch.equal(found[non_linearity], other) for other in found.values()) == 1


@every_case
def test_only_the_modules_parameters_move(
    name: str, composition: str, backbone: Backbone, befores: dict[str, Path]
) -> None:
    encoder = attached(name, composition, backbone, befores)
    before = parameters(encoder)
    trainable = {key for key, _ in open_regime(SPECS[name]).trainable(encoder)}
    train(encoder, backbone)
    moved = {key for key, tensor in parameters(encoder).items() if not torch.equal(tensor, before[key])}
    assert moved <= trainable
    # the gradient of a key's bias is zero but for rounding
    assert all(key.endswith("key.bias") for key in trainable - moved)
    if name != "full":
        assert all(f".adapters.{TARGET}." in key for key in moved)


@pytest.mark.parametrize(("name", "composition"), [case for case in CASES if case.values[0] != "full"])
def test_the_frozen_weights_keep_their_hash(
    name: str, composition: str, backbone: Backbone, befores: dict[str, Path]
) -> None:
    encoder = attached(name, composition, backbone, befores)
    train(encoder, backbone, steps=3)
    expected = digest(parameters(load_encoder(backbone.folder)))
    assert digest(base_of(encoder)) == expected
    assert expected == digest({k: v for k, v in load_file(backbone.folder / "model.safetensors").items() if "position_ids" not in k})  # fmt: skip
    if composition == "stack":
        under = {key: tensor for key, tensor in parameters(encoder).items() if f".adapters.{BEFORE}." in key}
        fresh = attached(name, composition, backbone, befores)
        assert digest(under) == digest({key: parameters(fresh)[key] for key in under})


# compositions


@every_regime
def test_continue_starts_from_exactly_what_was_trained(name: str, backbone: Backbone, befores: dict[str, Path]) -> None:
    encoder = attached(name, "continue", backbone, befores)
    trained = open_regime(SPECS[name]).load(backbone, befores[name])
    renamed = {key.replace(f".adapters.{BEFORE}.", f".adapters.{TARGET}."): t for key, t in parameters(trained).items()}
    found = parameters(encoder)
    assert found.keys() == renamed.keys()
    assert all(torch.equal(found[key], renamed[key]) for key in found)
    assert torch.equal(outputs(encoder), outputs(trained))
    assert not torch.equal(outputs(encoder), outputs(backbone.encoder()))


@every_regime
def test_none_starts_from_the_backbone_and_the_seed(name: str, backbone: Backbone, befores: dict[str, Path]) -> None:
    first, again, other = (attached(name, "none", backbone, befores, seed) for seed in (1, 1, 2))
    assert digest(parameters(first)) == digest(parameters(again))
    assert (digest(parameters(first)) == digest(parameters(other))) == (name == "full")
    assert digest(base_of(first)) == digest(parameters(backbone.encoder()))


@every_adapter
def test_a_stack_is_the_librarys_own(name: str, backbone: Backbone, befores: dict[str, Path], tmp_path: Path) -> None:
    encoder = attached(name, "stack", backbone, befores)
    shake(encoder)
    open_regime(SPECS[name]).save(encoder, tmp_path, name=TARGET)
    plain = XLMRobertaModel.from_pretrained(backbone.folder, add_pooling_layer=False)
    adapters.init(plain)
    for folder in (befores[name], tmp_path):
        plain.load_adapter(str(folder), use_safetensors=True)
    plain.active_adapters = Stack(BEFORE, TARGET)
    expected = outputs(encoder)
    assert torch.equal(outputs(plain), expected)
    plain.active_adapters = Stack(TARGET, BEFORE)
    assert not torch.allclose(outputs(plain), expected, atol=1e-3), "the order matters"


def test_a_stack_is_two_bottlenecks_one_after_the_other(backbone: Backbone, befores: dict[str, Path]) -> None:
    """By hand: each adapter reads the normalised sum of feed-forward and attention and adds to the former."""
    encoder = attached("seq_bn", "stack", backbone, befores).eval()
    shake(encoder)
    layer = encoder.encoder.layer[0]
    states = outputs(encoder)
    ids = torch.tensor([[0, *range(20, 38), 2], [0, *range(40, 47), 2, *[1] * 11]])
    mask = torch.where((ids != 1)[:, None, None, :], 0.0, torch.finfo(torch.float32).min)
    with torch.no_grad():
        attended = layer.attention(states[0], attention_mask=mask.expand(-1, 1, 20, -1))[0]
        hidden = layer.output.dense(layer.intermediate(attended))
        for adapter in (BEFORE, TARGET):
            of = layer.output.adapters[adapter]
            normed = layer.output.LayerNorm(hidden + attended)
            down = torch.relu(of.adapter_down[0](normed))
            hidden = of.adapter_up(down) + hidden
        expected = layer.output.LayerNorm(hidden + attended)
    torch.testing.assert_close(states[1], expected, rtol=0, atol=1e-5)


@every_adapter
def test_what_lies_below_stays_frozen_and_active(name: str, backbone: Backbone, befores: dict[str, Path]) -> None:
    encoder = attached(name, "stack", backbone, befores)
    shake(encoder)
    assert encoder.active_adapters == Stack(BEFORE, TARGET)
    under = [parameter for key, parameter in encoder.named_parameters() if f".adapters.{BEFORE}." in key]
    assert under
    assert not any(parameter.requires_grad for parameter in under)
    whole = outputs(encoder)
    encoder.set_active_adapters(TARGET)
    assert not torch.allclose(outputs(encoder), whole, atol=1e-3), "the lower one counts"
    encoder.set_active_adapters(BEFORE)
    assert not torch.allclose(outputs(encoder), whole, atol=1e-3), "and so does the upper one"


@every_adapter
def test_a_stack_can_lie_below_another(name: str, backbone: Backbone, befores: dict[str, Path], tmp_path: Path) -> None:
    regime = open_regime(SPECS[name])
    middle = attached(name, "stack", backbone, befores)
    shake(middle)
    regime.save(middle, tmp_path / "middle", name=TARGET)
    top = regime.attach(backbone, name="xnli", below=tmp_path / "middle")
    shake(top)
    assert top.active_adapters == Stack(BEFORE, TARGET, "xnli")
    regime.save(top, tmp_path / "top", name="xnli")
    assert torch.equal(outputs(regime.load(backbone, tmp_path / "top")), outputs(top))


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("name", list(SPECS))
def test_the_last_layer_of_the_first_token_alone_changes_nothing(
    name: str, padded: bool, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    encoder = open_regime(SPECS[name]).attach(backbone, name=TARGET)
    shake(encoder)
    model = TaskModel(encoder, ClassificationHead(encoder.config.hidden_size, 3, 0.1)).eval()
    ids = torch.tensor([[0, *range(20, 38), 2], [0, *range(40, 47), 2, *([1] * 11 if padded else range(60, 71))]])
    shapes: list[torch.Size] = []
    hook = encoder.encoder.layer[-1].register_forward_hook(lambda _, __, output: shapes.append(output[0].shape))

    def run() -> tuple[Tensor, dict[str, Tensor]]:
        model.zero_grad()
        logits = model(ids, (ids != 1).long())
        logits.logsumexp(dim=1).sum().backward()
        return logits.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    short, short_gradients = run()
    monkeypatch.setattr(ClassificationHead, "first_token_only", False)
    whole, whole_gradients = run()
    hook.remove()
    assert [shape[1] for shape in shapes] == [1, ids.shape[1]]
    torch.testing.assert_close(short, whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(short_gradients, whole_gradients, rtol=1e-4, atol=1e-6)
    assert not encoder.encoder.layer[-1].attention._forward_pre_hooks


def test_nothing_lies_below_full_fine_tuning(backbone: Backbone, befores: dict[str, Path]) -> None:
    with pytest.raises(AssertionError, match="below"):
        attached("full", "stack", backbone, befores)


def test_two_targets_of_one_backbone_share_nothing(backbone: Backbone, befores: dict[str, Path]) -> None:
    first = attached("full", "none", backbone, befores)
    before = digest(parameters(first))
    shake(attached("full", "none", backbone, befores))
    assert digest(parameters(first)) == before


# files


@every_case
def test_saving_and_loading_gives_the_same_outputs(
    name: str, composition: str, backbone: Backbone, befores: dict[str, Path], tmp_path: Path
) -> None:
    encoder = attached(name, composition, backbone, befores)
    train(encoder, backbone)
    regime = open_regime(SPECS[name])
    regime.save(encoder, tmp_path, name=TARGET)
    assert torch.equal(outputs(regime.load(backbone, tmp_path)), outputs(encoder))


@every_case
def test_saving_what_was_loaded_gives_the_same_files(
    name: str, composition: str, backbone: Backbone, befores: dict[str, Path], tmp_path: Path
) -> None:
    encoder = attached(name, composition, backbone, befores)
    shake(encoder)
    regime = open_regime(SPECS[name])
    regime.save(encoder, tmp_path / "first", name=TARGET)
    regime.save(regime.load(backbone, tmp_path / "first"), tmp_path / "second", name=TARGET)
    first = hashes(tmp_path / "first")
    assert first == hashes(tmp_path / "second")
    assert bool([file for file in first if file.startswith("below")]) == (composition == "stack")


@every_case
def test_nothing_that_is_written_holds_a_pickle(
    name: str, composition: str, backbone: Backbone, befores: dict[str, Path], tmp_path: Path
) -> None:
    open_regime(SPECS[name]).save(attached(name, composition, backbone, befores), tmp_path, name=TARGET)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    for path in files:
        if path.suffix == ".json":
            json.loads(path.read_text())
        else:
            assert load_file(path)


@every_adapter
def test_an_adapters_folder_opens_in_the_library(
    name: str, backbone: Backbone, befores: dict[str, Path], tmp_path: Path
) -> None:
    encoder = attached(name, "continue", backbone, befores)
    train(encoder, backbone)
    open_regime(SPECS[name]).save(encoder, tmp_path, name=TARGET)
    plain = XLMRobertaModel.from_pretrained(backbone.folder, add_pooling_layer=False)
    adapters.init(plain)
    assert plain.load_adapter(str(tmp_path), use_safetensors=True, set_active=True) == TARGET
    assert torch.equal(outputs(plain), outputs(encoder))


def test_a_full_folder_opens_in_transformers(backbone: Backbone, tmp_path: Path) -> None:
    encoder = attached("full", "none", backbone, {})
    train(encoder, backbone)
    open_regime(SPECS["full"]).save(encoder, tmp_path, name=TARGET)
    plain = AutoModel.from_pretrained(tmp_path, add_pooling_layer=False)
    assert type(plain) is XLMRobertaModel
    assert torch.equal(outputs(plain), outputs(encoder))


# what the library does


def library_model(backbone: Backbone, config: object, *names: str) -> PreTrainedModel:
    """A plain model with adapters far from the identity."""
    torch.manual_seed(0)
    model = XLMRobertaModel.from_pretrained(backbone.folder, add_pooling_layer=False)
    adapters.init(model)
    for name in names:
        model.add_adapter(name, config=config)
        model.train_adapter(name)
        shake(model)
    return model


def test_library_a_stack_of_parallel_adapters_ignores_the_lower_one(backbone: Backbone) -> None:
    """Why par_bn is not offered: its stack would be no stack."""
    model = library_model(backbone, adapters.ParBnConfig(reduction_factor=4, scaling=1.0), "a", "b")
    model.set_active_adapters(Stack("a", "b"))
    stack = outputs(model)
    model.set_active_adapters("b")
    assert torch.equal(stack, outputs(model))
    model.set_active_adapters("a")
    assert not torch.allclose(stack, outputs(model), atol=1e-3)


def test_library_every_head_stays_trainable(backbone: Backbone) -> None:
    """Why the heads are ours: training one adapter would leave all heads of the library free to move."""
    model = adapters.AutoAdapterModel.from_pretrained(backbone.folder)
    for name in ("a", "b"):
        model.add_adapter(name, config="seq_bn")
        model.add_classification_head(name, num_labels=2)
    model.train_adapter("b")
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(name.startswith("heads.a.") for name in trainable)
    assert any(name.startswith("heads.b.") for name in trainable)
    assert not any(".adapters.a." in name for name in trainable)


def test_library_train_adapter_frees_a_whole_stack(backbone: Backbone) -> None:
    """Why `train_adapter` gets the new name alone, and the stack is made active afterwards."""
    model = library_model(backbone, adapters.SeqBnConfig(), "a", "b")

    def free() -> set[str]:
        names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        return {name.split(".adapters.")[1].split(".")[0] if ".adapters." in name else "base" for name in names}

    model.train_adapter(Stack("a", "b"))
    assert free() == {"a", "b"}
    model.train_adapter("b")
    assert free() == {"b"}
    assert model.active_adapters == Stack("b"), "it makes b alone active"
    model.set_active_adapters(Stack("a", "b"))
    assert free() == {"b"}, "making a stack active frees nothing"


def test_library_train_adapter_freezes_the_base(backbone: Backbone) -> None:
    model = library_model(backbone, adapters.SeqBnConfig(), "a")
    assert {".adapters.a." in name for name, parameter in model.named_parameters() if parameter.requires_grad} == {True}
    assert model.training


def test_library_loading_an_adapter_does_not_activate_it(backbone: Backbone, befores: dict[str, Path]) -> None:
    model = XLMRobertaModel.from_pretrained(backbone.folder, add_pooling_layer=False)
    adapters.init(model)
    model.load_adapter(str(befores["seq_bn"]), use_safetensors=True)
    assert model.active_adapters is None
    assert torch.equal(outputs(model), outputs(backbone.encoder()))


def test_library_saves_pickles_unless_told_otherwise(backbone: Backbone, tmp_path: Path) -> None:
    """Why save names `use_safetensors`."""
    model = library_model(backbone, adapters.SeqBnConfig(), "a")
    model.save_adapter(str(tmp_path), "a")
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".bin"}


def test_library_trainer_refuses_full_fine_tuning_and_writes_pickles(backbone: Backbone, tmp_path: Path) -> None:
    """Two reasons why the training loop is ours."""
    arguments = TrainingArguments(str(tmp_path), report_to=[], use_cpu=True, label_names=["labels"])
    bare = XLMRobertaModel.from_pretrained(backbone.folder, add_pooling_layer=False)
    adapters.init(bare)
    with pytest.raises(ValueError, match="active adapter setup"):
        adapters.AdapterTrainer(bare, arguments)
    trainer: Trainer = adapters.AdapterTrainer(library_model(backbone, adapters.SeqBnConfig(), "a"), arguments)
    trainer.save_model(str(tmp_path / "saved"))
    assert ".bin" in {path.suffix for path in (tmp_path / "saved").rglob("*")}
