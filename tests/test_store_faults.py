"""The store when the system fails it: full disks, killed processes, and eight that want the same at once."""

import builtins
import errno
import io
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from filelock import FileLock
from test_store import CONTENT, STAGE, assert_whole, error_of, run, small_study, work

from xadapt.study.stage import Stage
from xadapt.study.store import Store, verify
from xadapt.study.study_files import read_studies

CALLS = ("open", "mkdir", "rename", "replace", "fsync")  # of os; beside them, opening a file to write


@contextmanager
def at_call(number: int, act: Callable[[], None]) -> Iterator[list[str]]:
    """Count calls to the system in order and act before the one of this number; the list names those made."""
    made: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            mode = options.get("mode", args[1] if len(args) > 1 else "r")
            if name != "write" or set(str(mode)) & set("wax"):
                made.append(name)
                if len(made) == number:
                    act()
            return real(*args, **options)

        return call

    for name in CALLS:
        patch.object(os, name, counted(name, getattr(os, name))).start()
    writing = counted("write", open)
    patch.object(builtins, "open", writing).start()
    patch.object(io, "open", writing).start()
    try:
        yield made
    finally:
        patch.stopall()


def disk_full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_any_failing_system_call_leaves_a_whole_result_or_none(tmp_path: Path) -> None:
    failures = 0
    for number in range(1, 200):
        store = Store(tmp_path / str(number))
        with at_call(number, disk_full) as made:
            error = error_of(lambda store=store: run(store))
        assert error is None or (isinstance(error, OSError) and error.errno == errno.ENOSPC)
        failures += error is not None
        if len(made) < number:
            break
        if found := store.find(STAGE):
            verify(found)
        run(store)
        assert_whole(store)
        shutil.rmtree(store.root)
    assert {"write", "fsync", "rename", "mkdir"} <= set(made)
    assert failures > len(CONTENT) * 2


def in_a_process(call: str, *args: object, module: str = "test_store_faults", **options: Any) -> subprocess.Popen[str]:
    """Start a function of a test file in a process of its own."""
    program = f"import sys, {module}; {module}.{call}(*sys.argv[1:])"
    command = [sys.executable, "-c", program, *map(str, args)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=Path(__file__).parent, **pipes)


def die_at_every_call(root: str) -> None:
    """For each n: a fork that dies at its n-th system call, then a run that must find its way."""
    for number in range(1, 200):
        store = Store(Path(root, str(number)))
        child = os.fork()
        if child == 0:
            with at_call(number, die):
                run(store)
            os._exit(0)
        ended = os.waitpid(child, 0)[1]
        if found := store.find(STAGE):
            verify(found)
        run(store)
        assert_whole(store)
        if ended == 0:
            print(number)
            return
        assert ended == signal.SIGKILL
    raise AssertionError("it never ended well")


def test_a_process_killed_at_any_system_call_leaves_a_whole_result_or_none(tmp_path: Path) -> None:
    with in_a_process("die_at_every_call", tmp_path) as process:
        number, _ = process.communicate()
    assert process.returncode == 0
    assert int(number) > len(CONTENT) * 2


def work_until_killed(root: str) -> None:
    def half(folder: Path) -> dict[str, Any]:
        (folder / "half.bin").write_bytes(b"half")
        print("working", flush=True)
        sys.stdin.read()
        return {}

    run(Store(root), work=half)


def line_of(process: subprocess.Popen[str], seconds: float = 60) -> str:
    """The next line a process prints, within a time."""
    assert process.stdout
    assert select.select([process.stdout], [], [], seconds)[0], "nothing printed in time"
    return process.stdout.readline().strip()


def test_a_process_killed_at_work_leaves_no_result_and_no_lock(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with in_a_process("work_until_killed", tmp_path) as process:
        assert line_of(process) == "working"
        process.kill()
    assert store.partial(STAGE).is_dir()
    assert store.find(STAGE) is None
    run(store)
    assert_whole(store)


def compete(root: str, tally: str) -> None:
    def count(folder: Path) -> dict[str, Any]:
        with open(tally, "a") as file:
            file.write("worked\n")
        return work(folder)

    result = Store(root).run(STAGE, count, waiting=lambda: print("waiting", flush=True))
    verify(result)
    print("found" if result.cached else "made", result.manifest["checksum"], flush=True)


def test_eight_processes_that_want_one_stage_do_its_work_once(tmp_path: Path) -> None:
    """The lock is held here until all eight wait for it."""
    store, tally = Store(tmp_path / "store"), tmp_path / "tally"
    lock = store.folder(STAGE).with_suffix(".lock")
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        processes = [in_a_process("compete", store.root, tally) for _ in range(8)]
        assert [line_of(process) for process in processes] == ["waiting"] * 8
    told = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sorted(how for how, _ in told) == ["found"] * 7 + ["made"]
    assert len({checksum for _, checksum in told}) == 1
    assert tally.read_text() == "worked\n"
    assert_whole(store)


MANY = [Stage("train", {"trial": number}, (), {}, f"trial {number}") for number in range(100)]


def compete_often(root: str, tally: str) -> None:
    def count(folder: Path) -> dict[str, Any]:
        with open(tally, "a") as file:
            file.write(f"{folder.name}\n")
        return work(folder)

    for stage in MANY:
        print(Store(root).run(stage, count, waiting=lambda: None).manifest["checksum"], flush=True)


def test_sixteen_processes_that_want_a_hundred_stages_do_each_once(tmp_path: Path) -> None:
    """All come to each stage at about the same time, since all have waited for the one before."""
    store, tally = Store(tmp_path / "store"), tmp_path / "tally"
    processes = [in_a_process("compete_often", store.root, tally) for _ in range(16)]
    told = [process.communicate(timeout=300)[0].split() for process in processes]
    assert len(told[0]) == len(MANY)
    assert all(checksums == told[0] for checksums in told)
    done = tally.read_text().split()
    assert len(done) == len(set(done)) == len(MANY)
    for stage in MANY:
        store.verified(stage)


def test_any_failing_system_call_leaves_every_study_that_was_there_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_study("s", small_study("0"))
    for number in range(1, 50):
        before = {study.title: study.content for study in read_studies(tmp_path)}
        with at_call(number, disk_full) as made, suppress(OSError):
            store.write_study("s", small_study(str(number)))
        after = {study.title: study.content for study in read_studies(tmp_path)}
        assert after.items() >= before.items()
        assert [study for title, study in after.items() if title not in before] in ([], [small_study(str(number))])
        assert not list((tmp_path / "studies").glob(".*"))
        if len(made) < number:
            break
    assert {"write", "fsync", "replace"} <= set(made)
    assert store.studies()["s"] == small_study(str(number))


def write_twenty(root: str, name: str) -> None:
    for number in range(20):
        Store(root).write_study("s", small_study(f"{name} {number}"))


def test_processes_that_write_one_study_lose_none_of_each_other(tmp_path: Path) -> None:
    processes = [in_a_process("write_twenty", tmp_path, name) for name in "ab"]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    kept = [study.content["setting"] for study in sorted(read_studies(tmp_path), key=lambda study: study.version)]
    for name in "ab":
        assert [text for text in kept if text.startswith(name)] == [f"{name} {number}" for number in range(20)]
    assert len(kept) == 40
