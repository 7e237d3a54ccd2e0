"""A command's options as a recipe."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xadapt.errors import UserError

if TYPE_CHECKING:
    from xadapt.study.recipe import Recipe

# an option's name -> the key of its section in a recipe
_REGIME_OPTIONS = {
    "adapter": {"adapter_config": "config", "reduction_factor": "reduction_factor", "non_linearity": "non_linearity"},
    "lora": {
        "lora_r": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout", "target_modules": "target_modules",
        "use_rslora": "use_rslora", "use_dora": "use_dora",
    },
}  # fmt: skip
_FUSION_OPTIONS = {
    "train_on": "train_on",
    "reference_fusion": "reference",
    "fusion_regularization": "regularization",
}
_MIXTURE_OPTIONS = {
    "mixing_cap": "cap",
    "mixing_temperature": "temperature",
    "mlm_ratio": "mlm_ratio",
    "mlm_languages": "mlm_languages",
}
_ROBUST_OPTIONS = {
    "robust": "method", "robust_epsilon": "epsilon", "robust_steps": "steps", "robust_step_size": "step_size",
    "robust_copies": "copies", "synonyms": "synonyms",
}  # fmt: skip
_RECIPE_OPTIONS = (
    "backbone", "data", "seed", "max_train_samples", "max_eval_samples", "max_predict_samples", "retrieval_layer",
    "together",
)  # fmt: skip
_LISTS = {"target_modules", "mlm_languages"}


def training_names(options: Mapping[str, Any], *, role: str) -> list[str]:
    """--task and --train-language in a recipe's notation, `mnli@de+ru`; several of --task for intermediate tasks.

    Raises UserError for what cannot be trained so.
    """
    from xadapt.tasks.catalogue import get_training_data

    known(options)
    names = _listed(options["task"]) if role == "intermediate" else [options["task"]]
    chosen = options.get("train_language")
    langs = "" if chosen is None else f"@{'+'.join(code.strip() for code in chosen.split(','))}"
    place = "--train-language" if langs else "--task"
    for name in names:
        get_training_data(name, role=role)  # an unknown task is --task's fault
    return [get_training_data(f"{name}{langs}", place=place, role=role).name for name in names]


def intermediates(options: Mapping[str, Any], *, place: str = "--intermediate") -> list[str]:
    """The intermediate tasks named, once each; UserError for one that there is not."""
    from xadapt.tasks.catalogue import get_training_data

    known(options)
    names = [get_training_data(n, place=place, role="intermediate").name for n in _listed(options["intermediate"])]
    return list(dict.fromkeys(names))


def known(options: Mapping[str, Any]) -> None:
    """Make the tasks of --task-file known."""
    if options["task_file"]:
        from xadapt.tasks.user import add_task_file

        add_task_file(options["task_file"])


def _listed(text: str) -> list[str]:
    """Names joined by commas; `all` for the nine intermediate tasks with labels."""
    from xadapt.tasks.catalogue import intermediate_names

    if text == "all":
        return [name for name in intermediate_names() if name != "mlm"]
    return _split(text)


def _split(text: str) -> list[str]:
    """What commas join, without spaces around."""
    return [name.strip() for name in text.split(",")]


def recipe_of(
    options: Mapping[str, Any], *, composition: str, intermediate: Sequence[str], targets: Sequence[str] = ()
) -> "Recipe":
    """The recipe of one cell; UserError for an option that belongs to another regime."""
    from xadapt.regimes.specs import check_composition
    from xadapt.study.recipe_file import make_recipe
    from xadapt.training.settings import TrainingSettings

    regime = options["regime"]
    check_composition(regime, composition, place="--regime")
    for other, names in _REGIME_OPTIONS.items():
        for name in names if other != regime else ():
            if options[name] is not None:
                raise UserError(f"--{name.replace('_', '-')} {options[name]} belongs to --regime {other}, not {regime}")
    _check_read(options, composition, intermediate)
    languages = options.get("languages")
    kept = ("none",) if composition == "none" else (composition,)
    values = {key: options[key] for key in _RECIPE_OPTIONS if options.get(key) is not None}
    robust = _robust(options, targets or intermediate)
    values |= {
        "targets": list(targets),
        "intermediate": list(intermediate),
        "regimes": {regime: {"compositions": kept, **_section(options, _REGIME_OPTIONS.get(regime, {}))}},
        "fusion": _section(options, _FUSION_OPTIONS),
        "mixture": _section(options, _MIXTURE_OPTIONS)
        | (_in_mixture(robust) if _is_mixture(composition, targets) else {}),
        "modules": _modules(options),
        "languages": _split(languages) if languages is not None else None,
        "task_files": [options["task_file"]] if options["task_file"] else [],
        "training": {
            key: options[key]
            for key in TrainingSettings.model_fields
            if key != "robust" and options.get(key) is not None
        },
        "tasks": {} if _is_mixture(composition, targets) else robust,
    }
    values["name"] = _study_name(regime, composition, intermediate, targets, values)
    return make_recipe(values, place="the options", names=_option_names(regime, targets or intermediate))


def _option_names(regime: str, trained: Sequence[str]) -> dict[str, str]:
    """The options by the keys of a recipe that they become."""
    from xadapt.training.settings import TrainingSettings

    robust = [f"tasks.{name.partition('@')[0]}.robust" for name in trained] + ["mixture.training.robust"]
    sections = [
        (f"regimes.{regime}.", _REGIME_OPTIONS.get(regime, {})), ("fusion.", _FUSION_OPTIONS),
        ("mixture.", _MIXTURE_OPTIONS), *((f"{place}.", _ROBUST_OPTIONS) for place in robust),
        ("", {name: name for name in (*_RECIPE_OPTIONS, "languages")}),
        ("training.", {name: name for name in TrainingSettings.model_fields if name != "robust"}),
    ]  # fmt: skip
    return {
        f"{section}{key}": f"--{option.replace('_', '-')}" for section, keys in sections for option, key in keys.items()
    }


def _check_read(options: Mapping[str, Any], composition: str, intermediate: Sequence[str]) -> None:
    """UserError for an option that nothing would read."""
    joint = composition in ("fusion", "multitask")
    adapter = composition == "fusion" and options["regime"] == "adapter"
    readers = {
        "train_on": (composition == "fusion", "--composition fusion"),
        "reference_fusion": (adapter, "AdapterFusion: --regime adapter --composition fusion"),
        "fusion_regularization": (adapter, "AdapterFusion: --regime adapter --composition fusion"),
        "mixing_cap": (joint, "--composition fusion or multitask"),
        "mixing_temperature": (joint, "--composition fusion or multitask"),
        "mlm_ratio": (bool(set(intermediate) - {"mlm"}), "the training of intermediate tasks other than mlm"),
    }
    for name, (read, by) in readers.items():
        if options.get(name) is not None and not read:
            raise UserError(f"--{name.replace('_', '-')} belongs to {by}; leave it out")


def _is_mixture(composition: str, targets: Sequence[str]) -> bool:
    """Whether what is trained is several tasks at once."""
    return composition == "multitask" and not targets


def _in_mixture(robust: Mapping[str, Any]) -> dict[str, Any]:
    """Robust training of a mixture, which has no numbers a task."""
    return {"training": next(iter(robust.values()))} if robust else {}


def _modules(options: Mapping[str, Any]) -> dict[str, str]:
    """--module's folders by task; UserError for what is no task with a folder, or a task that is named twice."""
    found: dict[str, str] = {}
    for text in options.get("module") or ():
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise UserError(f"--module '{text}' is not of the form TASK=FOLDER, such as mnli=modules/mnli")
        if name in found:
            raise UserError(f"--module names {name} twice; leave one out")
        found[name] = folder
    return found


def _robust(options: Mapping[str, Any], trained: Sequence[str]) -> dict[str, Any]:
    """Robust training is of the tasks that are named, not of those behind them."""
    robust = _section(options, _ROBUST_OPTIONS)
    if robust and "method" not in robust:
        (given, *_) = (name for name in _ROBUST_OPTIONS if options.get(name) is not None)
        raise UserError(
            f"--{given.replace('_', '-')} belongs to robust training; add --robust adversarial, random or synonym"
        )
    from xadapt.tasks import get_task

    names = [name.partition("@")[0] for name in trained] if robust else []
    for name in names:
        if not get_task(name).trains:
            raise UserError(f"--robust {robust['method']}: task '{name}' has no training; leave it out")
    return {name: {"robust": robust} for name in names}


def _section(options: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    given = {key: options[name] for name, key in keys.items() if options.get(name) is not None}
    return {key: _split(value) if key in _LISTS else value for key, value in given.items()}


def _study_name(
    regime: str, composition: str, intermediate: Sequence[str], targets: Sequence[str], values: Mapping[str, Any]
) -> str:
    """The cell's parts, without what file names do without, and the start of a hash of all options.

    So no study takes another's place because a seed or a learning rate is not in its name.
    """
    if targets:
        parts = [*targets, regime, composition, *intermediate]
    else:
        parts = [*intermediate, regime, *([composition] if composition != "none" else [])]
    name = "-".join(parts).replace("@", "-").replace("+", "-")
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:6]
    return f"{name[:73]}-{digest}"
