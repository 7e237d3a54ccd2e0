"""Modules of plain `adapters` and plain `peft` in the store: the same numbers, every use, and nothing else let in."""

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapters
import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from silent_reporter import Silent
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    XLMRobertaForQuestionAnswering,
    XLMRobertaForSequenceClassification,
    XLMRobertaForTokenClassification,
    XLMRobertaModel,
)
from typer.testing import CliRunner

from xadapt.errors import UserError
from xadapt.models.backbone import Backbone, load_encoder
from xadapt.models.lora_folder import read_lora
from xadapt.study.collect import study_of
from xadapt.study.collection import Collection
from xadapt.study.executors import Outcome, run_plan
from xadapt.study.module_folder import read_module_folder
from xadapt.study.plan import Plan, make_plan
from xadapt.study.recipe_file import load_recipe, make_recipe
from xadapt.study.self_check import CHECK, regime_of
from xadapt.study.store import Store
from xadapt_cli.app import app

REGIMES: dict[str, dict[str, Any]] = {
    "adapter": {"config": "double_seq_bn", "reduction_factor": 8, "non_linearity": "swish"},
    "lora": {"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"]},
}
every_kind = pytest.mark.parametrize("kind", REGIMES)


def shake(model: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".adapters." in name or "lora_" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))


def save_adapter(backbone: Path, folder: Path, *, seed: int = 0, name: str = "nli/multinli@ukp", **config: Any) -> Path:
    """An AdapterHub folder as a model of the library with a head of its own writes it."""
    model = adapters.AutoAdapterModel.from_pretrained(backbone)
    shape = {"reduction_factor": 8, "non_linearity": "swish"} | config
    model.add_adapter(name, config=adapters.DoubleSeqBnConfig(**shape))
    model.add_classification_head(name, num_labels=3)
    shake(model, seed)
    model.save_adapter(str(folder), name, use_safetensors=True)
    return folder


def save_lora(backbone: Path, folder: Path, *, seed: int = 0, **config: Any) -> Path:
    """A PEFT folder of an encoder without any head."""
    shape = {"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"]} | config
    model = get_peft_model(load_encoder(backbone), LoraConfig(**shape))
    shake(model, seed)
    model.save_pretrained(folder)
    return folder


SAVE: dict[str, Callable[..., Path]] = {"adapter": save_adapter, "lora": save_lora}


def hidden(encoder: nn.Module) -> Tensor:
    ids = torch.tensor([[0, *range(20, 38), 2], [0, *range(40, 47), 2, *[1] * 11]])
    encoder.eval()
    with torch.no_grad():
        found: Tensor = encoder(input_ids=ids, attention_mask=(ids != 1).long()).last_hidden_state
    return found


def by_the_library(kind: str, backbone: Path, folder: Path) -> Tensor:
    """What the library itself makes of its folder."""
    encoder: PreTrainedModel = load_encoder(backbone)
    if kind == "lora":
        return hidden(PeftModel.from_pretrained(encoder, str(folder)).base_model)
    adapters.init(encoder)
    encoder.set_active_adapters(encoder.load_adapter(str(folder), use_safetensors=True, with_head=False))
    return hidden(encoder)


def planned(kind: str, backbone: Path, folder: Path | str, **changes: Any) -> Plan:
    return make_plan(make_recipe(values_of(kind, backbone, folder) | changes, place="the test"))


def values_of(kind: str, backbone: Path, folder: Path | str) -> dict[str, Any]:
    own = {"training": {"learning_rate": 1e-2}, **REGIMES[kind]}
    return {
        "backbone": str(backbone), "data": "embedded", "targets": ["udpos", "tatoeba"], "languages": ["de"],
        "intermediate": ["mnli"], "modules": {"mnli": str(folder)}, "regimes": {kind: {"compositions": ["stack"], **own}},
        "training": {"max_steps": 2, "per_device_train_batch_size": 8, "dtype": "float32"},
        "max_train_samples": 24, "max_eval_samples": 8, "max_predict_samples": 8,
    }  # fmt: skip


def ran(plan: Plan, store: Store) -> dict[str, Outcome]:
    outcomes = {outcome.stage.label: outcome for outcome in run_plan(plan, store, Silent())}
    assert not [outcome.error for outcome in outcomes.values() if not outcome.ok]
    return outcomes


LAYERS = ["attention.output.dense", "intermediate.dense", "output.dense"]


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("adapter", {}),
        ("adapter", {"config": "seq_bn", "mh_adapter": False, "original_ln_before": True, "non_linearity": "relu"}),
        ("lora", {}),
        ("lora", {"use_dora": True}),
        ("lora", {"use_rslora": True, "target_modules": LAYERS}),
    ],
)
def test_an_imported_module_gives_what_its_library_gives(
    kind: str, own: dict[str, Any], tiny_backbone: Path, tmp_path: Path
) -> None:
    folder = SAVE[kind](tiny_backbone, tmp_path / "module", **{k: v for k, v in own.items() if k != "config"})
    values = values_of(kind, tiny_backbone, folder) | {"targets": []}
    shape = REGIMES[kind] | {
        key: value for key, value in own.items() if key not in ("mh_adapter", "original_ln_before")
    }
    values["regimes"] = {kind: {"compositions": ["none"], **shape}}
    (outcome,) = ran(make_plan(make_recipe(values, place="the test")), Store(tmp_path / "runs")).values()
    assert outcome.result
    assert outcome.stage.kind == "import"
    assert outcome.stage.spec["regime"].items() >= shape.items()
    encoder = regime_of(outcome.result).load(Backbone(str(tiny_backbone)), outcome.result.folder)
    expected = by_the_library(kind, tiny_backbone, folder)
    torch.testing.assert_close(hidden(encoder), expected, rtol=1e-5, atol=1e-5)
    assert (expected - hidden(load_encoder(tiny_backbone))).abs().max() > 1e-2, "the module does something"
    names = {path.name for path in outcome.result.folder.iterdir()}
    assert CHECK in names
    assert "head.safetensors" not in names


@every_kind
def test_an_imported_module_goes_wherever_a_trained_one_does(kind: str, tiny_backbone: Path, tmp_path: Path) -> None:
    """Below a target, into a fusion and a mean with one that is trained here, and straight into retrieval."""
    folder, store = SAVE[kind](tiny_backbone, tmp_path / "module"), Store(tmp_path / "runs")
    values = values_of(kind, tiny_backbone, folder) | {"intermediate": ["mnli", "qqp"]}
    values["regimes"][kind]["compositions"] = ["stack", "continue", "fusion", "average"]
    recipe = make_recipe(values, place="the test")
    plan = make_plan(recipe)
    outcomes = ran(plan, store)
    imported = [stage for stage in plan.stages if stage.kind == "import"]
    assert len(imported) == 1
    assert not [label for label in outcomes if label.startswith("train mnli")]
    users = [stage.label for stage in plan.stages if imported[0] in stage.needs]
    assert len(users) == 5
    content = imported[0].spec["content"][:16]
    scores = Collection(store, {"s": study_of(recipe, plan)}).scores()
    assert {score.composition for score in scores} == {"stack", "continue", "fusion", "average"}
    for score in scores:
        assert (f"import:mnli:{content}" in score.signature.split("|")) == ("mnli" in score.intermediate)
        assert (score.variant == "mnli imported") == ("mnli" in score.intermediate), "the row says so"


def test_what_is_not_the_tasks_own_training_is_new_to_its_target(tiny_backbone: Path, tmp_path: Path) -> None:
    """xnli trains on mnli: our own module of mnli has nothing to add to it, another's has."""
    folder = save_adapter(tiny_backbone, tmp_path / "module")
    values = values_of("adapter", tiny_backbone, folder) | {"targets": ["xnli"]}
    (cell,) = make_plan(make_recipe(values, place="the test")).cells
    assert not cell.repeats
    assert [need.kind for need in cell.evaluation.needs[0].needs] == ["import"]
    (own,) = make_plan(make_recipe(values | {"modules": {}}, place="the test")).cells
    assert own.repeats


def test_the_key_is_the_contents(tiny_backbone: Path, tmp_path: Path) -> None:
    first, moved = save_lora(tiny_backbone, tmp_path / "a"), tmp_path / "b"
    shutil.copytree(first, moved)
    (moved / "README.md").write_text("another card")
    other = save_lora(tiny_backbone, tmp_path / "c", seed=1)
    key, same, changed = (planned("lora", tiny_backbone, f, targets=[]).stages[0].key for f in (first, moved, other))
    assert key == same != changed


def test_a_module_that_changes_behind_the_plan_is_refused(tiny_backbone: Path, tmp_path: Path) -> None:
    folder, store = save_lora(tiny_backbone, tmp_path / "m"), Store(tmp_path / "runs")
    plan = planned("lora", tiny_backbone, folder, targets=[])
    save_lora(tiny_backbone, folder, seed=1)
    (outcome,) = run_plan(plan, store, Silent())
    assert isinstance(outcome.error, UserError)
    assert not store.folder(outcome.stage).exists()


class Bomb:
    """What unpickles into a file being written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["adapter.bin", "pytorch_model.pt", "weights.json.pkl", "x.PTH", "training_args.bin"])
@every_kind
def test_a_pickle_is_refused_unopened(kind: str, name: str, tiny_backbone: Path, tmp_path: Path) -> None:
    folder, mark = SAVE[kind](tiny_backbone, tmp_path / "module"), tmp_path / "exploded"
    (folder / name).write_bytes(pickle.dumps(Bomb(mark)))
    for _ in range(2):
        with pytest.raises(UserError, match=name):
            read_module_folder(folder)
        (folder / read_name(kind)).unlink(missing_ok=True)  # and where there is nothing else to open
    assert not mark.exists()


def read_name(kind: str) -> str:
    return {"adapter": "adapter.safetensors", "lora": "adapter_model.safetensors"}[kind]


@pytest.mark.parametrize("name", ["module.zip", "module.tar", "module.tar.gz"])
def test_an_archive_is_refused(name: str, tiny_backbone: Path, tmp_path: Path) -> None:
    folder = save_lora(tiny_backbone, tmp_path / "module")
    archive = tmp_path / name
    with zipfile.ZipFile(archive, "w") as file:
        file.write(folder / "adapter_config.json", "adapter_config.json")
    with pytest.raises(UserError, match=name):
        read_module_folder(archive)
    shutil.copy(archive, folder / name)
    with pytest.raises(UserError, match=name):
        read_module_folder(folder)


def change_config(folder: Path, **values: Any) -> None:
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text())
    inner = config if "peft_type" in config else config["config"]
    inner |= values
    file.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("kind", "change", "named"),
    [
        ("adapter", {"is_parallel": True, "scaling": 4.0}, "is_parallel"),
        ("adapter", {"scaling": 2.0}, "scaling"),
        ("adapter", {"use_gating": True}, "use_gating"),
        ("adapter", {"phm_layer": True}, "phm_layer"),
        ("adapter", {"inv_adapter": "nice"}, "inv_adapter"),
        ("adapter", {"leave_out": [0]}, "leave_out"),
        ("adapter", {"ln_before": True}, "ln_before"),
        ("adapter", {"architecture": "prefix_tuning"}, "architecture"),
        ("adapter", {"output_adapter": False}, "output_adapter"),
        ("adapter", {"some_day": 3}, "some_day"),
        ("adapter", {"non_linearity": "leakyrelu"}, "non_linearity"),
        ("adapter", {"reduction_factor": {"1": 8}}, "reduction_factor"),
        ("adapter", {"original_ln_before": True}, "original_ln_before"),
        ("lora", {"peft_type": "IA3"}, "IA3"),
        ("lora", {"peft_type": ["LORA"]}, "LORA"),
        ("lora", {"modules_to_save": ["encoder.layer.1"]}, "modules_to_save"),
        ("lora", {"modules_to_save": ["classifier", "word_embeddings"]}, "word_embeddings"),
        ("lora", {"modules_to_save": "pooler"}, "pooler"),
        ("lora", {"modules_to_save": [["classifier"]]}, "modules_to_save"),
        ("lora", {"bias": "all"}, "bias"),
        ("lora", {"lora_bias": True}, "lora_bias"),
        ("lora", {"bias": "lora_only"}, "bias"),
        ("lora", {"rank_pattern": {"query": 2}}, "rank_pattern"),
        ("lora", {"rank_pattern": {"(a+)+$": 2}, "r": 8}, "rank_pattern"),
        ("lora", {"rank_pattern": ["query"]}, "rank_pattern"),
        ("lora", {"alpha_pattern": {"(a+)+$": 2}}, "(a+)+$"),
        ("lora", {"alpha_pattern": {"query": "much"}}, "alpha_pattern"),
        ("lora", {"alpha_pattern": {"query": 2}, "r": 8}, "rank"),
        ("lora", {"alpha_pattern": {"query": float("nan")}}, "alpha_pattern"),
        ("lora", {"alpha_pattern": {"query": 10**400}}, "alpha_pattern"),
        ("lora", {"init_lora_weights": "pissa"}, "init_lora_weights"),
        ("lora", {"some_day": 3}, "some_day"),
        ("lora", {"r": 0}, "r = 0"),
    ],
)
def test_what_no_spec_can_say_is_refused_and_named(
    kind: str, change: dict[str, Any], named: str, tiny_backbone: Path, tmp_path: Path
) -> None:
    folder = SAVE[kind](tiny_backbone, tmp_path / "module")
    read_module_folder(folder)
    change_config(folder, **change)
    with pytest.raises(UserError) as refused:
        read_module_folder(folder)
    assert named in str(refused.value)
    assert "adapter_config.json" in str(refused.value)


def test_other_modules_as_their_libraries_write_them_are_refused(tiny_backbone: Path, tmp_path: Path) -> None:
    encoder = load_encoder(tiny_backbone)
    adapters.init(encoder)
    for name in ("par_bn", "seq_bn_inv", "lora"):
        encoder.add_adapter(name, config=name)
        encoder.save_adapter(str(tmp_path / name), name, use_safetensors=True)
    ia3 = IA3Config(target_modules=["key", "output.dense"], feedforward_modules=["output.dense"])
    get_peft_model(load_encoder(tiny_backbone), ia3).save_pretrained(tmp_path / "ia3")
    for name, more in (("biases", {"bias": "all"}), ("embeddings", {"modules_to_save": ["word_embeddings"]})):
        with_head = XLMRobertaForSequenceClassification.from_pretrained(tiny_backbone)
        lora = LoraConfig(target_modules=["query"], task_type="SEQ_CLS", **more)
        get_peft_model(with_head, lora).save_pretrained(tmp_path / name)
    with_pooler = XLMRobertaModel.from_pretrained(tiny_backbone)
    get_peft_model(with_pooler, LoraConfig(target_modules="all-linear")).save_pretrained(tmp_path / "pooler")
    for name in ("par_bn", "seq_bn_inv", "lora", "ia3", "biases", "embeddings", "pooler"):
        with pytest.raises(UserError):
            read_module_folder(tmp_path / name)


def test_a_lora_of_a_model_with_a_head_that_was_not_trained_is_imported(tiny_backbone: Path, tmp_path: Path) -> None:
    model = get_peft_model(
        XLMRobertaForSequenceClassification.from_pretrained(tiny_backbone),
        LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"], lora_dropout=0.1),
    )
    shake(model, 0)
    model.save_pretrained(tmp_path / "m")
    expected = hidden(model.base_model.model.roberta)
    (outcome,) = ran(planned("lora", tiny_backbone, tmp_path / "m", targets=[]), Store(tmp_path / "runs")).values()
    assert outcome.result
    encoder = regime_of(outcome.result).load(Backbone(str(tiny_backbone)), outcome.result.folder)
    torch.testing.assert_close(hidden(encoder), expected, rtol=1e-5, atol=1e-5)


HEADED: dict[str, type[PreTrainedModel]] = {
    "SEQ_CLS": XLMRobertaForSequenceClassification,
    "TOKEN_CLS": XLMRobertaForTokenClassification,
    "QUESTION_ANS": XLMRobertaForQuestionAnswering,
}
RANKS = {"rank_pattern": {"layer.1.attention.self.query": 2, "value": 7}, "alpha_pattern": {"layer.0.attention.self.query": 3, "value": 5}}  # fmt: skip


@pytest.mark.parametrize(
    ("task_type", "own"),
    [
        *((name, {}) for name in HEADED),
        ("SEQ_CLS", {"target_modules": "all-linear"}),
        ("SEQ_CLS", RANKS),
        ("TOKEN_CLS", RANKS | {"use_rslora": True}),
        ("QUESTION_ANS", RANKS | {"use_dora": True}),
        ("SEQ_CLS", {"rank_pattern": {r".*layer\.[01]\.attention\.self\.value": 3}}),
        ("SEQ_CLS", {"alpha_pattern": {"attention.self.value": 1, "value": 100}}),
    ],
)
def test_a_lora_with_a_head_is_imported_without_it(
    task_type: str, own: dict[str, Any], tiny_backbone: Path, tmp_path: Path
) -> None:
    """What plain peft makes of its folder, head and patterns included, is what the encoder gives here."""
    kind, folder = HEADED[task_type], tmp_path / "m"
    shape: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"]} | own
    model = get_peft_model(kind.from_pretrained(tiny_backbone), LoraConfig(task_type=task_type, **shape))
    shake(model, 0)
    model.save_pretrained(folder)
    plain = PeftModel.from_pretrained(kind.from_pretrained(tiny_backbone), str(folder)).base_model.model.roberta
    found = read_module_folder(folder)
    values = values_of("lora", tiny_backbone, folder) | {"targets": []}
    values["regimes"]["lora"] |= {"compositions": ["none"], **found.regime.model_dump(exclude={"name"})}
    plan = make_plan(make_recipe(values, place="the test"))
    (outcome,) = ran(plan, Store(tmp_path / "runs")).values()
    assert outcome.result
    regime, backbone = regime_of(outcome.result), Backbone(str(tiny_backbone))
    for merged in (False, True):
        encoder = regime.load(backbone, outcome.result.folder, merged=merged)
        torch.testing.assert_close(hidden(encoder), hidden(plain), rtol=1e-5, atol=1e-5)
    # deltas to be stacked, averaged and fused are peft's own
    if not found.regime.use_dora:
        ours = read_lora(outcome.result.folder)
        for layer, (a, b) in ours.pairs("read").items():
            theirs = plain.get_submodule(layer).get_delta_weight("default")
            torch.testing.assert_close(ours.scaling * b @ a, theirs, rtol=1e-5, atol=1e-6)
    # what is left out is told, as the file and as the tensors have it
    config = json.loads((folder / "adapter_config.json").read_text())
    heads = [key.removeprefix("base_model.model.") for key in load_file(folder / "adapter_model.safetensors")]
    left = [key for key in heads if not key.startswith("roberta.")]
    assert len(left) >= 2
    assert [name for name in (*config["modules_to_save"], *left) if name not in " ".join(plan.notes)] == []


def test_tensors_of_two_ranks_in_one_layer_are_refused(tiny_backbone: Path, tmp_path: Path) -> None:
    folder = save_lora(tiny_backbone, tmp_path / "m", rank_pattern={"query": 2})
    tensors = load_file(folder / "adapter_model.safetensors")
    name = next(key for key in tensors if key.endswith("query.lora_B.weight"))
    tensors[name] = torch.cat([tensors[name], tensors[name]], dim=1)
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(UserError, match="rank"):
        read_module_folder(folder)


def wider(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name] = torch.cat([tensors[name], tensors[name]], dim=-1)


def missing(tensors: dict[str, Tensor], name: str) -> None:
    del tensors[name]


def deeper(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name.replace("layer.1.", "layer.9.")] = tensors[name].clone()


def infinite(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name][0] = torch.inf


def whole_numbers(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name] = tensors[name].to(torch.int32)


@pytest.mark.parametrize("change", [wider, missing, deeper, infinite, whole_numbers])
@every_kind
def test_tensors_that_the_backbone_has_no_place_for_are_named(
    kind: str, change: Callable[[dict[str, Tensor], str], None], tiny_backbone: Path, tmp_path: Path
) -> None:
    folder, store = SAVE[kind](tiny_backbone, tmp_path / "module"), Store(tmp_path / "runs")
    file = folder / read_name(kind)
    tensors = load_file(file)
    name = sorted(key for key in tensors if "layer.1." in key and key.endswith("weight"))[0]
    shape = list(tensors[name].shape)
    change(tensors, name)
    save_file(tensors, file)
    (outcome,) = run_plan(planned(kind, tiny_backbone, folder, targets=[]), store, Silent())
    assert isinstance(outcome.error, UserError)
    shown = name.replace("layer.1.", "layer.9.") if change is deeper else name
    bare = shown.removeprefix("base_model.model.").removeprefix("roberta.")
    assert bare in str(outcome.error)
    assert change is not wider or (str(shape) in str(outcome.error) and str([*shape[:-1], 2 * shape[-1]]) in str(outcome.error))  # fmt: skip
    assert not store.folder(outcome.stage).exists()


def test_damaged_weights_and_what_is_no_module_are_refused(tiny_backbone: Path, tmp_path: Path) -> None:
    folder = save_lora(tiny_backbone, tmp_path / "m")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    (tmp_path / "empty").mkdir()
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "adapter_config.json").write_text("[1]")
    stacked = save_lora(tiny_backbone, tmp_path / "stacked")
    (stacked / "below").mkdir()
    for wrong in (folder, tmp_path / "empty", tmp_path / "list", stacked, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=wrong.name):
            read_module_folder(wrong)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("adapter", {"reduction_factor": 4}),
        ("adapter", {"non_linearity": "relu"}),
        ("lora", {"r": 2}),
        ("lora", {"target_modules": ["query"]}),
        ("lora", {"use_rslora": True}),
    ],
)
def test_a_module_of_another_shape_than_the_studys_is_refused(
    kind: str, shape: dict[str, Any], tiny_backbone: Path, tmp_path: Path
) -> None:
    folder = SAVE[kind](tiny_backbone, tmp_path / "module", **shape)
    with pytest.raises(UserError) as refused:
        planned(kind, tiny_backbone, folder)
    assert next(iter(shape)) in str(refused.value)
    values = values_of(kind, tiny_backbone, folder)
    values["regimes"][kind] |= shape
    assert make_plan(make_recipe(values, place="the test")).stages[0].kind == "import"


@every_kind
def test_a_module_of_another_regime_or_task_is_refused(kind: str, tiny_backbone: Path, tmp_path: Path) -> None:
    folder = SAVE[kind](tiny_backbone, tmp_path / "module")
    other = next(name for name in REGIMES if name != kind)
    with pytest.raises(UserError, match=f"--regime {kind}"):
        planned(other, tiny_backbone, folder)
    full = {"regimes": {"full": {"compositions": ["continue"]}}}
    with pytest.raises(UserError, match=f"regime {kind}"):
        planned(kind, tiny_backbone, folder, **full)
    with pytest.raises(UserError, match="qqp"):
        planned(kind, tiny_backbone, folder, modules={"qqp": str(folder)})
    values = values_of(kind, tiny_backbone, folder) | {"intermediate": ["mnli", "qqp"]}
    values["regimes"][kind]["compositions"] = ["multitask"]
    recipe = make_recipe(values, place="the test")
    with pytest.raises(UserError, match="multitask"):
        make_plan(recipe)


def test_a_recipe_file_names_modules_from_where_it_lies(tiny_backbone: Path, tmp_path: Path) -> None:
    save_lora(tiny_backbone, tmp_path / "modules" / "mnli")
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "intermediate: [mnli]\nmodules: {mnli: modules/mnli}\n"
        "regimes: {lora: {compositions: [none], r: 4, lora_alpha: 8, target_modules: [query, value]}}\n"
    )
    recipe = load_recipe(file, options={"backbone": str(tiny_backbone), "data": "embedded"})
    (stage,) = make_plan(recipe).stages
    assert stage.kind == "import"
    assert Path(stage.where["module"]).samefile(tmp_path / "modules" / "mnli")


def test_the_command_and_the_option_give_one_artefact(tiny_backbone: Path, tmp_path: Path) -> None:
    folder, store = save_lora(tiny_backbone, tmp_path / "m"), tmp_path / "runs"
    same = ["--backbone", str(tiny_backbone), "--store", str(store)]
    made = CliRunner().invoke(app, ["import", str(folder), "--task", "mnli", *same])
    assert made.exit_code == 0, made.output
    artefact = Path(made.stdout.partition("artefact: ")[2].splitlines()[0])
    assert (artefact / "manifest.json").is_file()
    small = ["--data", "embedded", "--max-train-samples", "16", "--max-eval-samples", "8", "--max-steps", "1"]
    shape = ["--regime", "lora", "--lora-r", "4", "--lora-alpha", "8", "--target-modules", "query,value"]
    command = ["train-target", "--task", "udpos", "--intermediate", "mnli", "--module", f"mnli={folder}"]
    trained = CliRunner().invoke(app, [*command, *shape, *small, *same])
    assert trained.exit_code == 0, trained.output
    assert [path.name for path in (store / "import").iterdir() if path.is_dir()] == [artefact.name]
    assert f"--module mnli={folder}" in trained.stdout
    for wrong in (["--module", "mnli"], ["--module", f"mnli={folder}"] * 2):
        refused = CliRunner().invoke(app, ["evaluate", "--task", "udpos", "--intermediate", "mnli", *wrong, *same])
        assert isinstance(refused.exception, UserError)
    wrong_regime = CliRunner().invoke(app, ["import", str(folder), "--task", "mnli", "--regime", "adapter", *same])
    assert isinstance(wrong_regime.exception, UserError)
