"""The evaluate stage: one trained model, or the backbone itself, on every language of a task."""

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from xadapt.data import Rows, Source
from xadapt.data.rows import joined_splits
from xadapt.errors import UserError
from xadapt.evaluation.attention import AttentionMeans, fused_modules, write_attention
from xadapt.evaluation.finished import FinishedLanguages
from xadapt.evaluation.retrieval import sentence_vectors
from xadapt.evaluation.zero_shot import LanguageResult, Predictor, evaluate_languages, model_predictor
from xadapt.formats import FORMATS, Features
from xadapt.models.task_model import TaskModel
from xadapt.regimes.protocol import open_regime
from xadapt.study.self_check import verify_check
from xadapt.study.surroundings import REGIME_SPEC, Surroundings, load_planned, token_cache
from xadapt.tasks import Task
from xadapt.tasks.user import task_of
from xadapt.training.cost import peak_memory
from xadapt.training.device import default_token_budget, make_accelerator


def evaluate(around: Surroundings) -> dict[str, Any]:
    """Predict and score; predictions.parquet and scores.json in the folder, and the stage's record.

    Where a fusion lies in the model, attention.parquet says what it attended to. Languages that an earlier start finished
    are not predicted again.
    """
    spec, device = around.stage.spec, make_accelerator(around.stage.spec["dtype"]).device
    task = task_of(spec)
    finished = FinishedLanguages(around.progress / "languages", task)
    found = finished.read(list(spec["languages"]))
    begun = list(found)
    with finished, peak_memory(device) as peak:
        predict, attention, layer = _predictor(around, task)
        started = time.perf_counter()
        for result in evaluate_languages(
            task, _languages(around, task, done=begun), predict, around.backbone.tokenizer,
            max_length=spec["max_seq_length"], token_cache=token_cache(), keep=finished.write, attention=attention,
        ):  # fmt: skip
            seconds, started = time.perf_counter() - started, time.perf_counter()
            attended = [vars(mean) for mean in attention.means(result.lang)]
            found[result.lang] = {"score": _score(result), "attention": attended, "seconds": seconds}
            finished.finish(result.lang, found[result.lang])
    return _written(around, finished, found) | {"retrieval_layer": layer, "peak_memory_mib": peak.mib} | _resumed(begun)


def _written(around: Surroundings, finished: FinishedLanguages, found: Mapping[str, Any]) -> dict[str, Any]:
    """Write what the languages' evaluations gave, in the order of the spec; the part of the record that says it."""
    spec, folder = around.stage.spec, around.folder
    languages = [found[lang] for lang in spec["languages"]]
    finished.join(list(spec["languages"]), folder / "predictions.parquet")
    write_attention([mean for lang in languages for mean in lang["attention"]], folder / "attention.parquet")
    scores = [lang["score"] for lang in languages]
    (folder / "scores.json").write_text(json.dumps(scores, indent=1))
    rows, seconds = sum(score["n"] for score in scores), sum(lang["seconds"] for lang in languages)
    return {
        "scores": scores, "dtype": spec["dtype"], "rows": rows, "seconds": round(seconds, 3),
        "rows_per_second": round(rows / seconds, 3),
    }  # fmt: skip


def _resumed(begun: Sequence[str]) -> dict[str, Any]:
    return {"resumed_after": list(begun)} if begun else {}


def _languages(around: Surroundings, task: Task, done: Collection[str]) -> Iterator[tuple[str, Iterable[Rows]]]:
    cap = around.stage.spec["max_samples"]
    for lang, planned in around.stage.spec["languages"].items():
        if lang not in done:
            yield lang, _test_rows(around.source, task, lang, cap, planned)


def _test_rows(source: Source, task: Task, lang: str, cap: int | None, planned: str) -> Iterable[Rows]:
    """What a language is evaluated on; mining takes both sides whole, whatever the cap, and the dev split with them."""
    if task.format != "mining":
        return _planned_pieces(source, task, lang, cap, planned)
    dev, test = planned.split(" ")
    sides = (
        load_planned(source, task, lang, "validation", None, dev), load_planned(source, task, lang, "test", None, test)
    )  # fmt: skip
    return [joined_splits(*sides)]


def _planned_pieces(source: Source, task: Task, lang: str, cap: int | None, planned: str) -> Iterator[Rows]:
    """The rows of the test split; UserError if they are not those that were planned, or become others on the way."""
    for rows in source.pieces(task, lang, "test", limit=cap):
        if {rows.identity, source.identity(task, lang, "test")} != {planned}:
            raise UserError(f"{rows.place} has changed since the study was planned; run it again")
        yield rows


def _predictor(around: Surroundings, task: Task) -> tuple[Predictor, AttentionMeans, int | None]:
    """Logits of the trained model, or sentence vectors of the encoder; what it attends to; the layer of the vectors."""
    stage, backbone, accelerator = around.stage, around.backbone, make_accelerator(around.stage.spec["dtype"])
    encoder, head = _model(around, task)
    modules = fused_modules(around.store.folder(stage.needs[0])) if stage.needs else []
    attention = AttentionMeans(encoder, modules, layers=encoder.config.num_hidden_layers)
    device = accelerator.device
    how: dict[str, Any] = {
        "pad_token_id": backbone.tokenizer.pad_token_id, "token_budget": default_token_budget(device), "device": device,
        "progress": around.reporter.evaluated(stage, stage.examples or 0), "watch": attention.watch,
    }  # fmt: skip
    if head:
        return (
            model_predictor(accelerator.prepare_model(TaskModel(encoder, head), evaluation_mode=True), **how),
            attention,
            None,
        )
    encoder = accelerator.prepare_model(encoder, evaluation_mode=True)
    layer = stage.spec["retrieval_layer"]
    layer = backbone.retrieval_layer if layer is None else layer
    if layer > (deepest := encoder.config.num_hidden_layers):
        raise UserError(f"--retrieval-layer {layer}: '{backbone.name}' has hidden states 0 to {deepest}")

    def predict(features: Features) -> list[Tensor]:
        return sentence_vectors(encoder, features, layer=layer, **how)

    return predict, attention, layer


def _model(around: Surroundings, task: Task) -> tuple[PreTrainedModel, nn.Module | None]:
    """The encoder that is evaluated, LoRAs merged, and the task's head if it has one."""
    if not around.stage.needs:
        return around.backbone.encoder(), None
    trained = around.store.verified(around.stage.needs[0])
    regime = open_regime(REGIME_SPEC.validate_python(trained.manifest["spec"]["regime"]))
    encoder = regime.load(around.backbone, trained.folder, merged=True)
    head = FORMATS[task.format].head(encoder.config.hidden_size, task, 0.0) if task.trains else None
    if head:
        head.load_state_dict(load_file(trained.folder / "head.safetensors"))
    verify_check(trained, encoder, head)
    return encoder, head


def _score(result: LanguageResult) -> dict[str, Any]:
    return {
        "language": result.lang, "n": result.n, "values": result.values, "collapsed": result.collapsed,
        "skipped": result.skipped, "repaired": result.repaired, "stand_in": result.stand_in,
    }  # fmt: skip
