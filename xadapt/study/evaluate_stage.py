"""The evaluate stage: one trained model, or the backbone itself, on every language of a task."""

import json
from collections.abc import Iterator
from typing import Any

import torch
from safetensors.torch import load_file

from xadapt.data import Rows, Source
from xadapt.data.rows import joined_splits
from xadapt.errors import UserError
from xadapt.evaluation.predictions import PredictionFile
from xadapt.evaluation.retrieval import sentence_vectors
from xadapt.evaluation.zero_shot import LanguageResult, Predictor, evaluate_languages, model_predictor
from xadapt.formats import FORMATS, Features
from xadapt.models.task_model import TaskModel
from xadapt.regimes.protocol import Regime, open_regime
from xadapt.study.store import Result
from xadapt.study.surroundings import REGIME_SPEC, Surroundings, load_planned, token_cache
from xadapt.tasks import Task
from xadapt.tasks.user import task_of
from xadapt.training.loop import default_token_budget, make_accelerator


def evaluate(around: Surroundings) -> dict[str, Any]:
    """Predict and score; predictions.parquet and scores.json in the folder, and the stage's record."""
    spec = around.stage.spec
    task = task_of(spec)
    predict, layer = _predictor(around, task)
    scores: list[dict[str, Any]] = []
    with PredictionFile(around.folder / "predictions.parquet", task) as file:
        for result in evaluate_languages(
            task, _languages(around, task), predict, around.backbone.tokenizer, max_length=spec["max_seq_length"],
            token_cache=token_cache(),
        ):  # fmt: skip
            file.write(result)
            scores.append(_score(result))
    (around.folder / "scores.json").write_text(json.dumps(scores, indent=1))
    rows = sum(score["n"] for score in scores)
    return {"scores": scores, "dtype": spec["dtype"], "retrieval_layer": layer, "rows": rows}


def _languages(around: Surroundings, task: Task) -> Iterator[tuple[str, Rows]]:
    for lang, data in around.stage.spec["languages"].items():
        yield lang, _test_rows(around.source, task, lang, around.stage.spec["max_samples"], data)


def _test_rows(source: Source, task: Task, lang: str, cap: int | None, planned: str) -> Rows:
    """What a language is evaluated on; mining takes both sides whole, whatever the cap, and the dev split with them."""
    if task.format != "mining":
        return load_planned(source, task, lang, "test", cap, planned)
    dev, test = planned.split(" ")
    return joined_splits(
        load_planned(source, task, lang, "validation", None, dev), load_planned(source, task, lang, "test", None, test)
    )


def _predictor(around: Surroundings, task: Task) -> tuple[Predictor, int | None]:
    """Logits of the trained model, or sentence vectors of the encoder; and the layer these come from."""
    stage, backbone = around.stage, around.backbone
    before = around.store.verified(stage.needs[0]) if stage.needs else None
    progress = around.reporter.evaluated(stage, stage.examples or 0)
    accelerator = make_accelerator(stage.spec["dtype"])
    device, pad = accelerator.device, backbone.tokenizer.pad_token_id
    budget = default_token_budget(device)
    encoder = _regime(before).load(backbone, before.folder) if before else backbone.encoder()
    if task.trains:
        assert before is not None
        head = FORMATS[task.format].head(encoder.config.hidden_size, task, 0.0)
        assert head is not None
        head.load_state_dict(load_file(before.folder / "head.safetensors"))
        model = accelerator.prepare(TaskModel(encoder, head))
        return model_predictor(model, pad_token_id=pad, token_budget=budget, device=device, progress=progress), None
    encoder = accelerator.prepare(encoder)
    layer = stage.spec["retrieval_layer"]
    layer = backbone.retrieval_layer if layer is None else layer
    if layer > (deepest := encoder.config.num_hidden_layers):
        raise UserError(f"--retrieval-layer {layer}: '{backbone.name}' has hidden states 0 to {deepest}")

    def predict(features: Features) -> list[torch.Tensor]:
        return sentence_vectors(
            encoder, features, layer=layer, pad_token_id=pad, token_budget=budget, device=device, progress=progress
        )

    return predict, layer


def _regime(trained: Result) -> Regime:
    return open_regime(REGIME_SPEC.validate_python(trained.manifest["spec"]["regime"]))


def _score(result: LanguageResult) -> dict[str, Any]:
    return {
        "language": result.lang, "n": result.n, "values": result.values, "collapsed": result.collapsed,
        "skipped": result.skipped, "stand_in": result.stand_in,
    }  # fmt: skip
