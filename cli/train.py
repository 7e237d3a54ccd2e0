"""`train-intermediate`, `train-target` and `evaluate`: one cell of a study from a command's options."""

from collections.abc import Mapping
from shlex import quote
from typing import TYPE_CHECKING, Any

import typer

from xadapt.errors import UserError
from xadapt_cli.options import EVALUATION, SHARED, TARGET, TRAIN, takes

if TYPE_CHECKING:
    from xadapt.study.recipe import Recipe
    from xadapt.tasks import Task

_ADAPTER_OPTIONS = {
    "adapter_config": "config",
    "reduction_factor": "reduction_factor",
    "non_linearity": "non_linearity",
}


@takes(SHARED, TRAIN)
def train_intermediate(**options: Any) -> None:
    """Train an intermediate task, in English unless told otherwise, as an adapter or by full fine-tuning."""
    data = _trained_on(options, role="intermediate")
    recipe = _recipe(options, name=f"{_file_name(data)}-{options['regime']}", composition="none", intermediate=data)
    result = _run(recipe, options["store"], evaluate=False)
    stack = "continue" if options["regime"] == "full" else "stack"
    _close(result, f"xadapt train-target --task udpos --composition {stack} --intermediate {data}", options)


@takes(SHARED, TRAIN, TARGET)
def train_target(**options: Any) -> None:
    """Train a target task, in English unless told otherwise, directly or with an intermediate task behind it."""
    task = _task(options, role="target")
    if not task.trains:
        raise UserError(f"task '{task.name}' has no training: `xadapt evaluate --task {task.name}` scores the encoder")
    recipe = _target_recipe(options)
    result = _run(recipe, options["store"], evaluate=False)
    composition, behind = _composition(options), options["intermediate"]
    more = f" --train-language {options['train_language']}" if options["train_language"] else ""
    more += f" --composition {composition} --intermediate {behind}" if behind else ""
    _close(result, f"xadapt evaluate --task {task.name}{more}", options)


@takes(SHARED, TRAIN, TARGET, EVALUATION)
def evaluate(**options: Any) -> None:
    """Evaluate a target zero-shot on its languages; what has to be trained first is, or is found in the store."""
    _task(options, role="target")
    recipe = _target_recipe(options)
    result = _run(recipe, options["store"], evaluate=True)
    from xadapt_cli.study import show_scores

    show_scores(options["store"], [recipe.name])
    _close(result, "xadapt compare", options, repeat=False)


def _task(options: Mapping[str, Any], *, role: str) -> "Task":
    from xadapt.tasks import get_task

    if options["task_file"]:
        from xadapt.tasks.user import add_task_file

        add_task_file(options["task_file"])
    return get_task(options["task"], place="--task", role=role)


def _trained_on(options: Mapping[str, Any], *, role: str) -> str:
    """--task and --train-language in a recipe's notation, `mnli@de+ru`; UserError for what cannot be trained so."""
    from xadapt.tasks.catalogue import get_training_data

    task = _task(options, role=role)
    chosen = options["train_language"]
    if chosen is None:
        return task.name
    name = f"{task.name}@{'+'.join(code.strip() for code in chosen.split(','))}"
    return get_training_data(name, place="--train-language", role=role).name


def _file_name(data: str) -> str:
    """A part of a study's name: `mnli@de+ru` without what file names do without."""
    return data.replace("@", "-").replace("+", "-")


def _target_recipe(options: Mapping[str, Any]) -> "Recipe":
    composition, behind = _composition(options), options["intermediate"]
    target = _trained_on(options, role="target")
    name = "-".join(map(_file_name, filter(None, (target, options["regime"], composition, behind))))
    return _recipe(options, name=name, composition=composition, target=target, intermediate=behind)


def _composition(options: Mapping[str, Any]) -> str:
    """The composition asked for, or the natural one; UserError where it and --intermediate disagree."""
    from xadapt.regimes.specs import check_composition

    behind, composition = options["intermediate"], options["composition"]
    if composition is None:
        composition = ("continue" if options["regime"] == "full" else "stack") if behind else "none"
    check_composition(options["regime"], composition, place="--regime and --composition")
    if behind:
        from xadapt.tasks.catalogue import get_training_data

        get_training_data(behind, place="--intermediate", role="intermediate")
    if (composition == "none") == bool(behind):
        remedy = "leave --intermediate out" if behind else "name an intermediate task, such as --intermediate mnli"
        raise UserError(f"--composition {composition} {'with' if behind else 'without'} --intermediate: {remedy}")
    return str(composition)


def _recipe(
    options: Mapping[str, Any], *, name: str, composition: str, target: str | None = None,
    intermediate: str | None = None,
) -> "Recipe":  # fmt: skip
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
        "intermediate": [intermediate] if intermediate else [],
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
