"""Text files as others write them: their hash, their text and lines, and where something stands in them."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from xadapt.errors import UserError

# files of which the hashes stand in full; a corpus of thousands has the hash of them instead
_IN_FULL = 64


def content_hash(files: Sequence[Path]) -> str:
    """What names the content of some files, in order: their sha256 (hex) joined by plus signs."""
    hashes = [_file_hash(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return "+".join(hashes) if len(hashes) <= _IN_FULL else hashlib.sha256("+".join(hashes).encode()).hexdigest()


@lru_cache(maxsize=4096)
def _file_hash(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: Path) -> str:
    """A file's text without a byte order mark; UserError with file and line for what is empty or not UTF-8."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check that it is a file you may read") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: byte {data[error.start]:#04x} is not UTF-8; write the file as UTF-8"
        ) from error
    if not text.strip():
        raise UserError(f"{path} is empty; fetch it again")
    return text


def read_lines(path: Path) -> list[str]:
    """A file's lines, blank ones at the end left out; raises UserError as `read_text` does.

    Only a newline, with or without a carriage return, ends a line: texts may hold the other characters that
    Unicode counts as line ends.
    """
    lines = [line.removesuffix("\r") for line in read_text(path).split("\n")]
    while not lines[-1].strip(" "):
        lines.pop()
    return lines
