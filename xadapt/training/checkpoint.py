"""Checkpoints of a training: written aside, checksummed, and complete before an older one goes."""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from xadapt.durable import checksum, read_sealed, sync, write_sealed
from xadapt.errors import UserError
from xadapt.training.settings import SaveEvery

# the one before the last stays, so that a damaged file costs some steps and not all of them
KEPT = 2
TENSORS, VALUES = "state.safetensors", "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after a step: tensors, and what JSON says exactly."""

    step: int
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one training, folders `step-<n>` in `folder`, and when the next is due."""

    def __init__(self, folder: Path, every: SaveEvery) -> None:
        self.folder, self.every = folder, every
        self._clock = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether it is time for one after this step."""
        if self.every.steps:
            return step % self.every.steps == 0
        return bool(self.every.seconds) and time.monotonic() - self._clock >= (self.every.seconds or 0)

    def steps(self) -> list[int]:
        """The steps there are complete checkpoints of, the latest first; their content is not looked at."""
        return sorted((int(path.parent.name[5:]) for path in self.folder.glob(f"step-*/{VALUES}")), reverse=True)

    def write(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint; UserError, with those before intact, where the system does not let it be written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / "partial"
        size = sum(tensor.numel() * tensor.element_size() for tensor in checkpoint.tensors.values())
        try:
            self._write(checkpoint, partial)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{partial}: the checkpoint of step {checkpoint.step}, {size:,} bytes, cannot be written: {error}; make "
                "room there, and the same command goes on from the checkpoint before"
            ) from error
        self._clock = time.monotonic()
        for step in self.steps()[KEPT:]:
            shutil.rmtree(self._of(step), ignore_errors=True)

    def forget_after(self, step: int) -> None:
        """Drop those of later steps, which nothing goes on from any more and which would push out new ones."""
        for later in (found for found in self.steps() if found > step):
            shutil.rmtree(self._of(later), ignore_errors=True)

    def all(self) -> Iterator[Checkpoint]:
        """Those whose checksums match, the latest first."""
        for step in self.steps():
            if found := self.read(step):
                yield found

    def read(self, step: int) -> Checkpoint | None:
        """The checkpoint after a step; None if it is damaged, or none."""
        if not (values := self.values(step)):
            return None
        path = self._of(step) / TENSORS
        try:
            if checksum(path) != values["file"]:
                return None
            # copies, for a network file system does not delete what is mapped
            return Checkpoint(step, {name: of.clone() for name, of in load_file(path).items()}, values["values"])
        except (OSError, SafetensorError):
            return None

    def values(self, step: int) -> dict[str, Any] | None:
        """What JSON holds of a checkpoint, its tensors unread; None if that is damaged."""
        try:
            return read_sealed(self._of(step) / VALUES, fields={"step", "file", "values"})
        except (OSError, ValueError):
            return None

    def _write(self, checkpoint: Checkpoint, partial: Path) -> None:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        save_file(dict(checkpoint.tensors), partial / TENSORS)
        values = {"step": checkpoint.step, "file": checksum(partial / TENSORS), "values": checkpoint.values}
        write_sealed(partial / VALUES, values)
        shutil.rmtree(self._of(checkpoint.step), ignore_errors=True)  # a damaged one, or the same again
        os.rename(partial, self._of(checkpoint.step))
        sync(self.folder)

    def _of(self, step: int) -> Path:
        return self.folder / f"step-{step}"
