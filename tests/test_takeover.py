"""A host that stood still while another took its lock over: nothing that it does then counts, or changes anything.

Two hosts whose file system shares no locks are two processes of which each has kernel locks of its own. The first is
really stopped (SIGSTOP), and goes on once the second has taken over.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_inventory import partial
from test_store import AFTER, CONTENT, STAGE, assert_whole, error_of, run, work
from test_store_faults import in_a_process, line_of

from xadapt import locks
from xadapt.locks import Held, LockLost, holder_file
from xadapt.study import cleaning, transfer
from xadapt.study.cleaning import drop, find_waste
from xadapt.study.inventory import list_entries, lock_of
from xadapt.study.store import PROGRESS, Store
from xadapt.study.transfer import carry, choose
from xadapt.study.unfinished import own_folder, put_in_place

KERNEL = locks.FileLock
STALE = 0.3
CHECKPOINT = "step-1/state.bin"


def host(name: str, root: Path) -> dict[str, Callable[..., Any]]:
    """What the modules see on a host of this name."""
    own = root.parent / f"locks of {name}"
    own.mkdir(exist_ok=True)
    return {"FileLock": lambda path: KERNEL(own / Path(path).name), "gethostname": lambda: name}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store, seen from the second host, which does not wait for long."""
    root = tmp_path / "store"
    seen = host("two", root)
    monkeypatch.setattr(locks, "FileLock", seen["FileLock"])
    monkeypatch.setattr(socket, "gethostname", seen["gethostname"])
    monkeypatch.setattr(locks, "STALE", STALE)
    monkeypatch.setattr(locks, "POLL", 0.05)
    return root


# ---- on the first host


def stands_still(at: str, root: str, *arguments: str) -> None:
    """Do something in which it is stopped, and say how it ended."""
    seen = host("one", Path(root))
    locks.FileLock, socket.gethostname = seen["FileLock"], seen["gethostname"]  # type: ignore[assignment,misc]
    try:
        print(DOINGS[at](Path(root), *arguments), flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)


def stop() -> None:
    print("stopping", flush=True)
    sys.stdin.readline()


def train(root: Path, at: str) -> str:
    def slowly(folder: Path) -> dict[str, Any]:
        (folder / PROGRESS / CHECKPOINT).parent.mkdir(parents=True)
        (folder / PROGRESS / CHECKPOINT).write_bytes(b"one")
        with open(folder / PROGRESS / "log.jsonl", "a") as log:
            log.write("one\n")
            log.flush()
            if at == "the end":
                made = work(folder)
            stop()
            log.write("late\n")
        if at == "the middle":
            made = work(folder)
        if at == "anew":
            (folder / "below").mkdir(parents=True)
            made = work(folder)
        return made

    run(Store(root), work=slowly)
    return "made"


def collect(root: Path) -> bool:
    (waste,) = find_waste(root, resumable=True)[0]
    real = cleaning.remove

    def late(*arguments: Any) -> bool:
        stop()
        return real(*arguments)

    cleaning.remove = late
    return drop(waste)


def bring(root: Path, source: str, at: str) -> str:
    real, name = getattr(transfer, at), at

    def late(*arguments: Any) -> Any:
        setattr(transfer, name, real)
        stop()
        return real(*arguments)

    setattr(transfer, at, late)
    return str([how for _, how in carry(choose(Path(source)), root, waiting=lambda _: None)])


DOINGS: dict[str, Callable[..., Any]] = {"train": train, "collect": collect, "bring": bring}


# ---- seen from the second


@contextmanager
def stopped(at: str, root: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The first host, standing still."""
    process = in_a_process("stands_still", at, root, *arguments, module="test_takeover")
    try:
        assert line_of(process) == "stopping"
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.communicate()


def goes_on(process: subprocess.Popen[str]) -> str:
    """How it ends when it is let go."""
    assert process.stdin
    process.send_signal(signal.SIGCONT)
    process.stdin.write("\n")
    process.stdin.flush()
    return line_of(process)


def in_place(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("at", ["the middle", "the end", "anew"])
def test_a_stage_is_made_by_who_took_it_over_from_where_it_stood(root: Path, at: str) -> None:
    store = Store(root)

    def go_on(folder: Path) -> dict[str, Any]:
        assert in_place(folder) == {f"{PROGRESS}/{CHECKPOINT}": b"one", f"{PROGRESS}/log.jsonl": b"one\n"}
        return work(folder)

    with stopped("train", root, at) as process:
        made = run(store, work=go_on)
        before = in_place(made.folder)
        assert goes_on(process) == "LockLost"
    assert in_place(made.folder) == before
    assert store.verified(STAGE).manifest == made.manifest


@pytest.mark.parametrize("at", ["the middle", "the end", "anew"])
def test_who_stood_still_does_not_disturb_who_is_at_work(root: Path, at: str) -> None:
    """It ends before the other does: its holder's file, its log and its folder stay as they are."""
    store, file = Store(root), holder_file(lock_of(Store(root).folder(STAGE)))

    def go_on(folder: Path) -> dict[str, Any]:
        said, before = file.read_text(), in_place(folder)
        assert goes_on(process) == "LockLost"
        assert (file.read_text(), in_place(folder)) == (said, before)
        assert store.partial(STAGE) == folder
        assert store.find(STAGE) is None
        return work(folder)

    with stopped("train", root, at) as process:
        run(store, work=go_on)
    assert_whole_here(store)


def assert_whole_here(store: Store) -> None:
    """As assert_whole, with the kernel's locks elsewhere."""
    lock_of(store.folder(STAGE)).touch()
    assert_whole(store)


def test_what_is_gone_on_with_is_not_deleted(root: Path) -> None:
    store = Store(root)
    partial(store, STAGE, f"{PROGRESS}/{CHECKPOINT}")
    with stopped("collect", root) as process:
        run(store, work=lambda folder: {"kept": (folder / PROGRESS / CHECKPOINT).is_file()})
        assert goes_on(process) == "False"
    assert store.verified(STAGE).record == {"kept": True}


def test_a_result_that_was_made_in_the_place_of_an_empty_folder_stays(root: Path) -> None:
    store = Store(root)
    store.folder(STAGE).mkdir(parents=True)
    lock_of(store.folder(STAGE)).touch()
    with stopped("collect", root) as process:
        run(store)
        assert goes_on(process) == "False"
    assert_whole_here(store)


@pytest.mark.parametrize("at", ["_copy", "_copy_file", "put_in_place"])
def test_a_late_import_changes_nothing(root: Path, tmp_path: Path, at: str) -> None:
    run(Store(tmp_path / "source"))
    with stopped("bring", root, tmp_path / "source", at) as process:
        assert [how for _, how in carry(choose(tmp_path / "source"), root, waiting=lambda _: None)] == ["copied"]
        status = (Store(root).folder(STAGE) / "manifest.json").stat()
        assert goes_on(process) == "LockLost"
    assert (Store(root).folder(STAGE) / "manifest.json").stat().st_ino == status.st_ino
    assert_whole_here(Store(root))


# ---- names of folders


def test_only_a_folder_of_ones_own_becomes_the_result(tmp_path: Path) -> None:
    """It was taken away between the last look at the lock and the commit."""
    store = Store(tmp_path)
    run(store)
    with locks.locked(lock_of(store.folder(STAGE)), lambda: None) as held:
        made = own_folder(store.folder(STAGE), held, ".partial")
        with pytest.raises(FileNotFoundError):
            put_in_place(made, store.folder(STAGE), held)
        assert_whole_files(store)
        made.mkdir()
        with pytest.raises(LockLost, match=str(held.file)):
            put_in_place(made, store.folder(STAGE), Held(held.file, "0" * 16, taken_over=False))
        assert_whole_files(store)


def assert_whole_files(store: Store) -> None:
    store.verified(STAGE)
    assert set(in_place(store.folder(STAGE))) == {*CONTENT, "manifest.json"}


@pytest.mark.parametrize("name", [".partial", f".{'0f' * 8}.partial"])
def test_what_an_earlier_start_left_is_gone_on_with_whatever_its_name(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    left = partial(store, STAGE, f"{PROGRESS}/{CHECKPOINT}", "half.bin", "error.txt")
    other = store.folder(STAGE).with_name(store.folder(STAGE).name + name)
    os.rename(left, other)
    (entry,) = list_entries(tmp_path)
    assert (entry.folder, entry.state, entry.key) == (other, "resumable", STAGE.key[:16])
    seen: list[set[str]] = []
    run(store, work=lambda folder: seen.append(set(in_place(folder))) or work(folder))  # type: ignore[func-returns-value]
    assert seen == [{f"{PROGRESS}/{CHECKPOINT}"}]
    assert_whole(store)


def test_of_several_the_latest_with_progress_is_gone_on_with(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for age, (token, files) in enumerate((("a" * 16, [f"{PROGRESS}/new"]), ("b" * 16, [f"{PROGRESS}/old"]), ("c" * 16, ["half.bin"]))):  # fmt: skip
        folder = store.folder(STAGE).with_name(f"{store.folder(STAGE).name}.{token}.partial")
        os.rename(partial(store, STAGE, *files), folder)
        if (folder / PROGRESS).is_dir():
            os.utime(folder / PROGRESS, (1000 - age, 1000 - age))
    seen: list[set[str]] = []
    run(store, work=lambda folder: seen.append(set(in_place(folder))) or work(folder))  # type: ignore[func-returns-value]
    assert seen == [{f"{PROGRESS}/new"}]
    assert_whole(store)


@pytest.mark.parametrize("suffix", [".partial", ".incoming", ".gone"])
def test_every_unfinished_folder_is_found_and_cleaned(tmp_path: Path, suffix: str) -> None:
    store = Store(tmp_path)
    folder = store.folder(AFTER).with_name(f"{store.folder(AFTER).name}.{'0f' * 8}{suffix}")
    (folder / "below").mkdir(parents=True)
    lock_of(folder).touch()
    (waste,) = find_waste(tmp_path)[0]
    assert (waste.path, waste.lock) == (folder, lock_of(store.folder(AFTER)))
    assert drop(waste)
    assert list(folder.parent.iterdir()) == []


def test_a_stage_that_fails_leaves_a_folder_without_a_token(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(folder: Path) -> dict[str, Any]:
        assert store.partial(STAGE) == folder
        raise ZeroDivisionError

    assert isinstance(error_of(lambda: run(store, work=fail)), ZeroDivisionError)
    assert store.partial(STAGE) == store.folder(STAGE).with_suffix(".partial")
    assert store.partial(STAGE).is_dir()
