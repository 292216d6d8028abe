"""Reads what a client goes on sending after its request was refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope

_BYTES: Final = 32 * 1024 * 1024
_SECONDS: Final = 10.0


async def drain(scope: Scope, receive: Receive, *, most_bytes: int = _BYTES, seconds: float = _SECONDS) -> None:
    """Read and drop the rest of a body, within limits. A client that waits for leave to send it has none.

    A connection that is closed on unread data is reset, and then a client that was still sending never sees why it was
    refused.
    """
    if "expect" in Headers(scope=scope):
        return

    async def read() -> None:
        remaining = most_bytes
        while remaining > 0:
            message = await receive()
            remaining -= len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body", False):
                return

    try:
        await asyncio.wait_for(read(), seconds)
    except asyncio.TimeoutError:
        return


class BodyReader:
    """Reads a body and remembers whether its end was read: behind it there is nothing to wait for.

    Attributes:
        at_end: Whether it was.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.at_end = False

    async def __call__(self) -> Message:
        """Return the next message."""
        message = await self._receive()
        self.at_end = message["type"] != "http.request" or not message.get("more_body", False)
        return message
