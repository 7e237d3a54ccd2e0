"""The plan: a recipe unfolded into stages, each named by the hash of what it is; torch-free."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from xadapt.data.sources import Source, open_source
from xadapt.errors import UserError
from xadapt.metrics import get_metric
from xadapt.models.identity import backbone_identity
from xadapt.study.precision import resolve_dtype
from xadapt.study.recipe import Recipe
from xadapt.tasks import Task, get_task
from xadapt.tasks.catalogue import TrainingData, get_training_data, train_task_of
from xadapt.tasks.spec import Split
from xadapt.tasks.user import stored_spec

# raised whenever the same spec would give other numbers
STAGE_VERSIONS = {"train": 2, "evaluate": 1}


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces; TypeError for anything without one stable form."""
    _check_stable(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _check_stable(value: object) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"key {key!r} of a stage spec is not a string")
            _check_stable(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_stable(inner)
    elif not (value is None or isinstance(value, str | int | float | bool)):
        raise TypeError(f"{type(value).__name__} {value!r} in a stage spec has no stable form")


@dataclass(frozen=True)
class Stage:
    """A node of the plan.

    spec is everything that can change the result (hashed); needs are the stages whose results it starts from
    (hashed by key); where says how to run it here: backbone and data as the user named them (not hashed);
    label is for people; examples estimates the rows that pass through the encoder, None if unknown.
    """

    kind: Literal["train", "evaluate"]
    spec: Mapping[str, Any]
    needs: tuple["Stage", ...]
    where: Mapping[str, str]
    label: str
    examples: int | None = field(default=None, compare=False)

    @cached_property
    def key(self) -> str:
        """sha256 of what the stage is and of the keys of what it needs."""
        identity = {
            "kind": self.kind,
            "version": STAGE_VERSIONS[self.kind],
            "spec": self.spec,
            "needs": [stage.key for stage in self.needs],
        }
        return hashlib.sha256(canonical_json(identity).encode()).hexdigest()


@dataclass(frozen=True)
class Cell:
    """One cell of the comparison and the evaluation that fills it; repeats marks a cell that is none's again."""

    regime: str
    composition: str
    intermediate: str
    target: str
    seed: int
    evaluation: Stage
    repeats: bool = False


@dataclass(frozen=True)
class Plan:
    """Stages in an order in which each comes after what it needs, the cells they fill, and what to tell."""

    stages: tuple[Stage, ...]
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()


def make_plan(recipe: Recipe, *, evaluate: bool = True) -> Plan:
    """Unfold a recipe; equal stages of different cells become one.

    Intermediate tasks that no composition takes up, as without targets, are trained by themselves; without `evaluate`
    the plan stops at the models and has no cells. Raises UserError if data or backbone cannot be identified.
    """
    if not recipe.targets and not recipe.intermediate:
        raise UserError(f"recipe '{recipe.name}' names neither `targets` nor `intermediate` tasks")
    planner = _Planner(recipe)
    cells: list[Cell] = []
    trained: list[Stage] = []
    taken_up = recipe.targets and any(set(section.compositions) - {"none"} for _, section in recipe.regimes.items())
    for regime, section in recipe.regimes.items():
        trained += [planner.train_intermediate(name, regime) for name in recipe.intermediate if not taken_up]
        for target in recipe.targets:
            for composition in section.compositions:
                for intermediate in ("",) if composition == "none" else recipe.intermediate:
                    cells.append(planner.cell(target, regime, composition, intermediate))
    notes = tuple(dict.fromkeys(planner.notes))
    if not evaluate:
        models = [need for cell in cells for need in cell.evaluation.needs]
        return Plan(_in_order([*trained, *models]), (), notes)
    return Plan(_in_order([*trained, *(cell.evaluation for cell in cells)]), tuple(cells), notes)


def _in_order(wanted: list[Stage]) -> tuple[Stage, ...]:
    """Every stage once, by key, behind what it needs."""
    found: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        for need in stage.needs:
            visit(need)
        found.setdefault(stage.key, stage)

    for stage in wanted:
        visit(stage)
    return tuple(found.values())


def _trained_on(stage: Stage) -> str:
    """What a training is on, for people: `mnli`, or `mnli@de+ru`."""
    return stage.label.removeprefix("train ").partition(",")[0]


class _Planner:
    """Makes stages of one recipe; holds what is looked up once: source, identities, data type."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.source: Source = open_source(recipe.data)
        self.backbone = backbone_identity(recipe.backbone)
        self.where = {"backbone": recipe.backbone, "data": recipe.data}
        self.notes: list[str] = []

    def cell(self, target: str, regime: str, composition: str, intermediate: str) -> Cell:
        data = get_training_data(target)
        task = data.task
        own = replace(data, task=get_task(task.train_task)).name
        repeats = bool(intermediate) and task.trains and own == intermediate
        effective = "none" if repeats else composition
        if repeats:
            self.notes.append(
                f"{target} with {composition} {intermediate} ({regime}): {intermediate} is {target}'s own training "
                f"data, so there is nothing new to train; the cell shows composition none and is marked"
            )
        evaluation = self.evaluate(task, self._model(data, regime, effective, intermediate))
        return Cell(regime, composition, intermediate, target, self.recipe.seed, evaluation, repeats)

    def _model(self, data: TrainingData, regime: str, composition: str, intermediate: str) -> Stage | None:
        """The training whose model is evaluated; None for retrieval straight from the backbone."""
        before = self.train_intermediate(intermediate, regime) if composition != "none" else None
        return self._train(data, regime, composition, before) if data.task.trains else before

    def train_intermediate(self, name: str, regime: str) -> Stage:
        return self._train(get_training_data(name, role="intermediate"), regime, "none", None)

    def _train(self, data: TrainingData, regime: str, composition: str, before: Stage | None) -> Stage:
        recipe, task, data_task = self.recipe, data.task, train_task_of(data.task)
        # selection is on English whatever a task trains on; text without labels is no supervision in a language
        dev_langs = data.langs if task.format == "mlm" else ("en",)
        settings = recipe.training_for(task, regime)
        numbers = settings.model_dump() | {"dtype": resolve_dtype(settings.dtype)}
        spec = {
            "backbone": self.backbone,
            "train": self._split(data_task, data.langs, "train", recipe.max_train_samples),
            # a target that is all test is selected on the dev split of what it trains on
            "dev": self._split(
                task if "validation" in task.splits else data_task, dev_langs, "validation", recipe.max_eval_samples
            ),
            "regime": dict(recipe.regimes.items())[regime].spec.model_dump(),
            "composition": composition,
            "training": numbers,
            "seed": recipe.seed,
        }
        behind = f", {composition} {_trained_on(before)}" if before else ""
        rows = self._rows(data_task, data.langs, "train", recipe.max_train_samples)
        rows = rows and min(rows, recipe.max_train_samples or rows)
        steps = settings.max_steps
        examples = steps * settings.batch_size if steps else rows and int(rows * settings.num_train_epochs)
        label = f"train {data.name}, {regime}{behind}"
        return Stage("train", spec, (before,) if before else (), self.where, label, examples)

    def evaluate(self, task: Task, model: Stage | None) -> Stage:
        """The zero-shot evaluation of a model, or of the backbone itself, on the task's languages."""
        recipe = self.recipe
        available = self.source.languages(task)
        languages = recipe.evaluated_languages(task, available)
        if recipe.languages is None and len(available) < len(task.languages):
            missing = " ".join(code for code in task.languages if code not in available)
            self.notes.append(
                f"{task.name}: data '{recipe.data}' has {len(available)} of its {len(task.languages)} languages (not {missing})"
            )
        spec = {
            "backbone": self.backbone,
            **stored_spec(task),
            "metrics": {name: get_metric(task.format, name).version for name in task.metrics},
            "languages": {code: self._identity(task, code) for code in languages},
            "max_samples": None if task.format == "mining" else recipe.max_predict_samples,
            "max_seq_length": model.spec["training"]["max_seq_length"]
            if model and task.trains
            else task.max_seq_length,
            "dtype": model.spec["training"]["dtype"] if model else resolve_dtype(recipe.training.get("dtype", "auto")),
            "retrieval_layer": None if task.trains else recipe.retrieval_layer,
        }
        of = model.label.removeprefix("train ") if model else "the backbone itself"
        tuned = [code for code, rows in spec["languages"].items() if len(both := rows.split(" ")) > len(set(both))]
        if task.format == "mining" and tuned:
            self.notes.append(
                f"{task.name}: dev and test are the same rows in {' '.join(tuned)}; the threshold is tuned on test"
            )
        cap = None if task.format == "mining" else recipe.max_predict_samples
        rows = self._rows(task, languages, "test", cap)
        sides = rows and rows * (2 if task.format in ("retrieval", "mining") else 1)  # mining: dev and test
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

    def _rows(self, task: Task, languages: Sequence[str], split: Any, cap: int | None) -> int | None:
        counts = [self.source.count(task, lang, split) for lang in languages]
        known = [min(count, cap or count) if count is not None else cap for count in counts]
        return None if None in known else sum(count for count in known if count is not None)
