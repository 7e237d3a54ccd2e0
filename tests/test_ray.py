"""A study on a real Ray cluster of two nodes of this machine, one of which is killed under its work."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from xadapt_cli.exit_codes import RESUMABLE, USER

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

PATIENCE = 400.0  # seconds until something that must come is given up on a machine under load
COMMAND = [sys.executable, "-c", "from xadapt_cli.app import main; main()"]
RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
QUIET = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
RECIPE = """
name: small
backbone: {backbone}
data: {data}
intermediate: [mnli]
targets: [udpos]
languages: [de]
regimes: {{adapter: {{compositions: [none, stack], reduction_factor: 4}}}}
training: {{max_steps: 600, per_device_train_batch_size: 8, dtype: float32}}
"""


@dataclass
class Cluster:
    """Two nodes of one core each: the head, whose processes end with the test, and one that can be killed."""

    address: str
    head: "subprocess.Popen[bytes]"
    other: "subprocess.Popen[bytes]"

    @classmethod
    def begun(cls, folder: Path) -> "Cluster":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        address = f"127.0.0.1:{port}"
        with (folder / "ray.log").open("wb") as log:
            head = cls._start(log, "--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}")
            until(lambda: _answers(address), "a head that answers")
            return cls(address, head, cls._start(log, f"--address={address}"))

    @staticmethod
    def _start(log: Any, *arguments: str) -> "subprocess.Popen[bytes]":
        size = ["--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats", "--block"]
        return subprocess.Popen(
            [*RAY, "start", *size, *arguments], env=QUIET, stdout=log, stderr=log, start_new_session=True
        )

    def end(self) -> None:
        for node in (self.other, self.head):
            node.send_signal(signal.SIGTERM)
        for node in (self.other, self.head):
            node.wait(60)


def _answers(address: str) -> bool:
    asked = [*RAY, "health-check", "--address", address]
    return subprocess.run(asked, env=QUIET, capture_output=True, check=False).returncode == 0


def until(true: Any, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.05)
    pytest.fail(f"{what} did not happen")


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def below(pid: int, ancestor: int) -> bool:
    """Whether a process was started by another one, or by one that it started."""
    while pid > 1:
        if pid == ancestor:
            return True
        pid = parent_of(pid)
    return False


def kill_tree(ancestor: int) -> None:
    """Kill a process and all that it started, at once, as a machine that loses its power does."""
    found = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    for pid in [pid for pid in found if _safely_below(pid, ancestor)]:
        os.kill(pid, signal.SIGKILL)


def _safely_below(pid: int, ancestor: int) -> bool:
    try:
        return below(pid, ancestor)
    except (OSError, ValueError):
        return False


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = Path("/tmp") / f"x{os.getpid()}"  # Ray's sockets want a short path
    folder.mkdir()
    found = Cluster.begun(folder)
    yield found
    found.end()
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_a_node_dies_and_the_study_completes_with_nothing_done_twice(
    cluster: Cluster, mirror: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    recipe, store = tmp_path / "small.yaml", tmp_path / "store"
    recipe.write_text(RECIPE.format(backbone=tiny_backbone, data=mirror))
    arguments = ["run", str(recipe), "--store", str(store), "--executor", "ray", "--address", cluster.address]

    def begin() -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*COMMAND, *arguments, "--save-every", "20"], env=QUIET, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def holders() -> dict[str, int]:
        return {file.name: json.loads(file.read_text())["pid"] for file in store.glob("train/*.holder")}

    def train_on_both() -> bool:
        kept = list(store.glob("train/*.partial/progress/*/"))
        return len(holders()) == 2 and len({path.parent for path in kept}) == 2

    process = begin()
    until(lambda: train_on_both() or process.poll() is not None, "checkpoints on both nodes")
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == RESUMABLE, said
    assert "2 interrupted, 3 not run" in said

    process = begin()
    until(lambda: len(holders()) == 2 or process.poll() is not None, "trainings on both nodes")
    assert process.poll() is None, process.communicate()
    on_other = [name for name, pid in holders().items() if below(pid, cluster.other.pid)]
    assert len(on_other) == 1
    kill_tree(cluster.other.pid)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert "5 succeeded" in said
    assert said.count("Ray lost it") == 1

    started = Counter(
        line.split("] ")[1] for line in said.splitlines() if line.startswith("[") and line.endswith("...")
    )
    assert sorted(started.values()) == [1, 1, 1, 1, 2], "only what was lost was started again"
    manifests = {path.parent.name: json.loads(path.read_text()) for path in store.glob("*/*/manifest.json")}
    assert len(manifests) == 5
    lost = manifests[on_other[0].removesuffix(".lock.holder")]
    assert len(lost["record"]["resumed_at"]) >= 1
    before = {path: path.stat().st_mtime_ns for path in store.rglob("manifest.json")}

    again = begin()
    _, said = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, said
    assert "5 cached" in said
    assert {path: path.stat().st_mtime_ns for path in store.rglob("manifest.json")} == before


def test_a_cluster_that_is_not_there_is_an_error_of_the_users(
    mirror: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE.format(backbone=tiny_backbone, data=mirror))
    arguments = ["run", str(recipe), "--store", str(tmp_path / "s"), "--executor", "ray", "--address", "127.0.0.1:1"]
    done = subprocess.run([*COMMAND, *arguments], env=QUIET, capture_output=True, text=True, check=False)
    assert done.returncode == USER, done.stderr
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr
