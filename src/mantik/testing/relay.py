"""The HTTP server inside the fault proxy: its threads and its sockets."""

from __future__ import annotations

import socketserver
import sys
import threading
import time
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Protocol, TypeAlias

from mantik.testing.exchange import ClientGoneError, HttpExchange, shut_down

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from mantik.testing.faults import Fault
    from mantik.testing.traffic import ProxiedRequest, Traffic

__all__ = ["ActiveFault", "Chooser", "RelayServer"]

_JOIN_SECONDS = 10.0


class ActiveFault(Protocol):
    """A fault that was chosen for a request."""

    @property
    def fault(self) -> Fault:
        """What happens."""

    @property
    def released(self) -> threading.Event:
        """Set when nothing shall wait for this fault any longer."""


Chooser: TypeAlias = "Callable[[ProxiedRequest], ActiveFault | None]"
"""Decides which fault happens to a request, if any."""


class RelayServer(ThreadingHTTPServer):
    """One thread per client connection, every thread and socket known, so that `stop` leaves none behind."""

    request_queue_size = 128

    def __init__(self, upstream: tuple[str, int], traffic: Traffic, choose: Chooser) -> None:
        self.upstream = upstream
        self.traffic = traffic
        self.choose = choose
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._handlers: set[threading.Thread] = set()
        self._sockets: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), HttpExchange)
        self._acceptor = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.05}, name="mantik-fault-proxy", daemon=True
        )

    def server_bind(self) -> None:
        """Bind without the look-up of the host's full name that `HTTPServer` does: it can take seconds without DNS."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def start(self) -> None:
        """Accept connections from now on."""
        self._acceptor.start()

    def stop(self) -> None:
        """Close every connection and wait for every thread.

        Raises:
            RuntimeError: A thread did not end within 10 s.
        """
        self.stopping.set()
        self.shutdown()
        self._acceptor.join(_JOIN_SECONDS)
        end = time.monotonic() + _JOIN_SECONDS
        # Sockets are closed in each round: a handler may just be opening its connection to the platform.
        while alive := self._alive():
            if time.monotonic() > end:
                raise RuntimeError(f"threads of the fault proxy did not end: {', '.join(t.name for t in alive)}")
            self._disconnect()
            alive[0].join(0.05)
        self.server_close()

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        """Handle a connection in a thread that is known before it runs."""
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name=f"mantik-fault-proxy-{client_address[1]}",
            daemon=True,
        )
        with self._lock:
            self._handlers.add(thread)
        self.watch(request)
        thread.start()

    def process_request_thread(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        """Handle a connection until either side closes it."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.unwatch(request)
            with self._lock:
                self._handlers.discard(threading.current_thread())

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about clients that went away: that is what the faults make them do."""
        if not isinstance(sys.exc_info()[1], (ClientGoneError, ConnectionError)):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # as given by the base class

    def watch(self, connection: socket.socket) -> None:
        """Include a socket in what `stop` closes."""
        with self._lock:
            self._sockets.add(connection)

    def unwatch(self, connection: socket.socket) -> None:
        """Forget a socket that is closed."""
        with self._lock:
            self._sockets.discard(connection)

    def _alive(self) -> list[threading.Thread]:
        with self._lock:
            return [thread for thread in self._handlers if thread.is_alive()]

    def _disconnect(self) -> None:
        with self._lock:
            for connection in self._sockets:
                shut_down(connection)
