"""The training log: one JSON line a step and a selection."""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class JsonLog:
    """A monitor that writes `{"step": .., "loss": ..}` lines, full precision, flushed at once.

    Lines that a file has already stay until `rewind` says from where it is written on.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def step(self, step: int, total: int, values: dict[str, float]) -> None:
        self._write({"step": step, **values})

    def selection(self, step: int, epoch: float, metrics: dict[str, float], best: bool) -> None:
        self._write({"step": step, "epoch": epoch, "dev": metrics, "best": best})

    def mark(self) -> int:
        """The bytes written so far, which are on disk when this returns."""
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def reaches(self, mark: int) -> bool:
        """Whether so many bytes are there."""
        return os.fstat(self._file.fileno()).st_size >= mark

    def rewind(self, mark: int) -> None:
        """Drop what was written after `mark`."""
        self._file.truncate(mark)

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
