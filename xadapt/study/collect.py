"""What the store keeps of a study: the recipe, its cells and stages, what its open choices came to; torch-free."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xadapt.study.plan import Plan
from xadapt.study.recipe import Recipe
from xadapt.study.resolved import Resolved
from xadapt.study.sweep import swept_text


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
