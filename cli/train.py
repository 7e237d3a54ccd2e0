"""`train-intermediate`, `train-target` and `evaluate`: one cell of a study from a command's options."""

from collections.abc import Mapping
from shlex import quote
from typing import TYPE_CHECKING, Any

import typer

from xadapt.errors import UserError
from xadapt_cli.options import EVALUATION, SHARED, TARGET, takes

if TYPE_CHECKING:
    from xadapt.study.recipe import Recipe
    from xadapt.tasks import Task

_ADAPTER_OPTIONS = {
    "adapter_config": "config",
    "reduction_factor": "reduction_factor",
    "non_linearity": "non_linearity",
}


@takes(SHARED)
def train_intermediate(**options: Any) -> None:
    """Train an intermediate task in English, as an adapter or by full fine-tuning."""
    task = _task(options, role="intermediate")
    recipe = _recipe(options, name=f"{task.name}-{options['regime']}", composition="none")
    result = _run(recipe, options["store"], evaluate=False)
    stack = "continue" if options["regime"] == "full" else "stack"
    _close(result, f"xadapt train-target --task udpos --composition {stack} --intermediate {task.name}", options)


@takes(SHARED, TARGET)
def train_target(**options: Any) -> None:
    """Train a target task in English, directly or with an intermediate task behind it."""
    task = _task(options, role="target")
    if not task.trains:
        raise UserError(f"task '{task.name}' has no training: `xadapt evaluate --task {task.name}` scores the encoder")
    recipe = _target_recipe(options)
    result = _run(recipe, options["store"], evaluate=False)
    composition, behind = _composition(options), options["intermediate"]
    more = f" --composition {composition} --intermediate {behind}" if behind else ""
    _close(result, f"xadapt evaluate --task {task.name}{more}", options)


@takes(SHARED, TARGET, EVALUATION)
def evaluate(**options: Any) -> None:
    """Evaluate a target zero-shot on its languages; what has to be trained first is, or is found in the store."""
    _task(options, role="target")
    recipe = _target_recipe(options)
    result = _run(recipe, options["store"], evaluate=True)
    from xadapt_cli.study import show_scores

    show_scores(options["store"], [recipe.name])
    _close(result, "xadapt compare", options, repeat=False)


def _task(options: Mapping[str, Any], *, role: str, option: str = "task") -> "Task":
    from xadapt.tasks import get_task

    if options["task_file"]:
        from xadapt.tasks.user import add_task_file

        add_task_file(options["task_file"])
    return get_task(options[option], place=f"--{option}", role=role)


def _target_recipe(options: Mapping[str, Any]) -> "Recipe":
    composition, behind = _composition(options), options["intermediate"]
    name = "-".join(filter(None, (options["task"], options["regime"], composition, behind)))
    return _recipe(options, name=name, composition=composition, target=options["task"])


def _composition(options: Mapping[str, Any]) -> str:
    """The composition asked for, or the natural one; UserError where it and --intermediate disagree."""
    from xadapt.regimes.specs import check_composition

    behind, composition = options["intermediate"], options["composition"]
    if composition is None:
        composition = ("continue" if options["regime"] == "full" else "stack") if behind else "none"
    check_composition(options["regime"], composition, place="--regime and --composition")
    if behind:
        _task(options, role="intermediate", option="intermediate")
    if (composition == "none") == bool(behind):
        remedy = "leave --intermediate out" if behind else "name an intermediate task, such as --intermediate mnli"
        raise UserError(f"--composition {composition} {'with' if behind else 'without'} --intermediate: {remedy}")
    return str(composition)


def _recipe(options: Mapping[str, Any], *, name: str, composition: str, target: str | None = None) -> "Recipe":
    from xadapt.regimes.specs import check_composition
    from xadapt.study.recipe_file import make_recipe
    from xadapt.training.settings import TrainingSettings

    regime = options["regime"]
    check_composition(regime, composition, place="--regime")
    section: dict[str, Any] = {"compositions": [composition]}
    for option, key in _ADAPTER_OPTIONS.items():
        if options[option] is not None and regime != "adapter":
            raise UserError(f"--{option.replace('_', '-')} {options[option]} belongs to --regime adapter, not {regime}")
        if options[option] is not None:
            section[key] = options[option]
    behind = options.get("intermediate")
    languages = options.get("languages")
    kept = (
        "backbone",
        "data",
        "seed",
        "max_train_samples",
        "max_eval_samples",
        "max_predict_samples",
        "retrieval_layer",
    )
    values = {key: options.get(key) for key in kept if options.get(key) is not None}
    values |= {
        "name": name,
        "targets": [target] if target else [],
        "intermediate": [] if target and not behind else [behind or options["task"]],
        "regimes": {regime: section},
        "languages": languages.split(",") if languages is not None else None,
        "task_files": [options["task_file"]] if options["task_file"] else [],
        "training": {key: options[key] for key in TrainingSettings.model_fields if options.get(key) is not None},
    }
    return make_recipe(values, place="the options")


def _run(recipe: "Recipe", store: str, *, evaluate: bool) -> str:
    from xadapt_cli.study import run_recipe

    outcomes = run_recipe(recipe, store, evaluate=evaluate)
    assert outcomes[-1].result is not None
    return str(outcomes[-1].result.folder)


def _close(artefact: str, following: str, options: Mapping[str, Any], *, repeat: bool = True) -> None:
    """The last two lines: where the artefact is, and what to type next with the options that must stay the same."""
    typer.echo(f"artefact: {artefact}")
    same = "".join(
        f" --{name.replace('_', '-')} {quote(str(options[name]))}"
        for name, (_, default) in SHARED.items()
        if repeat and name != "task" and options[name] != default
    )
    store = f" --store {quote(options['store'])}" if not repeat and options["store"] != "runs" else ""
    typer.echo(f"next: {following}{same}{store}")
