"""What every regime promises in every composition, each promise for the cells that no other file holds it for.

Who proves which promise (R test_regimes.py, L test_lora.py, F test_fusion_adapter.py, here the rest):

                      full                         adapter                                        lora
                      none  continue  multitask    none  continue  stack  fusion  average  multi  others  multitask
checkpointing         here  here      here         here  here      here   F       here     here   L       here
bfloat16              here  here      here         here  here      here   F       here     here   L       here
merged, 1e-5          here  here      here         here  here      here   F       here     here   L       here
save and load         R     R         here         R     R         R      F       here     here   L       here
frozen weights        -     -         -            R     R         R      F       here     here   L       here
only the module moves R     R         here         R     R         R      F       here     here   L       here
count of sizes.py     here for every cell, and test_sizes.py over the shapes of modules

A training on several tasks (multitask) is one model under several heads; what comes after it is continue or stack.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from fingerprints import digest
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from xadapt.errors import UserError
from xadapt.models.backbone import Backbone, load_encoder
from xadapt.models.heads import ClassificationHead, TaggingHead
from xadapt.models.task_model import MultiTaskModel, OfTask, TaskModel
from xadapt.regimes.protocol import Regime, open_regime
from xadapt.regimes.sizes import EncoderShape, fusion_parameters, trainable_parameters
from xadapt.regimes.specs import COMPOSITIONS, AdapterSpec, FullSpec, LoraSpec, RegimeSpec

SPECS: dict[str, RegimeSpec] = {
    "full": FullSpec(), "adapter": AdapterSpec(reduction_factor=4), "lora": LoraSpec(r=4, lora_alpha=8),
}  # fmt: skip
TASKS = ("mnli", "udpos")
Cells = Sequence[tuple[str, str]]
EVERY: Cells = [(regime, composition) for regime, names in COMPOSITIONS.items() for composition in names]
ELSEWHERE = {("lora", name) for name in COMPOSITIONS["lora"] if name != "multitask"} | {("adapter", "fusion")}
UNPROVEN: Cells = [cell for cell in EVERY if cell not in ELSEWHERE]
OF_SEVERAL: Cells = [("full", "multitask"), ("adapter", "average"), ("adapter", "multitask"), ("lora", "multitask")]


def cells(which: Cells) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("regime", "composition"), which, ids=["-".join(cell) for cell in which])


@dataclass(frozen=True)
class Kit:
    """A regime's artefacts of three tasks and their average, from which a cell's training starts."""

    regime: Regime
    backbone: Backbone
    folders: list[Path]
    averaged: Path | None

    def attach(self, composition: str) -> PreTrainedModel:
        torch.manual_seed(1)
        ways: dict[str, dict[str, Any]] = {
            "none": {}, "multitask": {}, "continue": {"start": self.folders[0]}, "stack": {"below": self.folders[0]},
            "fusion": {"fuse": self.folders}, "average": {"below": self.averaged},
        }  # fmt: skip
        return self.regime.attach(self.backbone, name="target", **ways[composition])


@pytest.fixture(scope="module")
def kits(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kit]:
    made, backbone = {}, Backbone(str(tiny_backbone))
    for name, spec in SPECS.items():
        regime, root = open_regime(spec), tmp_path_factory.mktemp(name)
        folders = [root / str(at) for at in range(3)]
        for at, folder in enumerate(folders):
            torch.manual_seed(at)
            encoder = regime.attach(backbone, name=f"task{at}")
            shake(encoder)
            regime.save(encoder, folder, name=f"task{at}")
        averaged = None if name == "full" else root / "averaged"
        if averaged:
            regime.average(folders, [1, 1, 1], averaged, name="mean")
        made[name] = Kit(regime, backbone, folders, averaged)
    return made


def shake(encoder: nn.Module) -> None:
    """Move every trainable parameter, as a training would."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))


def batch() -> dict[str, Tensor]:
    ids = torch.tensor([[0, *range(20, 38), 2], [0, *range(40, 47), 2, *[1] * 11]])
    return {"input_ids": ids, "attention_mask": (ids != 1).long()}


def with_heads(encoder: PreTrainedModel, composition: str) -> Mapping[str, nn.Module]:
    """The cell's model by task: one under a head, or one under two that share the encoder; heads from one seed."""
    torch.manual_seed(2)
    hidden = encoder.config.hidden_size
    heads = {"mnli": ClassificationHead(hidden, 3, 0.1), "udpos": TaggingHead(hidden, 17, 0.1)}
    if composition != "multitask":
        return {"udpos": TaskModel(encoder, heads["udpos"])}
    several = MultiTaskModel(encoder, heads)
    return {task: OfTask(several, task) for task in TASKS}


def logits(models: Mapping[str, nn.Module]) -> Tensor:
    """All tasks' logits without dropout, one after the other."""
    with torch.no_grad():
        return torch.cat([model.eval()(**batch()).float().flatten() for model in models.values()])


def loss_of(models: Mapping[str, nn.Module]) -> Tensor:
    """A mean of cross-entropies, one for each task, with dropout of one seed."""
    torch.manual_seed(3)
    found = [model.train()(**batch()) for model in models.values()]
    return torch.stack([(-of.float().log_softmax(-1)[..., 1]).mean() for of in found]).mean()


def gradients(encoder: PreTrainedModel, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    encoder.zero_grad()
    loss().backward()
    return {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}


def parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def base_of(encoder: nn.Module) -> dict[str, Tensor]:
    """The parameters a plain XLM-R has, by their plain names."""
    own = {n: t for n, t in parameters(encoder).items() if not any(x in n for x in (".lora_", ".adapters.", "fusion"))}
    return {name.replace(".base_layer", ""): tensor for name, tensor in own.items()}


@cells(UNPROVEN)
def test_gradient_checkpointing_gives_equal_gradients(regime: str, composition: str, kits: dict[str, Kit]) -> None:
    """Of every hidden state: what a head that reads the first token alone leaves out is another matter."""
    encoder = kits[regime].attach(composition)
    shake(encoder)

    def loss() -> Tensor:
        torch.manual_seed(3)
        hidden: Tensor = encoder.train()(**batch()).last_hidden_state
        return hidden.logsumexp(-1).sum()

    whole = gradients(encoder, loss)
    assert whole.keys() == {name for name, _ in kits[regime].regime.trainable(encoder)}
    encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    layers, passes = encoder.encoder.layer, []
    layers[0].attention.register_forward_hook(lambda *_: passes.append(1))
    torch.testing.assert_close(gradients(encoder, loss), whole, rtol=1e-5, atol=1e-6)
    assert len(passes) == 2, "the layer is computed again on the way back"


@cells(UNPROVEN)
def test_bfloat16_gives_a_finite_loss_and_gradient(regime: str, composition: str, kits: dict[str, Kit]) -> None:
    encoder = kits[regime].attach(composition)
    shake(encoder)
    models = with_heads(encoder, composition)
    exact = loss_of(models)
    with torch.autocast("cpu", torch.bfloat16):
        rough = loss_of(models)
        found = gradients(encoder, lambda: loss_of(models))
    assert rough.isfinite()
    assert rough != exact, "it is another precision"
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0)
    assert found.keys() == {name for name, _ in kits[regime].regime.trainable(encoder)}
    assert all(tensor.isfinite().all() for tensor in found.values())


@cells(UNPROVEN)
def test_merging_keeps_the_logits(regime: str, composition: str, kits: dict[str, Kit], tmp_path: Path) -> None:
    kit, encoder = kits[regime], kits[regime].attach(composition)
    shake(encoder)
    kit.regime.save(encoder, tmp_path, name="target")
    merged = kit.regime.load(kit.backbone, tmp_path, merged=True)
    expected = logits(with_heads(encoder, composition))
    torch.testing.assert_close(logits(with_heads(merged, composition)), expected, rtol=0, atol=1e-5)
    assert not torch.allclose(logits(with_heads(kit.backbone.encoder(), composition)), expected, atol=1e-3)


@cells(OF_SEVERAL)
def test_saving_and_loading_gives_the_same_logits(
    regime: str, composition: str, kits: dict[str, Kit], tmp_path: Path
) -> None:
    kit, encoder = kits[regime], kits[regime].attach(composition)
    shake(encoder)
    kit.regime.save(encoder, tmp_path, name="target")
    loaded = kit.regime.load(kit.backbone, tmp_path)
    expected = logits(with_heads(encoder, composition))
    # not bit by bit: a single token's products depend on where in memory the tensors lie
    torch.testing.assert_close(logits(with_heads(loaded, composition)), expected, rtol=0, atol=1e-6)


@cells(OF_SEVERAL)
def test_only_the_modules_parameters_move(regime: str, composition: str, kits: dict[str, Kit]) -> None:
    encoder = kits[regime].attach(composition)
    before, trainable = parameters(encoder), {name for name, _ in kits[regime].regime.trainable(encoder)}
    models = with_heads(encoder, composition)
    optimizer = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(models).backward()
        optimizer.step()
    assert {name for name, t in parameters(encoder).items() if not torch.equal(t, before[name])} == trainable
    plain = digest(parameters(load_encoder(kits[regime].backbone.folder)))
    assert (digest(base_of(encoder)) == plain) == (regime != "full")


@cells(EVERY)
def test_the_trainable_count_is_the_formulas(regime: str, composition: str, kits: dict[str, Kit]) -> None:
    encoder, shape = kits[regime].attach(composition), EncoderShape.of(kits[regime].backbone.folder)
    attention = fusion_parameters(SPECS[regime], shape) if composition == "fusion" else 0
    expected = trainable_parameters(SPECS[regime], shape) + attention
    assert sum(p.numel() for _, p in kits[regime].regime.trainable(encoder)) == expected
    assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) == expected


@pytest.mark.parametrize("change", ["missing", "more", "shape"])
@cells(EVERY)
def test_tensors_that_are_not_the_modules_are_refused(
    regime: str, composition: str, change: str, kits: dict[str, Kit], tmp_path: Path
) -> None:
    """In any file of an artefact; libraries would load what fits and leave the rest as it was drawn."""
    kit = kits[regime]
    kit.regime.save(kit.attach(composition), tmp_path, name="target")
    for file in sorted(tmp_path.rglob("*.safetensors")):
        whole = load_file(file)
        changed, last = dict(whole), max(whole)
        if change == "missing":
            del changed[last]
        elif change == "more":
            changed[f"{last}.more"] = whole[last].clone()
        else:
            changed[last] = whole[last][:1].clone()
        save_file(changed, file, metadata={"format": "pt"})
        with pytest.raises(UserError):
            kit.regime.load(kit.backbone, tmp_path)
        save_file(whole, file, metadata={"format": "pt"})
    kit.regime.load(kit.backbone, tmp_path)
