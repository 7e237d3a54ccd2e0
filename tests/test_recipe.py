"""Recipes: what a short one means, which number wins, and what every mistake is answered with."""

from pathlib import Path
from typing import Any

import pytest

from xadapt.errors import UserError
from xadapt.regimes.specs import COMPOSITIONS
from xadapt.study.plan import make_plan
from xadapt.study.recipe import Recipe
from xadapt.study.recipe_file import load_recipe, make_recipe
from xadapt.tasks import get_task
from xadapt.training.settings import TrainingSettings

SHIPPED = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


def recipe(**values: Any) -> Recipe:
    return make_recipe(values, place="the test")


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path, *overrides: str) -> str:
    """What loading a recipe is refused with."""
    with pytest.raises(UserError) as refused:
        load_recipe(path, overrides=overrides)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_an_empty_recipe_is_an_adapter_without_composition_on_the_hubs_xlm_r(tmp_path: Path) -> None:
    short = load_recipe(written(tmp_path, "short.yaml", "targets: [xnli]"))
    assert (short.name, short.backbone, short.data, short.seed) == ("short", "xlm-roberta-base", "hub", 0)
    assert [(name, section.compositions) for name, section in short.regimes.items()] == [("adapter", ("none",))]
    assert (
        short.training_for(get_task("xnli"), "adapter").model_dump()
        == TrainingSettings(learning_rate=1e-4, num_train_epochs=10).model_dump()
    )


def test_the_nearer_number_wins() -> None:
    """Task default < training < regimes.<name>.training < tasks.<name>, each number by itself."""
    made = recipe(
        targets=["xnli", "udpos"],
        training={"learning_rate": 1e-2, "num_train_epochs": 4, "warmup_ratio": 0.2},
        regimes={"full": {"training": {"learning_rate": 2e-2, "num_train_epochs": 5}}, "adapter": {}},
        tasks={"udpos": {"learning_rate": 3e-2}},
    )

    def numbers(task: str, regime: str) -> tuple[float, ...]:
        found = made.training_for(get_task(task), regime)
        return (found.per_device_train_batch_size, found.warmup_ratio, found.num_train_epochs, found.learning_rate)

    assert numbers("xnli", "adapter") == (32, 0.2, 4, 1e-2)
    assert numbers("xnli", "full") == (32, 0.2, 5, 2e-2)
    assert numbers("udpos", "full") == (32, 0.2, 5, 3e-2)
    default = get_task("udpos").optimisation["full"].learning_rate
    assert recipe(regimes={"full": {}}).training_for(get_task("udpos"), "full").learning_rate == default


def test_extends_merges_sections_over_two_levels_and_folders(tmp_path: Path) -> None:
    written(tmp_path, "base/ground.yaml", "seed: 7\ntargets: [udpos]\ntraining: {max_steps: 5, warmup_ratio: 0.3}")
    written(tmp_path, "base/middle.yaml", "extends: ground.yaml\ntargets: [xnli]\ntraining: {max_steps: 6}")
    top = written(tmp_path, "top.yaml", "extends: base/middle.yaml\ntraining: {dtype: float32}")
    found = load_recipe(top)
    assert (found.name, found.seed, found.targets) == ("top", 7, ("xnli",))
    assert found.training == {"max_steps": 6, "warmup_ratio": 0.3, "dtype": "float32"}


def test_extends_in_a_circle_or_to_nothing_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "a.yaml", "extends: b.yaml")
    written(tmp_path, "b.yaml", "extends: a.yaml")
    own = written(tmp_path, "own.yaml", "extends: own.yaml")
    nowhere = written(tmp_path, "nowhere.yaml", "extends: dem.yaml")
    assert "a.yaml -> b.yaml" in refusal(tmp_path / "a.yaml")
    assert "circle" in refusal(own)
    assert "dem.yaml" in refusal(nowhere)


def test_overrides_reach_nested_keys_and_options_win(tmp_path: Path) -> None:
    path = written(tmp_path, "r.yaml", "targets: [xnli]\nbackbone: embedded\nregimes: {adapter: {config: seq_bn}}")
    overrides = ["tasks.xnli.max_steps=3", "regimes.adapter.reduction_factor=8", "targets=[udpos]", "name=other"]
    found = load_recipe(path, overrides=[*overrides, "data=first"], options={"data": "second", "backbone": None})
    section = dict(found.regimes.items())["adapter"].model_dump()
    assert (section["config"], section["reduction_factor"]) == ("seq_bn", 8)
    assert (found.tasks, found.targets, found.name) == ({"xnli": {"max_steps": 3}}, ("udpos",), "other")
    assert (found.data, found.backbone) == ("second", "embedded")


@pytest.mark.parametrize("override", ["seed", "=3", "seed.x=3", "seed=[", "seed=*x", "seed=2024-99-99"])
def test_overrides_that_are_none_are_refused(tmp_path: Path, override: str) -> None:
    assert override in refusal(written(tmp_path, "r.yaml", "seed: 1\ntargets: [xnli]"), override)


@pytest.mark.parametrize(
    ("text", "place", "nearest"),
    [
        ("target: [xnli]", "r.yaml", "targets"),
        ("targets: [xnly]", "targets", "xnli"),
        ("targets: [mnli]", "targets", "xnli"),
        ("intermediate: [mnlj]", "intermediate", "mnli"),
        ("languages: [dee]", "languages", "de"),
        ("training: {learning_rat: 1}", "training", "learning_rate"),
        ("regimes: {adaptor: {}}", "regimes", "adapter"),
        ("regimes: {adapter: {confg: seq_bn}}", "regimes.adapter", "config"),
        ("regimes: {full: {composition: [none]}}", "regimes.full", "compositions"),
        ("regimes: {full: {compositions: [continu]}}", "regimes.full.compositions", "continue"),
        ("regimes: {full: {training: {max_step: 1}}}", "regimes.full.training", "max_steps"),
        ("tasks: {udpo: {}}", "tasks", "udpos"),
        ("tasks: {udpos: {epochs: 1}}", "tasks.udpos", "num_train_epochs"),
        ("training: {robust: {method: random, epsilo: 1}}", "training.robust", "epsilon"),
        ("fusion: {train_on: tarket}", "fusion.train_on", "target"),
        ("training: {dtype: float}", "training.dtype", "float32"),
        ("training: {robust: {method: randm}}", "training.robust.method", "random"),
        ("regimes: {lora: {target_modules: [querry]}}", "regimes.lora.target_modules.0", "query"),
        ("regimes: {adapter: {config: seq_bm}}", "regimes.adapter.config", "seq_bn"),
    ],
)
def test_unknown_names_are_answered_with_place_and_nearest(tmp_path: Path, text: str, place: str, nearest: str) -> None:
    message = refusal(written(tmp_path, "r.yaml", text))
    assert "r.yaml" in message
    assert place in message.split("Valid:")[0]
    assert f"Did you mean '{nearest}'?" in message


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("seed: -1", "seed"),
        ("seed: many", "seed"),
        ("seed: null", "seed"),
        ("max_train_samples: 0", "max_train_samples"),
        ("targets: xnli", "targets"),
        ("training: [1]", "training"),
        ("tasks: {udpos: 3}", "tasks.udpos"),
        ("training: {learning_rate: -1}", "training.learning_rate"),
        ("training: {dtype: float8}", "training.dtype"),
        ("regimes: {adapter: {reduction_factor: 0}}", "regimes.adapter.reduction_factor"),
        ("tasks: {udpos: {num_train_epochs: soon}}", "tasks.udpos.num_train_epochs"),
        ("targets: [udpos]\nregimes: {full: {compositions: [continue]}}", "intermediate"),
        ("regimes: {}", "regimes"),
        ("regimes: {full: {compositions: []}}", "regimes.full.compositions"),
        ("1: 2", "1"),
        ("- targets", "mapping"),
        ("", "mapping"),
        ("seed: [1", "YAML"),
        ("seed: 2024-99-99", "YAML"),
        (f"seed: {'9' * 5000}", "YAML"),
        ("seed: " + "[" * 5000, "YAML"),
        ("seed: !!python/object/apply:os.getcwd []", "YAML"),
        ("a: &x [1]\nb: *x", "aliases"),
    ],
)
def test_values_of_no_use_are_refused_by_key(tmp_path: Path, text: str, named: str) -> None:
    message = refusal(written(tmp_path, "r.yaml", text))
    assert "r.yaml" in message
    assert named in message


@pytest.mark.parametrize(
    ("text", "place", "value", "allowed"),
    [
        ("seed: -1", "seed", "-1", ["whole number", " 0", "4294967296"]),
        ("seed: 1.5", "seed", "1.5", ["whole number"]),
        ("training: {max_seq_length: 4}", "training.max_seq_length", "4", ["whole number", " 8", " 512"]),
        ("training: {learning_rate: fast}", "training.learning_rate", "'fast'", ["number", " 0", " 10"]),
        ("training: {learning_rate: .inf}", "training.learning_rate", "inf", ["number"]),
        ("training: {max_steps: many}", "training.max_steps", "'many'", ["whole number", "leave it out"]),
        ("mixture: {mlm_ratio: 1}", "mixture.mlm_ratio", "1", ["number", "less than 1"]),
        ("fusion: {reference: perhaps}", "fusion.reference", "'perhaps'", ["true or false"]),
        ("targets: xnli", "targets", "'xnli'", ["list"]),
        ("languages: en", "languages", "'en'", ["list", "leave it out"]),
        ("data: [hub]", "data", "['hub']", ["text"]),
        ("average: {mnli: 0}", "average.mnli", "0", ["number", " 0"]),
        ("regimes: {lora: {target_modules: query}}", "regimes.lora.target_modules", "'query'", ["list", "query, key"]),
        ("tasks: {udpos: {robust: random}}", "tasks.udpos.robust", "'random'", ["keys"]),
        ("training: {robust: {method: random, steps: 3.5}}", "training.robust.steps", "3.5", ["whole number"]),
    ],
)
def test_a_value_is_answered_with_what_is_allowed(
    tmp_path: Path, text: str, place: str, value: str, allowed: list[str]
) -> None:
    message = refusal(written(tmp_path, "r.yaml", text))
    assert f"r.yaml: {place} = {value} " in message
    assert [part for part in allowed if part not in message] == []


def test_a_value_that_must_be_there_is_asked_for(tmp_path: Path) -> None:
    message = refusal(written(tmp_path, "r.yaml", "training: {robust: {epsilon: 1}}"))
    assert "r.yaml: training.robust.method is missing" in message
    assert "adversarial or random or synonym" in message


def test_files_that_are_no_text_or_not_there_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xff\xfe\x00name: x")
    assert "YAML" in refusal(path)
    assert "Did you mean 'demo.yaml'?" in refusal(tmp_path / "dem.yaml")


@pytest.mark.parametrize(
    ("regime", "composition"),
    [
        (regime, composition)
        for regime, own in COMPOSITIONS.items()
        for composition in {name for names in COMPOSITIONS.values() for name in names} - set(own)
    ],
)
def test_pairs_that_do_not_exist_are_refused_with_those_that_do(regime: str, composition: str) -> None:
    with pytest.raises(UserError) as refused:
        recipe(targets=["xnli"], intermediate=["mnli"], regimes={regime: {"compositions": [composition]}})
    for name, compositions in COMPOSITIONS.items():
        assert f"{name}: {', '.join(compositions)}" in str(refused.value)


@pytest.mark.parametrize("name", ["../up", "a/b", "..", ".hidden", "", "a\nb", "a\n", "a\0", "\u202ename", "x" * 81])
def test_names_that_could_leave_the_store_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="name"):
        recipe(name=name, targets=["xnli"])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_plans(path: Path) -> None:
    options = {"data": "embedded", "backbone": "embedded"}
    whole = load_recipe(path, options=options)
    own = [name for name in whole.targets if get_task(name).own]  # the suite has the catalogue's tasks only
    targets = [name for name in whole.targets if name not in own]
    assert make_plan(load_recipe(path, options={**options, "targets": targets})).cells
    assert load_recipe(path.name) == load_recipe(path)


def test_a_target_without_languages_names_those_there_are() -> None:
    made = recipe(targets=["tatoeba"], languages=["en"], data="embedded", backbone="embedded")
    with pytest.raises(UserError, match=r"'tatoeba'.*en.*embedded.*de"):
        make_plan(made)
