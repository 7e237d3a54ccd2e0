"""A trained artefact on rows of a user's own: found, verified, loaded, and asked block by block."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from xadapt.analysis.own_predictions import OwnPrediction
from xadapt.errors import UserError, unknown
from xadapt.evaluation.own_rows import OwnRows
from xadapt.formats import FORMATS
from xadapt.formats.features import OneLabelARow
from xadapt.formats.tagging import TaggingFormat
from xadapt.models.backbone import Backbone
from xadapt.models.task_model import TaskModel
from xadapt.study.precision import resolve_dtype
from xadapt.study.self_check import regime_of, verify_check
from xadapt.study.store import Result, Store, verify
from xadapt.tasks import TASKS, Task
from xadapt.tasks.user import task_of
from xadapt.training.device import default_token_budget, make_accelerator
from xadapt.training.prediction import predict_logits


@dataclass(frozen=True)
class TrainedModel:
    """A model with one task's head, ready to predict."""

    task: Task
    model: nn.Module
    backbone: Backbone
    max_seq_length: int
    device: torch.device

    def predict(self, own: OwnRows, *, lang: str = "") -> list[OwnPrediction]:
        """A prediction and its confidence for each row of a block, as an evaluation would give them.

        lang is the language of rows that do not say theirs.
        """
        form, tokenizer = FORMATS[self.task.format], self.backbone.tokenizer
        features = form.encode(own.rows, self.task, tokenizer, self.max_seq_length)
        logits = predict_logits(
            self.model, features, pad_token_id=tokenizer.pad_token_id, token_budget=default_token_budget(self.device),
            device=self.device,
        )  # fmt: skip
        predictions = form.decode(logits, features, own.rows)
        confidence = form.confidence(logits, features, own.rows)
        probabilities: Sequence[Any] = [None] * len(own)
        if isinstance(form, OneLabelARow):
            probabilities = [dict(zip(self.task.labels, of, strict=True)) for of in form.probabilities(logits)]
        elif isinstance(form, TaggingFormat):
            probabilities = form.probabilities(logits, features, own.rows)
        found = zip(own.ids, own.langs, predictions, confidence, probabilities, strict=True)
        return [
            OwnPrediction(name, self._named(prediction), sure, own_lang or lang, of)
            for name, own_lang, prediction, sure, of in found
        ]

    def _named(self, prediction: Any) -> str | list[str]:
        if isinstance(prediction, str):
            return prediction
        labels = self.task.labels
        return [labels[tag] for tag in prediction] if isinstance(prediction, list) else labels[prediction]


def open_trained(
    artefact: str, *, backbone: str | None = None, task: str | None = None, dtype: str | None = None
) -> TrainedModel:
    """The model of a training's folder, with the head of `task` where it has several.

    backbone and dtype are the training's by default. Raises UserError for a folder that is no training or whose files
    or outputs are not those of the training, for another backbone, and for a head that does not label rows.
    """
    result = _artefact(Path(artefact))
    name, part, several = _part(result, task)
    of = _task(result, name, part)
    spec = result.manifest["spec"]
    numeric = _dtype(dtype or spec["training"]["dtype"])
    found = _backbone(result, backbone)
    verify(result)
    encoder = regime_of(result).load(found, result.folder)
    head = FORMATS[of.format].head(encoder.config.hidden_size, of, 0.0)
    assert head is not None
    tensors = load_file(result.folder / "head.safetensors")
    prefix = f"{name}/" if several else ""
    mine = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    head.load_state_dict(mine)
    verify_check(result, encoder, head, task=name)
    accelerator = make_accelerator(numeric)
    model = accelerator.prepare_model(TaskModel(encoder, head), evaluation_mode=True)
    length = part.get("max_seq_length", spec["training"]["max_seq_length"])
    return TrainedModel(of, model, found, length, accelerator.device)


def _artefact(folder: Path) -> Result:
    result = Store(folder.parent).read(folder)
    if result is None:
        raise UserError(f"{folder} is no artefact: it has no manifest.json; give the folder that a training ended with")
    if (kind := result.manifest.get("kind", "train")) != "train":
        behind = [str(folder.parent.parent / "train" / key[:16]) for key in result.manifest["needs"]]
        remedy = (
            f"give the training behind it, {behind[0]}" if kind == "evaluate" and behind else "train a target on it"
        )
        raise UserError(f"{folder} is of kind '{kind}' and has no head to predict with; {remedy}")
    return result


def _part(result: Result, task: str | None) -> tuple[str, Mapping[str, Any], bool]:
    """Name and spec of the task whose head predicts, and whether there are several heads."""
    spec = result.manifest["spec"]
    parts = {part["name"]: part for part in spec.get("tasks", ())} or {task_of(spec["dev"]).name: spec}
    with_head = [name for name, part in parts.items() if task_of(part["dev"]).format != "mlm"]
    if task in TASKS and not TASKS[task].trains:
        raise UserError(f"--task {task} has no head: it compares sentence vectors; `xadapt evaluate --task {task}`")
    if task is None and len(with_head) > 1:
        raise UserError(f"{result.folder} has several heads; choose one with --task: {', '.join(with_head)}")
    name = task or next(iter(with_head or parts))
    if name not in parts:
        raise unknown("task", name, parts, place=f"--task: {result.folder} has no such head")
    if name not in with_head:
        raise UserError(f"{result.folder}: task '{name}' guesses hidden tokens and predicts nothing of rows")
    return name, parts[name], len(parts) > 1


def _task(result: Result, name: str, part: Mapping[str, Any]) -> Task:
    """The task of a head, with the labels that its training found where the spec leaves them open."""
    task = task_of(part["dev"])
    if task.version != part["dev"]["task_version"]:
        raise UserError(
            f"{result.folder} was trained on version {part['dev']['task_version']} of task '{task.name}', which is at "
            f"{task.version} now; train it again"
        )
    if not task.open_labels:
        return task
    labels = result.record.get("task_labels", {}).get(name) or result.record.get("labels")
    if not labels:
        raise UserError(f"{result.folder} does not say which labels '{name}' has; delete it and train it again")
    return task.model_copy(update={"labels": tuple(labels)})


def _dtype(dtype: str) -> str:
    if (found := resolve_dtype(dtype)) not in (valid := ("float32", "bfloat16")):
        raise unknown("dtype", dtype, ("auto", *valid), place="--dtype")
    return found


def _backbone(result: Result, given: str | None) -> Backbone:
    """The encoder under an artefact, by the user's name for it or the training's; UserError if it is another."""
    where = result.manifest["provenance"]["where"]
    name = given or where["backbone"]
    wanted = result.manifest["spec"]["backbone"]
    place = f"{result.folder} was trained on backbone {wanted}"
    backbone = Backbone(name, json.loads(where.get("commits", "{}")))
    try:
        identity = backbone.identity
    except UserError as error:
        raise UserError(
            f"{place}, and '{name}' is not to be had; name the encoder with --backbone ({error})"
        ) from error
    if identity != wanted:
        raise UserError(f"{place}, but '{name}' is {identity}; give the one it was trained on with --backbone")
    return backbone
