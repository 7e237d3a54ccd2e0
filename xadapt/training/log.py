"""The training log: one JSON line a step and a selection, and whether it is still what was written."""

import hashlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from xadapt.errors import UserError


class JsonLog:
    """A monitor that writes `{"step": .., "loss": ..}` lines, full precision, flushed at once.

    Lines that a file has already stay until `rewind` says from where it is written on. It knows the checksum of what it
    wrote, so that lines which something else wrote or changed are noticed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a", encoding="utf-8", newline="\n")
        self._digest = hashlib.sha256(path.read_bytes())

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

    def mark(self) -> dict[str, Any]:
        """How long it is, in bytes, and their sha256; they are on disk when this returns."""
        os.fsync(self._file.fileno())
        return {"bytes": os.fstat(self._file.fileno()).st_size, "sha256": self._digest.hexdigest()}

    def reaches(self, mark: Any) -> bool:
        """Whether it begins with what was there when the mark was taken."""
        if not isinstance(mark, dict):  # of an earlier version, which says nothing of the content
            return False
        return bool(self._beginning(mark["bytes"]).hexdigest() == mark["sha256"])

    def rewind(self, mark: Any) -> None:
        """Drop what was written after `mark`, or with None everything."""
        size = mark["bytes"] if mark else 0
        self._file.truncate(size)
        self._digest = self._beginning(size)

    def copy(self, path: Path) -> None:
        """Write it to another file; UserError if it is not what was written."""
        data = self.path.read_bytes() if self.path.is_file() else b""
        if hashlib.sha256(data).digest() != self._digest.digest():
            raise UserError(f"{self.path} was changed while it was written; run the same command again")
        path.write_bytes(data)

    def _beginning(self, size: int) -> Any:
        with self.path.open("rb") as file:
            return hashlib.sha256(file.read(size))

    def _write(self, line: dict[str, Any]) -> None:
        text = json.dumps(line) + "\n"
        self._file.write(text)
        self._file.flush()
        self._digest.update(text.encode())
