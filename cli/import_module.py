"""`xadapt import`: a module that plain `adapters` or plain `peft` wrote, taken into the store."""

from shlex import join
from typing import Annotated, Any

import typer

from xadapt.errors import UserError
from xadapt_cli.options import Backbone, Store, Task

Folder = Annotated[
    str, typer.Argument(metavar="FOLDER", help="An AdapterHub adapter or a PEFT LoRA, as JSON and safetensors.")
]
Regime = Annotated[
    str | None, typer.Option(help="adapter or lora, to be sure which it is; the folder says without it.")
]


def import_module(
    folder: Folder, task: Task, regime: Regime = None, backbone: Backbone = "xlm-roberta-base", store: Store = "runs"
) -> None:
    """Take a module that others trained on an intermediate task into the store, as if it had been trained here."""
    from xadapt.study.module_folder import read_module_folder
    from xadapt.study.recipe_file import make_recipe
    from xadapt.tasks.catalogue import get_training_data
    from xadapt_cli.study import run_recipe

    name = get_training_data(task, role="intermediate").name
    spec = read_module_folder(folder).regime
    if regime not in (None, spec.name):
        raise UserError(f"--regime {regime}: {folder} is of regime {spec.name}; give that, or leave --regime out")
    values = {
        "name": f"import-{name.replace('@', '-').replace('+', '-')}", "backbone": backbone, "intermediate": [name],
        "modules": {name: folder}, "regimes": {spec.name: spec.model_dump(exclude={"name"})},
    }  # fmt: skip
    (outcome,) = run_recipe(make_recipe(values, place="the options"), store, evaluate=False)
    assert outcome.result is not None
    typer.echo(f"artefact: {outcome.result.folder}")
    given = ["--regime", spec.name, "--backbone", backbone, "--store", store]
    following = ["xadapt", "train-target", "--task", "udpos", "--intermediate", name, "--module", f"{name}={folder}"]
    typer.echo(f"next: {join([*following, *given, *_shape(spec.model_dump(mode='json'))])}")


def _shape(spec: dict[str, Any]) -> list[str]:
    """The options with which a training has the module's shape."""
    names = {"config": "--adapter-config", "r": "--lora-r"}
    words = []
    for key, value in spec.items():
        option = names.get(key, f"--{key.replace('_', '-')}")
        if isinstance(value, bool):
            words += [option] if value else []
        elif key != "name":
            words += [option, ",".join(value) if isinstance(value, list) else str(value)]
    return words
