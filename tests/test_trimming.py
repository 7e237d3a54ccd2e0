"""Training on the word embeddings that occur is the same as training on all of them."""

import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from xadapt.data.sources import EmbeddedSource
from xadapt.formats import FORMATS, Features
from xadapt.formats.features import collate
from xadapt.models.backbone import Backbone
from xadapt.models.task_model import TaskModel
from xadapt.models.trimming import TrimmedVocabulary, trim_vocabulary
from xadapt.regimes.full import FullRegime
from xadapt.tasks import get_task
from xadapt.training.device import make_accelerator
from xadapt.training.loop import Training
from xadapt.training.mixing import TrainingPart
from xadapt.training.result import FitResult
from xadapt.training.settings import TrainingSettings

PAD = 1
STEPS = 30
NUMBERS = TrainingSettings(
    learning_rate=2e-3, per_device_train_batch_size=8, max_steps=STEPS, weight_decay=0.01, max_grad_norm=0.1,
    max_seq_length=64, dtype="float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(str(tiny_backbone))


@pytest.fixture(scope="module")
def train(backbone: Backbone) -> Features:
    return encoded(backbone, "mnli", "train", 96)


@pytest.fixture(scope="module")
def dev(backbone: Backbone) -> Features:
    return encoded(backbone, "mnli", "validation", 24)


def encoded(backbone: Backbone, task: str, split: str, limit: int) -> Features:
    rows = EmbeddedSource().load(get_task(task), "en", split, limit=limit)  # type: ignore[arg-type]
    return FORMATS[get_task(task).format].encode(rows, get_task(task), backbone.tokenizer, 64)


def encoder_with_padding(backbone: Backbone) -> PreTrainedModel:
    """The encoder with a padding row that is not zero, as that of a trained model may be."""
    encoder = backbone.encoder()
    with torch.no_grad():
        encoder.get_input_embeddings().weight[PAD] = torch.linspace(-1, 1, encoder.config.hidden_size)
    return encoder


def mapped(trimmed: TrimmedVocabulary, features: Features) -> Features:
    return replace(features, input_ids=trimmed.map(features.input_ids))


class Trained(NamedTuple):
    result: FitResult
    norms: list[float]
    embedding: Tensor
    state: dict[str, Tensor]


def fit(
    backbone: Backbone, train: Features, dev: Features, *, trims: bool, exact: bool = False,
    settings: TrainingSettings = NUMBERS, best: int = STEPS,
) -> Trained:  # fmt: skip
    """Full fine-tuning with dropout, the parameters of step `best` kept; in float64 if `exact`."""
    encoder = encoder_with_padding(backbone)
    torch.manual_seed(1)
    head = FORMATS["classification"].head(encoder.config.hidden_size, get_task("xnli"), 0.1)
    assert head is not None
    model = TaskModel(encoder, head)
    if exact:
        model.double()
    trimmed = trim_vocabulary(encoder, [*train.input_ids, *dev.input_ids]) if trims else None
    norms: list[float] = []

    class Norms:
        def step(self, step: int, total: int, values: dict[str, float]) -> None:
            norms.append(values["grad_norm"])

        def selection(self, *_: object) -> None: ...

    result = Training(
        model, [TrainingPart(FORMATS["classification"], mapped(trimmed, train) if trimmed else train)],
        settings.model_copy(update={"eval_steps": 5}), seed=2, pad_token_id=PAD,
        accelerator=make_accelerator("float32"), evaluate=lambda: {"accuracy": float(len(norms) == best)},
        metric="accuracy", monitors=[Norms()],
    ).run()  # fmt: skip
    assert result.best_step == best
    if trimmed:
        trimmed.restore(encoder, decay=result.decay)
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return Trained(result, norms, encoder.get_input_embeddings().weight.detach().clone(), state)


@pytest.fixture(scope="module")
def pair(backbone: Backbone, train: Features, dev: Features) -> tuple[Trained, Trained]:
    return fit(backbone, train, dev, trims=True), fit(backbone, train, dev, trims=False)


def never_seen(backbone: Backbone, *features: Features) -> Tensor:
    """Pieces that no row holds, specials apart."""
    seen = {piece for of in features for ids in of.input_ids for piece in ids}
    return torch.tensor([piece for piece in range(4, backbone.config.vocab_size) if piece not in seen])


def test_the_losses_are_those_of_the_whole_vocabulary(pair: tuple[Trained, Trained]) -> None:
    trimmed, whole = pair
    assert len(trimmed.result.losses) == STEPS
    assert trimmed.result.losses == pytest.approx(whole.result.losses, abs=1e-6)
    assert trimmed.norms == pytest.approx(whole.norms, rel=1e-5)
    assert min(whole.norms) > NUMBERS.max_grad_norm, "every step is clipped"


def test_the_whole_matrix_is_restored(backbone: Backbone, pair: tuple[Trained, Trained]) -> None:
    trimmed, whole = pair
    before = encoder_with_padding(backbone).get_input_embeddings().weight
    assert trimmed.embedding.shape == before.shape
    torch.testing.assert_close(trimmed.embedding, whole.embedding, rtol=0, atol=1e-6)
    assert (whole.embedding - before).abs().max() > 1e-3


def test_all_parameters_are_those_of_the_whole_vocabulary(backbone: Backbone, train: Features, dev: Features) -> None:
    """In float64: in float32 Adam scales up the rounding of gradients that are zero, those of the keys' biases."""
    trimmed, whole = (fit(backbone, train, dev, trims=trims, exact=True) for trims in (True, False))
    assert trimmed.state.keys() == whole.state.keys()
    for name, tensor in trimmed.state.items():
        torch.testing.assert_close(tensor, whole.state[name], rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("best", [10, STEPS])
def test_rows_never_seen_are_decayed_as_often_as_the_others(
    best: int, backbone: Backbone, train: Features, dev: Features
) -> None:
    strong = NUMBERS.model_copy(update={"weight_decay": 0.5})
    trimmed, whole = (fit(backbone, train, dev, trims=trims, settings=strong, best=best) for trims in (True, False))
    rows = never_seen(backbone, train, dev)
    assert len(rows) > 50
    before = encoder_with_padding(backbone).get_input_embeddings().weight.detach()
    warmup = math.ceil(STEPS * NUMBERS.warmup_ratio)
    rates = [step / warmup if step < warmup else (STEPS - step) / (STEPS - warmup) for step in range(best)]
    factor = math.prod(1 - 2e-3 * rate * 0.5 for rate in rates)
    assert factor < 0.998
    assert trimmed.result.decay == pytest.approx(factor, rel=1e-9)
    torch.testing.assert_close(trimmed.embedding[rows], before[rows] * factor, rtol=1e-6, atol=0)
    torch.testing.assert_close(trimmed.embedding[rows], whole.embedding[rows], rtol=1e-6, atol=1e-8)


def test_rows_never_seen_stay_to_the_bit_without_decay(backbone: Backbone, train: Features, dev: Features) -> None:
    found = fit(backbone, train, dev, trims=True, settings=NUMBERS.model_copy(update={"weight_decay": 0.0}))
    before = encoder_with_padding(backbone).get_input_embeddings().weight
    rows = torch.cat([never_seen(backbone, train, dev), torch.tensor([PAD])])
    assert torch.equal(found.embedding[rows], before[rows])


def test_the_padding_row_gets_no_gradient(backbone: Backbone, pair: tuple[Trained, Trained]) -> None:
    """It decays like every row and does nothing else."""
    before = encoder_with_padding(backbone).get_input_embeddings().weight[PAD]
    for found in pair:
        torch.testing.assert_close(found.embedding[PAD], before * found.result.decay, rtol=1e-6, atol=0)


def test_outputs_before_training_are_equal_to_the_bit(backbone: Backbone, train: Features, dev: Features) -> None:
    """Positions among them: XLM-R counts these by the padding index, which must keep its place."""
    whole, cut = encoder_with_padding(backbone).eval(), encoder_with_padding(backbone).eval()
    trimmed = trim_vocabulary(cut, [*train.input_ids, *dev.input_ids])
    assert cut.get_input_embeddings().weight.shape[0] < whole.get_input_embeddings().weight.shape[0]
    assert cut.get_input_embeddings().padding_idx == cut.embeddings.padding_idx == PAD
    for features in (train, dev):
        padded, smaller = (collate(of, range(len(of)), PAD) for of in (features, mapped(trimmed, features)))
        assert not padded["attention_mask"].all(), "there is padding"
        with torch.no_grad():
            expected = whole(padded["input_ids"], padded["attention_mask"]).last_hidden_state
            found = cut(smaller["input_ids"], smaller["attention_mask"]).last_hidden_state
        assert torch.equal(found, expected)


def test_trimming_keeps_specials_and_what_occurs(backbone: Backbone) -> None:
    encoder = backbone.encoder()
    before = encoder.get_input_embeddings().weight.detach().clone()
    trimmed = trim_vocabulary(encoder, [[0, 77, 9, 2], [0, 9, 2]])
    assert trimmed.ids.tolist() == [0, 1, 2, 3, 9, 77]
    assert trimmed.map([[0, 77, 9, 2], [3]]) == [[0, 5, 4, 2], [3]]
    assert torch.equal(encoder.get_input_embeddings().weight, before[trimmed.ids])
    assert encoder.get_input_embeddings().weight.requires_grad
    trimmed.restore(encoder, decay=1.0)
    assert torch.equal(encoder.get_input_embeddings().weight, before)


def test_a_piece_that_was_cut_away_is_refused(backbone: Backbone) -> None:
    trimmed = trim_vocabulary(backbone.encoder(), [[0, 77, 2]])
    with pytest.raises(KeyError):
        trimmed.map([[0, 78, 2]])


def test_what_is_saved_has_the_whole_vocabulary(backbone: Backbone, train: Features, tmp_path: Path) -> None:
    encoder = encoder_with_padding(backbone)
    trimmed = trim_vocabulary(encoder, train.input_ids)
    with torch.no_grad():
        encoder.get_input_embeddings().weight.mul_(2)
    trimmed.restore(encoder, decay=0.5)
    FullRegime().save(encoder, tmp_path, name="mnli")
    loaded = FullRegime().load(backbone, tmp_path)
    assert loaded.config.vocab_size == backbone.config.vocab_size
    before = encoder_with_padding(backbone).get_input_embeddings().weight
    factor = torch.full((backbone.config.vocab_size, 1), 0.5)
    factor[trimmed.ids] = 2
    assert torch.equal(loaded.get_input_embeddings().weight, before * factor)
