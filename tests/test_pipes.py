"""Output whose reader leaves early, as `head` does: no traceback, no complaint, an exit code that says no more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from xadapt_cli.app import app

MAIN = "from xadapt_cli.app import main; main()"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Path:
    """A folder with a recipe and the store in which it has run."""
    folder = tmp_path_factory.mktemp("study")
    recipe = {
        "name": "s",
        "backbone": str(tiny_backbone),
        "data": "embedded",
        "targets": ["tatoeba"],
        "languages": ["de"],
    }
    (folder / "s.yaml").write_text(yaml.safe_dump(recipe))
    ran = CliRunner().invoke(app, ["run", str(folder / "s.yaml"), "--store", str(folder / "runs")])
    assert ran.exit_code == 0, ran.output
    return folder


COMMANDS = [
    ["--help"], ["tasks"], ["tasks", "--json"], ["languages"], ["regimes"], ["compare"], ["compare", "--json"],
    ["store", "ls"], ["plan", "s.yaml"], ["plan", "s.yaml", "--json"], ["run", "s.yaml"],
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_reader_that_leaves_is_no_error(command: list[str], study: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, *command], cwd=study, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"XADAPT_STORE": "runs"},
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stderr
        process.stdout.close()  # before anything is written
        said = process.stderr.read()
    assert process.returncode == 141
    # progress goes to stderr
    assert [line for line in said.splitlines() if "rror" in line or "xception" in line or "Traceback" in line] == []
    assert command[0] == "run" or said == ""


def test_an_error_keeps_its_code_and_message(study: Path) -> None:
    command = [sys.executable, "-c", MAIN, "compare", "nothing", "--store", "runs"]
    with subprocess.Popen(command, cwd=study, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert "'nothing'" in process.stderr.read()
    assert process.returncode == 2


def test_what_is_read_whole_ends_well(study: Path) -> None:
    done = subprocess.run([sys.executable, "-c", MAIN, "tasks"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") > 9
