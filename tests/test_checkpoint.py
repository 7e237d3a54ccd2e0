"""Checkpoints: the newest whole one is found, whatever the system does while one is written and to those that are."""

import os
import random
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch
from test_store import error_of
from test_store_faults import at_call, die, disk_full, in_a_process

from xadapt.errors import UserError
from xadapt.training.checkpoint import Checkpoint, Checkpoints
from xadapt.training.settings import SaveEvery


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step, {"weights": torch.full((40,), float(step)), "losses": torch.zeros(0)}, {"loss": step / 3})


def checkpoints(folder: Path) -> Checkpoints:
    return Checkpoints(folder, SaveEvery())


def whole(folder: Path) -> list[int]:
    """The steps of the checkpoints that can be gone on from, each of which is exactly what was written."""
    found = list(checkpoints(folder).all())
    for each in found:
        expected = checkpoint(each.step)
        assert each.values == expected.values
        assert each.tensors.keys() == expected.tensors.keys()
        assert all(torch.equal(each.tensors[name], tensor) for name, tensor in expected.tensors.items())
    return [each.step for each in found]


def test_the_last_two_stay(tmp_path: Path) -> None:
    for step in (1, 2, 9, 10):
        checkpoints(tmp_path).write(checkpoint(step))
    assert whole(tmp_path) == [10, 9]
    assert {path.name for path in tmp_path.iterdir()} == {"step-9", "step-10"}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_what_is_read_lets_go_of_its_file(tmp_path: Path) -> None:
    """A network file system keeps what is mapped, and its folder cannot be deleted."""
    checkpoints(tmp_path).write(checkpoint(1))
    found = checkpoints(tmp_path).read(1)
    assert found
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_there_are_none_before_the_first(tmp_path: Path) -> None:
    assert whole(tmp_path / "none") == []


def test_any_damaged_byte_leads_to_the_one_before(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoints(tmp_path).write(checkpoint(step))
    draw = random.Random(0)
    for file in sorted((tmp_path / "step-2").iterdir()):
        content = file.read_bytes()
        for at in draw.sample(range(len(content)), 100):
            file.write_bytes(content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :])
            assert whole(tmp_path) in ([1], [2, 1])
            # a space in JSON's place for a space is the one change that changes nothing
            assert whole(tmp_path) == [1] or file.suffix == ".json"
            file.write_bytes(content[:at])
            assert whole(tmp_path) == [1]
        file.write_bytes(content)
        file.unlink()
        assert whole(tmp_path) == [1]
        file.write_bytes(content)
    assert whole(tmp_path) == [2, 1]


def test_any_failing_system_call_leaves_those_before(tmp_path: Path) -> None:
    for number in range(1, 100):
        folder = tmp_path / str(number)
        checkpoints(folder).write(checkpoint(1))
        with at_call(number, disk_full) as made:
            error = error_of(lambda folder=folder: checkpoints(folder).write(checkpoint(2)))
        assert error is None or all(part in str(error) for part in (str(folder), "160 bytes", "No space left"))
        if len(made) < number:
            break
        assert whole(folder) in ([1], [2, 1])
        checkpoints(folder).write(checkpoint(3))
        assert whole(folder)[0] == 3
    assert number > 5
    assert {"fsync", "rename", "mkdir", "write"} <= set(made)


def test_a_file_that_cannot_grow_leaves_those_before(tmp_path: Path) -> None:
    checkpoints(tmp_path).write(checkpoint(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        with pytest.raises(UserError, match="160 bytes"):
            checkpoints(tmp_path).write(checkpoint(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert whole(tmp_path) == [1]
    checkpoints(tmp_path).write(checkpoint(2))
    assert whole(tmp_path) == [2, 1]


def die_at_every_call(root: str) -> None:
    """For each n: a fork that dies at its n-th system call while it writes, then one that must find its way."""
    for number in range(1, 100):
        folder = Path(root, str(number))
        for step in (1, 2):
            checkpoints(folder).write(checkpoint(step))
        child = os.fork()
        if child == 0:
            with at_call(number, die):
                checkpoints(folder).write(checkpoint(3))
            os._exit(0)
        ended = os.waitpid(child, 0)[1]
        assert whole(folder) in ([2, 1], [3, 2], [3, 2, 1])
        checkpoints(folder).write(checkpoint(4))
        assert whole(folder)[0] == 4
        shutil.rmtree(folder)
        if ended == 0:
            print(number)
            return
        assert ended == signal.SIGKILL
    raise AssertionError("it never ended well")


def test_a_process_killed_at_any_system_call_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    with in_a_process("die_at_every_call", tmp_path, module="test_checkpoint") as process:
        number, _ = process.communicate()
    assert process.returncode == 0
    assert int(number) > 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [("200", SaveEvery(steps=200)), ("30s", SaveEvery(seconds=30)), ("10m", SaveEvery(seconds=600)), ("2h", SaveEvery(seconds=7200))],
)  # fmt: skip
def test_how_often_is_steps_or_a_time(text: str, expected: SaveEvery) -> None:
    assert SaveEvery.of(text) == expected


@pytest.mark.parametrize("text", ["", "0", "0m", "-3", "10d", "ten", "1.5h", "1" * 12])
def test_other_intervals_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=f"--save-every {text}"):
        SaveEvery.of(text)


def test_one_is_due_every_so_many_steps(tmp_path: Path) -> None:
    every = Checkpoints(tmp_path, SaveEvery(steps=3))
    assert [step for step in range(1, 8) if every.due(step)] == [3, 6]
    assert not any(checkpoints(tmp_path).due(step) for step in range(1, 8))
