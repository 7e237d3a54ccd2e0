"""The train stage: from rows to an artefact."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from xadapt.data import Rows, Source
from xadapt.data.splits import in_turn
from xadapt.evaluation.zero_shot import model_predictor, score_language
from xadapt.formats import FORMATS, Features
from xadapt.formats.cache import encoded
from xadapt.models.backbone import start_language_head
from xadapt.models.task_model import TaskModel, shares_embedding
from xadapt.models.trimming import TrimmedVocabulary, trim_vocabulary
from xadapt.regimes.protocol import open_regime
from xadapt.study.surroundings import REGIME_SPEC, Surroundings, load_planned, token_cache
from xadapt.tasks.spec import Split
from xadapt.tasks.user import task_of
from xadapt.training.log import JsonLog
from xadapt.training.loop import FitResult, Training, default_token_budget, make_accelerator
from xadapt.training.settings import TrainingSettings


class Train:
    """One training, from rows to an artefact."""

    def __init__(self, around: Surroundings) -> None:
        self.stage, self.folder, self.reporter, self.backbone = (
            around.stage, around.folder, around.reporter, around.backbone,
        )  # fmt: skip
        spec = self.stage.spec
        self.settings = TrainingSettings.model_validate(spec["training"])
        self.task = task_of(spec["dev"])
        self.form = FORMATS[self.task.format]
        self.train_rows = self._rows(around.source, spec["train"], "train")
        self.dev_rows = self._rows(around.source, spec["dev"], "validation")
        if self.task.open_labels:
            self.task = self.task.model_copy(update={"labels": self.train_rows.labels})
            self.dev_rows = self.dev_rows.relabelled(self.task.labels)
        self.regime = open_regime(REGIME_SPEC.validate_python(spec["regime"]))
        self.before = around.store.verified(self.stage.needs[0]).folder if self.stage.needs else None

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
            load_planned(source, task_of(of), lang, split, cap, identity)
            for lang, identity in zip(langs, identities, strict=True)
        ]
        return parts[0] if len(parts) == 1 else in_turn(parts, limit=cap)

    def _encode(self, rows: Rows) -> Features:
        length = self.settings.max_seq_length
        return encoded(self.form, rows, self.task, self.backbone.tokenizer, max_length=length, folder=token_cache())

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


def _trim(trimmed: TrimmedVocabulary, features: Features) -> Features:
    return replace(features, input_ids=trimmed.map(features.input_ids))
