"""Hashes by which tests tell whether parameters or files are still the same."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names and bits."""
    whole = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        whole.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return whole.hexdigest()


def hashes(folder: Path) -> dict[str, str]:
    """A hash of every file below a folder, by its place in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
