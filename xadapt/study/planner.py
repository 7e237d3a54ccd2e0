"""The Planner: what every stage of a recipe is, and what it needs; torch-free."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from xadapt.data.sources import whole_path
from xadapt.errors import UserError
from xadapt.metrics import get_metric
from xadapt.study.looked_up import LookedUp
from xadapt.study.module_folder import import_stage
from xadapt.study.recipe import Recipe
from xadapt.study.stage import Stage, canonical_json
from xadapt.tasks import Task, get_task
from xadapt.tasks.catalogue import TrainingData, get_training_data, train_task_of
from xadapt.tasks.spec import Split
from xadapt.tasks.user import stored_spec
from xadapt.training.settings import Mixing, TrainingSettings, check_robust

# how a target is trained on what a joint composition gives it
_ON_TOP = {"full": "continue", "adapter": "stack", "lora": "stack"}


class Planner:
    """Makes the stages of one recipe under its first seed; `under_seed` makes those of another of them.

    notes collects what a user should be told of the plan.
    """

    def __init__(self, recipe: Recipe, found: LookedUp) -> None:
        self.recipe = recipe
        self.source, self.backbone = found, found.backbone
        self.regimes = dict(recipe.regimes.items())
        self._behind: dict[tuple[str, ...], Stage] = {}  # what several cells rest on
        self.notes: list[str] = []

    @property
    def where(self) -> dict[str, str]:
        """How a stage is run here: backbone and data by name, for which study, and the commits of the hub that its plan has read."""
        commits = {"commits": canonical_json(self.source.commits)} if self.source.commits else {}
        return {
            "backbone": self.recipe.backbone,
            "data": whole_path(self.recipe.data),
            "study": self.recipe.name,
        } | commits

    def cell(self, target: str, regime: str, composition: str, intermediate: Sequence[str]) -> tuple[Stage, bool]:
        """The evaluation that fills a cell, and whether it is that of composition none again."""
        data = get_training_data(target)
        task = data.task
        own = replace(data, task=get_task(task.train_task)).name
        # a module of another hand is something new, whatever it was trained on
        repeats = task.trains and list(intermediate) == [own] and self._plain(own)
        if repeats:
            self.notes.append(
                f"{target} with {composition} {own} ({regime}): {own} is {target}'s own training "
                f"data, so there is nothing new to train; the cell shows composition none and is marked"
            )
        model = self._model(data, regime, "none" if repeats else composition, intermediate)
        return self.evaluate(task, model, regime), repeats

    def _model(self, data: TrainingData, regime: str, composition: str, intermediate: Sequence[str]) -> Stage | None:
        """The training whose model is evaluated; None for retrieval straight from the backbone."""
        if composition == "none":
            return self._train(data, regime, "none") if data.task.trains else None
        if composition in ("continue", "stack"):
            before = self.train_intermediate(intermediate[0], regime)
            return self._train(data, regime, composition, (before,)) if data.task.trains else before
        if composition == "fusion" and self.recipe.fusion.train_on == "target" and data.task.trains:
            modules = tuple(self.train_intermediate(name, regime) for name in intermediate)
            return self._train(data, regime, "fusion", modules)
        before = self.joint(composition, regime, intermediate)
        return self._train(data, regime, _ON_TOP[regime], (before,)) if data.task.trains else before

    def train_intermediate(self, name: str, regime: str) -> Stage:
        """One intermediate task's module, or model; with an mlm_ratio, masked language modelling is mixed in.

        A module that the recipe names is imported. UserError where it is not of the study's regime.
        """
        if (name, regime) not in self._behind:
            self._behind[name, regime] = self._intermediate(name, regime)
        return self._behind[name, regime]

    def _intermediate(self, name: str, regime: str) -> Stage:
        if name in self.recipe.modules:
            return self._import(name, regime)
        data = get_training_data(name, role="intermediate")
        if self.recipe.mixture.mlm_ratio and data.task.format != "mlm":
            return self._mixture("none", regime, (name,))
        return self._train(data, regime, "none")

    def joint(self, composition: str, regime: str, intermediate: Sequence[str]) -> Stage:
        """What a joint composition makes of several intermediate tasks without any target's data."""
        key = (composition, regime, *intermediate)
        if key not in self._behind:
            self._behind[key] = self._joint(composition, regime, intermediate)
        return self._behind[key]

    def _joint(self, composition: str, regime: str, intermediate: Sequence[str]) -> Stage:
        if composition == "multitask":
            if given := [name for name in intermediate if name in self.recipe.modules]:
                raise UserError(f"modules has {given[0]}, but multitask trains one model on all tasks; take fusion")
            return self._mixture("multitask", regime, intermediate)
        modules = tuple(self.train_intermediate(name, regime) for name in intermediate)
        if composition == "fusion":
            return self._mixture("fusion", regime, intermediate, modules)
        weights = [self.recipe.average.get(name, 1.0) for name in intermediate]
        spec = {"backbone": self.backbone, "regime": self._regime(regime), "composition": "average", "weights": weights}
        return Stage("average", spec, modules, self.where, f"average {', '.join(intermediate)}, {regime}")

    def _import(self, name: str, regime: str) -> Stage:
        wanted = self.regimes[regime].spec
        path = self.recipe.modules[name]
        stage, notes = import_stage(path, name, wanted, backbone=self.backbone, where=self.where)
        self.notes += notes
        return stage

    def _train(self, data: TrainingData, regime: str, composition: str, needs: tuple[Stage, ...] = ()) -> Stage:
        recipe = self.recipe
        own = recipe.fusion.training if composition == "fusion" else {}
        settings = recipe.training_for(data.task, regime, own)
        if settings.robust:
            check_robust(data.task, settings.robust)
        spec = {"backbone": self.backbone, **self._rows_of(data), **self._shared(regime, composition, settings)}
        behind = f", {composition} {_trained_on(needs)}" if needs else ""
        label = f"train {data.name}, {regime}{behind}"
        return Stage("train", spec, needs, self._where(settings), label, _examples(settings, [self._train_rows(data)]))

    def _mixture(
        self, composition: str, regime: str, intermediate: Sequence[str], needs: tuple[Stage, ...] = ()
    ) -> Stage:
        """A training on several tasks at once, or on one with masked language modelling mixed in."""
        recipe = self.recipe
        found = [get_training_data(name, role="intermediate") for name in intermediate]
        auxiliary = [self._mlm()] if recipe.mixture.mlm_ratio else []
        if auxiliary and auxiliary[0].name in intermediate:
            raise UserError(
                f"mixture.mlm_ratio mixes in {auxiliary[0].name}, which {composition} of {', '.join(intermediate)} has already; "
                "leave one of the two out"
            )
        settings = recipe.training_for_mixture([data.task for data in found], regime, composition)
        for data in found:
            if settings.robust:
                check_robust(data.task, settings.robust)
        spec = {
            "backbone": self.backbone,
            "tasks": [
                self._rows_of(data)
                | {"name": data.name, "max_seq_length": self._length(data, regime, composition), "auxiliary": aux}
                for group, aux in ((found, False), (auxiliary, True))
                for data in group
            ],
            "mixing": recipe.mixture.mixing.model_dump(),
            **self._shared(regime, composition, settings),
        }
        counts = [self._train_rows(data) for data in found]
        mixed = f" with {auxiliary[0].name}" if auxiliary else ""
        what = f"{composition} of " if composition != "none" else ""
        label = f"train {what}{', '.join(intermediate)}{mixed}, {regime}"
        examples = _examples(settings, counts, recipe.mixture.mixing)
        return Stage("train", spec, needs, self._where(settings), label, examples)

    def _mlm(self) -> TrainingData:
        name = "mlm" + (f"@{'+'.join(self.recipe.mixture.mlm_languages)}" if self.recipe.mixture.mlm_languages else "")
        return get_training_data(name, place="mixture.mlm_languages", role="intermediate")

    def _shared(self, regime: str, composition: str, settings: TrainingSettings) -> dict[str, Any]:
        """What every training's spec says besides its rows."""
        numbers = settings.stored() | {"dtype": self.source.dtype(settings.dtype)}
        read = {"regularization", "reference"} if regime == "adapter" else set()
        fusion = {"fusion": self.recipe.fusion.spec.model_dump(include=read)} if composition == "fusion" else {}
        if settings.robust and settings.robust.synonyms:  # what the file says, not where it lies
            numbers["robust"]["synonyms"] = self.source.synonyms(settings.robust.synonyms)
        return {
            "regime": self._regime(regime), "composition": composition, "training": numbers, "seed": self.recipe.every_seed[0],
            **fusion,
        }  # fmt: skip

    def _where(self, settings: TrainingSettings) -> dict[str, str]:
        synonyms = settings.robust and settings.robust.synonyms
        return {**self.where, "synonyms": synonyms} if synonyms else self.where

    def _regime(self, regime: str) -> dict[str, Any]:
        return self.regimes[regime].spec.model_dump(mode="json")

    def _length(self, data: TrainingData, regime: str, composition: str) -> int:
        own = self.recipe.joint_training(composition).get("max_seq_length")
        return own or self.recipe.training_for(data.task, regime).max_seq_length

    def _plain(self, name: str) -> bool:
        """Whether an intermediate task's training is that of a target that trains on the same rows, or on more."""
        recipe, task = self.recipe, get_training_data(name, role="intermediate").task
        robust = recipe.tasks.get(task.name, {}).get("robust")
        more = (recipe.train_cap(task) or math.inf) > (recipe.max_train_samples or math.inf)
        return not (name in recipe.modules or recipe.mixture.mlm_ratio or robust or more)

    def _rows_of(self, data: TrainingData) -> dict[str, Any]:
        """The train rows and the dev rows of a training, by content."""
        recipe, task, data_task = self.recipe, data.task, train_task_of(data.task)
        # selection is on English whatever a task trains on; text without labels is no supervision in a language
        dev_langs = data.langs if task.format == "mlm" else ("en",)
        # a target that is all test is selected on the dev split of what it trains on
        dev_task = task if "validation" in task.splits else data_task
        return {
            "train": self._split(data_task, data.langs, "train", recipe.train_cap(task)),
            "dev": self._split(dev_task, dev_langs, "validation", recipe.max_eval_samples),
        }

    def _train_rows(self, data: TrainingData) -> int | None:
        """How many rows a training reads of a task, if it can be told."""
        cap = self.recipe.train_cap(data.task)
        rows = self.source.count(train_task_of(data.task), data.langs, "train", cap)
        return rows and min(rows, cap or rows)  # the cap is on the languages' sum

    def evaluate(self, task: Task, model: Stage | None, regime: str) -> Stage:
        """The zero-shot evaluation of a model, or of the backbone itself, on the task's languages.

        Without training of its own a target is evaluated in the regime's data type, whatever lies behind it.
        """
        recipe = self.recipe
        available = self.source.languages(task)
        languages = recipe.evaluated_languages(task, available)
        if recipe.languages is None and len(available) < len(task.languages):
            missing = " ".join(code for code in task.languages if code not in available)
            self.notes.append(
                f"{task.name}: data '{recipe.data}' has {len(available)} of its {len(task.languages)} languages (not {missing})"
            )
        cap = None if task.format == "mining" else recipe.max_predict_samples
        numbers = _training_of(model)
        spec = {
            "backbone": self.backbone,
            **stored_spec(task),
            "metrics": {name: get_metric(task.format, name).version for name in task.metrics},
            "languages": {code: self._identity(task, code) for code in languages},
            "max_samples": cap,
            "max_seq_length": numbers["max_seq_length"] if task.trains else task.max_seq_length,
            "dtype": numbers["dtype"] if task.trains else self.source.dtype(recipe.dtype_of(regime)),
            "retrieval_layer": None if task.trains else recipe.retrieval_layer,
        }
        tuned = [code for code, rows in spec["languages"].items() if len(both := rows.split(" ")) > len(set(both))]
        if task.format == "mining" and tuned:
            self.notes.append(
                f"{task.name}: dev and test are the same rows in {' '.join(tuned)}; the threshold is tuned on test"
            )
        rows = self.source.count(task, languages, "test", cap)
        sides = rows and rows * (2 if task.format in ("retrieval", "mining") else 1)  # mining: dev and test
        of = model.label.removeprefix("train ") if model else "the backbone itself"
        label = f"evaluate {task.name} on {len(languages)} languages: {of}"
        return Stage("evaluate", spec, (model,) if model else (), self.where, label, sides)

    def _identity(self, task: Task, lang: str) -> str:
        """Of the rows a language is evaluated on; mining tunes its threshold on the dev split."""
        splits: tuple[Split, ...] = ("validation", "test") if task.format == "mining" else ("test",)
        return " ".join(self.source.identity(task, lang, split) for split in splits)

    def _split(
        self, task: Task, langs: tuple[str, ...], split: Literal["train", "validation"], cap: int | None
    ) -> dict[str, Any]:
        identity = " ".join(self.source.identity(task, lang, split) for lang in langs)
        return {**stored_spec(task), "lang": "+".join(langs), "data": identity, "max_samples": cap}


def under_seed(stage: Stage, seed: int, known: dict[int, Stage]) -> Stage:
    """The stage as it is under another seed, itself where nothing behind it depends on one; known has those met before.

    A plan's stages differ between seeds in the seed that trainings keep, and in nothing else.
    """
    if id(stage) not in known:
        needs = tuple(under_seed(need, seed, known) for need in stage.needs)
        own = stage.spec.get("seed", seed) != seed
        changed = own or any(new is not old for new, old in zip(needs, stage.needs, strict=True))
        spec = {**stage.spec, "seed": seed} if own else stage.spec
        known[id(stage)] = replace(stage, spec=spec, needs=needs) if changed else stage
    return known[id(stage)]


def _examples(settings: TrainingSettings, counts: Sequence[int | None], mixing: Mixing | None = None) -> int | None:
    """How many rows a training takes through the encoder, if it can be told.

    Copies with synonyms stand in the rows' place; masked language modelling that is mixed in comes on top, as a share of
    all steps. Of several tasks each counts up to the mixture's cap, as in `training.mixing`.
    """
    if settings.max_steps:
        return settings.max_steps * settings.batch_size
    copies = settings.robust.copies if settings.robust and settings.robust.method == "synonym" else 1
    rows = [count * copies for count in counts if count is not None]
    if len(rows) < len(counts):
        return None
    if mixing and len(rows) > 1:
        rows = [min(count, mixing.cap) for count in rows]
    return int(sum(rows) * settings.num_train_epochs / (1 - (mixing.mlm_ratio if mixing else 0.0)))


def _training_of(model: Stage | None) -> Mapping[str, Any]:
    """The numbers of the training that made a model; of one that no training made none."""
    return model.spec.get("training", {}) if model else {}


def _trained_on(needs: Sequence[Stage]) -> str:
    """What trainings were on, for people: `mnli`, `mnli@de+ru`, `fusion of mnli, squad`."""
    names = [stage.label.removeprefix("train ").rpartition(", ")[0] for stage in needs]
    return ", ".join(names)
