"""What can go wrong between a client and a platform, one small switch per kind.

A switch says what happens to one request; `FaultProxy` says to which requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Delay", "Exchange", "Fault", "Hang", "Html", "LoseAcknowledgement", "Redirect", "Refuse", "Status"]

_LOGIN_PAGE = """<!DOCTYPE html>
<html>
<head><title>Guest network</title></head>
<body>
<h1>Welcome</h1>
<form method="post" action="/login"><input name="room"><button>Connect to the internet</button></form>
</body>
</html>
"""


class Exchange(Protocol):
    """One request at the proxy, before anything was answered. Each is finished by exactly one of the calls below."""

    def forward(self) -> None:
        """Pass the request on and the answer back."""

    def forward_unanswered(self) -> None:
        """Pass the request on, wait for the whole answer, and close the connection without giving it back."""

    def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Read the request's body and answer in the platform's place."""

    def close(self) -> None:
        """Close the connection without an answer."""

    def wait(self, seconds: float | None) -> None:
        """Let time pass, at most until the fault is cleared or the proxy is stopped; None waits only for those."""

    def read_body(self) -> None:
        """Take the request's body from the client and drop it."""


class Fault(Protocol):
    """One way in which a request goes wrong. Anything with this method can be given to `FaultProxy.fault`."""

    def happen(self, exchange: Exchange) -> None:
        """Handle one request; called in the thread of its connection."""


@dataclass(frozen=True, slots=True)
class Status:
    """The platform's place answers with an HTTP status; the request is not passed on.

    Attributes:
        code: The HTTP status code, such as 503.
        body: The text of the answer, sent as UTF-8.
        headers: Headers of the answer, such as `{"Retry-After": "1"}`. `Content-Type` is `text/plain` unless given.
    """

    code: int
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)

    def happen(self, exchange: Exchange) -> None:
        """Answer with the status."""
        headers = {"Content-Type": "text/plain; charset=utf-8"} if _lacks_type(self.headers) else {}
        exchange.answer(self.code, self.body.encode(), {**headers, **self.headers})


@dataclass(frozen=True, slots=True)
class Delay:
    """The request is passed on late and answered truly.

    Attributes:
        seconds: How long the request waits before it is passed on. Clearing the fault ends the wait.
    """

    seconds: float

    def happen(self, exchange: Exchange) -> None:
        """Wait, then forward."""
        exchange.wait(self.seconds)
        exchange.forward()


@dataclass(frozen=True, slots=True)
class Hang:
    """The request is taken, body and all, and never answered nor passed on.

    The connection stays open until the client gives up, the fault is cleared or the proxy stops; it is then closed
    without an answer.
    """

    def happen(self, exchange: Exchange) -> None:
        """Take the request and keep silent."""
        exchange.read_body()
        exchange.wait(None)
        exchange.close()


@dataclass(frozen=True, slots=True)
class LoseAcknowledgement:
    """The platform does what was asked and answers, but the client never hears of it: the connection is closed."""

    def happen(self, exchange: Exchange) -> None:
        """Forward, and lose the answer."""
        exchange.forward_unanswered()


@dataclass(frozen=True, slots=True)
class Refuse:
    """The connection is closed as soon as the request's head is read; nothing is passed on.

    The TCP connection itself was accepted, because a path can be matched only then. For a port on which nobody
    listens, stop the proxy or the platform.
    """

    def happen(self, exchange: Exchange) -> None:
        """Close."""
        exchange.close()


@dataclass(frozen=True, slots=True)
class Html:
    """A page that no platform sends, such as the login page of a guest network.

    Attributes:
        status: The HTTP status code; such pages usually come with 200.
    """

    status: int = 200

    def happen(self, exchange: Exchange) -> None:
        """Answer with the page."""
        exchange.answer(self.status, _LOGIN_PAGE.encode(), {"Content-Type": "text/html; charset=utf-8"})


@dataclass(frozen=True, slots=True)
class Redirect:
    """The client is sent elsewhere.

    Attributes:
        location: The URL in the `Location` header.
        status: The HTTP status code. 307 and 308 ask the client to send its body again, credentials included.
    """

    location: str
    status: int = 307

    def happen(self, exchange: Exchange) -> None:
        """Answer with the redirect."""
        exchange.answer(self.status, b"", {"Location": self.location})


def _lacks_type(headers: Mapping[str, str]) -> bool:
    return all(name.lower() != "content-type" for name in headers)
