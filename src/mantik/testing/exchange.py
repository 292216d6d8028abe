"""One HTTP request at the fault proxy: recorded, then passed on or handed to its fault."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

from mantik.testing.traffic import ProxiedRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from email.message import Message
    from io import BufferedIOBase

    from mantik.testing.relay import RelayServer

__all__ = ["ClientGoneError", "HttpExchange", "shut_down"]

_BLOCK_BYTES = 64 * 1024
_CONNECT_SECONDS = 5.0
_BODILESS = frozenset({http.client.NO_CONTENT, http.client.NOT_MODIFIED})

# RFC 9110, section 7.6.1: these are about one connection and not about the message. `Expect` is answered here.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class ClientGoneError(Exception):
    """The client closed its connection in the middle of its own request."""


class RequestBody:
    """A request's body, read from the client while it is iterated over, without chunk framing.

    Attributes:
        chunked: Whether the client sends it in chunks; otherwise its length was announced.
        size: How many bytes have been read so far.
    """

    def __init__(self, stream: BufferedIOBase, headers: Message) -> None:
        self.chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        self.size = 0
        self._stream = stream
        self._blocks = self._chunks() if self.chunked else self._piece(int(headers.get("Content-Length", "0")))

    def __iter__(self) -> Iterator[bytes]:
        """Go on where the last iteration ended."""
        return self._blocks

    def _chunks(self) -> Iterator[bytes]:
        while length := int(self._line().partition(b";")[0], 16):
            yield from self._piece(length)
            self._line()
        while self._line().strip():
            pass

    def _piece(self, length: int) -> Iterator[bytes]:
        while length:
            try:
                block = self._stream.read1(min(length, _BLOCK_BYTES))
            except ConnectionError as error:
                raise ClientGoneError from error
            if not block:
                raise ClientGoneError
            length -= len(block)
            self.size += len(block)
            yield block

    def _line(self) -> bytes:
        try:
            line = self._stream.readline(_BLOCK_BYTES)
        except ConnectionError as error:
            raise ClientGoneError from error
        if not line:
            raise ClientGoneError
        return line


class HttpExchange(BaseHTTPRequestHandler):
    """The requests of one client connection, one after the other; each is an `Exchange` for its fault."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: RelayServer

    def handle_any(self) -> None:
        """Record the request, choose its fault and let it happen."""
        path, _, query = self.path.partition("?")
        authorization = self.headers.get("Authorization", "")
        request = ProxiedRequest(self.command, path, query, time.time(), authorization)
        self._body = RequestBody(self.rfile, self.headers)
        self._active = self.server.choose(request)
        self._place = self.server.traffic.add(request)
        if self._active is None:
            self.forward()
        else:
            self._note(fault=self._active.fault)
            self._active.fault.happen(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = handle_any  # noqa: N815  # the base class's

    def forward(self) -> None:
        """Pass the request on and the answer back; a platform that does not answer becomes a 502."""
        self._forward(acknowledge=True)

    def forward_unanswered(self) -> None:
        """Pass the request on, read the whole answer, and close."""
        self._forward(acknowledge=False)

    def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Read the request's body, so that the client is done sending and reads the answer."""
        self.read_body()
        self._note(status=status)
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def close(self) -> None:
        """Close the connection without an answer."""
        self.close_connection = True
        shut_down(self.connection)

    def wait(self, seconds: float | None) -> None:
        """Wait until the fault is released."""
        if self._active is not None:
            self._active.released.wait(seconds)

    def read_body(self) -> None:
        """Take what is left of the body and drop it."""
        for _ in self._body:
            pass
        self._note(body_size=self._body.size)

    def log_message(self, *_: object) -> None:
        """Log nothing: the traffic is the log."""

    def _forward(self, *, acknowledge: bool) -> None:
        if self.server.stopping.is_set():
            self.close()
            return
        # One connection per request: a kept one could be closed by the platform just when a body that cannot be
        # sent again is under way.
        connection = http.client.HTTPConnection(*self.server.upstream, timeout=_CONNECT_SECONDS)
        try:
            connection.connect()
        except OSError as error:
            self._answer_for(error)
            return
        upstream = connection.sock
        self.server.watch(upstream)
        try:
            # From here on only `stop` ends a wait: how long a platform may take is the client's decision.
            upstream.settimeout(None)
            self._send(connection)
            try:
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                self._answer_for(error)
                return
            if acknowledge:
                self._return(response)
            else:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    response.read()
                self._note(upstream_status=response.status)
                self.close()
        finally:
            self.server.unwatch(upstream)
            connection.close()

    def _send(self, connection: http.client.HTTPConnection) -> None:
        """Send head and body; a platform that answers before it has read everything may close, which is no error."""
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                connection.putheader(name, value)
        chunked = self._body.chunked
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        try:
            connection.endheaders()
            for block in self._body:
                connection.send(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
            if chunked:
                connection.send(b"0\r\n\r\n")
        except ConnectionError:
            self.read_body()
        self._note(body_size=self._body.size)

    def _return(self, response: http.client.HTTPResponse) -> None:
        self._note(status=response.status, upstream_status=response.status)
        self.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        bodiless = self.command == "HEAD" or response.status in _BODILESS
        chunked = not bodiless and response.length is None and self.request_version == "HTTP/1.1"
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif not bodiless and response.length is None:
            self.close_connection = True
        self.end_headers()
        if bodiless:
            return
        try:
            for block in iter(lambda: response.read1(_BLOCK_BYTES), b""):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
        except http.client.HTTPException:
            self.close()
            return
        if response.length:
            self.close()
        elif chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _answer_for(self, error: Exception) -> None:
        if self.server.stopping.is_set():
            self.close()
            return
        body = f"The platform behind the fault proxy did not answer: {error}\n"
        self.answer(http.client.BAD_GATEWAY, body.encode(), {"Content-Type": "text/plain; charset=utf-8"})

    def _note(self, **changes: object) -> None:
        self.server.traffic.update(self._place, **changes)


def shut_down(connection: socket.socket) -> None:
    """Wake whoever reads from the socket; the thread that owns it closes it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
