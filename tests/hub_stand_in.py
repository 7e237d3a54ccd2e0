"""A hub on 127.0.0.1: repositories at commits, listings with sizes and hashes, ranges, and every way a hub can fail."""

import json
import threading
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

SECRET = "signature=secret"
Fault = int | str


@dataclass
class Hub:
    """What the stand-in serves: repository -> revision -> path -> content; `main` is `heads`' commit.

    heads maps `<repository>` to the commit of `main`, `<repository>@<branch>` to another branch's. faults maps a
    path's ending to what happens instead, or to a list of that, one for each request: a status, "truncated" (half
    of the body), "wrong" (a byte changed), "long" (bytes too many), "whole" (the range is not heeded), "shifted"
    (another range), "redirect" (to a signed address), "silent" (no answer), "xet" (to a store of chunks that fails); once
    drops a fault after one use. retry_after is what a 429 says beside its status, limit what the hub's own header says.
    cards are the repositories' cards, as the listing has them.
    asked lists the paths that were requested, got those of them whose content was, ranges the files and ranges of those with a range, credited those with a token.
    """

    url: str = ""
    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    faults: dict[str, Fault | list[Fault]] = field(default_factory=dict)
    once: bool = False
    asked: list[str] = field(default_factory=list)
    got: list[str] = field(default_factory=list)
    ranges: list[tuple[str, str]] = field(default_factory=list)
    credited: list[str] = field(default_factory=list)
    retry_after: str = ""
    limit: str = ""
    cards: dict[str, dict[str, Any]] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def fault(self, path: str) -> Fault | None:
        found = next((ending for ending in self.faults if path.endswith(ending)), None)
        if found is None:
            return None
        fault = self.faults[found]
        if isinstance(fault, list):
            return fault.pop(0) if fault else None
        if self.once:
            del self.faults[found]
        return fault

    def commit(self, repository: str, revision: str) -> str | None:
        head = repository if revision == "main" else f"{repository}@{revision}"
        commit = self.heads.get(head) if revision == "main" or head in self.heads else revision
        return commit if commit in self.repositories.get(repository, {}) else None

    def listings(self) -> list[str]:
        """The calls of the interface that answers what a repository holds."""
        return [path for path in self.asked if path.startswith("/api/")]

    def resolved(self) -> list[str]:
        """The files whose content was asked for."""
        return [path.partition("/resolve/")[2].partition("/")[2] for path in self.got if "/resolve/" in path]


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does, with the faults that the test planted; `handler` gives it its hub."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        if self.hub.over.is_set():  # a connection that was kept open
            self.close_connection = True
            return None
        self.hub.asked.append(path)
        if self.command == "GET":
            self.hub.got.append(path)
        if self.headers.get("Authorization"):
            self.hub.credited.append(path)
        fault = self.hub.fault(path) if self.command == "GET" or "/resolve/" not in path else None
        if isinstance(fault, int):
            stated = {"Retry-After": self.hub.retry_after, "RateLimit": self.hub.limit} if fault == 429 else {}
            return self._send(fault, b"{}", {name: value for name, value in stated.items() if value})
        if fault == "silent":
            self.hub.over.wait(5)
            self.close_connection = True
            return None
        if fault == "redirect" and not path.startswith("/signed/"):
            elsewhere = self.hub.url.replace("127.0.0.1", "localhost")
            return self._send(HTTPStatus.FOUND, b"", {"Location": f"{elsewhere}/signed{address.path}?{SECRET}"})
        if path.startswith("/chunks/"):
            return self._send(HTTPStatus.FORBIDDEN, b"{}", {})
        if path.startswith("/api/xet/"):
            stated = {"Cas-Url": f"{self.hub.url}/chunks", "Access-Token": "t", "Token-Expiration": "9999999999"}
            return self._send(HTTPStatus.OK, b"{}", {f"X-Xet-{name}": value for name, value in stated.items()})
        if path.startswith("/api/"):
            return self._info(path.removeprefix("/api/"), "blobs" in parse_qs(address.query))
        return self._file(path.removeprefix("/signed").removeprefix("/"), fault)

    def _info(self, path: str, blobs: bool) -> None:
        repository, _, revision = path.partition("/revision/")
        commit = self.hub.commit(repository, revision or "main")
        if commit is None:
            return self._send(HTTPStatus.NOT_FOUND, b"{}", {"X-Error-Code": "RepoNotFound"})
        files = self.hub.repositories[repository][commit]
        siblings = [{"rfilename": name} | (_stated(name, files[name]) if blobs else {}) for name in files]
        info = {"id": repository.partition("/")[2], "sha": commit, "siblings": siblings}
        info |= {"cardData": self.hub.cards[repository]} if repository in self.hub.cards else {}
        return self._send(HTTPStatus.OK, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _file(self, path: str, fault: str | None) -> None:
        repository, _, rest = path.partition("/resolve/")
        repository = repository if repository.startswith("datasets/") else f"models/{repository}"
        revision, _, name = rest.partition("/")
        commit = self.hub.commit(repository, revision)
        content = self.hub.repositories[repository][commit].get(name) if commit else None
        if content is None:
            return self._send(HTTPStatus.NOT_FOUND, b"", {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{sha256(content).hexdigest()}"', "X-Repo-Commit": str(commit)}
        if name in self.hub.faults and self.hub.faults[name] == "xet":
            headers |= {
                "X-Xet-Hash": sha256(content).hexdigest(),
                "X-Xet-Refresh-Route": f"{self.hub.url}/api/xet/read",
            }
        content = {"wrong": content[:-1] + b"\0", "long": content + b"more"}.get(fault or "", content)
        start, status = 0, HTTPStatus.OK
        if (wanted := self.headers.get("Range")) and fault != "whole":
            self.hub.ranges.append((name, wanted))
            start = int(wanted.removeprefix("bytes=").partition("-")[0]) - (fault == "shifted")
            status = HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self._send(status, content[start:], headers, truncated=fault == "truncated")

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, truncated: bool = False) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if truncated else body)
        self.close_connection = self.close_connection or truncated

    def log_message(self, format: str, *args: object) -> None:
        pass


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    return type("HandlerOfHub", (Handler,), {"hub": hub})


def _stated(name: str, content: bytes) -> dict[str, Any]:
    """What the hub states of a file: large ones, here by their ending, lie in LFS, the others in git."""
    blob = sha1(b"blob %d\0" % len(content) + content).hexdigest()
    lfs = {"sha256": sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    stored = {"lfs": lfs} if name.endswith((".parquet", ".safetensors", ".bin")) else {}
    return {"size": len(content), "blobId": blob, **stored}


class StandIn(Hub):
    """A Hub that answers on 127.0.0.1 until it is stopped."""

    def start(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._running = True

    def stop(self) -> None:
        if self._running:
            self.over.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
        self._running = False


def parquet(rows: list[dict[str, Any]]) -> bytes:
    """Rows as the content of a Parquet file."""
    out = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()
