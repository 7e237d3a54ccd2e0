"""One file of the hub through its own library: asked for again while that may help, and checked by its hash."""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from xadapt.data.manifest import FileFacts
from xadapt.errors import UserError

BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
# the library itself asks five times again where it downloads
_LIBRARY_ASKS_AGAIN = frozenset({500, 502, 503, 504})
LONGEST_WAIT = 900.0  # seconds; the hub counts requests over five minutes
T = TypeVar("T")


class Busy(Exception):
    """The hub did not serve this time, but may when it is asked again; after: the seconds that it asks for."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class XetTrouble(Exception):
    """What the hub's transfer library for large files could not do; plain HTTP may."""


@dataclass(frozen=True)
class Patience:
    """The pauses, in seconds, after which a hub that was busy is asked again; longer where it says how long."""

    pauses: tuple[float, ...] = (1.0, 4.0, 16.0)
    sleep: Callable[[float], None] = field(default=time.sleep)

    def try_with(self, ask: Callable[[], T], told: Callable[[str, float], None]) -> T:
        """What `ask` returns, asked again while it raises Busy; the last Busy is raised. told hears each pause."""
        for pause in self.pauses:
            try:
                return ask()
            except Busy as busy:
                seconds = max(pause, busy.after or 0.0)
                if seconds > LONGEST_WAIT:
                    raise
                told(str(busy), seconds)
                self.sleep(seconds)
        return ask()


def hub_errors() -> tuple[type[Exception], ...]:
    """What an unreachable hub, a missing repository or a broken transfer raises."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
    from requests import RequestException

    return (
        Busy, XetTrouble, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled,
        RequestException,
    )  # fmt: skip


def transfer_errors() -> tuple[type[Exception], ...]:
    """What `hub_errors` names, and what a disk that is full or cannot be written raises."""
    return (*hub_errors(), OSError)


def passing_trouble(error: Exception, *, left: frozenset[int] = BUSY) -> Busy | None:
    """What may pass, as Busy: a server's 5xx, a time-out, a connection that breaks; None for no network and the rest.

    left are the statuses for which nobody has asked again yet.
    """
    import requests

    for cause in _chain(error):
        if (response := getattr(cause, "response", None)) is not None:
            status = response.status_code
            return Busy(f"it answered {status}", _asked_to_wait(response.headers)) if status in left else None
        if isinstance(cause, requests.ReadTimeout):
            return Busy("time-out") if left == BUSY else None
        if isinstance(cause, requests.exceptions.ChunkedEncodingError):
            return Busy("the connection broke off")
        if isinstance(cause, requests.ConnectionError):
            return None if no_connection(cause) or left != BUSY else Busy("the connection broke off")
    return None


def no_connection(error: BaseException) -> bool:
    """Whether no connection came about at all, rather than one that broke."""
    return any(getattr(cause.args[0] if cause.args else None, "reason", None) is not None for cause in _chain(error))


def bring(
    kind: str, name: str, commit: str, file: str, facts: FileFacts, *, folder: Path | None, patience: Patience,
    told: Callable[[str, float], None],
) -> Path:  # fmt: skip
    """A file of a "dataset" or "model" at a commit, in a folder or else in the library's cache, whole and checked.

    What broke off is taken up, what has another size or hash is fetched anew. told hears why and how long it pauses.
    Raises what `hub_errors` names, Busy when asking again did not help.
    """
    anew = False

    def attempt() -> Path:
        nonlocal anew
        try:
            path = _download(kind, name, commit, file, folder, anew=anew)
        except Exception as error:
            if why := _unusable(error):
                anew = True
                raise Busy(why) from error
            if busy := passing_trouble(error, left=BUSY - _LIBRARY_ASKS_AGAIN):
                raise busy from error
            if _of_xet(error):
                raise XetTrouble((str(error).splitlines() or [""])[0]) from error
            raise
        if not is_as_stated(path, facts):
            anew = True
            discard(path)
            if folder is not None:  # and what the library noted of it
                (folder / ".cache" / "huggingface" / "download" / f"{file}.metadata").unlink(missing_ok=True)
            raise Busy("what came has another hash than the hub states")
        return path

    return patience.try_with(attempt, told)


def is_as_stated(path: Path, facts: FileFacts) -> bool:
    """Whether a file is what the hub states; one that does not change is hashed once a process."""
    try:
        status = path.stat()
    except OSError:
        return False
    return _described(str(path.resolve()), status.st_size, status.st_mtime_ns, facts)


@lru_cache(maxsize=4096)
def _described(path: str, size: int, mtime_ns: int, facts: FileFacts) -> bool:
    return facts.describe(Path(path))


def _download(kind: str, name: str, commit: str, file: str, folder: Path | None, *, anew: bool) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(
            name, file, repo_type=kind, revision=commit, local_dir=folder, force_download=anew, endpoint=endpoint()
        )
    except ValueError as error:
        if isinstance(error.__context__, ImportError):  # a package that the environment asks for
            raise UserError(f"{error} Or leave HF_HUB_ENABLE_HF_TRANSFER out of the environment.") from error
        # how it says that it could not ask at all, where it was told to fetch anew
        if isinstance(error.__cause__, Exception):
            raise error.__cause__ from None
        raise
    return Path(path)


def endpoint() -> str | None:
    """The hub that HF_ENDPOINT names; None for the usual one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def hub_name() -> str:
    """The hub as messages call it, without a password in its address."""
    return without_password(endpoint() or "the Hugging Face hub")


def without_password(text: str) -> str:
    """A text in which no address says who asks."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def _unusable(error: Exception) -> str:
    """Why what lies there of a file cannot be gone on from, empty where it can."""
    if type(error) is OSError and error.errno is None:  # of the size of what came
        return "what came has another size than the hub states"
    statuses = [getattr(getattr(cause, "response", None), "status_code", 0) for cause in _chain(error)]
    return "it has less of the file than lies here" if 416 in statuses else ""


def _of_xet(error: Exception) -> bool:
    """Whether it is of the library for large files, which raises RuntimeError, and errors of connections without a number."""
    plain = isinstance(error, OSError) and not isinstance(error, hub_errors()) and error.errno is None
    return plain or (isinstance(error, RuntimeError) and "hf_transfer" not in str(error))


def discard(path: Path) -> None:
    """Delete a file that is not what the hub states, in the library's cache with what its name there leads to."""
    for place in (path.resolve(), path):
        with suppress(OSError):  # a cache that is read-only stays, and is never read from
            place.unlink(missing_ok=True)


def _asked_to_wait(headers: Any) -> float | None:
    """The seconds of a Retry-After, or of the hub's own `RateLimit: "api";r=0;t=55`, if it says any."""
    stated = headers.get("Retry-After", "").strip()
    if stated.isdigit():
        return float(stated)
    with suppress(ValueError):
        return max(0.0, (parsedate_to_datetime(stated) - datetime.now(UTC)).total_seconds())
    found = re.search(r";\s*t=(\d+)", headers.get("RateLimit", ""))
    return float(found[1]) if found else None


def _chain(error: BaseException) -> Iterator[Any]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
