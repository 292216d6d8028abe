"""What passed through a proxy: one record per request, and waiting for one."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import re
    from collections.abc import Callable

    from mantik.testing.faults import Fault

__all__ = ["PathPattern", "ProxiedRequest", "Traffic"]

PathPattern: TypeAlias = "str | re.Pattern[str]"
"""Which requests are meant: a text is a prefix of path and query, a compiled pattern is searched in them."""


@dataclass(frozen=True, slots=True)
class ProxiedRequest:
    """One request that reached the proxy.

    A record is replaced, never changed: while the request is under way, `body_size` is 0 and both statuses are None.
    They are set before the answer's first byte goes to the client.

    Attributes:
        method: The HTTP method, in capitals.
        path: The path, without query.
        query: The query, without question mark; empty if there is none.
        time: When the request's head was read, in seconds since 1970.
        authorization: The whole `Authorization` header, empty if there was none. It is a secret and not in the repr.
        body_size: Bytes of the request's body, without chunk framing.
        status: The status the client was given; None if it was given none.
        upstream_status: The status the platform answered with; None if the request was not passed on or not answered.
        fault: The fault that happened to the request, if one did.
    """

    method: str
    path: str
    query: str
    time: float
    authorization: str = field(default="", repr=False)
    body_size: int = 0
    status: int | None = None
    upstream_status: int | None = None
    fault: Fault | None = None

    @property
    def scheme(self) -> str:
        """The authorization's scheme, such as `Bearer`; empty without a header."""
        return self.authorization.partition(" ")[0]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the `Authorization` header in hexadecimal, to tell tokens apart in a log; empty without one."""
        return hashlib.sha256(self.authorization.encode("latin-1")).hexdigest() if self.authorization else ""

    def matches(self, path: PathPattern = "", method: str | None = None) -> bool:
        """Tell whether the request is of this path (a prefix or a compiled pattern) and, if given, this method."""
        if method is not None and method.upper() != self.method:
            return False
        target = f"{self.path}?{self.query}" if self.query else self.path
        return target.startswith(path) if isinstance(path, str) else path.search(target) is not None


class Traffic:
    """The requests in the order of their arrival. Safe to use from any thread."""

    def __init__(self) -> None:
        self._requests: list[ProxiedRequest] = []
        self._changed = threading.Condition()

    def add(self, request: ProxiedRequest) -> int:
        """Note a request and return its place, under which it is updated."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()
            return len(self._requests) - 1

    def update(self, place: int, **changes: object) -> None:
        """Replace the record at a place by one with changed fields."""
        with self._changed:
            self._requests[place] = replace(self._requests[place], **changes)  # type: ignore[arg-type]  # any field
            self._changed.notify_all()

    def requests(self) -> list[ProxiedRequest]:
        """Return a copy of the list."""
        with self._changed:
            return list(self._requests)

    def wait_for(self, wanted: Callable[[ProxiedRequest], bool], number: int, deadline: float) -> list[ProxiedRequest]:
        """Wait until so many requests are wanted ones, and return all that are.

        Raises:
            TimeoutError: Fewer came within the deadline (seconds); the text lists all requests.
        """
        with self._changed:
            found: list[ProxiedRequest] = []

            def enough() -> bool:
                found[:] = [request for request in self._requests if wanted(request)]
                return len(found) >= number

            if not self._changed.wait_for(enough, timeout=deadline):
                seen = "".join(f"\n  {request!r}" for request in self._requests) or " none at all"
                message = f"{len(found)} of {number} expected requests came within {deadline:g} s. All requests:{seen}"
                raise TimeoutError(message)
            return found
