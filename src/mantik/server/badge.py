"""Shows a signed-in browser who it is, on MLflow's page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers, MutableHeaders

from mantik.server.pages import with_badge

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A page that came from the browser's own cache, or a part of one, could not be given this user's name.
_ASK_FOR_THE_WHOLE_PAGE: Final = frozenset({b"if-none-match", b"if-modified-since", b"range", b"accept-encoding"})


class Badge:
    """Answers with the page of ``inner`` and the user's badge in it. What is no page passes unchanged."""

    def __init__(self, inner: ASGIApp, username: str) -> None:
        self._inner = inner
        self._username = username

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = [(name, value) for name, value in scope["headers"] if name not in _ASK_FOR_THE_WHOLE_PAGE]
        await self._inner({**scope, "headers": headers}, receive, _BadgedAnswer(send, self._username))


class _BadgedAnswer:
    """Holds a page back until it is complete."""

    def __init__(self, send: Send, username: str) -> None:
        self._send = send
        self._username = username
        self._start: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_page(message):
            self._start = message
        elif self._start is None:
            await self._send(message)
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._finish(self._start)

    async def _finish(self, start: Message) -> None:
        body = with_badge(bytes(self._body), self._username) if self._body else b""
        headers = MutableHeaders(raw=list(start["headers"]))
        for name in ("etag", "last-modified", "accept-ranges", "content-length"):
            del headers[name]
        headers["cache-control"] = "no-store"
        if body:
            headers["content-length"] = str(len(body))
        await self._send({**start, "headers": headers.raw})
        await self._send({"type": "http.response.body", "body": body})


def _is_page(start: Message) -> bool:
    headers = Headers(raw=start["headers"])
    is_html = headers.get("content-type", "").startswith("text/html")
    return is_html and start["status"] == 200 and "content-encoding" not in headers  # noqa: PLR2004 - HTTP's OK
