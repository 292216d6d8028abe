"""A tiny server in the test's own process, for the proxy to stand in front of."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

BLOCK = b"0123456789abcdef" * 4096


@dataclass(frozen=True)
class Received:
    """What arrived in one request."""

    method: str
    path: str
    headers: dict[str, str]
    size: int
    sha256: str


class Upstream:
    """Answers a POST or PUT with size and SHA-256 of its body, and a few GET paths; notes what arrives."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.bytes_seen = 0
        self.connections = 0
        self.go_on = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.upstream = self  # type: ignore[attr-defined]  # for the handler
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the port."""
        self.go_on.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Any

    def setup(self) -> None:
        super().setup()
        self.server.upstream.connections += 1

    def handle_any(self) -> None:
        upstream, digest, size = self.server.upstream, hashlib.sha256(), 0
        for block in self._body():
            digest.update(block)
            size += len(block)
            upstream.bytes_seen += len(block)
        upstream.received.append(
            Received(self.command, self.path, dict(self.headers.items()), size, digest.hexdigest())
        )
        self._respond(f"{size} {digest.hexdigest()}".encode())

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815  # names that the base class looks up

    def log_message(self, *_: object) -> None:
        pass

    def _respond(self, echo: bytes) -> None:
        if self.path == "/chunked":
            # The second half comes only after the test has seen the first.
            self._start(200, {"Transfer-Encoding": "chunked"})
            self.wfile.write(b"6\r\nfirst \r\n")
            self.server.upstream.go_on.wait(10)
            self.wfile.write(b"6\r\nsecond\r\n0\r\n\r\n")
        elif self.path == "/large":
            self._start(200, {"Content-Length": str(320 * len(BLOCK))})
            for _ in range(320):
                self.wfile.write(BLOCK)
        elif self.path == "/torn":
            self._start(200, {"Content-Length": "100"})
            self.wfile.write(b"only this")
            self.close_connection = True
        elif self.path == "/until-close":
            self._start(200, {"Connection": "close"})
            self.wfile.write(b"until the end")
        elif self.path == "/never":
            self.server.upstream.go_on.wait(60)
            self.close_connection = True
        elif self.path == "/no-content":
            self._start(204, {})
        else:
            self._start(200, {"Content-Length": str(len(echo)), "Set-Cookie": "a=1", "X-Host": self.headers["Host"]})
            if self.command != "HEAD":
                self.wfile.write(echo)

    def _start(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while length := int(self.rfile.readline(), 16):
                yield self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
        else:
            length = int(self.headers.get("Content-Length", "0"))
            while length:
                block = self.rfile.read1(min(length, len(BLOCK)))
                if not block:
                    return
                length -= len(block)
                yield block
