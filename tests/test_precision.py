"""The data type that `auto` comes to: what hardware says of itself, what a study keeps, and that one gain has one."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from xadapt.study.plan import Plan, make_plan
from xadapt.study.precision import computes_bf16, gpu_capabilities, resolve_dtype
from xadapt.study.recipe_file import make_recipe
from xadapt.study.resolved import NOTHING, Resolved
from xadapt.study.store import Store
from xadapt_cli.app import app

BASE: dict[str, Any] = {
    "backbone": "embedded", "data": "embedded", "intermediate": ["mnli"], "targets": ["tatoeba"], "languages": ["de"],
    "regimes": {"adapter": {"compositions": ["none", "stack"]}, "lora": {"compositions": ["none", "stack"]}},
    "max_train_samples": 40, "training": {"max_steps": 1},
}  # fmt: skip


def planned(kept: Resolved = NOTHING, **changes: Any) -> Plan:
    return make_plan(make_recipe({**BASE, **changes}, place="the test"), kept=kept)


def dtypes(plan: Plan) -> dict[tuple[str, str], str]:
    return {(cell.regime, cell.composition): cell.evaluation.spec["dtype"] for cell in plan.cells}


def test_gpus_older_than_ampere_emulate_bfloat16_and_do_not_count() -> None:
    assert computes_bf16([(8, 0), (9, 0)])
    assert not computes_bf16([(7, 5)])  # T4
    assert not computes_bf16([(9, 0), (7, 0)])  # a stage may come to the V100


def test_a_gpu_of_any_number_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("xadapt.study.precision._torch_is_for_cpus", lambda: asked.append(None))
    for names, expected in (((), 0), (("nvidiactl", "nvidia-uvm"), 0), (("nvidia1",), 1), (("dxg",), 1)):
        folder = tmp_path / "-".join(("dev", *names))
        folder.mkdir()
        for name in names:
            (folder / name).touch()
        asked.clear()
        gpu_capabilities.__wrapped__(folder)
        assert len(asked) == expected, names


def test_on_this_machine_auto_is_what_its_hardware_has() -> None:
    import torch

    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        assert gpu_capabilities() == tuple(torch.cuda.get_device_capability(at) for at in range(count))
    else:
        assert gpu_capabilities() == ()
    assert resolve_dtype("auto") in ("float32", "bfloat16")
    assert resolve_dtype("float32") == "float32"


def test_retrieval_is_evaluated_in_the_regimes_own_data_type_whatever_lies_behind_it() -> None:
    regimes = {
        "adapter": {"compositions": ["none", "stack"], "training": {"dtype": "bfloat16"}},
        "lora": {"compositions": ["none", "stack"], "training": {"dtype": "float32"}},
    }
    expected = {
        ("adapter", "none"): "bfloat16", ("adapter", "stack"): "bfloat16", ("lora", "none"): "float32",
        ("lora", "stack"): "float32",
    }  # fmt: skip
    assert dtypes(planned(regimes=regimes)) == expected
    # a module that is trained in another one is evaluated beside `none` all the same
    own = {"mnli": {"dtype": "float32"}}
    assert set(dtypes(planned(tasks=own, training={"max_steps": 1, "dtype": "bfloat16"})).values()) == {"bfloat16"}


@pytest.mark.parametrize("began", ["bfloat16", "float32"])
def test_a_study_goes_on_in_the_data_type_it_began_with(began: str) -> None:
    here = resolve_dtype("auto")
    found = planned(Resolved(dtype=began))
    assert set(dtypes(found).values()) == {began}
    assert found.resolved.dtype == began
    assert any(began in note for note in found.notes) == (began != here)
    assert planned().resolved.dtype == here
    assert planned(Resolved(dtype=began), training={"dtype": "float32"}).cells[0].evaluation.spec["dtype"] == "float32"


def test_the_command_keeps_what_auto_came_to(tmp_path: Path) -> None:
    """The study's file is edited to have begun elsewhere; the same command then plans what it says."""
    command = ["evaluate", "--task", "tatoeba", "--backbone", "embedded", "--data", "embedded", "--languages", "de"]
    command += ["--max-predict-samples", "2", "--store", str(tmp_path)]
    assert CliRunner().invoke(app, command).exit_code == 0
    store = Store(tmp_path)
    ((name, study),) = store.studies().items()
    here = resolve_dtype("auto")
    assert study["resolved"]["dtype"] == here
    other = {"bfloat16": "float32", "float32": "bfloat16"}[here]
    store.write_study(name, {**study, "resolved": {"dtype": other, "commits": {}}})
    assert CliRunner().invoke(app, command).exit_code == 0
    assert {store.read(path).manifest["spec"]["dtype"] for path in (tmp_path / "evaluate").iterdir() if path.is_dir()} == {here, other}  # type: ignore[union-attr]  # fmt: skip
