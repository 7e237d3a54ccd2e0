"""Folders on the way to a result, which carry the token of whoever holds its lock; torch-free.

`<16 digits>.<token>.partial` is where a stage works, `.incoming` what is copied from another store, `.gone` what is being
deleted; a stage that ends without a result leaves `<16 digits>.partial`. A host that stood still may go on after another has
taken its lock over: by then the folder with its token has another name or is gone, and what it would make of it fails.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from xadapt.durable import sync
from xadapt.locks import Held, LockLost

PARTIAL, INCOMING, GONE = ".partial", ".incoming", ".gone"
# in a partial folder: what a stage keeps for a later start of its own, such as checkpoints
PROGRESS = "progress"


def own_folder(folder: Path, held: Held, suffix: str) -> Path:
    """The name, beside a result's folder, that only this holder of its lock uses."""
    return folder.with_name(f"{folder.name}.{held.token}{suffix}")


def unfinished(folder: Path, *suffixes: str) -> list[Path]:
    """What is there beside a result's folder with these suffixes, whoever made it."""
    return [path for suffix in suffixes for path in sorted(folder.parent.glob(f"{folder.name}*{suffix}"))]


def begin(folder: Path, held: Held) -> Path:
    """A partial folder of ours: what an earlier start kept of its progress, and nothing else."""
    ours = own_folder(folder, held, PARTIAL)
    while best := max(unfinished(folder, PARTIAL), key=_progress, default=None):
        with suppress(FileNotFoundError):  # one who has lost the lock, and does not know it yet, took it just now
            os.rename(best, ours)
            break
    else:
        ours.mkdir()
    for other in unfinished(folder, PARTIAL):
        if other != ours:
            shutil.rmtree(other, ignore_errors=True)
    held.check()  # who took over before has seen the folder, and who does after makes it his
    for left in ours.iterdir():
        if left.name != PROGRESS:
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    if held.taken_over:
        _copy_in_place(ours / PROGRESS)
    return ours


def put_in_place(made: Path, folder: Path, held: Held) -> None:
    """Make a folder of ours the result; what lies in its place goes. LockLost, and nothing is changed, if it is not ours.

    It is only ours while it has our name. So what lies in the result's place is moved into it first, which another's
    result never is.
    """
    held.check()
    try:
        if folder.exists():
            (made / PROGRESS).mkdir(exist_ok=True)
            os.rename(folder, made / PROGRESS / "replaced")
        os.rename(made, folder)
    except FileNotFoundError:
        held.check()
        raise
    sync(folder.parent)
    for left in [folder / PROGRESS, *unfinished(folder, made.suffix)]:  # not before there is nothing more to go on to
        shutil.rmtree(left, ignore_errors=True)


def leave(partial: Path, folder: Path, held: Held) -> None:
    """Give what is left in a partial folder of ours the name that is nobody's."""
    with suppress(LockLost, OSError):
        held.check()
        os.rename(partial, folder.with_suffix(PARTIAL))


def remove(path: Path, folder: Path, held: Held) -> bool:
    """Delete a result or a folder on the way to one; False, and nothing is done, if it has become another's."""
    gone = own_folder(folder, held, GONE)
    try:
        os.rename(path, gone)
    except FileNotFoundError:
        return False
    try:
        held.check()
    except LockLost:
        os.rename(gone, path)
        return False
    shutil.rmtree(gone)
    return True


def _progress(partial: Path) -> tuple[bool, float]:
    """By which it is chosen what to go on from: the latest that has anything."""
    kept = partial / PROGRESS
    with suppress(OSError):
        return any(kept.iterdir()), kept.stat().st_mtime
    return False, 0.0


def _copy_in_place(progress: Path) -> None:
    """Every file anew, so that whoever has the old one open writes into nothing."""
    for file in [path for path in progress.rglob("*") if path.is_file()]:
        copy = file.with_name(f"{file.name}.copy")
        shutil.copy2(file, copy)
        os.replace(copy, file)
