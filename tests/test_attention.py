"""What is said of a fusion's attention, against a recount from its probabilities row by row."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from silent_reporter import Silent
from torch import nn

from xadapt.data.sources import EmbeddedSource
from xadapt.evaluation.attention import AttentionMeans, fused_modules, write_attention
from xadapt.evaluation.retrieval import sentence_vectors
from xadapt.evaluation.zero_shot import evaluate_languages, model_predictor
from xadapt.formats import FORMATS
from xadapt.models.backbone import Backbone
from xadapt.models.fusion_attention import fusion_layers
from xadapt.models.task_model import TaskModel
from xadapt.regimes.protocol import open_regime
from xadapt.regimes.specs import AdapterSpec, FusionSpec, LoraSpec, RegimeSpec
from xadapt.study.executors import run_plan
from xadapt.study.plan import make_plan
from xadapt.study.recipe_file import make_recipe
from xadapt.study.store import Store
from xadapt.tasks import get_task

LANGUAGES, MODULES, ROWS, LAYERS = ("en", "de"), ("mnli", "squad", "qqp"), 9, 2
SPECS: dict[str, RegimeSpec] = {"adapter": AdapterSpec(config="double_seq_bn"), "lora": LoraSpec(r=4)}


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(str(tiny_backbone))


def fused(spec: RegimeSpec, backbone: Backbone, folder: Path) -> Any:
    """An encoder with a fusion whose attention is far from even."""
    regime = open_regime(spec)
    torch.manual_seed(0)
    for name in MODULES:
        encoder = regime.attach(backbone, name=name)
        shake(encoder)
        regime.save(encoder, folder / name, name=name)
    encoder = regime.attach(backbone, name=None, fuse=[folder / name for name in MODULES], fusion=FusionSpec())
    shake(encoder)
    return encoder


def shake(encoder: nn.Module) -> None:
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(0.5 * torch.randn_like(parameter))


def recount(encoder: Any, ids: Sequence[Sequence[int]], run: Any) -> torch.Tensor:
    """The mean over rows and tokens of each fusion's probabilities, one sequence at a time: [fusions, modules]."""
    rows = []
    for sequence in ids:
        with torch.no_grad():
            run(torch.tensor([sequence]), torch.ones(1, len(sequence), dtype=torch.long))
        rows.append(torch.stack([fusion.probabilities[0].mean(dim=0) for fusion in fusion_layers(encoder)]))
    return torch.stack(rows).mean(dim=0)


@pytest.mark.parametrize("block", [4, 4096])
@pytest.mark.parametrize("task_name", ["xnli", "udpos"])
@pytest.mark.parametrize("regime", SPECS)
def test_the_means_are_those_of_the_rows_one_by_one(
    regime: str, task_name: str, block: int, backbone: Backbone, tmp_path: Path
) -> None:
    encoder, task = fused(SPECS[regime], backbone, tmp_path), get_task(task_name)
    form = FORMATS[task.format]
    head = form.head(encoder.config.hidden_size, task, 0.0)
    assert head is not None
    model = TaskModel(encoder, head).eval()
    rows = {lang: EmbeddedSource().load(task, lang, "test", limit=ROWS) for lang in LANGUAGES}
    attention = AttentionMeans(encoder, MODULES, layers=LAYERS)
    predict = model_predictor(
        model, pad_token_id=1, token_budget=200, device=torch.device("cpu"), watch=attention.watch
    )
    languages = [(lang, [of]) for lang, of in rows.items()]
    for _ in evaluate_languages(
        task, languages, predict, backbone.tokenizer, max_length=64, block=block, attention=attention
    ):
        pass
    found = {(mean.language, mean.layer, mean.module): mean.attention for mean in attention.means()}
    assert len(found) == len(LANGUAGES) * LAYERS * len(MODULES)
    for lang, of in rows.items():
        ids = form.encode(of, task, backbone.tokenizer, 64).input_ids
        expected = recount(encoder, ids, model).reshape(LAYERS, -1, len(MODULES)).mean(dim=1)
        ours = [[found[lang, layer, module] for module in MODULES] for layer in (1, 2)]
        torch.testing.assert_close(torch.tensor(ours), expected, rtol=0, atol=1e-5)
        assert [sum(of_layer) for of_layer in ours] == pytest.approx([1, 1], abs=1e-5)
    assert len({round(value, 3) for value in found.values()}) > 3, "far from even"


@pytest.mark.parametrize("regime", SPECS)
def test_retrieval_tells_of_the_layers_it_computes(regime: str, backbone: Backbone, tmp_path: Path) -> None:
    encoder = fused(SPECS[regime], backbone, tmp_path)
    attention = AttentionMeans(encoder, MODULES, layers=LAYERS)
    task = get_task("tatoeba")
    rows = EmbeddedSource().load(task, "de", "test", limit=ROWS)

    def predict(features: Any) -> list[torch.Tensor]:
        return sentence_vectors(
            encoder, features, layer=1, pad_token_id=1, token_budget=200, device=torch.device("cpu"),
            watch=attention.watch,
        )  # fmt: skip

    list(evaluate_languages(task, [("de", [rows])], predict, backbone.tokenizer, max_length=64, attention=attention))
    means = list(attention.means())
    assert {mean.layer for mean in means} == {1}
    assert sum(mean.attention for mean in means) == pytest.approx(1, abs=1e-5)


def test_without_a_fusion_there_is_nothing_to_say(backbone: Backbone, tmp_path: Path) -> None:
    attention = AttentionMeans(backbone.encoder(), [], layers=LAYERS)
    attention.watch([[0]], torch.ones(1, 4))
    attention.add("en", [0])
    write_attention(map(vars, attention.means()), tmp_path / "attention.parquet")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("train_on", ["mixture", "target"])
@pytest.mark.parametrize("regime", ["adapter", "lora"])
def test_a_study_keeps_it_beside_the_scores(regime: str, train_on: str, tiny_backbone: Path, tmp_path: Path) -> None:
    values = {
        "backbone": str(tiny_backbone), "data": "embedded", "intermediate": ["squad", "mnli"], "targets": ["xnli"],
        "languages": ["en", "sw"], "regimes": {regime: {"compositions": ["fusion"]}}, "fusion": {"train_on": train_on},
        "training": {"max_steps": 1, "per_device_train_batch_size": 4, "dtype": "float32"}, "max_train_samples": 8,
        "max_eval_samples": 4, "max_predict_samples": 5,
    }  # fmt: skip
    outcome = run_plan(make_plan(make_recipe(values, place="the test")), Store(tmp_path), Silent())[-1]
    assert outcome.result, outcome.error
    table = pq.read_table(outcome.result.folder / "attention.parquet").to_pylist()
    assert {(row["language"], row["layer"], row["module"]) for row in table} == {
        (lang, layer, module) for lang in ("en", "sw") for layer in (1, 2) for module in ("mnli", "squad")
    }
    model = outcome.stage.needs[0]
    assert fused_modules(Store(tmp_path).verified(model).folder) == ["mnli", "squad"]
