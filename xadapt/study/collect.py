"""From cells and finished evaluations to tidy scores; torch-free."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xadapt import __version__
from xadapt.analysis.attention import AttentionRecord
from xadapt.analysis.costs import Cost
from xadapt.analysis.records import Score
from xadapt.analysis.sweeps import Sweep
from xadapt.analysis.table import Row
from xadapt.languages import get_language
from xadapt.study.plan import Plan
from xadapt.study.recipe import Recipe
from xadapt.study.resolved import Resolved
from xadapt.study.store import Result, Store
from xadapt.study.sweep import swept_text
from xadapt.tasks.user import task_of


def study_of(recipe: Recipe, plan: Plan) -> dict[str, Any]:
    """What the store keeps of a study: the recipe, its setting, and the evaluation behind each cell, and all its stages.

    Of a sweep it has the points too, each with its values and its setting, and each cell says which it belongs to. What
    the plan's open choices came to is kept for when the study goes on.
    """
    swept = bool(plan.points and plan.points[0].values)
    cells = [
        {
            "regime": cell.regime,
            "composition": cell.composition,
            "intermediate": cell.intermediate,
            "target": cell.target,
            "seed": cell.seed,
            "repeats": cell.repeats,
            "evaluation": cell.evaluation.key,
            **({"point": cell.point} if swept else {}),
        }
        for cell in plan.cells
    ]
    # the stages, so that what unfinished evaluations need is known, and trainings without a target are in a study
    stages = [stage.key for stage in plan.stages]
    points = [
        {"values": dict(point.values), "label": point.label, "setting": setting_line(point.recipe, point.unsaid)}
        for point in plan.points
    ]
    setting = points[0]["setting"] if points else setting_line(recipe)
    return {
        "recipe": recipe.model_dump(mode="json"), "setting": setting, "cells": cells, "stages": stages, **({"points": points} if swept else {}),
        "resolved": plan.resolved.model_dump(),
    }  # fmt: skip


def resolved_of(study: Mapping[str, Any] | None) -> Resolved:
    """What a kept study's open choices came to; nothing of one that does not say it, or is not there."""
    try:
        return Resolved.model_validate((study or {}).get("resolved", {}))
    except ValidationError:
        return Resolved()


def setting_line(recipe: Recipe, swept: Mapping[str, Any] | None = None) -> str:
    """What cells must share to stand in one table, in words: backbone, data, caps on rows, what else a sweep sets."""
    data = recipe.data if recipe.data in ("hub", "embedded") else Path(recipe.data).name
    caps = (recipe.max_train_samples, recipe.max_eval_samples, recipe.max_predict_samples)
    train, dev, test = ("all rows" if cap is None else f"first {cap} rows" for cap in caps)
    own = recipe.max_intermediate_samples
    intermediate = f", intermediate first {own} rows" if own else ""
    rest = f"; {swept_text(swept)}" if swept else ""
    return (
        f"backbone {Path(recipe.backbone).name}, data {data}; train {train}{intermediate}, dev {dev}, test {test} a language"
        f"{rest}"
    )


def collect_scores(store: Store, studies: Iterable[Mapping[str, Any]]) -> list[Score]:
    """The scores of every finished cell of the studies, each cell and evaluation once."""
    found: dict[tuple[str, ...], list[Score]] = {}
    for identity, setting, cell in _cells(studies):
        if identity not in found and (result := _evaluation(store, cell)):
            found[identity] = _scores(store, setting, cell, result)
    return [score for scores in found.values() for score in scores]


def collect_costs(store: Store, studies: Iterable[Mapping[str, Any]]) -> list[Cost]:
    """What the finished cells of the studies cost; one that repeats none's costs the same, so that sums compare."""
    found: dict[tuple[str, ...], Cost] = {}
    for identity, setting, cell in _cells(studies):
        if identity not in found and (result := _evaluation(store, cell)):
            found[identity] = _cost(store, setting, cell, result)
    return list(found.values())


def collect_attention(store: Store, studies: Iterable[Mapping[str, Any]]) -> list[AttentionRecord]:
    """What the fusions of the studies' finished cells attend to; every fused model of a target once."""
    import pyarrow.parquet as pq

    found: dict[tuple[str, ...], AttentionRecord] = {}
    for identity, setting, cell in _cells(studies):
        file = store.root / "evaluate" / cell["evaluation"][:16] / "attention.parquet"
        if cell["composition"] != "fusion" or identity in found or not file.is_file():
            continue
        shares = {(r["language"], r["layer"], r["module"]): r["attention"] for r in pq.read_table(file).to_pylist()}
        row = Row(cell["regime"], cell["composition"], cell["intermediate"])
        found[identity] = AttentionRecord(setting, row, cell["target"], cell["seed"], cell["evaluation"], shares)
    return list(found.values())


def collect_sweeps(studies: Mapping[str, Mapping[str, Any]]) -> list[Sweep]:
    """The studies, by name, whose recipes sweep what no row shows: their points' labels and settings."""
    found = []
    for name, study in studies.items():
        points = study.get("points", [])
        keys = [key for key in points[0]["values"] if key != "intermediate"] if points else []
        settings = {point["label"]: point["setting"] for point in points}
        if len(settings) > 1:
            found.append(Sweep(name, tuple(keys), settings))
    return found


def _cells(studies: Iterable[Mapping[str, Any]]) -> Iterator[tuple[tuple[str, ...], str, Mapping[str, Any]]]:
    """Every cell with its setting, and with what makes it the same in two points or studies."""
    for study in studies:
        for cell in study["cells"]:
            setting = study["points"][cell["point"]]["setting"] if "point" in cell else study["setting"]
            yield (setting, *(str(cell[name]) for name in cell if name != "point")), setting, cell


def _evaluation(store: Store, cell: Mapping[str, Any]) -> Result | None:
    return store.read(store.root / "evaluate" / cell["evaluation"][:16])


def _cost(store: Store, setting: str, cell: Mapping[str, Any], evaluation: Result) -> Cost:
    needs = evaluation.manifest["needs"]
    model = _model(store, needs[0]) if needs else None
    # a retrieval target is scored on what lies behind the others' trainings
    trains = task_of(evaluation.manifest["spec"]).trains
    own = model.record if model and trains else {}
    seconds = own.get("seconds")
    return Cost(
        setting=setting, task=cell["target"], stage=evaluation.manifest["key"], **{k: cell[k] for k in ("regime", "composition", "intermediate", "seed")},
        **{name: own.get(name) for name in ("trainable_parameters", "flops_per_step", "peak_memory_mib")},
        seconds=seconds, examples=seconds and seconds * own["examples_per_second"],
        before=_seconds_behind(store, model.manifest["needs"] if model and trains else needs),
        evaluation_seconds=evaluation.record.get("seconds"),
    )  # fmt: skip


def _seconds_behind(store: Store, keys: Iterable[str]) -> dict[str, float]:
    """The seconds of the trainings that some stages are or rest on, by key."""
    found: dict[str, float] = {}
    for key in keys:
        if result := _model(store, key):
            found[key] = result.record.get("seconds", 0.0)
            found |= _seconds_behind(store, result.manifest["needs"])
    return found


def _scores(store: Store, setting: str, cell: Mapping[str, Any], result: Result) -> list[Score]:
    spec = result.manifest["spec"]
    needs = result.manifest["needs"]
    model = _model(store, needs[0]) if needs else None
    task = task_of(spec)
    shared = {
        "task": cell["target"],
        "task_version": spec["task_version"],
        **{name: cell[name] for name in ("regime", "composition", "intermediate", "seed", "repeats")},
        "train_samples": model.record.get("train_samples") if model else None,
        "setting": setting,
        "signature": _signature(cell, result, model, _imported(store, model)),
        "stage": result.manifest["key"],
    }
    return [
        Score(
            **shared, language=row["language"], family=get_language(row["language"]).family, metric=metric,
            metric_version=spec["metrics"][metric], main=metric == task.main_metric, value=value, n=row["n"],
            collapsed=row["collapsed"], stand_in=row.get("stand_in", ""),
        )
        for row in result.record["scores"]
        for metric, value in row["values"].items()
    ]  # fmt: skip


def _model(store: Store, key: str) -> Result | None:
    """The result a key names, whatever kind of stage made it."""
    found = (store.read(store.root / kind / key[:16]) for kind in ("train", "average", "import"))
    return next((result for result in found if result), None)


def _imported(store: Store, model: Result | None) -> list[str]:
    """The modules behind a model that others trained: task and content."""
    if model is None:
        return []
    if model.manifest.get("kind") == "import":
        return [f"{model.manifest['spec']['task']}:{model.manifest['spec']['content'][:16]}"]
    return [name for key in model.manifest["needs"] for name in _imported(store, _model(store, key))]


def _signature(cell: Mapping[str, Any], result: Result, model: Result | None, imported: Iterable[str]) -> str:
    """One line that names everything behind a number, as sacreBLEU's does."""
    spec = result.manifest["spec"]
    parts = [f"{spec['task']}.v{spec['task_version']}"]
    parts += [f"{name}.v{version}" for name, version in spec["metrics"].items()]
    parts += [f"backbone:{spec['backbone'][:48]}", f"regime:{cell['regime']}", f"comp:{cell['composition']}"]
    parts += [f"inter:{cell['intermediate']}"] if cell["intermediate"] else []
    parts += [f"import:{name}" for name in imported]
    if model:
        regime = model.manifest["spec"]["regime"]
        parts += [f"{name}:{value}" for name, value in regime.items() if name != "name"]
    if model and (training := model.manifest["spec"].get("training")):
        parts += [f"lr:{training['learning_rate']:g}", f"bs:{training['per_device_train_batch_size']}"]
        parts += [f"steps:{model.record['steps']}", f"train:{model.record['train_samples']}"]
    parts += [f"model:{model.manifest['key'][:8]}"] if model else []
    if result.record["retrieval_layer"] is not None:
        parts.append(f"layer:{result.record['retrieval_layer']}")
    return "|".join([*parts, f"dtype:{spec['dtype']}", f"seed:{cell['seed']}", f"xadapt:{__version__}"])
