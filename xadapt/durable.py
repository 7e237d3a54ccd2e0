"""Files that survive a crash, and locks between processes: what the store, fetched folders and conversions share."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock


def write_durably(path: Path, text: str) -> None:
    """Write a text file that is on disk when this returns; OSError as from any write."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Bring a file's content, or a folder's entries, to disk."""
    if os.name == "nt":  # Windows opens no directory, and syncs no file opened for reading
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold a lock file if nobody does, without waiting; gives whether it is held now."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file; `waiting` is called once if another process holds it first."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
