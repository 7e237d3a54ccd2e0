"""Who may take over a lock's holder file, where the kernel's lock does not reach from host to host."""

import json
import os
import time
from pathlib import Path

import pytest

from xadapt import locks
from xadapt.locks import holder_file, locked

LONG_AGO = 1000.0


def held_by(file: Path, host: str, *, seconds_ago: float = 0.0) -> str:
    """A holder's file as another host leaves it; its text."""
    text = json.dumps({"host": host, "pid": 7})
    file.write_text(text)
    touched = time.time() - seconds_ago
    os.utime(file, (touched, touched))
    return text


def test_what_a_dead_host_left_is_taken_over_and_gone_in_the_end(tmp_path: Path) -> None:
    lock = tmp_path / "stage.lock"
    held_by(holder_file(lock), "elsewhere", seconds_ago=LONG_AGO)
    with locked(lock, lambda: None):
        assert json.loads(holder_file(lock).read_text())["pid"] == os.getpid()
    assert [path.name for path in tmp_path.iterdir()] == [lock.name]


def test_a_host_that_comes_second_leaves_the_first_ones_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both found it stale; the first has taken it over by the time that this one comes to it."""
    file = holder_file(tmp_path / "stage.lock")
    held_by(file, "dead", seconds_ago=LONG_AGO)
    ages = [LONG_AGO]
    aged = locks._age

    def looked_at(path: Path) -> float:
        if ages:
            taken_over.append(held_by(file, "first"))
            return ages.pop()
        return aged(path)

    taken_over: list[str] = []
    monkeypatch.setattr(locks, "_age", looked_at)
    assert not locks._claimed(file, 120.0)
    assert file.read_text() == taken_over[0]
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_holder_that_lives_is_not_old_whatever_becomes_of_a_probe(tmp_path: Path) -> None:
    file = holder_file(tmp_path / "stage.lock")
    held_by(file, "elsewhere")
    assert locks._age(file) < 5
    file.unlink()
    assert locks._age(file) == locks.STALE


def test_a_holder_that_was_taken_for_dead_leaves_the_new_ones_file(tmp_path: Path) -> None:
    lock = tmp_path / "stage.lock"
    with locked(lock, lambda: None):
        text = held_by(holder_file(lock), "elsewhere")
    assert holder_file(lock).read_text() == text
