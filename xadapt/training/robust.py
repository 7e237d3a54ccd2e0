"""Robust training: the words of an input are moved inside a small ball, where it hurts most or at random.

A word of another language lies near an English one, seldom in its place: a model that tolerates moved English words
should tolerate foreign ones (Huang et al. 2021, "Improving Zero-Shot Cross-Lingual Transfer Learning via Robust
Training"). Their third way, replacing words by synonyms, changes rows instead: `xadapt.data.synonyms`.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from xadapt.models.task_model import AnyTaskModel
from xadapt.training.settings import RobustSettings


class Perturbation:
    """Where the word embeddings of a micro-batch are moved to.

    No token is moved by more than `radius`, an L2 norm: settings.epsilon times scale, which is `embedding_scale` of
    the encoder that training starts from, before its vocabulary is trimmed. Padding and the tokens of special_ids stay;
    give the ids of `<s>` and `</s>`, which trimming leaves in place.
    """

    def __init__(self, settings: RobustSettings, *, scale: float, special_ids: Collection[int]) -> None:
        assert settings.method != "synonym", "synonyms change rows, not embeddings"
        self.settings, self.radius = settings, settings.epsilon * scale
        self.special_ids = torch.tensor(sorted(special_ids))

    @contextmanager
    def perturbed(
        self, model: AnyTaskModel, batch: Mapping[str, Tensor], loss: Callable[[], Tensor], *,
        indices: Sequence[int], draw: tuple[int, ...],
    ) -> Iterator[Tensor]:  # fmt: skip
        """Inside, the model sees `batch` with its words moved; gives the movement, [rows, tokens, hidden].

        loss runs the model on the batch and gives what is to be raised. indices are the features of the batch in order
        and draw what else names a random movement (seed and step): how a step is cut into micro-batches changes
        nothing. The parameters' gradients, the modes of modules and the generators of torch are left as they are.
        """
        if self.settings.method == "random":
            delta = self._random(model, batch, indices, draw)
        else:
            delta = self._worst(model, batch, loss)
        with moved(model, delta):
            yield delta

    def _worst(self, model: AnyTaskModel, batch: Mapping[str, Tensor], loss: Callable[[], Tensor]) -> Tensor:
        """Projected gradient ascent from the words' own places, each token a step along its own gradient.

        Dropout is off meanwhile: what is sought is the worst case of the model, not of one of its thinned copies, and
        training's own dropout draws what it would draw without the search.
        """
        movable, stride = self._movable(batch), self.settings.step_size * self.radius
        delta = torch.zeros(*batch["input_ids"].shape, _width(model), device=movable.device)
        with _without_dropout(model):
            for _ in range(self.settings.steps if self.radius else 0):
                gradient = _gradient(model, loss, delta)
                delta = delta + stride * movable * nn.functional.normalize(gradient, dim=-1, eps=1e-30)
                delta = delta * (self.radius / delta.norm(dim=-1, keepdim=True).clamp_min(self.radius))
        return delta

    def _random(
        self, model: AnyTaskModel, batch: Mapping[str, Tensor], indices: Sequence[int], draw: tuple[int, ...]
    ) -> Tensor:
        """A draw for each token from the whole ball, by seed, step and feature alone."""
        movable, width = self._movable(batch), _width(model)
        delta = torch.zeros(*batch["input_ids"].shape, width)
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        for row, (feature, length) in enumerate(zip(indices, lengths, strict=True)):
            points = uniform_in_ball(np.random.default_rng([*draw, feature]), length, width)
            delta[row, :length] = torch.from_numpy(points)
        return self.radius * movable * delta.to(movable.device)

    def _movable(self, batch: Mapping[str, Tensor]) -> Tensor:
        """1 for each token that may be moved, else 0: [rows, tokens, 1]."""
        ids = batch["input_ids"]
        special = torch.isin(ids, self.special_ids.to(ids.device))
        return (batch["attention_mask"].bool() & ~special).unsqueeze(-1).float()


def embedding_scale(encoder: PreTrainedModel) -> float:
    """The mean L2 norm of an encoder's word embeddings, over the whole vocabulary."""
    return float(encoder.get_input_embeddings().weight.detach().float().norm(dim=1).mean())


def uniform_in_ball(rng: np.random.Generator, points: int, dimensions: int) -> np.ndarray:
    """Points drawn from the whole unit ball, [points, dimensions], float32: any direction, radius u ** (1 / d)."""
    directions = rng.standard_normal((points, dimensions), dtype=np.float32)
    radii = rng.random((points, 1)) ** (1 / dimensions)
    scaled: np.ndarray = directions * (radii / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)
    return scaled


@contextmanager
def moved(model: AnyTaskModel, delta: Tensor) -> Iterator[None]:
    """Inside, delta is added to the word embeddings of the model's input; positions and their like are added after."""

    def add(_: nn.Module, __: object, output: Tensor) -> Tensor:
        return output + delta.to(output.dtype)

    handle = model.encoder.get_input_embeddings().register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def _gradient(model: AnyTaskModel, loss: Callable[[], Tensor], delta: Tensor) -> Tensor:
    """The loss's gradient at delta, and at nothing else: no parameter's `.grad` is touched."""
    delta = delta.detach().requires_grad_()
    with moved(model, delta):
        value = loss()
    return torch.autograd.grad(value, delta)[0]


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """Inside, the model evaluates; afterwards each of its modules is in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _width(model: AnyTaskModel) -> int:
    return int(model.encoder.get_input_embeddings().weight.shape[1])
