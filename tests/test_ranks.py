"""One training in two processes is that of one: shares of the rows, one gradient, one stop, one going on."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ranks_program import KINDS, train
from safetensors.torch import load_file
from test_training import without_dropout

from xadapt.models.backbone import Backbone


@pytest.fixture(scope="module")
def still_folder(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without dropout, whose draws differ between processes."""
    return without_dropout(tiny_backbone, tmp_path_factory.mktemp("ranks") / "xlm-r")


@pytest.fixture(scope="module")
def in_two(still_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two processes wrote to, started as `accelerate launch` starts them, on CPUs."""
    root = tmp_path_factory.mktemp("two")
    program = Path(__file__).with_name("ranks_program.py")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    ended = subprocess.run(
        [*launch, str(program), str(root), str(still_folder)], cwd=program.parent, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-4000:]
    return root


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_as_one(kind: str, in_two: Path, still_folder: Path, tmp_path: Path) -> None:
    train(tmp_path / "one", Backbone(str(still_folder)), kind)
    one, two = read(tmp_path / "one"), read(in_two / kind)
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
    assert {name: two[name] for name in ("best", "examples", "tokens")} == {name: one[name] for name in ("best", "examples", "tokens")}  # fmt: skip


@pytest.mark.slow
def test_a_stop_of_one_stops_both_and_they_go_on_to_the_same_bytes(in_two: Path) -> None:
    straight, stopped = read(in_two / "full tagging"), read(in_two / "stopped")
    assert stopped["resumed"] == [3]
    assert stopped["losses"] == straight["losses"]
    first, second = (load_file(in_two / name / "state.safetensors") for name in ("full tagging", "stopped"))
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)
