"""A study left alone, the same one killed again and again, and on a Ray cluster of two nodes: are their scores one?

    python experiments/reliability/disturbed.py RECIPE MIRROR FOLDER [--kills 5] [--seed 0] [--ways alone,killed,ray]

Each way has a store of its own below FOLDER and runs the recipe through the command line. `killed` sends SIGKILL to the
run and all that it started at moments drawn at random, and types the command again each time. Prints, for each
way, the seconds, how often a stage was begun and how many were, and the SHA-256 of the exported table of scores; exits
with 1 unless all are equal. The threads of OMP_NUM_THREADS are those of every way, so that sums are added up alike.
"""

import argparse
import hashlib
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COMMAND = [sys.executable, "-c", "from xadapt_cli.app import main; main()"]
RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
# a token of its own: for other users of this machine the cluster does not exist
SURROUNDINGS = {
    **os.environ,
    "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}


@dataclass
class Way:
    """One way to run the study: its store, and what its commands have said."""

    name: str
    command: list[str]
    store: Path

    @property
    def log(self) -> Path:
        return self.store.with_suffix(".log")

    def start(self, *options: str) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*self.command, "--store", str(self.store), *options],
                env=SURROUNDINGS, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def finish(self, *options: str) -> None:
        if code := self.start(*options).wait():
            sys.exit(f"{self.name}: exit code {code}, see {self.log}")

    def scores(self) -> str:
        (table,) = self.store.glob("reports/*/scores.csv")
        return hashlib.sha256(table.read_bytes()).hexdigest()

    def stages(self) -> tuple[int, int]:
        """How many stages succeeded in all commands together, and how many different ones."""
        lines = re.findall(r"^\[\d+/\d+\] succeeded (.*?) in [\d.]+ s", self.log.read_text(), re.MULTILINE)
        return len(lines), len(set(lines))


def alone(way: Way, _: argparse.Namespace) -> None:
    way.finish()


def killed(way: Way, arguments: argparse.Namespace) -> None:
    draw = random.Random(arguments.seed)
    for number in range(1, arguments.kills + 1):
        seconds = draw.uniform(*arguments.between)
        process = way.start("--save-every", "1")
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            print(f"  kill {number} after {seconds:.1f} s", flush=True)
        else:
            sys.exit(f"killed: ended with {code} before kill {number} at {seconds:.1f} s; give a smaller --between")
    way.finish("--save-every", "1")


def ray(way: Way, _: argparse.Namespace) -> None:
    with two_nodes(way.log) as address:
        way.finish("--executor", "ray", "--address", address)


@contextmanager
def two_nodes(log: Path) -> Iterator[str]:
    """The address of a cluster of two nodes of one core each on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    folder = tempfile.mkdtemp(prefix="x", dir="/tmp")  # Ray's sockets want a short path
    port = address.rpartition(":")[2]
    nodes = [_node(log, "--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}")]
    try:
        _until_answered(address)
        nodes.append(_node(log, f"--address={address}"))
        yield address
    finally:
        for node in reversed(nodes):
            node.send_signal(signal.SIGTERM)
            node.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _node(log: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    size = ["--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats", "--block"]
    with log.open("ab") as said:
        return subprocess.Popen(
            [*RAY, "start", *size, *arguments], env=SURROUNDINGS, stdout=said, stderr=said, start_new_session=True
        )


def _until_answered(address: str) -> None:
    asked = [*RAY, "health-check", "--address", address]
    for _ in range(60):
        if subprocess.run(asked, env=SURROUNDINGS, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(1)
    sys.exit(f"no Ray cluster answers at {address}")


WAYS: dict[str, Callable[[Way, argparse.Namespace], None]] = {"alone": alone, "killed": killed, "ray": ray}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("mirror")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--between", type=float, nargs=2, default=(10.0, 80.0), help="seconds until a kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", default=",".join(WAYS))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, str] = {}
    for name in arguments.ways.split(","):
        command = [*COMMAND, "run", arguments.recipe, "--data", arguments.mirror]
        way, start = Way(name, command, arguments.folder / name), time.monotonic()
        WAYS[name](way, arguments)
        found[name] = way.scores()
        print(f"{name}: {time.monotonic() - start:.0f} s, stages {way.stages()}, scores {found[name]}", flush=True)
    sys.exit(0 if len(set(found.values())) == 1 else 1)


if __name__ == "__main__":
    main()
