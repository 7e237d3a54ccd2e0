"""One file over HTTP: taken up where it broke off, checked, and only then given its name."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from xadapt.data.manifest import FileFacts
from xadapt.durable import sync

BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
CONNECT_SECONDS, READ_SECONDS = 10, 30
CHUNK = 1 << 16  # bytes; what is lost at most where a connection breaks off
T = TypeVar("T")


class Busy(Exception):
    """The hub did not serve this time, but may when it is asked again; says what happened."""


@dataclass(frozen=True)
class Patience:
    """The pauses, in seconds, after which a hub that was busy is asked again."""

    pauses: tuple[float, ...] = (1.0, 4.0, 16.0)
    sleep: Callable[[float], None] = time.sleep

    def try_with(self, ask: Callable[[], T], told: Callable[[str, float], None]) -> T:
        """What `ask` returns, asked again while it raises Busy; the last Busy is raised. told hears each pause."""
        for seconds in self.pauses:
            try:
                return ask()
            except Busy as busy:
                told(str(busy), seconds)
                self.sleep(seconds)
        return ask()


@contextmanager
def passing_trouble() -> Iterator[None]:
    """Raise Busy for what may pass: a server's 5xx, a time-out, a connection that breaks; never for no network."""
    import requests
    from urllib3.exceptions import NewConnectionError

    try:
        yield
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in BUSY:
            raise Busy(f"it answered {status}") from error
        raise
    except (requests.Timeout, requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        cause = getattr(error.args[0], "reason", None) if error.args else None
        if isinstance(cause, NewConnectionError) and not isinstance(error, requests.Timeout):
            raise
        raise Busy("time-out" if isinstance(error, requests.Timeout) else "the connection broke off") from error


def download(
    url: str, target: Path, facts: FileFacts, patience: Patience, *,
    received: Callable[[int], None], told: Callable[[str, float], None],
) -> None:  # fmt: skip
    """Fetch a URL into `target`, by way of `<target>.partial`, which a later call takes up.

    received hears how many bytes are there, told why and how long it pauses. Raises Busy when asking again did not
    help, and requests' errors for what asking again would not help.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    patience.try_with(lambda: _attempt(url, partial, facts, received), told)
    os.replace(partial, target)
    sync(target.parent)


def _attempt(url: str, partial: Path, facts: FileFacts, received: Callable[[int], None]) -> None:
    if not facts.fit(partial):
        _receive(url, partial, facts, received)
    if not facts.fit(partial):
        raise Busy(f"the connection broke off at {partial.stat().st_size:,} of {facts.bytes:,} bytes")
    if not facts.describe(partial):
        partial.unlink()
        raise Busy("what came has another hash than the hub states")


def _receive(url: str, partial: Path, facts: FileFacts, received: Callable[[int], None]) -> None:
    """Append to the partial file what it lacks, or write it anew where the server sends all."""
    there = partial.stat().st_size if partial.is_file() else 0
    start = there if there < facts.bytes else 0  # a longer one is another file's
    with passing_trouble(), _opened(url, start) as response:
        if response.status_code != 206:
            start = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            partial.unlink(missing_ok=True)
            raise Busy("it sent another range than was asked for")
        with open(partial, "r+b" if start else "wb") as file:
            file.seek(start)
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                received(file.tell())
                if file.tell() > facts.bytes:
                    file.truncate(0)
                    raise Busy(f"it sent more than the {facts.bytes:,} bytes that it states")
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _opened(url: str, start: int) -> Iterator[Any]:
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

    # compressed, neither sizes nor ranges would be those of the file
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    timeout = (CONNECT_SECONDS, READ_SECONDS)
    with get_session().get(url, headers=headers, stream=True, timeout=timeout) as response:
        hf_raise_for_status(response)
        yield response
