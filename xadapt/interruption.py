"""Requests to stop: a signal asks the process to keep what it has and leave; whoever works long looks here."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# SIGUSR1 is what SLURM sends ahead of a time limit; Windows has neither it nor, in full, SIGTERM
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
# a launcher and a batch system may both pass on one signal; seconds in which it is the same one
_ECHO = 0.5
_asked: list[str] = []
_signals: list[tuple[int, float]] = []
_held: list[None] = []


class Interrupted(BaseException):
    """Somebody asked this process to stop, and what it worked on is kept; no failure, hence no Exception."""


def requested() -> str | None:
    """The name of the signal that asked to stop, if one did."""
    return _asked[0] if _asked else None


def request(name: str) -> None:
    """Ask this process to stop as a signal does, but not, if that was asked before, to end at once."""
    if not _asked:
        _asked.append(name)


def check() -> None:
    """Raise Interrupted if a stop was asked for: call it wherever the work so far can be left as it is."""
    if (name := requested()) and not _held:
        raise Interrupted(name)


@contextmanager
def held() -> Iterator[None]:
    """Inside, `check` lets go on what must not be left halfway, such as what other processes wait for."""
    _held.append(None)
    try:
        yield
    finally:
        _held.pop()


@contextmanager
def resumable() -> Iterator[None]:
    """Inside, the first SIGTERM, SIGINT or SIGUSR1 is a request to stop, and a second one ends the process at once.

    Outside the main thread, where Python handles no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _note) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()
        _signals.clear()


def _note(number: int, _: FrameType | None) -> None:
    now = time.monotonic()
    if _signals and (number != _signals[0][0] or now - _signals[0][1] > _ECHO):
        os._exit(128 + number)  # as a shell reports a process that the signal ended
    _signals.append((number, now))
    request(signal.Signals(number).name)
