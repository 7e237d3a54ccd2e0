"""LoRA fusion against its definition written out, with every delta of every module computed."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from xadapt.errors import UserError
from xadapt.models.fusion_attention import fusion_layers
from xadapt.models.lora_folder import Lora
from xadapt.models.lora_fusion import FusedLoras, LoraFusion, fuse_loras

IN, OUT = 24, 40
RANKS = {1: (4,), 3: (2, 8, 5), 9: (4, 1, 8, 2, 4, 4, 16, 3, 6)}

every_count = pytest.mark.parametrize("count", RANKS)


def random_loras(ranks: tuple[int, ...]) -> list[tuple[Tensor, Tensor, float]]:
    return [(torch.randn(r, IN), torch.randn(OUT, r), 0.5 + 0.1 * i) for i, r in enumerate(ranks)]


def made(count: int, *, width: int = 16, shaken: bool = True) -> tuple[LoraFusion, list[tuple[Tensor, Tensor, float]]]:
    torch.manual_seed(count)
    loras = random_loras(RANKS[count])
    fusion = LoraFusion(nn.Linear(IN, OUT), loras, width=width)
    if shaken:
        nn.init.normal_(fusion.fusion_query, std=0.05)
    return fusion, loras


def written_out(fusion: LoraFusion, loras: list[tuple[Tensor, Tensor, float]], x: Tensor) -> tuple[Tensor, Tensor]:
    """Output and probabilities by the definition: deltas [batch, tokens, modules, out], then keys of all of them."""
    deltas = torch.stack([scale * x @ a.T @ b.T for a, b, scale in loras], dim=2)
    asked = functional.linear(x, fusion.fusion_query)
    scores = torch.einsum("btp,btnp->btn", asked, functional.linear(deltas, fusion.fusion_key))
    probabilities = scores.softmax(-1)
    return fusion.base_layer(x) + torch.einsum("btn,btnd->btd", probabilities, deltas), probabilities


@every_count
def test_outputs_and_gradients_are_the_definitions(count: int) -> None:
    fusion, loras = made(count)
    x = torch.randn(3, 7, IN, requires_grad=True)
    target = torch.randn(3, 7, OUT)
    trained = [x, fusion.fusion_query, fusion.fusion_key]

    def gradients(output: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((output * target).sum(), trained)

    output = fusion(x)
    expected, probabilities = written_out(fusion, loras, x)
    assert count == 1 or probabilities.std(-1).max() > 0.1, "the attention chooses"
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-4)
    for found, other in zip(gradients(output), gradients(expected), strict=True):
        assert (found - other).norm() <= 1e-5 * other.norm()


@every_count
def test_the_probabilities_are_kept_when_asked_for(count: int) -> None:
    fusion, loras = made(count)
    x = torch.randn(2, 5, IN)
    fusion(x)
    assert fusion.probabilities is None
    fusion.recording = True
    fusion(x)
    assert fusion.probabilities is not None
    assert fusion.probabilities.shape == (2, 5, count)
    assert not fusion.probabilities.requires_grad
    torch.testing.assert_close(fusion.probabilities, written_out(fusion, loras, x)[1], rtol=1e-4, atol=1e-5)


@every_count
def test_it_starts_as_the_mean_of_the_deltas(count: int) -> None:
    fusion, loras = made(count, shaken=False)
    x = torch.randn(2, 5, IN)
    mean = torch.stack([scale * x @ a.T @ b.T for a, b, scale in loras]).mean(0)
    torch.testing.assert_close(fusion(x), fusion.base_layer(x) + mean, rtol=1e-5, atol=1e-5)


def test_it_leaves_its_start() -> None:
    """At the start the query alone has a gradient; after a step the key has one as well."""
    fusion, _ = made(3, shaken=False)
    optimizer = torch.optim.SGD([fusion.fusion_query, fusion.fusion_key], lr=1e-3)
    x, target = torch.randn(2, 5, IN), torch.randn(2, 5, OUT)
    for moves in ({"fusion_query"}, {"fusion_query", "fusion_key"}):
        optimizer.zero_grad()
        (fusion(x) * target).sum().backward()
        found = {name for name, p in fusion.named_parameters() if name.startswith("fusion_") and p.grad.abs().max() > 0}
        assert found == moves
        optimizer.step()


def test_it_learns_which_module_a_token_wants() -> None:
    """Each half of the inputs is marked by a direction and wants another module's delta."""
    torch.manual_seed(0)
    loras = random_loras((4, 4, 4))
    fusion = LoraFusion(nn.Linear(IN, OUT), loras)
    x = torch.randn(64, 6, IN)
    wants = torch.arange(6) % 3
    x[..., 0:3] = 3 * functional.one_hot(wants, 3).float()
    with torch.no_grad():
        deltas = torch.stack([scale * x @ a.T @ b.T for a, b, scale in loras], dim=2)
        wanted = fusion.base_layer(x) + deltas[:, torch.arange(6), wants]
    optimizer = torch.optim.Adam([fusion.fusion_query, fusion.fusion_key], lr=1e-2)
    fusion.recording = True
    for _ in range(150):
        optimizer.zero_grad()
        functional.mse_loss(fusion(x), wanted).backward()
        optimizer.step()
    assert fusion.probabilities is not None
    assert fusion.probabilities[:, torch.arange(6), wants].mean() > 0.8


def test_only_the_attention_can_train_and_the_loras_are_copies() -> None:
    fusion, loras = made(3)
    fusion.base_layer.requires_grad_(False)
    assert {name for name, p in fusion.named_parameters() if p.requires_grad} == {"fusion_query", "fusion_key"}
    before = copy.deepcopy(loras)
    fusion.down.zero_()
    fusion.up.zero_()
    assert all(torch.equal(a, c) and torch.equal(b, d) for (a, b, _), (c, d, _) in zip(loras, before, strict=True))


@every_count
def test_the_parameter_count_does_not_grow_with_the_modules(count: int) -> None:
    fusion, _ = made(count, width=8)
    trained = fusion.fusion_query.numel() + fusion.fusion_key.numel()
    assert trained == 8 * (IN + OUT)
    assert sum(p.numel() for p in fusion.parameters()) == trained + IN * OUT + OUT


def test_no_tensor_has_a_delta_a_module() -> None:
    """What is kept for the backward pass grows with modules times rank, not with modules times width."""
    fusion, _ = made(9)
    x = torch.randn(2, 50, IN, requires_grad=True)
    shapes: list[torch.Size] = []

    def pack(tensor: Tensor) -> Tensor:
        shapes.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        fusion(x)
    largest = max(shape.numel() for shape in shapes if 50 in shape)
    assert largest <= 2 * 50 * 9 * 16
    assert not any(9 in shape and OUT in shape for shape in shapes)


def test_half_precision_is_near() -> None:
    fusion, _ = made(3)
    x = torch.randn(2, 5, IN)
    with torch.autocast("cpu", torch.bfloat16):
        half = fusion(x)
        half.float().sum().backward()
    assert half.dtype == torch.bfloat16
    assert fusion.fusion_query.grad is not None
    assert fusion.fusion_query.grad.isfinite().all()
    whole = fusion(x)
    assert (half.float() - whole).norm() < 0.05 * whole.norm()


# in an encoder


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(IN, OUT), nn.Linear(OUT, IN)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.second(torch.tanh(self.first(x)))
        return found


def lora_of(name: str, r: int, shapes: dict[str, tuple[int, int]], **config: object) -> Lora:
    tensors: dict[str, Tensor] = {}
    for layer, (inner, outer) in shapes.items():
        tensors |= {f"{layer}.lora_A.weight": torch.randn(r, inner), f"{layer}.lora_B.weight": torch.randn(outer, r)}
    return Lora(name, {"r": r, "lora_alpha": 2 * r, **config}, tensors)


BOTH = {"first": (IN, OUT), "second": (OUT, IN)}


def test_every_linear_layer_of_the_loras_is_wrapped() -> None:
    torch.manual_seed(0)
    loras = (lora_of("a", 2, BOTH), lora_of("b", 4, BOTH, use_rslora=True))
    model, x = TwoLayers(), torch.randn(2, 5, IN)
    plain = copy.deepcopy(model)
    fuse_loras(model, FusedLoras(loras, width=4))
    assert fusion_layers(model) == [model.first, model.second]
    for layer in BOTH:
        mean = sum(lora.scaling * b @ a for lora in loras for a, b in [lora.pairs("fused")[layer]]) / 2
        plain.get_submodule(layer).weight.data += mean  # type: ignore[operator]
    torch.testing.assert_close(model(x), plain(x), rtol=1e-4, atol=1e-4)


def test_what_does_not_go_together_is_refused() -> None:
    plain, other = lora_of("a", 2, BOTH), lora_of("b", 2, {"first": BOTH["first"]})
    elsewhere = lora_of("c", 2, {"first": (IN, OUT + 1)})
    for loras in ((plain, other), (plain, lora_of("d", 2, BOTH, use_dora=True)), (elsewhere,)):
        model = TwoLayers()
        with pytest.raises(UserError):
            fuse_loras(model, FusedLoras(loras))
        assert not fusion_layers(model)
