"""A loopback proxy in front of a platform, with switches for what can go wrong on the way."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mantik.testing.relay import RelayServer
from mantik.testing.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from mantik.testing.faults import Fault
    from mantik.testing.traffic import PathPattern, ProxiedRequest

__all__ = ["FaultProxy", "FaultSwitch"]


class FaultSwitch:
    """One fault that is switched on at a proxy; as a context manager it is switched off at the end of the block.

    Attributes:
        fault: What happens.
        released: Set once the switch is cleared.
    """

    def __init__(self, fault: Fault, path: PathPattern, method: str | None, times: int | None) -> None:
        self.fault = fault
        self.released = threading.Event()
        self._path = path
        self._method = method
        self._left = times
        self._hits = 0
        self._lock = threading.Lock()

    @property
    def hits(self) -> int:
        """To how many requests the fault has happened."""
        return self._hits

    def clear(self) -> None:
        """Switch the fault off. Requests that hang or wait because of it are let go; clearing twice is harmless."""
        self.released.set()

    def take(self, request: ProxiedRequest) -> bool:
        """Claim the request for this fault, if it is one that is meant and there are times left."""
        if self.released.is_set() or not request.matches(self._path, self._method):
            return False
        with self._lock:
            if self._left is not None and self._hits >= self._left:
                return False
            self._hits += 1
            return True

    def __enter__(self) -> Self:
        """Return the switch, which is on already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Clear."""
        self.clear()


class FaultProxy:
    """A reverse proxy on a free loopback port that passes everything on until a fault is switched on.

    Promises: bodies are streamed in both directions, also chunked ones; client connections are kept alive; the `Host`
    header arrives as the client sent it, so that host and same-origin checks see one consistent address; a request
    is in `requests` before anything is done with it; after `stop` no connection is open and no thread alive.

    Not promised: TLS, upgrades to other protocols, pipelining, and the platform's own way of closing a connection. A
    platform that cannot be reached is seen through the proxy as status 502.

    All methods may be called from any thread, `start` and `stop` from one.

    Args:
        upstream_url: The platform's base URL, `http://host:port`, without a path.

    Raises:
        ValueError: The URL is not of that form.
    """

    def __init__(self, upstream_url: str) -> None:
        parts = urlsplit(upstream_url)
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
            raise ValueError(f"a fault proxy stands before http://host:port, without a path; got {upstream_url!r}")
        self._upstream = (parts.hostname, parts.port or 80)
        self._traffic = Traffic()
        self._switches: list[FaultSwitch] = []
        self._lock = threading.Lock()
        self._server: RelayServer | None = None

    @property
    def url(self) -> str:
        """The base URL to give to clients in the platform's place.

        Raises:
            RuntimeError: The proxy is not running.
        """
        if self._server is None:
            raise RuntimeError("the fault proxy is not running: use it in a with statement or call start()")
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def requests(self) -> list[ProxiedRequest]:
        """Every request so far, in the order of arrival; a copy. Records outlive `stop`."""
        return self._traffic.requests()

    def start(self) -> Self:
        """Listen on a free port.

        Raises:
            RuntimeError: The proxy is running already.
        """
        if self._server is not None:
            raise RuntimeError("the fault proxy is running already")
        self._server = RelayServer(self._upstream, self._traffic, self._choose)
        self._server.start()
        return self

    def stop(self) -> None:
        """Close the port and every connection, hanging ones too. Stopping twice is harmless.

        Raises:
            RuntimeError: A thread did not end within 10 s.
        """
        server, self._server = self._server, None
        if server is not None:
            # First, so that a request which a fault held back is closed and not passed on.
            server.stopping.set()
            self.clear()
            server.stop()

    def fault(
        self, fault: Fault, path: PathPattern = "", *, method: str | None = None, times: int | None = None
    ) -> FaultSwitch:
        """Switch a fault on. If several fit a request, the one switched on last happens.

        Args:
            fault: What happens: `Status`, `Delay`, `Hang`, `LoseAcknowledgement`, `Refuse`, `Html`, `Redirect`, or an
                object with the same method.
            path: To which requests: a text is a prefix of path and query (default: all), a compiled pattern is
                searched in them.
            method: Only requests with this HTTP method; default: all.
            times: To how many requests at most; default: until cleared.

        Returns:
            The switch, to clear the fault, alone or as a context manager.
        """
        switch = FaultSwitch(fault, path, method, times)
        with self._lock:
            self._switches.append(switch)
        return switch

    def clear(self) -> None:
        """Switch every fault off and let go what hangs."""
        with self._lock:
            switches, self._switches = self._switches, []
        for switch in switches:
            switch.clear()

    def count(self, path: PathPattern = "", *, method: str | None = None) -> int:
        """Count the requests so far with this path (as in `fault`) and method, answered or not."""
        return sum(request.matches(path, method) for request in self.requests)

    def wait_for(
        self,
        wanted: int | Callable[[ProxiedRequest], bool],
        path: PathPattern = "",
        *,
        method: str | None = None,
        deadline: float = 10.0,
    ) -> list[ProxiedRequest]:
        """Wait for requests, past ones included.

        Args:
            wanted: So many requests have arrived, answered or not; or: one request has arrived for which this is true,
                asked again whenever a record changes (`lambda request: request.status == 200`).
            path: Only requests with this path, as in `fault`.
            method: Only requests with this HTTP method.
            deadline: Seconds after which waiting is given up.

        Returns:
            All requests that fit.

        Raises:
            TimeoutError: They did not come in time; the text lists what came.
        """
        number, fits = (wanted, _any_request) if isinstance(wanted, int) else (1, wanted)
        return self._traffic.wait_for(lambda request: request.matches(path, method) and fits(request), number, deadline)

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _choose(self, request: ProxiedRequest) -> FaultSwitch | None:
        with self._lock:
            return next((switch for switch in reversed(self._switches) if switch.take(request)), None)


def _any_request(_: ProxiedRequest) -> bool:
    return True
