"""The Store: results at content addresses; claim, work aside, commit, provenance, verify; torch-free."""

import hashlib
import json
import os
import platform
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock

from xadapt import __version__
from xadapt.errors import UserError
from xadapt.study.plan import Stage

MANIFEST = "manifest.json"
_PACKAGES = ("torch", "transformers", "adapters", "accelerate", "tokenizers", "datasets", "numpy")


@dataclass(frozen=True)
class Result:
    """A finished stage: its folder, its manifest, and whether it was there already."""

    folder: Path
    manifest: Mapping[str, Any]
    cached: bool

    @property
    def record(self) -> dict[str, Any]:
        """What the stage said about itself: scores, seconds, counts."""
        return dict(self.manifest["record"])


class Store:
    """Results below `root`, one folder a stage: `<kind>/<first 16 of key>/`, complete when its manifest is there.

    A stage works in `<folder>.partial` under a lock; the manifest, with the checksum of every file, is written
    last, and one rename makes the result visible. A failed stage leaves its partial folder with `error.txt`.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def folder(self, stage: Stage) -> Path:
        """Where the stage's result lies or would lie."""
        return self.root / stage.kind / stage.key[:16]

    def find(self, stage: Stage) -> Result | None:
        """The finished result of a stage, if any; what is in a partial folder is none."""
        return self.read(self.folder(stage))

    def read(self, folder: Path) -> Result | None:
        """The result in a folder, if it is complete; UserError if its manifest cannot be read."""
        path = folder / MANIFEST
        if not path.is_file():
            return None
        try:
            return Result(folder, json.loads(path.read_text()), cached=True)
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}); delete {folder} and run again") from error

    def run(self, stage: Stage, work: Callable[[Path], dict[str, Any]], *, waiting: Callable[[], None]) -> Result:
        """The stage's result: found, or made by `work(partial_folder)`, whose return value is the record.

        Processes that want the same stage wait for the one that has it (waiting is told) and then find its
        result. An error of `work` is written to the partial folder and raised again; a UserError leaves nothing.
        """
        folder = self.folder(stage)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_suffix(".lock"), waiting):
            if result := self.find(stage):
                return result
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                return self._commit(stage, partial, folder, work)
            except UserError:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            except Exception:
                (partial / "error.txt").write_text(traceback.format_exc())
                raise

    def _commit(self, stage: Stage, partial: Path, folder: Path, work: Callable[[Path], dict[str, Any]]) -> Result:
        started, clock = datetime.now(UTC), time.monotonic()
        record = work(partial)
        manifest = {
            "key": stage.key,
            "kind": stage.kind,
            "label": stage.label,
            "spec": stage.spec,
            "needs": [need.key for need in stage.needs],
            "record": record,
            "provenance": _provenance(stage, started, time.monotonic() - clock),
            "files": {name: _checksum(partial / name) for name in _files(partial)},
        }
        _write_durably(partial / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True))
        shutil.rmtree(folder, ignore_errors=True)  # a folder without a manifest is no result
        os.rename(partial, folder)
        _sync(folder.parent)
        return Result(folder, manifest, cached=False)

    def verified(self, stage: Stage) -> Result:
        """A finished result whose files all have the checksums of its manifest; UserError names the one that has not."""
        result = self.find(stage)
        assert result is not None, "a stage runs after what it needs"
        verify(result)
        return result

    def write_study(self, name: str, study: Mapping[str, Any]) -> None:
        """Keep what a recipe asked for and which results answer it, for `compare`."""
        folder = self.root / "studies"
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{name}.{os.getpid()}"
        _write_durably(partial, json.dumps(study, indent=1, ensure_ascii=False))
        os.replace(partial, folder / f"{name}.json")

    def studies(self) -> dict[str, dict[str, Any]]:
        """All studies by name, oldest first; UserError for one that cannot be read."""
        files = sorted((self.root / "studies").glob("*.json"), key=lambda file: file.stat().st_mtime)
        try:
            return {file.stem: json.loads(file.read_text()) for file in files}
        except ValueError as error:
            raise UserError(f"{self.root / 'studies'} holds a damaged study ({error}); run its recipe again") from error


def verify(result: Result) -> None:
    """UserError unless every file of a result has the size and sha256 of its manifest."""
    for name, expected in result.manifest["files"].items():
        path = result.folder / name
        if not path.is_file() or _checksum(path) != expected:
            raise UserError(f"{path} is not what was written (checksum); delete {result.folder} and run again")


@contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
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


def _provenance(stage: Stage, started: datetime, seconds: float) -> dict[str, Any]:
    return {
        "xadapt": __version__,
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "where": dict(stage.where),
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
    }


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _checksum(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return {"sha256": digest, "bytes": path.stat().st_size}


def _write_durably(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
