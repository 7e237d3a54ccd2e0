"""Predictions do not depend on how rows are batched, languages are grouped or sentences are pooled in passing."""

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from xadapt.data import Rows
from xadapt.data.sources import EmbeddedSource
from xadapt.evaluation.retrieval import sentence_vectors
from xadapt.evaluation.zero_shot import (
    LanguageResult,
    Predicted,
    Predictor,
    decoded,
    evaluate_languages,
    model_predictor,
    score_language,
)
from xadapt.formats import FORMATS, Features
from xadapt.models.backbone import Backbone
from xadapt.models.identity import retrieval_layer
from xadapt.models.task_model import TaskModel
from xadapt.regimes.protocol import open_regime
from xadapt.regimes.specs import AdapterSpec, FullSpec
from xadapt.tasks import Task, get_task
from xadapt.training.prediction import predict_logits

CPU, PAD, LENGTH = torch.device("cpu"), 1, 128
LANGUAGES = ("en", "de", "sw", "hi", "zh")
TARGETS = {"classification": "xnli", "tagging": "udpos"}


class Trained(NamedTuple):
    task: str
    model: TaskModel
    backbone: Backbone


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(str(tiny_backbone))


@pytest.fixture(
    scope="module",
    params=[(regime, format) for regime in ("full", "adapter") for format in TARGETS],
    ids=lambda param: "-".join(param),
)
def trained(request: pytest.FixtureRequest, backbone: Backbone) -> Trained:
    """A model whose parameters are large enough for its predictions to vary; it would drop out in training."""
    regime, format = request.param
    task = get_task(TARGETS[format])
    torch.manual_seed(0)
    spec = FullSpec() if regime == "full" else AdapterSpec(reduction_factor=4)
    encoder = open_regime(spec).attach(backbone, name=task.name)
    head = FORMATS[format].head(encoder.config.hidden_size, task, 0.1)
    assert head is not None
    model = TaskModel(encoder, head)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "LayerNorm" not in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
        logits = one_at_a_time(model, encode(load(task.name, "en"), backbone))
        head.out_proj.bias -= torch.cat([each.reshape(-1, len(task.labels)) for each in logits]).mean(dim=0)
    return Trained(task.name, model, backbone)


@pytest.fixture(scope="module")
def exact(trained: Trained) -> Trained:
    """The same model in float64, for predictions that must be equal: rounding cannot turn a near tie."""
    return trained._replace(model=copy.deepcopy(trained.model).double())


def load(task: str, lang: str, limit: int = 30) -> Rows:
    return EmbeddedSource().load(get_task(task), lang, "test", limit=limit)


def encode(rows: Rows, backbone: Backbone) -> Features:
    task = get_task(rows.task)
    return FORMATS[task.format].encode(rows, task, backbone.tokenizer, LENGTH)


def logits(model: nn.Module, features: Features, token_budget: int) -> list[Tensor]:
    return predict_logits(model, features, pad_token_id=PAD, token_budget=token_budget, device=CPU)


def one_at_a_time(model: nn.Module, features: Features) -> list[Tensor]:
    """Without our batching: no padding, no mask to speak of."""
    model.eval()
    with torch.no_grad():
        rows = [torch.tensor([list(ids)]) for ids in features.input_ids]
        return [model(row, torch.ones_like(row))[0] for row in rows]


def assert_near(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Within 1e-5, and the same label wherever the two best are further apart than that explains."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        best = theirs.topk(2).values
        differs = ours.argmax(dim=-1) != theirs.argmax(dim=-1)
        assert not (differs & (best[..., 0] - best[..., 1] > 2e-5)).any()


# logits


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_logits_are_those_of_one_row_at_a_time(batch: int, trained: Trained) -> None:
    features = encode(load(trained.task, "en", 40), trained.backbone)
    assert len(set(features.lengths)) > 5
    found = logits(trained.model, features, batch * max(features.lengths))
    expected = one_at_a_time(trained.model, features)
    assert_near(found, expected)
    assert torch.cat([each.reshape(-1, each.shape[-1]).argmax(-1) for each in found]).unique().numel() > 1


def test_logits_come_in_the_order_of_the_rows(trained: Trained) -> None:
    features = encode(load(trained.task, "de", 40), trained.backbone)
    order = list(range(len(features)))
    random.Random(0).shuffle(order)
    shuffled = Features([features.input_ids[i] for i in order], None, [features.row[i] for i in order])
    expected = logits(trained.model, features, 512)
    assert_near(logits(trained.model, shuffled, 512), [expected[i] for i in order])


def test_every_feature_is_reported_and_gets_its_length(trained: Trained) -> None:
    features = encode(load(trained.task, "en", 20), trained.backbone)
    done: list[int] = []
    predict = model_predictor(trained.model, pad_token_id=PAD, token_budget=200, device=CPU, progress=done.append)
    found = predict(features)
    assert sum(done) == len(features)
    assert len(done) > 1
    if trained.task == "udpos":
        assert [len(each) for each in found] == features.lengths
    assert all(each.dtype == torch.float32 and not each.requires_grad for each in found)


def test_dropout_is_off_whatever_came_before(trained: Trained) -> None:
    features = encode(load(trained.task, "en", 10), trained.backbone)
    trained.model.train()
    first = logits(trained.model, features, 512)
    trained.model.train()
    assert all(map(torch.equal, first, logits(trained.model, features, 512)))


def test_metrics_do_not_depend_on_batches_or_order(exact: Trained) -> None:
    task = get_task(exact.task)
    rows = load(exact.task, "en", 60)
    order = list(range(len(rows)))
    random.Random(1).shuffle(order)
    columns = {name: [column[i] for i in order] for name, column in rows.columns.items()}
    shuffled = Rows(rows.task, rows.lang, rows.split, columns, rows.identity, rows.place)
    values = []
    for of in (rows, shuffled):
        for batch in (1, 7, 64):
            features = encode(of, exact.backbone)
            found = logits(exact.model, features, batch * LENGTH)
            values.append(score_language(task, "en", of, features, found).values)
    assert all(value == values[0] for value in values)
    assert all(0 < value < 100 for value in values[0].values())


# languages


class Evaluated(NamedTuple):
    """The result of each language, and what was predicted of its rows, in order."""

    results: list[LanguageResult]
    kept: dict[str, list[Predicted]]

    def of(self, lang: str, what: str) -> list[Any]:
        return [value for part in self.kept[lang] for value in getattr(part, what)]


def evaluated(
    trained: Trained, rows: Mapping[str, Rows], *, budget: int = 1024, piece: int = 4096, **options: Any
) -> Evaluated:
    predict = model_predictor(trained.model, pad_token_id=PAD, token_budget=budget, device=CPU)
    return evaluated_by(predict, get_task(trained.task), rows, trained.backbone, piece=piece, **options)


def evaluated_by(
    predict: Predictor, task: Task, rows: Mapping[str, Rows], backbone: Backbone, *, piece: int = 4096, **options: Any
) -> Evaluated:
    kept: dict[str, list[Predicted]] = {}
    languages = ((lang, of.pieces(piece)) for lang, of in rows.items())
    results = evaluate_languages(
        task, languages, predict, backbone.tokenizer, max_length=LENGTH, **options,
        keep=lambda found: kept.setdefault(found.lang, []).append(found),
    )  # fmt: skip
    return Evaluated(list(results), kept)


def test_languages_together_give_what_each_gives_alone(exact: Trained) -> None:
    rows = {lang: load(exact.task, lang, 12 + 3 * at) for at, lang in enumerate(LANGUAGES)}
    together = evaluated(exact, rows)
    assert [result.lang for result in together.results] == list(LANGUAGES)
    assert [result.n for result in together.results] == [12, 15, 18, 21, 24]
    for result in together.results:
        alone = evaluated(exact, {result.lang: rows[result.lang]})
        assert [result] == alone.results
        for what in ("ids", "predictions", "references", "confidence"):
            assert together.of(result.lang, what) == alone.of(result.lang, what)
        references = FORMATS[get_task(exact.task).format].references(rows[result.lang])
        assert together.of(result.lang, "references") == list(references)
    assert len({json.dumps(together.of(lang, "predictions")[:12]) for lang in LANGUAGES}) > 1


@pytest.mark.parametrize("block", [1, 7, 64, 4096])
@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_blocks_and_pieces_change_nothing(block: int, piece: int, exact: Trained) -> None:
    rows = {lang: load(exact.task, lang, 12 + 3 * at) for at, lang in enumerate(LANGUAGES)}
    rows["de"] = replace(rows["de"], skipped=4, stand_in="validation")
    predict = model_predictor(exact.model, pad_token_id=PAD, token_budget=1024, device=CPU)
    seen: list[int] = []

    def watched(features: Features) -> list[Tensor]:
        seen.append(len(features))
        return predict(features)

    found = evaluated_by(watched, get_task(exact.task), rows, exact.backbone, piece=piece, block=block)
    expected = evaluated(exact, rows)
    assert seen == [*[block] * (sum(seen) // block), *([rest] if (rest := sum(seen) % block) else [])]
    assert found.results == expected.results
    assert (found.results[1].skipped, found.results[1].stand_in) == (4, "validation")
    for lang in LANGUAGES:
        for what in ("ids", "predictions", "references"):
            assert found.of(lang, what) == expected.of(lang, what)
        assert found.of(lang, "ids") == [str(i) for i in range(len(rows[lang]))]
        assert found.of(lang, "confidence") == pytest.approx(expected.of(lang, "confidence"), abs=1e-5)
        assert sum(1 for _ in found.kept[lang]) <= 2 + len(rows[lang]) // block, "pieces are put together to blocks"


def test_a_language_is_read_no_further_than_the_block_needs(exact: Trained) -> None:
    """What is written is not held: with the second block predicted, only its rows have been read beyond the first."""
    rows, read, written = load(exact.task, "en", 30), [], []

    def pieces() -> Iterator[Rows]:
        for piece in rows.pieces(2):
            read.append(len(piece))
            yield piece

    predict = model_predictor(exact.model, pad_token_id=PAD, token_budget=1024, device=CPU)

    def watched(features: Features) -> list[Tensor]:
        assert sum(read) <= sum(written) + 10 + 2
        return predict(features)

    (result,) = evaluate_languages(
        get_task(exact.task), [("en", pieces())], watched, exact.backbone.tokenizer, max_length=LENGTH, block=10,
        keep=lambda found: written.append(len(found.predictions)),
    )  # fmt: skip
    assert (written, result.n) == ([10, 10, 10], 30)


def test_every_metric_of_the_task_is_scored(trained: Trained) -> None:
    (result,) = evaluated(trained, {"en": load(trained.task, "en")}).results
    assert tuple(result.values) == get_task(trained.task).metrics


# collapse


def constant(label: int) -> Callable[[Rows, Features], list[Tensor]]:
    def predict(rows: Rows, features: Features) -> list[Tensor]:
        labels = get_task(rows.task).labels
        one = torch.nn.functional.one_hot(torch.tensor(label), len(labels)).float()
        tokens = rows.task == "udpos"
        return [one.expand(length, -1) if tokens else one for length in features.lengths]

    return predict


@pytest.mark.parametrize("task", ["xnli", "udpos"])
def test_constant_predictions_are_flagged(task: str, backbone: Backbone) -> None:
    rows = load(task, "de")
    features = encode(rows, backbone)
    for label in range(len(get_task(task).labels)):
        result = score_language(get_task(task), "de", rows, features, constant(label)(rows, features))
        assert result.collapsed
    varied = constant(0)(rows, features)
    varied[-1] = constant(1)(rows, features)[-1]
    assert not score_language(get_task(task), "de", rows, features, varied).collapsed


def test_constant_predictions_of_constant_references_are_not_flagged(backbone: Backbone) -> None:
    rows = load("xnli", "de", 3)
    columns = {**rows.columns, "label": [1, 1, 1]}
    same = Rows("xnli", "de", "test", columns, rows.identity, rows.place)
    features = encode(same, backbone)
    result = score_language(get_task("xnli"), "de", same, features, constant(1)(same, features))
    assert (result.collapsed, result.values["accuracy"]) == (False, 100)
    other = score_language(get_task("xnli"), "de", same, features, constant(0)(same, features))
    assert (other.collapsed, other.values["accuracy"]) == (False, 0)


def test_a_model_that_always_says_the_same_is_flagged_in_every_language(trained: Trained) -> None:
    """Through the model itself: its last bias drowns all else."""
    head = trained.model.head
    assert isinstance(head.out_proj, nn.Linear)
    before = head.out_proj.bias.detach().clone()
    with torch.no_grad():
        head.out_proj.bias[2] += 1e6
    try:
        results = evaluated(trained, {lang: load(trained.task, lang, 12) for lang in LANGUAGES}).results
    finally:
        with torch.no_grad():
            head.out_proj.bias.copy_(before)
    assert all(result.collapsed for result in results)
    (restored,) = evaluated(trained, {"en": load(trained.task, "en", 30)}).results
    assert not restored.collapsed


# retrieval


def vectors(backbone: Backbone, features: Features, layer: int, token_budget: int = 512) -> list[Tensor]:
    return sentence_vectors(
        backbone.encoder(), features, layer=layer, pad_token_id=PAD, token_budget=token_budget, device=CPU
    )


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_sentence_vectors_are_the_mean_over_tokens(layer: int, batch: int, backbone: Backbone) -> None:
    features = encode(load("tatoeba", "de"), backbone)
    found = vectors(backbone, features, layer, batch * max(features.lengths))
    assert len(found) == 60
    encoder = backbone.encoder().eval()
    for ids, vector in zip(features.input_ids, found, strict=True):
        with torch.no_grad():
            states = encoder(torch.tensor([ids]), output_hidden_states=True).hidden_states
        assert len(states) == 3
        mean = sum(states[layer][0]) / len(ids)
        torch.testing.assert_close(vector, mean / mean.square().sum().sqrt(), rtol=0, atol=1e-5)
        assert vector.square().sum().item() == pytest.approx(1, abs=1e-6)


def test_dropout_is_off_in_vectors_whatever_came_before(backbone: Backbone) -> None:
    features = encode(load("tatoeba", "de", 10), backbone)
    encoder = backbone.encoder().train()
    found = sentence_vectors(encoder, features, layer=2, pad_token_id=PAD, token_budget=512, device=CPU)
    assert all(map(torch.equal, found, vectors(backbone, features, 2)))


def test_retrieval_of_one_sentence_alone_is_no_collapse(backbone: Backbone) -> None:
    """A label that is always predicted is a failure of training; retrieval has neither."""
    rows = load("tatoeba", "de", 5)
    features = encode(rows, backbone)
    task, same = get_task("tatoeba"), [torch.ones(4)] * 10
    assert decoded(task, "de", rows, features, same).predictions == [0] * 5
    assert not score_language(task, "de", rows, features, same).collapsed


def test_layers_count_from_the_embeddings(backbone: Backbone) -> None:
    features = encode(load("tatoeba", "de", 5), backbone)
    first, *_, last = (vectors(backbone, features, layer) for layer in (0, 1, 2))
    assert not torch.allclose(first[0], last[0], atol=1e-3)
    with pytest.raises(IndexError):
        vectors(backbone, features, 3)


def test_a_sentence_that_stands_twice_is_encoded_once(backbone: Backbone) -> None:
    once = encode(load("tatoeba", "de", 5), backbone)
    twice = Features([*once.input_ids, *reversed(once.input_ids)], None, range(20))
    encoder, seen, done = backbone.encoder(), [], []
    encoder.register_forward_pre_hook(lambda _, args, given: seen.append(len(given["input_ids"])), with_kwargs=True)
    found = sentence_vectors(
        encoder, twice, layer=1, pad_token_id=PAD, token_budget=64, device=CPU, progress=done.append
    )
    assert (sum(seen), sum(done)) == (10, 20)
    torch.testing.assert_close(found, [*(alone := vectors(backbone, once, 1)), *reversed(alone)], rtol=0, atol=1e-5)
    assert len(encoder.encoder.layer) == 2


def test_an_adapter_changes_the_vectors(backbone: Backbone) -> None:
    features = encode(load("tatoeba", "de", 5), backbone)
    torch.manual_seed(0)
    encoder = open_regime(AdapterSpec(reduction_factor=2)).attach(backbone, name="mnli")
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    found = sentence_vectors(encoder, features, layer=2, pad_token_id=PAD, token_budget=512, device=CPU)
    assert not torch.allclose(found[0], vectors(backbone, features, 2)[0], atol=1e-3)


@pytest.mark.parametrize(
    ("layers", "embedded", "expected"),
    [(24, False, 14), (12, False, 8), (12, True, 12), (2, False, 2), (6, False, 6), (48, False, 48)],
)
def test_the_default_layer_is_xtremes(layers: int, embedded: bool, expected: int) -> None:
    assert retrieval_layer(layers, embedded=embedded) == expected


@pytest.mark.parametrize(("layers", "expected"), [(24, 14), (12, 8), (2, 2)])
def test_a_backbone_knows_its_layer(layers: int, expected: int, tiny_backbone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "xlm-r"
    shutil.copytree(tiny_backbone, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
    assert Backbone(str(folder)).retrieval_layer == expected


def test_retrieval_is_scored_in_every_language(backbone: Backbone) -> None:
    """Together as alone; over the embeddings, as these need not be trained to find something."""
    task = get_task("tatoeba")
    rows = {lang: load("tatoeba", lang, 40) for lang in ("de", "sw", "zh")}
    encoded = {lang: encode(of, backbone) for lang, of in rows.items()}
    known: dict[tuple[int, ...], Tensor] = {}
    for features in encoded.values():
        known |= zip(map(tuple, features.input_ids), vectors(backbone, features, 0), strict=True)

    def predict(features: Features) -> list[Tensor]:
        return [known[tuple(ids)] for ids in features.input_ids]

    for piece in (1, 7, 4096):
        found = evaluated_by(predict, task, rows, backbone, piece=piece, block=50)
        assert [(each.lang, each.n, each.collapsed) for each in found.results] == [(lang, 40, False) for lang in rows]
        for result in found.results:
            lang, features = result.lang, encoded[result.lang]
            assert result == score_language(task, lang, rows[lang], features, predict(features))
            predictions = found.of(lang, "predictions")
            assert result.values == {"accuracy": 100 * sum(p == i for i, p in enumerate(predictions)) / 40}
            assert len(set(predictions)) > 1
