"""Real HTTP servers on loopback for tests: an answer for each request, and a record of what was asked."""

from __future__ import annotations

import contextlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

__all__ = ["Answer", "Asked", "Server"]


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def token(self) -> str:
        """The bearer token that came with it."""
        return self.headers.get("Authorization", "").removeprefix("Bearer ")


@dataclass(frozen=True)
class Answer:
    """What is sent back, once an event has come if there is one; an object becomes JSON."""

    status: int
    content: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    wait_for: threading.Event | None = None

    @property
    def body(self) -> bytes:
        """The body's bytes."""
        return self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()


class Server:
    """Answers requests in threads."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.scripted: list[tuple[str, Answer | None]] = []
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def answer(self, asked: Asked) -> Answer:
        """Answer a request."""
        raise NotImplementedError

    def script(self, path: str, *answers: Answer | None) -> None:
        """Give the next requests to a path these answers, once each; None hangs up without one."""
        self.scripted += [(path, answer) for answer in answers]

    def asked_for(self, path: str) -> list[Asked]:
        """Return the requests whose paths begin so."""
        return [asked for asked in self.asked if asked.path.startswith(path)]

    def take(self, asked: Asked) -> Answer | None:
        """Record a request and answer it, as the script says or as the server does."""
        self.asked.append(asked)
        for entry in self.scripted:
            if asked.path.startswith(entry[0]):
                self.scripted.remove(entry)
                return entry[1]
        return self.answer(asked)

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """Serve until the block is left."""
        self._thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: Server
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the base class's name
        """Keep the tests' output clean."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = Asked(self.command, unquote(parts.path), dict(parse_qsl(parts.query)), dict(self.headers), body)
        answer = self.owner.take(asked)
        self.close_connection = True
        if answer is None:
            return
        if answer.wait_for is not None:
            answer.wait_for.wait(60)
        self.send_response(answer.status)
        kind = "application/octet-stream" if isinstance(answer.content, bytes) else "application/json"
        headers = {"Content-Type": kind, "Connection": "close", "Content-Length": str(len(answer.body))}
        for name, value in (headers | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(answer.body)
