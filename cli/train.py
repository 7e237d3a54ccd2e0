"""`train-intermediate`, `fuse`, `train-target` and `evaluate`: one cell of a study from a command's options."""

from collections.abc import Mapping, Sequence
from shlex import quote
from typing import TYPE_CHECKING, Any

import typer

from xadapt.errors import UserError
from xadapt_cli.execution import EXECUTION, execution_of
from xadapt_cli.from_options import intermediates, recipe_of, training_names
from xadapt_cli.options import (
    EVALUATION,
    FUSED,
    FUSION,
    JOINTLY,
    MIXTURE,
    MODULES,
    ROBUST,
    SHARED,
    TARGET,
    TRAIN,
    takes,
)

if TYPE_CHECKING:
    from xadapt.study.recipe import Recipe
    from xadapt.tasks import Task

# how a target goes on from one intermediate task, and from several
_ONE = {"full": "continue", "adapter": "stack", "lora": "stack"}
_SEVERAL = {"full": "multitask", "adapter": "fusion", "lora": "fusion"}


@takes(SHARED, JOINTLY, TRAIN, MIXTURE, ROBUST, EXECUTION)
def train_intermediate(**options: Any) -> None:
    """Train intermediate tasks, in English unless told otherwise, each as a module of its own or all as one model."""
    names = training_names(options, role="intermediate")
    composition = options["composition"] or "none"
    if composition not in ("none", "multitask"):
        raise UserError(
            f"--composition {composition}: training intermediate tasks knows multitask only; `xadapt fuse` trains a "
            "fusion, `xadapt train-target` the others"
        )
    recipe = recipe_of(options, composition=composition, intermediate=names)
    result = _run(recipe, options, evaluate=False)
    if options["robust"]:  # a command's robust training is of the task that it names
        typer.echo(f"artefact: {result}")
        typer.echo(
            "next: a recipe with the same `robust` below `tasks` puts it behind targets, see `xadapt run --help`"
        )
        return
    apart = composition == "none" and options["regime"] == "full"
    behind = names[:1] if apart else names
    after = "multitask" if composition == "multitask" and len(names) > 1 else _natural(options, behind)
    _close(result, f"xadapt train-target --task udpos --composition {after} --intermediate {','.join(behind)}", options)


@takes({name: option for name, option in SHARED.items() if name != "task"}, FUSED, MODULES, FUSION, MIXTURE, EXECUTION)
def fuse(**options: Any) -> None:
    """Combine intermediate tasks' modules by attention, trained on the tasks' mixture or on a target."""
    names = intermediates({**options, "intermediate": options["task"]}, place="--tasks")
    on_target = options["train_on"] == "target"
    if on_target != bool(options["target"]):
        remedy = "name it with --target" if on_target else "add --train-on target, or leave --target out"
        raise UserError(f"--train-on target trains a fusion on a target's data, given by --target: {remedy}")
    targets = training_names({**options, "task": options["target"]}, role="target") if on_target else []
    recipe = recipe_of(options, composition="fusion", intermediate=names, targets=targets)
    result = _run(recipe, options, evaluate=False)
    command, target = "evaluate" if on_target else "train-target", options["target"] or "udpos"
    following = f"xadapt {command} --task {target} --composition fusion --intermediate {','.join(names)}"
    _close(result, following, {**options, "task": ""})


@takes(SHARED, TRAIN, TARGET, MODULES, FUSION, MIXTURE, ROBUST, EXECUTION)
def train_target(**options: Any) -> None:
    """Train a target task, in English unless told otherwise, directly or with intermediate tasks behind it."""
    task = _target(options)
    if not task.trains:
        raise UserError(f"task '{task.name}' has no training: `xadapt evaluate --task {task.name}` scores the encoder")
    result = _run(_target_recipe(options), options, evaluate=False)
    composition, behind = _composition(options), intermediates(options) if options["intermediate"] else []
    more = f" --train-language {quote(options['train_language'])}" if options["train_language"] else ""
    more += f" --composition {composition} --intermediate {','.join(behind)}" if behind else ""
    _close(result, f"xadapt evaluate --task {task.name}{more}", options)


@takes(SHARED, TRAIN, TARGET, MODULES, FUSION, MIXTURE, ROBUST, EVALUATION, EXECUTION)
def evaluate(**options: Any) -> None:
    """Evaluate a target zero-shot on its languages; what has to be trained first is, or is found in the store."""
    _target(options)
    recipe = _target_recipe(options)
    result = _run(recipe, options, evaluate=True)
    from xadapt_cli.study import show_scores

    show_scores(options["store"], [recipe.name])
    _close(result, "xadapt compare", options, repeat=False)


def _target(options: Mapping[str, Any]) -> "Task":
    from xadapt.tasks import get_task

    (name,) = training_names(options, role="target")
    return get_task(name.partition("@")[0])


def _target_recipe(options: Mapping[str, Any]) -> "Recipe":
    composition = _composition(options)
    return recipe_of(
        options, composition=composition, targets=training_names(options, role="target"),
        intermediate=intermediates(options) if options["intermediate"] else [],
    )  # fmt: skip


def _natural(options: Mapping[str, Any], names: Sequence[str]) -> str:
    """The composition that goes without saying; DoRA lies below nothing."""
    if options["use_dora"]:
        return "continue"
    return (_SEVERAL if len(names) > 1 else _ONE).get(options["regime"], "stack")


def _composition(options: Mapping[str, Any]) -> str:
    """The composition asked for, or the natural one; UserError where it and --intermediate disagree."""
    from xadapt.regimes.specs import JOINT, check_composition

    behind, composition = options["intermediate"], options["composition"]
    names = intermediates(options) if behind is not None else []
    if composition is None:
        composition = _natural(options, names) if names else "none"
    check_composition(options["regime"], composition, place="--regime and --composition")
    if (composition == "none") == bool(behind):
        remedy = "leave --intermediate out" if behind else "name an intermediate task, such as --intermediate mnli"
        raise UserError(f"--composition {composition} {'with' if behind else 'without'} --intermediate: {remedy}")
    if len(names) > 1 and composition not in JOINT:
        raise UserError(
            f"--composition {composition} takes one intermediate task, but --intermediate names {len(names)}; choose "
            f"one of {', '.join(sorted(JOINT))}, or one task"
        )
    return str(composition)


def _run(recipe: "Recipe", options: Mapping[str, Any], *, evaluate: bool) -> str:
    from xadapt_cli.study import run_recipe

    outcomes = run_recipe(
        recipe,
        options["store"],
        evaluate=evaluate,
        execution=execution_of(options),
        report_to=options["report_to"],
        update_data=options["update_data"],
    )
    assert outcomes[-1].result is not None
    return str(outcomes[-1].result.folder)


def _close(artefact: str, following: str, options: Mapping[str, Any], *, repeat: bool = True) -> None:
    """The last two lines: where the artefact is, and what to type next with the options that must stay the same."""
    typer.echo(f"artefact: {artefact}")
    same = "".join(
        f" --{name.replace('_', '-')}" + ("" if options[name] is True else f" {quote(str(options[name]))}")
        for name, (_, default) in {**SHARED, **FUSION, **MIXTURE, **ROBUST}.items()
        if repeat and name != "task" and options.get(name, default) != default
    )
    same += "".join(f" --module {quote(text)}" for text in options.get("module") or () if repeat)
    store = f" --store {quote(options['store'])}" if not repeat and options["store"] != "runs" else ""
    typer.echo(f"next: {following}{same}{store}")
