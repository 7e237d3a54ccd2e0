"""Text files as others write them: their hash, their text, lines and JSON, and where in them something is wrong."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from xadapt.errors import UserError, short

# files of which the hashes stand in full; a corpus of thousands has the hash of them instead
_IN_FULL = 64


def content_hash(files: Sequence[Path]) -> str:
    """What names the content of some files, in order: their sha256 (hex) joined by plus signs."""
    return named_by([file_hash(file) for file in files])


def file_hash(file: Path) -> str:
    """The sha256 (hex) of a file, computed once in a process for a file of this size and time; OSError as from any read."""
    status = file.stat()
    return _file_hash(str(file), status.st_size, status.st_mtime_ns)


def named_by(hashes: Sequence[str]) -> str:
    """What names the content of some files by their hashes, in order."""
    return "+".join(hashes) if len(hashes) <= _IN_FULL else hashlib.sha256("+".join(hashes).encode()).hexdigest()


@lru_cache(maxsize=4096)
def _file_hash(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: Path, *, may_be_empty: bool = False) -> str:
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
            f"{path}, line {line}: not UTF-8 (byte {data[error.start]:#04x}); write the file as UTF-8"
        ) from error
    if not (text.strip() or may_be_empty):
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


def parse_json(path: Path, text: str, *, on_twice: Callable[[str], UserError] | None = None) -> Any:
    """What a JSON file holds; UserError with file and line for what is no JSON, and for a key that stands twice.

    on_twice makes the error for such a key, of which JSON's parser would keep the last value alone.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
            raise (
                on_twice(twice)
                if on_twice
                else UserError(f"{path}: key {short(twice)} stands twice in one object, {short(found)}; remove one")
            )
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON: {error.msg} (column {error.colno})") from error
    except RecursionError as error:
        raise UserError(f"{path}: not JSON of questions and answers: nested too deeply") from error
    except UserError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{path}: not JSON of questions and answers: {error}") from error
