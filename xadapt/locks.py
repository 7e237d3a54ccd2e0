"""Locks between processes of one machine or of several that share a folder, and who holds them."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from xadapt import interruption

# a holder shows that it lives every HEARTBEAT seconds; another host takes over after STALE without one
HEARTBEAT, STALE, POLL = 20.0, 120.0, 0.5


@contextmanager
def locked(path: Path, waiting: Callable[[], None], *, stale: float = STALE) -> Iterator[None]:
    """Hold a lock file; `waiting` is called once if another process holds it first. Raises Interrupted while it waits.

    On one machine the lock is the kernel's and goes with the process that held it. Not every network file system
    shares such locks between hosts: so the holder also keeps a file beside it, `<name>.holder`, with its host and pid,
    and touches it while it lives. Another host respects that for `stale` seconds after the last touch.
    """
    told: list[None] = []

    def wait() -> None:
        if not told:
            told.append(None)
            waiting()

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        wait()
        _acquire(lock)
    try:
        with _held(holder_file(path), wait, stale):
            yield
    finally:
        lock.release()


@contextmanager
def locked_if_free(path: Path, *, stale: float = STALE) -> Iterator[bool]:
    """Hold a lock file if nobody does, without waiting; gives whether it is held now."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        yield False
        return
    try:
        file = holder_file(path)
        yield not (_foreign(file) and _age(file) < stale)
    finally:
        lock.release()


def holder(path: Path) -> str:
    """Who holds a lock file, as `host, pid 123`; empty if that cannot be told."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(holder_file(path).read_text(encoding="utf-8"))
        return f"{found['host']}, pid {found['pid']}"
    return ""


def holder_file(path: Path) -> Path:
    """Where it is said who holds a lock file; a process that is killed leaves it, until the next one holds the lock."""
    return path.with_name(f"{path.name}.holder")


def _acquire(lock: FileLock) -> None:
    try:
        lock.acquire(cancel_check=lambda: interruption.requested() is not None)
    except TimeoutError:  # how it says that it was called off
        interruption.check()
        raise


@contextmanager
def _held(file: Path, wait: Callable[[], None], stale: float) -> Iterator[None]:
    """Say who holds the lock and that it lives, once no other host says so."""
    while not _claimed(file, stale):
        wait()
        interruption.check()
        time.sleep(POLL)
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(file, ended), daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()
        if not _foreign(file):  # another host may have taken over while this one stood still
            file.unlink(missing_ok=True)


def _claimed(file: Path, stale: float) -> bool:
    """Whether the holder's file is ours now: there was none, or one of a process that is no more."""
    text = json.dumps({"host": socket.gethostname(), "pid": os.getpid()})
    if (_foreign(file) and _age(file) < stale) or not _put_away(file, stale):
        return False
    try:  # of several hosts that find none, one makes it
        with open(file, "x", encoding="utf-8") as made:
            made.write(text)
    except FileExistsError:
        return False
    return True


def _put_away(file: Path, stale: float) -> bool:
    """Remove what a holder left; False if, meanwhile, another host has come first, whose file stays.

    What is renamed nobody else renames: so it is looked at again once it has a name of our own.
    """
    ours = _own(file, "away")
    try:
        os.rename(file, ours)
    except FileNotFoundError:
        return True
    alive = _foreign(ours) and _age(ours) < stale
    if alive:
        with suppress(FileExistsError):
            os.link(ours, file)
    ours.unlink(missing_ok=True)
    return not alive


def _own(file: Path, what: str) -> Path:
    """A name beside a file that no other process of any host uses."""
    return file.with_name(f".{file.name}.{socket.gethostname()}.{os.getpid()}.{what}")


def _foreign(file: Path) -> bool:
    """Whether another host left the file: of this host's processes, the kernel's lock knows better."""
    try:
        return bool(json.loads(file.read_text(encoding="utf-8"))["host"] != socket.gethostname())
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError):  # on its way, or cut off
        return True


def _age(file: Path) -> float:
    """Seconds since the last touch by the clock of the file system, which is the one that hosts share."""
    probe = _own(file, "now")
    try:
        probe.touch()
        now = probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
    try:
        return now - file.stat().st_mtime
    except FileNotFoundError:
        return STALE


def _beat(file: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT):
        with suppress(OSError):
            os.utime(file)
