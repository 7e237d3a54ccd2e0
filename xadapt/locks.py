"""Locks between processes of one machine or of several that share a folder, and who holds them.

On one machine the lock is the kernel's (filelock) and goes with its process. Between machines, whose file systems need not
share such locks, the holder's file beside it counts. filelock's own lease, SoftFileLease, does not replace that file: it
takes an expired claim over by exchanging two names in one step, which network file systems refuse, so that there it waits
for a dead host for ever; it has to watch a claim for as long as that lasts before it knows that nobody refreshes it, where
`locked_if_free` needs to know at once; and its token fences nothing. Ours stands in the names of the folders that a holder
works in (study/unfinished.py): whoever takes over renames or removes them, so that the other cannot commit.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from xadapt import interruption
from xadapt.errors import UserError

# another host takes over after STALE seconds without a sign of life, of which a holder gives BEATS in that time
STALE, BEATS, POLL = 120.0, 6, 0.5


class LockLost(UserError):
    """Another host has taken a lock over meanwhile: what this one did under it does not count."""


@dataclass(frozen=True)
class Held:
    """A lock that is held, by the token in its holder's file; taken_over is said of one that another host let go stale.

    That host may only have stood still: when it goes on, it has files open that it wrote to.
    """

    file: Path
    token: str
    taken_over: bool

    def check(self) -> None:
        """Raise LockLost unless the lock is still held."""
        if _token(self.file) != self.token:
            raise LockLost(
                f"{self.file}: another host has taken over, because this one gave no sign of life for a while; what it "
                "makes counts, and the same command finds it"
            )


@contextmanager
def locked(path: Path, waiting: Callable[[], None], *, stale: float | None = None) -> Iterator[Held]:
    """Hold a lock file; `waiting` is called once if another process holds it first. Raises Interrupted while it waits.

    The holder keeps a file beside it, `<name>.holder`, with its host, pid and token, and touches it while it lives. Another
    host respects that for `stale` seconds (default STALE) after the last touch.
    """
    told: list[None] = []

    def wait() -> None:
        if not told:
            told.append(None)
            waiting()

    lock, stale = FileLock(path), STALE if stale is None else stale
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        wait()
        _acquire(lock)
    try:
        while not (held := _claimed(holder_file(path), stale)):
            wait()
            interruption.check()
            time.sleep(POLL)
        with _alive(held, stale):
            yield held
    finally:
        lock.release()


@contextmanager
def locked_if_free(path: Path, *, stale: float | None = None) -> Iterator[Held | None]:
    """Hold a lock file if nobody does, without waiting; None if somebody does."""
    lock, stale = FileLock(path), STALE if stale is None else stale
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        yield None
        return
    try:
        if held := _claimed(holder_file(path), stale):
            with _alive(held, stale):
                yield held
        else:
            yield None
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether somebody holds a lock file that is there."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        return True
    try:
        return _respected(holder_file(path), STALE)
    finally:
        lock.release()


def holder(path: Path) -> str:
    """Who holds a lock file, as `host, pid 123`; empty if that cannot be told."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(holder_file(path).read_text(encoding="utf-8"))
        return f"{found['host']}, pid {found['pid']}"
    return ""


def token_of(path: Path) -> str:
    """The token of who holds a lock file; empty if nobody does."""
    return _token(holder_file(path))


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
def _alive(held: Held, stale: float) -> Iterator[None]:
    """Say while it lasts that the holder lives, and in the end that it is none any more."""
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(held, stale / BEATS, ended), daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()
        with suppress(OSError):  # one that stays says that nobody lives behind it
            if _token(held.file) == held.token:
                held.file.unlink()


def _beat(held: Held, pause: float, ended: threading.Event) -> None:
    """Touch the holder's file while it is ours; never another's, for what is touched is the file that was read."""
    while not ended.wait(pause):
        with suppress(OSError), open(held.file, encoding="utf-8") as file:  # gone for a moment while others look at it
            if _token_in(file.read()) != held.token:
                return
            os.utime(file.fileno() if os.utime in os.supports_fd else held.file)


def _claimed(file: Path, stale: float) -> Held | None:
    """Make the holder's file ours, if there is none, or one of a process that is no more or of a host that is stale."""
    held = Held(file, secrets.token_hex(8), taken_over=_foreign(file))
    if _respected(file, stale) or not _put_away(file, lambda file: _respected(file, stale)):
        return None
    try:  # of several hosts that find none, one makes it
        with open(file, "x", encoding="utf-8") as made:
            made.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "token": held.token}))
    except FileExistsError:
        return None
    return held


def _respected(file: Path, stale: float) -> bool:
    """Whether a holder's file is of another host that may live."""
    return _foreign(file) and _age(file) < stale


def _put_away(file: Path, stays: Callable[[Path], bool]) -> bool:
    """Remove a holder's file; False if, meanwhile, another's has come first, which stays.

    What is renamed nobody else renames: so it is looked at again once it has a name of our own.
    """
    ours = _own(file, "away")
    ours.unlink(missing_ok=True)  # of one that was killed just here
    try:
        os.rename(file, ours)
    except FileNotFoundError:
        return True
    kept = stays(ours)
    if kept:
        with suppress(FileExistsError):
            os.link(ours, file)
    ours.unlink(missing_ok=True)
    return not kept


def _own(file: Path, what: str) -> Path:
    """A name beside a file that no other host uses, nor another process here while it has the kernel's lock."""
    return file.with_name(f".{file.name}.{socket.gethostname()}.{what}")


def _foreign(file: Path) -> bool:
    """Whether another host left the file: of this host's processes, the kernel's lock knows better."""
    try:
        return bool(json.loads(file.read_text(encoding="utf-8"))["host"] != socket.gethostname())
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError):  # on its way, or cut off
        return True


def _token(file: Path) -> str:
    try:
        return _token_in(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""


def _token_in(text: str) -> str:
    try:
        return str(json.loads(text)["token"])
    except (ValueError, KeyError, TypeError):  # on its way, cut off, or of an earlier version
        return ""


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
