"""The LoRA regime in every composition, and what of the library `peft` it stands on.

The tests named `test_library_...` pin behaviour of peft 0.21 that the regime relies on or goes round. One that fails
after an upgrade says: look at xadapt/regimes/lora.py again.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adapters
import pytest
import torch
from fingerprints import digest, hashes
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, XLMRobertaModel

from xadapt.errors import UserError
from xadapt.evaluation.retrieval import sentence_vectors
from xadapt.formats import Features
from xadapt.models.backbone import Backbone, load_encoder
from xadapt.models.fusion_attention import fusion_layers
from xadapt.models.heads import ClassificationHead
from xadapt.models.task_model import TaskModel, last_layer_of_first_token
from xadapt.regimes.lora import LoraRegime
from xadapt.regimes.protocol import open_regime
from xadapt.regimes.specs import LoraSpec

HIDDEN, INNER, LAYERS = 32, 64, 2
TARGET = "udpos"
EVERYWHERE = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
SPECS = {
    "lora": LoraSpec(r=4, lora_alpha=8),
    "rslora": LoraSpec(r=3, lora_alpha=5, use_rslora=True, target_modules=("query", "value", "output.dense")),
    "dropout": LoraSpec(r=2, lora_alpha=4, lora_dropout=0.3, target_modules=EVERYWHERE),
    "dora": LoraSpec(r=4, lora_alpha=8, use_dora=True),
}
COMPOSITIONS = ("none", "continue", "stack", "fusion", "fusion-alone", "average")
PLAIN = [name for name in SPECS if name != "dora"]
CASES = [pytest.param(name, how, id=f"{name}-{how}") for name in PLAIN for how in COMPOSITIONS]
CASES += [pytest.param("dora", how, id=f"dora-{how}") for how in ("none", "continue")]

every_case = pytest.mark.parametrize(("name", "how"), CASES)
every_plain = pytest.mark.parametrize("name", PLAIN)


@dataclass(frozen=True)
class Kit:
    """One spec's regime and three artefacts of it whose parameters are far from those they started with."""

    name: str
    backbone: Backbone
    folders: Sequence[Path]
    averaged: Path | None

    @property
    def regime(self) -> LoraRegime:
        return LoraRegime(SPECS[self.name])

    def attach(self, how: str, seed: int = 1) -> PreTrainedModel:
        first = self.folders[0]
        torch.manual_seed(seed)
        named: dict[str, Any] = {"name": None if how == "fusion-alone" else TARGET}
        ways: dict[str, dict[str, Any]] = {
            "none": {}, "continue": {"start": first}, "stack": {"below": first}, "average": {"below": self.averaged},
            "fusion": {"fuse": self.folders}, "fusion-alone": {"fuse": self.folders},
        }  # fmt: skip
        return self.regime.attach(self.backbone, **named, **ways[how])

    def saved(self, encoder: PreTrainedModel, folder: Path, how: str) -> Path:
        folder.mkdir(exist_ok=True)
        self.regime.save(encoder, folder, name=None if how == "fusion-alone" else TARGET)
        return folder


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(str(tiny_backbone))


@pytest.fixture(scope="module")
def kit(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Kit]:
    made: dict[str, Kit] = {}

    def kit_of(name: str) -> Kit:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            folders = [artefact(SPECS[name], backbone, folder / str(i), f"task{i}", seed=i) for i in range(3)]
            averaged = None if name == "dora" else folder / "averaged"
            if averaged:
                LoraRegime(SPECS[name]).average(folders, [1, 1, 1], averaged, name="mean")
            made[name] = Kit(name, backbone, folders, averaged)
        return made[name]

    return kit_of


def artefact(spec: LoraSpec, backbone: Backbone, folder: Path, name: str, *, seed: int) -> Path:
    torch.manual_seed(seed)
    encoder = LoraRegime(spec).attach(backbone, name=name)
    shake(encoder)
    LoraRegime(spec).save(encoder, folder, name=name)
    return folder


def shake(encoder: PreTrainedModel) -> None:
    """Move every trainable parameter, as a training would."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))


def batch() -> dict[str, Tensor]:
    ids = torch.tensor([[0, *range(20, 38), 2], [0, *range(40, 47), 2, *[1] * 11]])
    return {"input_ids": ids, "attention_mask": (ids != 1).long()}


def outputs(encoder: nn.Module) -> Tensor:
    """Hidden states of every layer for a padded batch, without dropout."""
    encoder.eval()
    with torch.no_grad():
        return torch.stack(encoder(**batch(), output_hidden_states=True).hidden_states)


def parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def base_of(encoder: nn.Module) -> dict[str, Tensor]:
    """The parameters a plain XLM-R has, by their plain names."""
    mine = {n: t for n, t in parameters(encoder).items() if ".lora_" not in n and ".fusion_" not in n}
    return {name.replace(".base_layer", ""): tensor for name, tensor in mine.items()}


def frozen_of(encoder: nn.Module) -> dict[str, Tensor]:
    """Everything that must not move: parameters that are not trained and buffers."""
    fixed = {name: p.detach().clone() for name, p in encoder.named_parameters() if not p.requires_grad}
    return fixed | {name: buffer.clone() for name, buffer in encoder.named_buffers()}


def train(encoder: PreTrainedModel, steps: int = 2) -> None:
    """A few steps of AdamW with weight decay on whatever is trainable."""
    torch.manual_seed(5)
    model = TaskModel(encoder, ClassificationHead(HIDDEN, 3, 0.1)).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(**batch()), torch.tensor([0, 2])).backward()
        optimizer.step()


# what moves


def lora_formula(spec: LoraSpec) -> int:
    """A and B of every linear layer, and with DoRA a norm for each of its outputs."""
    shapes = {"intermediate.dense": (HIDDEN, INNER), "output.dense": (INNER, HIDDEN)}
    sides = [shapes.get(target, (HIDDEN, HIDDEN)) for target in spec.target_modules]
    return LAYERS * sum(spec.r * (inner + outer) + (outer if spec.use_dora else 0) for inner, outer in sides)


def fusion_formula(spec: LoraSpec, width: int = 16) -> int:
    return lora_formula(spec.model_copy(update={"r": width, "use_dora": False}))


@every_case
def test_the_trainable_count_is_the_formulas(name: str, how: str, kit: Callable[[str], Kit]) -> None:
    encoder, spec = kit(name).attach(how), SPECS[name]
    expected = (lora_formula(spec) if how != "fusion-alone" else 0) + (fusion_formula(spec) if "fusion" in how else 0)
    assert sum(parameter.numel() for _, parameter in kit(name).regime.trainable(encoder)) == expected
    assert sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad) == expected


@every_case
def test_only_the_modules_parameters_move(name: str, how: str, kit: Callable[[str], Kit]) -> None:
    encoder = kit(name).attach(how)
    before, frozen = parameters(encoder), digest(frozen_of(encoder))
    trainable = {key for key, _ in kit(name).regime.trainable(encoder)}
    train(encoder)
    assert {key for key, tensor in parameters(encoder).items() if not torch.equal(tensor, before[key])} == trainable
    assert digest(frozen_of(encoder)) == frozen
    assert digest(base_of(encoder)) == digest(parameters(load_encoder(kit(name).backbone.folder)))


@pytest.mark.parametrize("target", EVERYWHERE)
def test_a_target_module_is_that_one_alone(target: Any, backbone: Backbone) -> None:
    regime = LoraRegime(LoraSpec(target_modules=(target,)))
    encoder = regime.attach(backbone, name=TARGET)
    place = f"attention.self.{target}" if target in ("query", "key", "value") else target
    changed = {key.split(".lora_")[0] for key, _ in regime.trainable(encoder)}
    assert changed == {f"encoder.layer.{layer}.{place}" for layer in range(LAYERS)}


def test_the_regime_is_opened_by_its_spec() -> None:
    regime = open_regime(SPECS["lora"])
    assert isinstance(regime, LoraRegime)
    assert regime.penalty(nn.Module()) is None  # type: ignore[arg-type, func-returns-value]


# compositions


@pytest.mark.parametrize("name", SPECS)
def test_none_starts_from_the_backbone_and_the_seed(name: str, kit: Callable[[str], Kit]) -> None:
    first, again, other = (kit(name).attach("none", seed) for seed in (1, 1, 2))
    assert digest(parameters(first)) == digest(parameters(again)) != digest(parameters(other))
    torch.testing.assert_close(outputs(first), outputs(kit(name).backbone.encoder()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SPECS)
def test_continue_starts_from_exactly_what_was_trained(name: str, kit: Callable[[str], Kit]) -> None:
    encoder = kit(name).attach("continue")
    trained = kit(name).regime.load(kit(name).backbone, kit(name).folders[0])
    assert torch.equal(outputs(encoder), outputs(trained))
    assert not torch.allclose(outputs(encoder), outputs(kit(name).backbone.encoder()), atol=1e-2)


@every_plain
@pytest.mark.parametrize("how", ["stack", "average"])
def test_a_fresh_lora_leaves_what_lies_below_unchanged(name: str, how: str, kit: Callable[[str], Kit]) -> None:
    of = kit(name)
    folder = of.folders[0] if how == "stack" else of.averaged
    assert folder is not None
    assert torch.equal(outputs(of.attach(how)), outputs(of.regime.load(of.backbone, folder)))


@every_plain
def test_a_stack_is_the_base_and_the_sum_of_the_deltas(name: str, kit: Callable[[str], Kit]) -> None:
    """By hand in every linear layer that has LoRAs, with the input that reaches it."""
    encoder, spec = kit(name).attach("stack"), SPECS[name]
    shake(encoder)
    scale = spec.lora_alpha / (spec.r**0.5 if spec.use_rslora else spec.r)
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    wrapped = {key: module for key, module in encoder.named_modules() if hasattr(module, "lora_A")}
    for key, module in wrapped.items():
        module.register_forward_hook(lambda _, args, output, key=key: seen.update({key: (args[0], output)}))  # type: ignore[misc]
    outputs(encoder)
    assert len(seen) == LAYERS * len(spec.target_modules)
    for key, (x, output) in seen.items():
        module: Any = wrapped[key]
        expected = module.base_layer(x)
        assert len(module.lora_A) == 2
        for slot in module.lora_A:
            delta = scale * x @ module.lora_A[slot].weight.T @ module.lora_B[slot].weight.T
            assert delta.abs().mean() > 1e-3
            expected = expected + delta
        torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)


def test_stacks_grow_and_names_may_repeat(kit: Callable[[str], Kit], tmp_path: Path) -> None:
    of = kit("lora")
    middle = of.regime.attach(of.backbone, name="task0", below=of.folders[0])
    shake(middle)
    of.regime.save(middle, tmp_path / "middle", name="task0")
    top = of.regime.attach(of.backbone, name="v1.5/en", below=tmp_path / "middle")
    assert torch.equal(outputs(top), outputs(middle))
    shake(top)
    of.regime.save(top, tmp_path / "top", name="v1.5/en")
    assert torch.equal(outputs(of.regime.load(of.backbone, tmp_path / "top")), outputs(top))
    assert hashes(tmp_path / "top" / "below") == hashes(tmp_path / "middle")
    assert hashes(tmp_path / "middle" / "below") == hashes(of.folders[0])


@every_plain
@pytest.mark.parametrize("how", ["fusion", "fusion-alone"])
def test_a_fusion_starts_as_the_average(name: str, how: str, kit: Callable[[str], Kit]) -> None:
    found, expected = outputs(kit(name).attach(how)), outputs(kit(name).attach("average"))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@every_plain
def test_a_target_lies_on_a_fusion_trained_before(name: str, kit: Callable[[str], Kit], tmp_path: Path) -> None:
    of = kit(name)
    fusion = of.attach("fusion-alone")
    train(fusion)
    of.saved(fusion, tmp_path / "fusion", "fusion-alone")
    encoder = of.regime.attach(of.backbone, name=TARGET, below=tmp_path / "fusion")
    assert torch.equal(outputs(encoder), outputs(fusion))
    assert sum(p.numel() for _, p in of.regime.trainable(encoder)) == lora_formula(SPECS[name])
    train(encoder)
    of.saved(encoder, tmp_path / "target", "stack")
    assert hashes(tmp_path / "target" / "below") == hashes(tmp_path / "fusion")
    assert torch.equal(outputs(of.regime.load(of.backbone, tmp_path / "target")), outputs(encoder))


def test_a_fusions_probabilities_are_there_to_read(kit: Callable[[str], Kit]) -> None:
    encoder = kit("lora").attach("fusion")
    shake(encoder)
    layers = fusion_layers(encoder)
    assert len(layers) == LAYERS * 3
    for layer in layers:
        layer.recording = True
    outputs(encoder)
    for layer in layers:
        assert layer.probabilities is not None
        assert layer.probabilities.shape == (2, 20, 3)
        torch.testing.assert_close(layer.probabilities.sum(-1), torch.ones(2, 20))
    assert not fusion_layers(kit("lora").attach("stack"))


def test_loras_of_different_ranks_can_be_fused_and_averaged(backbone: Backbone, tmp_path: Path) -> None:
    specs = [LoraSpec(r=r, lora_alpha=3, use_rslora=r == 8) for r in (2, 8, 5)]
    folders = [artefact(spec, backbone, tmp_path / str(i), "same", seed=i) for i, spec in enumerate(specs)]
    regime = LoraRegime(specs[0])
    regime.average(folders, [1, 1, 1], tmp_path / "mean", name="mean")
    fused = regime.attach(backbone, name=None, fuse=folders)
    torch.testing.assert_close(
        outputs(fused), outputs(regime.load(backbone, tmp_path / "mean")), rtol=0, atol=2e-5
    )  # fmt: skip


# dropout


def passes(encoder: PreTrainedModel) -> bool:
    """Whether two passes in training mode, with the encoder's own dropout off, differ."""
    encoder.train()
    for key, module in encoder.named_modules():
        if isinstance(module, nn.Dropout) and ".lora_dropout." not in key:
            module.p = 0.0
    for layer in encoder.encoder.layer:
        layer.attention.self.dropout_prob = 0.0
    with torch.no_grad():
        first, second = (encoder(**batch()).last_hidden_state for _ in range(2))
    return not torch.equal(first, second)


@pytest.mark.parametrize("how", COMPOSITIONS)
def test_only_the_trained_lora_sees_dropout(how: str, kit: Callable[[str], Kit]) -> None:
    encoder = kit("dropout").attach(how)
    fresh = passes(encoder)
    shake(encoder)
    assert passes(encoder) == (how != "fusion-alone")
    assert fresh == (how == "continue"), "what is fresh adds nothing, what is frozen drops nothing"


# files


@every_case
def test_saving_and_loading_gives_the_same_outputs_and_files(
    name: str, how: str, kit: Callable[[str], Kit], tmp_path: Path
) -> None:
    encoder = kit(name).attach(how)
    train(encoder)
    folder = kit(name).saved(encoder, tmp_path / "first", how)
    loaded = kit(name).regime.load(kit(name).backbone, folder)
    assert torch.equal(outputs(loaded), outputs(encoder))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert hashes(kit(name).saved(loaded, tmp_path / "second", how)) == hashes(folder)
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    text = " ".join(path.read_text() for path in folder.rglob("*.json"))
    assert str(kit(name).backbone.folder) not in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize("name", SPECS)
def test_plain_peft_opens_the_folder(name: str, kit: Callable[[str], Kit]) -> None:
    of = kit(name)
    plain = PeftModel.from_pretrained(load_encoder(of.backbone.folder), str(of.folders[0]))
    assert torch.equal(outputs(plain), outputs(of.regime.load(of.backbone, of.folders[0])))


def test_plain_peft_opens_all_parts(kit: Callable[[str], Kit], tmp_path: Path) -> None:
    of = kit("dropout")
    encoder = of.attach("fusion")
    shake(encoder)
    folder = of.saved(encoder, tmp_path / "top", "fusion")
    assert sorted(path.name for path in (folder / "below" / "fused").iterdir()) == ["00-task0", "01-task1", "02-task2"]
    loaded = of.regime.load(of.backbone, folder)
    shutil.move(folder / "below", tmp_path / "fusion")
    for part in (folder, *(tmp_path / "fusion" / "fused").iterdir()):
        plain = PeftModel.from_pretrained(load_encoder(of.backbone.folder), str(part))
        assert torch.equal(outputs(plain), outputs(of.regime.load(of.backbone, part)))
    top = {name: p for name, p in parameters(loaded).items() if ".lora_" in name}
    plain = PeftModel.from_pretrained(load_encoder(of.backbone.folder), str(folder), adapter_name=f"00-{TARGET}")
    found = {name.removeprefix("base_model.model."): p for name, p in parameters(plain).items() if ".lora_" in name}
    assert digest(found) == digest(top)


def test_peft_opens_the_folder_under_a_head(kit: Callable[[str], Kit]) -> None:
    """The pattern of layers holds under a prefix too, though the tensors' names then need PEFT's renaming."""
    of = kit("rslora")
    config = LoraConfig.from_pretrained(str(of.folders[0]))
    model = get_peft_model(AutoModelForSequenceClassification.from_config(of.backbone.config), config)
    changed = {name for name, module in model.named_modules() if hasattr(module, "lora_A")}
    assert len(changed) == LAYERS * len(SPECS["rslora"].target_modules)
    assert not any("attention.output" in name for name in changed)


def test_a_folder_that_peft_wrote_can_be_loaded(backbone: Backbone, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False)
    plain = get_peft_model(load_encoder(backbone.folder), config)
    plain.save_pretrained(tmp_path)
    regime = LoraRegime(LoraSpec())
    loaded = regime.load(backbone, tmp_path)
    assert torch.equal(outputs(loaded), outputs(plain))
    regime.save(loaded, tmp_path / "again", name=tmp_path.name)
    assert str(backbone.folder) in (tmp_path / "adapter_config.json").read_text()
    assert str(backbone.folder) not in (tmp_path / "again" / "adapter_config.json").read_text()


@every_case
def test_merging_keeps_the_outputs(name: str, how: str, kit: Callable[[str], Kit], tmp_path: Path) -> None:
    encoder = kit(name).attach(how)
    shake(encoder)
    folder = kit(name).saved(encoder, tmp_path, how)
    merged = kit(name).regime.load(kit(name).backbone, folder, merged=True)
    torch.testing.assert_close(outputs(merged), outputs(encoder), rtol=0, atol=1e-5)
    assert not any(".lora_" in key for key in parameters(merged))
    assert bool(fusion_layers(merged)) == ("fusion" in how)
    if "fusion" not in how:
        assert type(merged) is XLMRobertaModel
        assert parameters(merged).keys() == parameters(kit(name).backbone.encoder()).keys()


def test_pickled_weights_are_refused(kit: Callable[[str], Kit], tmp_path: Path) -> None:
    of = kit("lora")
    loaded = of.regime.load(of.backbone, of.folders[0])
    of.regime.save(loaded, tmp_path, name="task0")
    (tmp_path / "adapter_model.safetensors").unlink()
    (tmp_path / "adapter_model.bin").write_bytes(b"cposix\nsystem\n")
    for use in ({"start": tmp_path}, {"below": tmp_path}, {"fuse": [tmp_path]}):
        with pytest.raises(UserError):
            of.regime.attach(of.backbone, name=TARGET, **use)  # type: ignore[arg-type]
    with pytest.raises(UserError):
        of.regime.load(of.backbone, tmp_path)
    with pytest.raises(UserError):
        of.regime.average([tmp_path], [1], tmp_path / "mean", name="mean")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("adapter_config.json", b"{"), ("adapter_config.json", b"[]"), ("adapter_config.json", b'{"name": "x"}'),
        ("adapter_model.safetensors", b"\x00" * 20),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_a_users_error(
    file: str, content: bytes, kit: Callable[[str], Kit], tmp_path: Path
) -> None:
    of = kit("lora")
    of.regime.save(of.regime.load(of.backbone, of.folders[0]), tmp_path, name="task0")
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError):
        of.regime.load(of.backbone, tmp_path)


@pytest.mark.parametrize("change", [{"format": 2}, {"kind": "adapter"}])
def test_a_fusion_of_another_format_is_refused(
    change: dict[str, object], kit: Callable[[str], Kit], tmp_path: Path
) -> None:
    of = kit("lora")
    of.saved(of.attach("fusion-alone"), tmp_path, "fusion-alone")
    content = json.loads((tmp_path / "fusion.json").read_text())
    (tmp_path / "fusion.json").write_text(json.dumps(content | change))
    with pytest.raises(UserError):
        of.regime.load(of.backbone, tmp_path)


def test_a_lora_of_another_backbone_is_refused(kit: Callable[[str], Kit], tmp_path: Path) -> None:
    of, config = kit("lora"), kit("lora").backbone.config
    config.num_hidden_layers = 1
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "one")

    class One(Backbone):
        def encoder(self, folder: Path | None = None) -> PreTrainedModel:
            return load_encoder(tmp_path / "one")

    for use in ({"below": of.folders[0]}, {"fuse": of.folders}):
        with pytest.raises(UserError):
            of.regime.attach(One("one"), name=TARGET, **use)  # type: ignore[arg-type]


# what DoRA cannot do


@pytest.mark.parametrize("how", ["stack", "fusion", "fusion-alone"])
def test_dora_stands_alone(how: str, kit: Callable[[str], Kit]) -> None:
    with pytest.raises(UserError, match="use_dora"):
        kit("dora").attach(how)


def test_dora_lies_on_nothing_and_under_nothing(kit: Callable[[str], Kit], tmp_path: Path) -> None:
    dora, lora = kit("dora"), kit("lora")
    for regime, below in ((dora.regime, lora.folders[0]), (lora.regime, dora.folders[0])):
        with pytest.raises(UserError, match="use_dora"):
            regime.attach(lora.backbone, name=TARGET, below=below)
    with pytest.raises(UserError, match="use_dora"):
        dora.regime.attach(lora.backbone, name=TARGET, fuse=lora.folders)
    with pytest.raises(UserError, match="use_dora"):
        lora.regime.average([lora.folders[0], dora.folders[0]], [1, 1], tmp_path / "mean", name="mean")
    assert not (tmp_path / "mean").exists()


# averages


@every_plain
def test_an_average_is_the_mean_of_the_deltas(name: str, kit: Callable[[str], Kit], tmp_path: Path) -> None:
    """In the weights: what merging adds is the weighted sum of what merging each adds."""
    of, weights = kit(name), [3.0, 0.5, 1.5]
    of.regime.average(of.folders, weights, tmp_path, name="mean")
    base = parameters(of.backbone.encoder())
    each = [parameters(of.regime.load(of.backbone, folder, merged=True)) for folder in of.folders]
    found = parameters(of.regime.load(of.backbone, tmp_path, merged=True))
    moved = 0
    for key, tensor in found.items():
        expected = sum(w / 5 * (other[key] - base[key]) for w, other in zip(weights, each, strict=True))
        torch.testing.assert_close(tensor - base[key], expected, rtol=1e-4, atol=1e-5)
        moved += not torch.equal(tensor, base[key])
    assert moved == LAYERS * len(SPECS[name].target_modules)


@pytest.mark.parametrize("name", ["lora", "dropout"])
def test_an_average_is_pefts_own_by_cat(name: str, kit: Callable[[str], Kit], tmp_path: Path) -> None:
    of, weights = kit(name), [0.2, 0.5, 0.3]
    of.regime.average(of.folders, [2, 5, 3], tmp_path, name="mean")
    plain = PeftModel.from_pretrained(load_encoder(of.backbone.folder), str(of.folders[0]), adapter_name="first")
    for i in (1, 2):
        plain.load_adapter(str(of.folders[i]), adapter_name=f"other{i}")
    plain.add_weighted_adapter(["first", "other1", "other2"], weights, "mean", combination_type="cat")
    plain.set_adapter("mean")
    torch.testing.assert_close(outputs(plain), outputs(of.regime.load(of.backbone, tmp_path)), rtol=0, atol=2e-5)
    assert torch.equal(
        outputs(PeftModel.from_pretrained(load_encoder(of.backbone.folder), str(tmp_path))),
        outputs(of.regime.load(of.backbone, tmp_path)),
    )


def test_an_average_is_a_file_that_depends_on_its_parts_alone(kit: Callable[[str], Kit], tmp_path: Path) -> None:
    of = kit("lora")
    for folder, weights in (("a", [1, 2, 3]), ("b", [0.5, 1, 1.5]), ("c", [1, 1, 1])):
        of.regime.average(of.folders, weights, tmp_path / folder, name="mean")
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b") != hashes(tmp_path / "c")
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (12, 12, False)


@pytest.mark.parametrize(
    "weights", [[1, 1], [1, 1, 1, 1], [], [0, 0, 0], [1, 1, -1], [1, 1, float("nan")], [1, 1, float("inf")]]
)
def test_weights_that_make_no_mean_are_refused(weights: list[float], kit: Callable[[str], Kit], tmp_path: Path) -> None:
    with pytest.raises(UserError):
        kit("lora").regime.average(kit("lora").folders, weights, tmp_path / "mean", name="mean")
    assert not (tmp_path / "mean").exists()


def test_only_loras_of_the_same_layers_go_together(kit: Callable[[str], Kit], tmp_path: Path) -> None:
    of, folders = kit("lora"), [kit("lora").folders[0], kit("rslora").folders[0]]
    with pytest.raises(UserError, match="target_modules"):
        of.regime.average(folders, [1, 1], tmp_path / "mean", name="mean")
    with pytest.raises(UserError, match="target_modules"):
        of.regime.attach(of.backbone, name=None, fuse=folders)


def test_only_loras_that_stand_alone_are_fused_averaged_or_continued(kit: Callable[[str], Kit], tmp_path: Path) -> None:
    of = kit("lora")
    for how in ("stack", "fusion-alone"):
        folder = of.saved(of.attach(how), tmp_path / how, how)
        with pytest.raises(UserError):
            of.regime.attach(of.backbone, name=TARGET, fuse=[of.folders[0], folder])
        with pytest.raises(UserError):
            of.regime.attach(of.backbone, name=TARGET, start=folder)
        with pytest.raises(UserError):
            of.regime.average([of.folders[0], folder], [1, 1], tmp_path / "mean", name="mean")


# under the rest of the code


def gradients(encoder: PreTrainedModel) -> dict[str, Tensor]:
    encoder.zero_grad()
    torch.manual_seed(3)
    encoder.train()(**batch()).last_hidden_state.logsumexp(-1).sum().backward()
    return {key: p.grad.clone() for key, p in encoder.named_parameters() if p.grad is not None}


@every_case
def test_gradient_checkpointing_gives_equal_gradients(name: str, how: str, kit: Callable[[str], Kit]) -> None:
    encoder = kit(name).attach(how)
    shake(encoder)
    whole = gradients(encoder)
    assert whole.keys() == {key for key, _ in kit(name).regime.trainable(encoder)}
    encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    torch.testing.assert_close(gradients(encoder), whole, rtol=1e-5, atol=1e-6)


@every_case
def test_half_precision_runs(name: str, how: str, kit: Callable[[str], Kit]) -> None:
    encoder = kit(name).attach(how)
    shake(encoder)
    expected = outputs(encoder)[-1]
    with torch.autocast("cpu", torch.bfloat16):
        found = outputs(encoder)[-1].float()
        half = gradients(encoder)
    assert (found - expected).norm() < 0.05 * expected.norm()
    assert half.keys() == {key for key, _ in kit(name).regime.trainable(encoder)}
    assert all(gradient.isfinite().all() for gradient in half.values())


@every_case
def test_the_last_layer_of_the_first_token_alone_changes_nothing(
    name: str, how: str, kit: Callable[[str], Kit]
) -> None:
    encoder = kit(name).attach(how)
    shake(encoder)
    encoder.eval()

    def run(short: bool) -> tuple[Tensor, dict[str, Tensor]]:
        encoder.zero_grad()
        with last_layer_of_first_token(encoder) if short else nullcontext():
            first = encoder(**batch()).last_hidden_state[:, 0]
        first.logsumexp(-1).sum().backward()
        return first.detach(), {key: p.grad.clone() for key, p in encoder.named_parameters() if p.grad is not None}

    torch.testing.assert_close(run(True), run(False), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["none", "stack", "fusion"])
def test_retrieval_takes_a_middle_layer(how: str, kit: Callable[[str], Kit]) -> None:
    encoder = kit("lora").attach(how)
    shake(encoder)
    states = outputs(encoder)[1]
    ids = [[i for i in row if i != 1] for row in batch()["input_ids"].tolist()]
    found = sentence_vectors(
        encoder,
        Features(ids, None, row=range(len(ids))),
        layer=1,
        pad_token_id=1,
        token_budget=100,
        device=torch.device("cpu"),
    )
    for row, vector, tokens in zip(states, found, ids, strict=True):
        expected = nn.functional.normalize(row[: len(tokens)].mean(0), dim=0)
        torch.testing.assert_close(vector, expected, rtol=0, atol=1e-5)
    assert encoder.get_input_embeddings() is encoder.embeddings.word_embeddings


# what the library does


def peft_model(backbone: Backbone, *names: str, **config: Any) -> Any:
    """A plain PEFT model with LoRAs that are far from zero."""
    torch.manual_seed(0)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"], "init_lora_weights": False} | config
    model = get_peft_model(load_encoder(backbone.folder), LoraConfig(**settings), adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, LoraConfig(**settings))
    return model


def test_library_several_active_loras_add_up_and_are_freed(backbone: Backbone) -> None:
    """Why gradients are set by name after a stack is made active."""
    model = peft_model(backbone, "first", "second")
    model.requires_grad_(False)
    model.base_model.set_adapter(["first", "second"])
    free = {name.split(".")[-2] for name, p in model.named_parameters() if p.requires_grad}
    assert free == {"first", "second"}
    both: Any = model.base_model.model.encoder.layer[0].attention.self.query
    x = torch.randn(3, HIDDEN)
    deltas = sum(both.scaling[name] * both.lora_B[name](both.lora_A[name](x)) for name in ("first", "second"))
    torch.testing.assert_close(both(x), both.base_layer(x) + deltas, rtol=0, atol=1e-6)


def test_library_linear_combination_is_not_the_sum(backbone: Backbone) -> None:
    """Why an average is taken by `cat`."""
    model = peft_model(backbone, "first", "second")
    model.add_weighted_adapter(["first", "second"], [0.5, 0.5], "cat", combination_type="cat")
    model.add_weighted_adapter(["first", "second"], [0.5, 0.5], "linear", combination_type="linear")
    layer: Any = model.base_model.model.encoder.layer[0].attention.self.query
    expected = (layer.get_delta_weight("first") + layer.get_delta_weight("second")) / 2
    torch.testing.assert_close(layer.get_delta_weight("cat"), expected, rtol=0, atol=1e-6)
    assert (layer.get_delta_weight("linear") - expected).norm() > 0.5 * expected.norm()


def test_library_cat_is_wrong_under_rslora(backbone: Backbone) -> None:
    """Why an average is written with use_rslora off: peft keeps it on and scales what is scaled already."""
    model = peft_model(backbone, "first", "second", use_rslora=True)
    model.add_weighted_adapter(["first", "second"], [0.5, 0.5], "cat", combination_type="cat")
    layer: Any = model.base_model.model.encoder.layer[0].attention.self.query
    expected = (layer.get_delta_weight("first") + layer.get_delta_weight("second")) / 2
    torch.testing.assert_close(layer.get_delta_weight("cat"), expected * 8**0.5, rtol=1e-5, atol=1e-5)


def test_library_plain_names_match_ends(backbone: Backbone) -> None:
    """Why the layers are given by a pattern."""
    model = peft_model(backbone, "first", target_modules=["output.dense"])
    assert any("attention.output.dense.lora_A" in name for name, _ in model.named_parameters())


def test_library_dora_rescales_what_lies_below(backbone: Backbone) -> None:
    """Why DoRA is refused in a stack: its part is another when something else is active, and depends on the order."""
    model = peft_model(backbone, "first")
    model.add_adapter("second", LoraConfig(r=4, target_modules=["query", "value"], use_dora=True))
    layer: Any = model.base_model.model.encoder.layer[0].attention.self.query
    with torch.no_grad():
        layer.lora_magnitude_vector["second"].weight.mul_(1.5)
    x = torch.randn(3, HIDDEN)

    def change(*names: str) -> Tensor:
        model.base_model.set_adapter(list(names))
        difference: Tensor = layer(x) - layer.base_layer(x)
        return difference

    apart = change("first") + change("second")
    assert (change("first", "second") - apart).norm() > 0.1 * apart.norm()
    assert not torch.allclose(change("first", "second"), change("second", "first"), atol=1e-3)


def test_library_the_other_library_undoes_a_lora(backbone: Backbone) -> None:
    """Why a model is given to one of the two libraries."""
    model = peft_model(backbone, "first")
    changed = outputs(model)
    encoder = model.get_base_model()
    adapters.init(encoder)
    assert not torch.allclose(outputs(encoder), changed, atol=1e-3)
    assert not any(hasattr(module, "lora_A") and len(module.lora_A) for module in encoder.modules())
