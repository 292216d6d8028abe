"""The platform without a server: requests go straight into the ASGI application."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "platform.example"
OWN_PAGE = {"Origin": f"https://{HOST}"}


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Headers
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> dict[str, str]:
        """Return the body as a JSON object."""
        content = json.loads(self.body)
        assert isinstance(content, dict)
        return content


@dataclass
class Inner:
    """Stands for MLflow: answers every request with one page, and remembers what arrived."""

    page: bytes = b"<html><body>MLflow</body></html>"
    content_type: bytes = b"text/html; charset=utf-8"
    seen: list[Scope] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        del receive
        self.seen.append(scope)
        headers = [(b"content-type", self.content_type), (b"content-length", str(len(self.page)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": [*headers, (b"etag", b'"1"')]})
        half = len(self.page) // 2
        await send({"type": "http.response.body", "body": self.page[:half], "more_body": True})
        await send({"type": "http.response.body", "body": self.page[half:]})


async def request(  # noqa: PLR0913 - the parts of a request
    app: ASGIApp,
    method: str,
    path: str,
    *,
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
    body: bytes = b"",
    query: str = "",
    raw_path: bytes | None = None,
    client: str = "198.51.100.7",
    scheme: str = "http",
) -> Answer:
    """Send one request into ``app``."""
    pairs = list(headers.items() if isinstance(headers, dict) else headers or [])
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode() if raw_path is None else raw_path,
        "query_string": query.encode(),
        "scheme": scheme,
        "client": (client, 40000),
        "headers": [(k.lower().encode(), v.encode()) for k, v in [("Host", HOST), *pairs]],
    }
    sent: list[Message] = []
    unread = [body]

    async def receive() -> Message:
        if not unread:
            # As a server does: after the body, the next thing to tell is that the client has gone.
            await asyncio.Event().wait()
        return {"type": "http.request", "body": unread.pop(), "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent[0]["type"] == "http.response.start"
    return Answer(
        sent[0]["status"], Headers(raw=sent[0]["headers"]), b"".join(message.get("body", b"") for message in sent[1:])
    )


def call(app: ASGIApp, method: str, path: str, **parts: Any) -> Answer:  # noqa: ANN401 - passed on
    """Send one request into ``app``, from a test that is no coroutine."""
    return asyncio.run(request(app, method, path, **parts))


def post_json(app: ASGIApp, path: str, **content: object) -> Answer:
    """Send a JSON object."""
    return call(app, "POST", path, body=json.dumps(content).encode())


def sign_in(app: ASGIApp, username: str, password: str, *, query: str = "", scheme: str = "http") -> Answer:
    """Send the sign-in form as a browser does."""
    body = f"username={username}&password={password}".encode()
    return call(app, "POST", "/mantik/sign-in", body=body, query=query, scheme=scheme, headers=OWN_PAGE)


def cookie_of(answer: Answer) -> dict[str, str]:
    """Return the header that sends the answer's cookie back."""
    return {"Cookie": answer.headers["set-cookie"].split(";")[0]}
