"""The train stage: from rows of one task, or of several, to an artefact."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from xadapt.durable import require_space
from xadapt.evaluation.zero_shot import model_predictor, score_language
from xadapt.models.backbone import start_language_head
from xadapt.models.task_model import MultiTaskModel, OfTask, TaskModel, shares_embedding
from xadapt.models.trimming import TrimmedVocabulary, trim_vocabulary
from xadapt.regimes.protocol import open_regime
from xadapt.regimes.specs import FusionSpec
from xadapt.study.self_check import Example, checked, write_check
from xadapt.study.surroundings import REGIME_SPEC, Surroundings
from xadapt.study.task_rows import Encoded, TaskRows
from xadapt.training.checkpoint import KEPT, Checkpoints
from xadapt.training.cost import peak_memory
from xadapt.training.device import default_token_budget, make_accelerator
from xadapt.training.faults import Diverged
from xadapt.training.log import JsonLog
from xadapt.training.loop import Training
from xadapt.training.mixing import TrainingPart
from xadapt.training.result import FitResult, Monitor
from xadapt.training.robust import Perturbation, embedding_scale
from xadapt.training.settings import Mixing, TrainingSettings

_T = TypeVar("_T")


class Train:
    """One training, from rows to an artefact."""

    def __init__(self, around: Surroundings) -> None:
        self.around, self.spec, self.backbone = around, around.stage.spec, around.backbone
        self.checkpoints = Checkpoints(around.progress, around.execution.save_every)
        self.settings = self._settings()
        several = "tasks" in self.spec
        parts = self.spec["tasks"] if several else [self.spec]
        self.tasks = [TaskRows.of(part, around, self.settings) for part in parts]
        self.mixing = Mixing.model_validate(self.spec["mixing"]) if several else Mixing()
        self.perturbation: Perturbation | None = None
        self.regime = open_regime(REGIME_SPEC.validate_python(self.spec["regime"]))
        self.before = [checked(around, need).folder for need in around.stage.needs]

    def run(self) -> dict[str, Any]:
        """Train and write the artefact; the stage's record.

        Where asked to, a training in bfloat16 that diverges goes on in float32 from its last checkpoint.
        """
        return self._retried(self._run)

    def beside(self) -> None:
        """Take part in the training that the main one of several processes leads; nothing is written or told."""
        self._retried(self._beside)

    def _retried(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except Diverged:
            if not self.around.execution.retry_in_fp32 or self.settings.dtype != "bfloat16":
                raise
        self.settings = self.settings.model_copy(update={"dtype": "float32"})
        return work()

    def _run(self) -> dict[str, Any]:
        found = self.encoded()
        examples = self.examples(found)
        encoder, heads, trimmed, found = self._model(found)
        accelerator = make_accelerator(self.settings.dtype)
        self.require_space(encoder, heads.values())
        with self.open_log() as log, peak_memory(accelerator.device) as self.peak:
            monitors = [log, *self.around.reporter.monitors(self.around.stage)]
            result = self.training(encoder, heads, found, accelerator, monitors).run()
        if trimmed:
            trimmed.restore(encoder, decay=result.decay)
        self.regime.save(encoder, self.around.folder, name=self.module_name)
        return self.finish(encoder, heads, examples, result, self.trainable)

    def _beside(self) -> None:
        encoder, heads, _, found = self._model(self.encoded())
        self.training(encoder, heads, found, make_accelerator(self.settings.dtype), []).run()

    def _model(
        self, found: list[Encoded]
    ) -> tuple[PreTrainedModel, dict[str, nn.Module], TrimmedVocabulary | None, list[Encoded]]:
        """The encoder and the heads to train, its vocabulary trimmed where that can be, and the rows as it wants them."""
        encoder = self._attach()
        self.perturbation = self._perturbation(encoder)
        self.trainable = sum(parameter.numel() for _, parameter in self.regime.trainable(encoder))
        heads = self.heads(encoder)
        trimmed = None
        if self.spec["regime"]["name"] == "full" and not any(map(shares_embedding, heads.values())):
            trimmed = trim_vocabulary(
                encoder, chain(*(ids for f in found for ids in (f.train.input_ids, f.dev.input_ids)))
            )
            found = [features.trimmed(trimmed) for features in found]
        return encoder, heads, trimmed, found

    def require_space(self, encoder: nn.Module, heads: Iterable[nn.Module]) -> None:
        """UserError, before the first step, where there is no room for the artefact and the checkpoints."""
        parameters = [p for module in (encoder, *heads) for p in module.parameters()]
        moving = sum(p.nbytes for p in parameters if p.requires_grad)
        whole = sum(p.nbytes for p in parameters) if self.spec["regime"]["name"] == "full" else moving
        # a state has the parameters, the best ones so far and two moments; a new one is written before the oldest goes
        there = sum(path.stat().st_size for path in self.around.progress.rglob("*") if path.is_file())
        states = max(4 * moving * (KEPT + 1) - there, 4 * moving)
        require_space(self.around.folder, whole + states, what=f"the stage '{self.around.stage.label}'")

    def encoded(self) -> list[Encoded]:
        """Every task's rows as features."""
        return [task.encoded(self.around) for task in self.tasks]

    def examples(self, found: Iterable[Encoded]) -> list[Example]:
        """What the artefact's check is made on."""
        pad = self.backbone.tokenizer.pad_token_id
        return [Example.of_rows(f.of.name, f.dev, pad_token_id=pad) for f in found]

    def heads(self, encoder: PreTrainedModel) -> dict[str, nn.Module]:
        """A new head for each task, drawn after the stage's seed."""
        torch.manual_seed(self.spec["seed"])
        return {task.name: self._head(task, encoder) for task in self.tasks}

    def finish(
        self, encoder: PreTrainedModel, heads: Mapping[str, nn.Module], examples: Iterable[Example], result: FitResult,
        trainable: int,
    ) -> dict[str, Any]:  # fmt: skip
        """Write what lies beside the encoder's own files; the record. trainable counts the encoder's parameters."""
        save_file(_head_tensors(heads), self.around.folder / "head.safetensors")
        self.log.copy(self.around.folder / "log.jsonl")  # checkpoints need theirs to the end
        write_check(self.around.folder, encoder, examples, heads)
        return self._record(result, trainable + sum(p.numel() for head in heads.values() for p in head.parameters()))

    def open_log(self) -> JsonLog:
        """The log, where it grows beside the checkpoints; it goes to the artefact with the rest."""
        self.around.progress.mkdir(exist_ok=True)
        self.log = JsonLog(self.around.progress / "log.jsonl")
        return self.log

    def _settings(self) -> TrainingSettings:
        """The stage's numbers, in the data type that an earlier start went on in."""
        settings = TrainingSettings.model_validate(self.spec["training"])
        heads = [found for step in self.checkpoints.steps() if (found := self.checkpoints.values(step))]
        return settings.model_copy(update={"dtype": heads[0]["values"]["dtype"]}) if heads else settings

    @property
    def module_name(self) -> str | None:
        """What the trained module is called: its task and languages; None where attention alone is trained."""
        if self.spec["composition"] == "fusion" and "tasks" in self.spec:
            return None
        return self.tasks[0].name if self.spec["composition"] != "multitask" else "multitask"

    def _attach(self) -> PreTrainedModel:
        torch.manual_seed(self.spec["seed"])
        composition = self.spec["composition"]
        first: Path | None = self.before[0] if self.before else None
        return self.regime.attach(
            self.backbone,
            name=self.module_name,
            start=first if composition == "continue" else None,
            below=first if composition == "stack" else None,
            fuse=self.before if composition == "fusion" else (),
            fusion=FusionSpec.model_validate(self.spec["fusion"]) if composition == "fusion" else None,
        )

    def _perturbation(self, encoder: PreTrainedModel) -> Perturbation | None:
        """What moves the words in robust training; its scale is that of the whole vocabulary."""
        robust, tokenizer = self.settings.robust, self.backbone.tokenizer
        if robust is None or robust.method == "synonym":
            return None
        special = {tokenizer.bos_token_id, tokenizer.eos_token_id}
        return Perturbation(robust, scale=embedding_scale(encoder), special_ids=special)

    def _head(self, of: TaskRows, encoder: PreTrainedModel) -> nn.Module:
        head = of.form.head(encoder.config.hidden_size, of.task, encoder.config.hidden_dropout_prob)
        assert head is not None
        if shares_embedding(head):
            start_language_head(head, encoder, self.backbone.folder)
        return head

    def training(
        self, encoder: PreTrainedModel, heads: Mapping[str, nn.Module], found: list[Encoded], accelerator: Accelerator,
        monitors: Sequence[Monitor],
    ) -> Training:  # fmt: skip
        """The training itself, of what is trainable in encoder and heads; monitors are told of it."""
        device, pad = accelerator.device, self.backbone.tokenizer.pad_token_id
        one = TaskModel(encoder, next(iter(heads.values()))) if len(heads) == 1 else None
        model = one or MultiTaskModel(encoder, heads)

        def score(f: Encoded) -> dict[str, float]:
            predict = model_predictor(
                one or OfTask(model, f.of.name),
                pad_token_id=pad,
                token_budget=default_token_budget(device),
                device=device,
            )
            return score_language(f.of.task, "en", f.of.dev, f.dev, predict(f.dev)).values

        def evaluate() -> dict[str, float]:
            return score(found[0]) if one else self._means({f.of.name: score(f) for f in found})

        parts = [
            TrainingPart(f.of.form, f.train, f.of.name, f.of.auxiliary, None if f.of.auxiliary else self.perturbation)
            for f in found
        ]
        return Training(
            model, parts, self.settings, seed=self.spec["seed"], pad_token_id=pad, accelerator=accelerator,
            evaluate=evaluate, metric=self._metric(), mixing=self.mixing,
            monitors=list(monitors),
            penalty=lambda: self.regime.penalty(encoder), checkpoints=self.checkpoints,
        )  # fmt: skip

    def _metric(self) -> str:
        return self.tasks[0].task.main_metric if len(self.tasks) == 1 else "mean"

    def _means(self, scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Each task's main dev metric, and the mean over those that are not auxiliary, which selects."""
        main = {of.name: scores[of.name][of.task.main_metric] for of in self.tasks}
        return {**main, "mean": fmean(main[of.name] for of in self.tasks if not of.auxiliary)}

    def _record(self, result: FitResult, trainable: int) -> dict[str, Any]:
        first = self.tasks[0]
        labels: dict[str, Any] = {"labels": list(first.task.labels)} if first.task.open_labels else {}
        if opened := {of.name: list(of.task.labels) for of in self.tasks if of.task.open_labels}:
            labels["task_labels"] = opened
        counts = {
            "train_samples": sum(len(of.train) for of in self.tasks),
            "train_skipped": sum(of.train.skipped for of in self.tasks),
            "dev_samples": sum(len(of.dev) for of in self.tasks),
            "dev_skipped": sum(of.dev.skipped for of in self.tasks),
            "train_repaired": sum(of.train.repaired for of in self.tasks),
            "dev_repaired": sum(of.dev.repaired for of in self.tasks),
        }
        resumed: dict[str, Any] = {"resumed_at": result.resumed} if result.resumed else {}
        if self.settings.dtype != self.spec["training"]["dtype"]:
            resumed["retried_in_fp32"] = True
        several = {"tasks": {of.name: len(of.train) for of in self.tasks}} if len(self.tasks) > 1 else {}
        return (
            labels
            | counts
            | several
            | resumed
            | {
                "steps": len(result.losses),
                "final_loss": result.losses[-1],
                "selected_step": result.best_step,
                f"dev_{self._metric()}": result.best_metric,
                "trainable_parameters": trainable,
                "seconds": round(result.seconds, 3),
                "examples_per_second": round(result.examples_per_second, 3),
                "padding": round(result.padding, 4),
                "flops_per_step": result.flops_per_step,
                "peak_memory_mib": self.peak.mib,
                "dtype": self.settings.dtype,
            }
        )


def _head_tensors(heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The parameters of the one head, or of several under their tasks' names."""
    if len(heads) == 1:
        return dict(next(iter(heads.values())).state_dict())
    return {f"{name}/{key}": tensor for name, head in heads.items() for key, tensor in head.state_dict().items()}
