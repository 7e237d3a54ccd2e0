"""What a stage does: train a model on English rows, or evaluate one on every language."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from xadapt.data import Rows, Source, open_source
from xadapt.data.rows import joined_splits
from xadapt.data.splits import in_turn
from xadapt.errors import UserError
from xadapt.evaluation.predictions import PredictionFile
from xadapt.evaluation.retrieval import sentence_vectors
from xadapt.evaluation.zero_shot import LanguageResult, Predictor, evaluate_languages, model_predictor, score_language
from xadapt.formats import FORMATS, Features
from xadapt.formats.cache import encoded
from xadapt.models.backbone import Backbone, start_language_head
from xadapt.models.embedded import cache_root
from xadapt.models.task_model import TaskModel, shares_embedding
from xadapt.models.trimming import TrimmedVocabulary, trim_vocabulary
from xadapt.regimes.protocol import Regime, open_regime
from xadapt.regimes.specs import RegimeSpec
from xadapt.study.plan import Stage
from xadapt.study.store import Result, Store
from xadapt.tasks import Task
from xadapt.tasks.spec import Split
from xadapt.tasks.user import task_of
from xadapt.training.log import JsonLog
from xadapt.training.loop import FitResult, Monitor, Training, default_token_budget, make_accelerator
from xadapt.training.settings import TrainingSettings

_REGIME: TypeAdapter[RegimeSpec] = TypeAdapter(RegimeSpec)


class Reporter(Protocol):
    """Told how a stage goes: the monitors of a training, the rows an evaluation has done."""

    def monitors(self, stage: Stage) -> list[Monitor]: ...

    def evaluated(self, stage: Stage, total: int) -> Callable[[int], None]: ...


def run_stage(stage: Stage, store: Store, folder: Path, reporter: Reporter) -> dict[str, Any]:
    """Do the stage's work into `folder`; the record for its manifest. UserError for what a user can mend."""
    backbone = Backbone(stage.where["backbone"])
    if backbone.identity != stage.spec["backbone"]:
        raise UserError(f"backbone '{backbone.name}' has changed since the study was planned; run it again")
    source = open_source(stage.where["data"])
    if stage.kind == "train":
        return _Train(stage, store, folder, reporter, backbone, source).run()
    return _evaluate(stage, store, folder, reporter, backbone, source)


def _load(source: Source, task: Task, lang: str, split: Split, limit: int | None, planned: str) -> Rows:
    """The rows of a split; UserError if they are not those the stage was planned, and is kept, under."""
    rows = source.load(task, lang, split, limit=limit)
    if rows.identity != planned:
        raise UserError(f"{rows.place} has changed since the study was planned; run it again")
    return rows


def _test_rows(source: Source, task: Task, lang: str, cap: int | None, planned: str) -> Rows:
    """What a language is evaluated on; mining takes both sides whole, whatever the cap, and the dev split with them."""
    if task.format != "mining":
        return _load(source, task, lang, "test", cap, planned)
    dev, test = planned.split(" ")
    return joined_splits(
        _load(source, task, lang, "validation", None, dev), _load(source, task, lang, "test", None, test)
    )


class _Train:
    """One training, from rows to an artefact."""

    def __init__(
        self, stage: Stage, store: Store, folder: Path, reporter: Reporter, backbone: Backbone, source: Source
    ) -> None:
        self.stage, self.folder, self.reporter, self.backbone = stage, folder, reporter, backbone
        spec = stage.spec
        self.settings = TrainingSettings.model_validate(spec["training"])
        self.task = task_of(spec["dev"])
        self.form = FORMATS[self.task.format]
        self.train_rows = self._rows(source, spec["train"], "train")
        self.dev_rows = self._rows(source, spec["dev"], "validation")
        if self.task.open_labels:
            self.task = self.task.model_copy(update={"labels": self.train_rows.labels})
            self.dev_rows = self.dev_rows.relabelled(self.task.labels)
        self.regime = open_regime(_REGIME.validate_python(spec["regime"]))
        self.before = store.verified(stage.needs[0]).folder if stage.needs else None

    def run(self) -> dict[str, Any]:
        train, dev = self._encode(self.train_rows), self._encode(self.dev_rows)
        encoder = self._attach()
        trainable = sum(parameter.numel() for _, parameter in self.regime.trainable(encoder))
        torch.manual_seed(self.stage.spec["seed"])
        head = self.form.head(encoder.config.hidden_size, self.task, encoder.config.hidden_dropout_prob)
        assert head is not None
        trimmed = None
        if shares_embedding(head):
            start_language_head(head, encoder, self.backbone.folder)
        elif self.stage.spec["regime"]["name"] == "full":
            trimmed = trim_vocabulary(encoder, chain(train.input_ids, dev.input_ids))
            train, dev = _trim(trimmed, train), _trim(trimmed, dev)
        model = TaskModel(encoder, head)
        result = self._fit(model, train, dev)
        if trimmed:
            trimmed.restore(encoder, decay=result.decay)
        self.regime.save(encoder, self.folder, name=self.task.name)
        save_file(head.state_dict(), self.folder / "head.safetensors")
        return self._record(result, trainable + sum(p.numel() for p in head.parameters()))

    def _rows(self, source: Source, of: Mapping[str, Any], split: Split) -> Rows:
        langs, identities = of["lang"].split("+"), of["data"].split(" ")
        cap = of["max_samples"]
        parts = [
            _load(source, task_of(of), lang, split, cap, identity)
            for lang, identity in zip(langs, identities, strict=True)
        ]
        return parts[0] if len(parts) == 1 else in_turn(parts, limit=cap)

    def _encode(self, rows: Rows) -> Features:
        length = self.settings.max_seq_length
        return encoded(self.form, rows, self.task, self.backbone.tokenizer, max_length=length, folder=_token_cache())

    def _attach(self) -> PreTrainedModel:
        torch.manual_seed(self.stage.spec["seed"])
        composition = self.stage.spec["composition"]
        return self.regime.attach(
            self.backbone,
            name=self.task.name,
            start=self.before if composition == "continue" else None,
            below=self.before if composition == "stack" else None,
        )

    def _fit(self, model: TaskModel, train: Features, dev: Features) -> FitResult:
        accelerator = make_accelerator(self.settings.dtype)
        pad = self.backbone.tokenizer.pad_token_id
        predict = model_predictor(
            model, pad_token_id=pad, token_budget=default_token_budget(accelerator.device), device=accelerator.device
        )

        def evaluate() -> dict[str, float]:
            return score_language(self.task, "en", self.dev_rows, dev, predict(dev)).values

        with JsonLog(self.folder / "log.jsonl") as log:
            return Training(
                model, self.form, train, self.settings, seed=self.stage.spec["seed"], pad_token_id=pad,
                accelerator=accelerator, evaluate=evaluate, metric=self.task.main_metric,
                monitors=[log, *self.reporter.monitors(self.stage)],
            ).run()  # fmt: skip

    def _record(self, result: FitResult, trainable: int) -> dict[str, Any]:
        labels = {"labels": list(self.task.labels)} if self.task.open_labels else {}
        return labels | {
            "train_samples": len(self.train_rows),
            "train_skipped": self.train_rows.skipped,
            "dev_samples": len(self.dev_rows),
            "dev_skipped": self.dev_rows.skipped,
            "steps": len(result.losses),
            "final_loss": result.losses[-1],
            "selected_step": result.best_step,
            f"dev_{self.task.main_metric}": result.best_metric,
            "trainable_parameters": trainable,
            "seconds": round(result.seconds, 3),
            "examples_per_second": round(result.examples_per_second, 3),
            "padding": round(result.padding, 4),
            "dtype": self.settings.dtype,
        }


def _token_cache() -> Path | None:
    """Where encoded rows are kept; None on a machine where the user has no home."""
    try:
        return cache_root() / "tokens"
    except RuntimeError:
        return None


def _trim(trimmed: TrimmedVocabulary, features: Features) -> Features:
    return replace(features, input_ids=trimmed.map(features.input_ids))


def _evaluate(
    stage: Stage, store: Store, folder: Path, reporter: Reporter, backbone: Backbone, source: Source
) -> dict[str, Any]:
    spec = stage.spec
    task = task_of(spec)
    cap = spec["max_samples"]
    before = store.verified(stage.needs[0]) if stage.needs else None
    predict, layer = _predictor(stage, task, before, backbone, reporter.evaluated(stage, stage.examples or 0))

    def languages() -> Iterator[tuple[str, Rows]]:
        for lang, data in spec["languages"].items():
            yield lang, _test_rows(source, task, lang, cap, data)

    scores: list[dict[str, Any]] = []
    with PredictionFile(folder / "predictions.parquet", task) as file:
        for result in evaluate_languages(
            task, languages(), predict, backbone.tokenizer, max_length=spec["max_seq_length"],
            token_cache=_token_cache(),
        ):  # fmt: skip
            file.write(result)
            scores.append(_score(task, result))
    (folder / "scores.json").write_text(json.dumps(scores, indent=1))
    rows = sum(score["n"] for score in scores)
    return {"scores": scores, "dtype": spec["dtype"], "retrieval_layer": layer, "rows": rows}


def _predictor(
    stage: Stage, task: Task, before: Result | None, backbone: Backbone, progress: Callable[[int], None]
) -> tuple[Predictor, int | None]:
    """Logits of the trained model, or sentence vectors of the encoder; and the layer these come from."""
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
    return open_regime(_REGIME.validate_python(trained.manifest["spec"]["regime"]))


def _score(task: Task, result: LanguageResult) -> dict[str, Any]:
    return {
        "language": result.lang, "n": result.n, "values": result.values, "collapsed": result.collapsed,
        "skipped": result.skipped, "stand_in": result.stand_in,
    }  # fmt: skip
