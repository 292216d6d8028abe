from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from mantik.server.tokens import TokenIssuer, load_signing_key

from .asgi import HOST, OWN_PAGE, Answer, call, cookie_of, request, sign_in
from .running import PASSWORD

if TYPE_CHECKING:
    from starlette.types import Message

    from mantik.server.store import User

    from .conftest import Bench

SEARCH = "/api/2.0/mlflow/experiments/search"


def ask(bench: Bench, *headers: tuple[str, str]) -> Answer:
    """Send an API request with these headers."""
    return call(bench.app, "GET", SEARCH, headers=list(headers))


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  ", ""])
def test_access_token_opens(bench: Bench, alice: User, scheme: str) -> None:
    """A token is taken with the scheme in any case, and bare."""
    answer = ask(bench, ("Authorization", scheme + bench.issuer().issue(alice, "access").text))
    assert answer.status == 200


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "'Authorization' header missing"),
        ("", "Empty token in 'Authorization' header"),
        ("Bearer", "Empty token in 'Authorization' header"),
        ("Bearer  ", "Empty token in 'Authorization' header"),
        ("Bearer x", "Invalid token"),
        ("Bearer a b", "Invalid token"),
        ("Basic YWxpY2U6cGFzc3dvcmQ=", "Invalid token"),
    ],
)
def test_refusal_says_what_is_wrong_with_the_header(bench: Bench, value: str | None, reason: str) -> None:
    """The texts are those of the contract, and the answer names the scheme."""
    answer = ask(bench, *([] if value is None else [("Authorization", value)]))
    assert (answer.status, answer.text) == (401, reason)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"].startswith("text/plain")
    assert not bench.inner.seen


def test_refresh_and_session_tokens_are_no_access_tokens(bench: Bench, alice: User) -> None:
    """Only access tokens open anything as a bearer token."""
    for use in ("refresh", "session"):
        answer = ask(bench, ("Authorization", f"Bearer {bench.issuer().issue(alice, use).text}"))
        assert (answer.status, answer.text) == (401, f"Token type '{use}' not allowed ('access' required)")


def test_token_ends_with_its_time(bench: Bench, alice: User) -> None:
    """A token from two hours ago is over."""
    past = TokenIssuer(load_signing_key(bench.config.signing_key), 3600.0, lambda: 1_700_000_000.0)
    answer = ask(bench, ("Authorization", past.issue(alice, "access").text))
    assert (answer.status, answer.text) == (401, "Token expired")


def test_token_of_another_platform_is_refused(bench: Bench, alice: User) -> None:
    """A token that another key signed opens nothing."""
    other = TokenIssuer(bytes(32), 3600.0)
    answer = ask(bench, ("Authorization", other.issue(alice, "access").text))
    assert (answer.status, answer.text) == (401, "Invalid signature")


def test_token_ends_with_its_user_and_password(bench: Bench, alice: User) -> None:
    """A new password ends the earlier tokens; removing the user ends them for good, also for the next of that name."""
    header = ("Authorization", bench.issuer().issue(alice, "access").text)
    bench.store.change_password("alice", "new")
    assert (ask(bench, header).status, ask(bench, header).text) == (401, "Invalid token")
    bench.store.remove_user("alice")
    bench.store.add_user("alice", "-")
    assert (ask(bench, header).status, ask(bench, header).text) == (401, "Invalid token")


def test_bad_header_is_not_mended_by_a_good_cookie(bench: Bench, alice: User) -> None:
    """Whoever presents a bad token is refused, signed in or not, and not sent to the sign-in page."""
    cookie = cookie_of(sign_in(bench.app, alice.name, PASSWORD))
    headers = {**cookie, "Authorization": "Bearer x", "Accept": "text/html"}
    assert call(bench.app, "GET", "/", headers=cookie).status == 200
    assert call(bench.app, "GET", "/", headers=headers).status == 401


def test_two_headers_are_refused(bench: Bench, alice: User) -> None:
    """A good token beside another header is not picked out."""
    good = ("Authorization", bench.issuer().issue(alice, "access").text)
    assert ask(bench, good, ("Authorization", "Bearer x")).status == 401
    assert ask(bench, good, good).status == 401


def test_credentials_stop_at_the_gate(bench: Bench, alice: User) -> None:
    """MLflow sees neither the token nor the cookie, but every other header and cookie."""
    ask(bench, ("Authorization", bench.issuer().issue(alice, "access").text), ("Cookie", "a=1"), ("X-Own", "1"))
    cookie = cookie_of(sign_in(bench.app, alice.name, PASSWORD))["Cookie"]
    ask(bench, ("Cookie", f"a=1; {cookie}; b=2"))
    by_token, by_cookie = (dict(scope["headers"]) for scope in bench.inner.seen)
    assert by_token == {b"host": HOST.encode(), b"cookie": b"a=1", b"x-own": b"1"}
    assert by_cookie == {b"host": HOST.encode(), b"cookie": b"a=1; b=2"}


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("GET", {"Sec-Fetch-Site": "cross-site"}, 200),
        ("GET", OWN_PAGE, 200),
        ("GET", {"Origin": "http://localhost:3000"}, 403),
        ("OPTIONS", {"Origin": "http://localhost:3000"}, 403),
        ("POST", {}, 403),
        ("POST", {"Origin": "null"}, 403),
        ("POST", {"Origin": "https://other.example"}, 403),
        ("POST", {"Origin": f"https://{HOST}.other.example"}, 403),
        ("POST", {"Origin": f"https://{HOST}:8443"}, 403),
        ("POST", {"Origin": "https://other.example", "Sec-Fetch-Site": "same-origin"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-site"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("POST", OWN_PAGE, 200),
        ("DELETE", OWN_PAGE, 200),
        ("DELETE", {}, 403),
    ],
)
def test_cookie_works_for_own_pages_only(
    bench: Bench, alice: User, method: str, headers: dict[str, str], status: int
) -> None:
    """Another site's page can neither change anything with the cookie nor let its scripts read anything."""
    cookie = cookie_of(sign_in(bench.app, alice.name, PASSWORD))
    assert call(bench.app, method, SEARCH, headers={**cookie, **headers}).status == status
    assert len(bench.inner.seen) == (status == 200)


def test_token_needs_no_origin(bench: Bench, alice: User) -> None:
    """What a program sends with a token is not a page's doing."""
    token = bench.issuer().issue(alice, "access").text
    assert call(bench.app, "POST", SEARCH, headers={"Authorization": f"Bearer {token}"}).status == 200


def test_page_gets_the_badge(bench: Bench) -> None:
    """The front page of a signed-in browser shows the name, escaped, and is never taken from a cache."""
    bench.add_user("<b>bob", PASSWORD)
    cookie = cookie_of(sign_in(bench.app, "%3Cb%3Ebob", PASSWORD))
    answer = call(bench.app, "GET", "/", headers={**cookie, "If-None-Match": '"1"', "Accept-Encoding": "gzip"})
    assert "&lt;b&gt;bob" in answer.text
    assert 'action="/mantik/sign-out"' in answer.text
    assert answer.text.endswith("</form></body></html>")
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers
    assert not {b"if-none-match", b"accept-encoding"} & {name for name, _ in bench.inner.seen[0]["headers"]}


@pytest.mark.parametrize(("path", "content_type"), [("/x", b"text/html"), ("/", b"application/json")])
def test_nothing_else_is_changed(bench: Bench, alice: User, path: str, content_type: bytes) -> None:
    """Other paths and other contents pass as they are."""
    bench.inner.content_type = content_type
    answer = call(bench.app, "GET", path, headers=cookie_of(sign_in(bench.app, alice.name, PASSWORD)))
    assert answer.body == bench.inner.page
    assert answer.headers["etag"] == '"1"'


def test_programs_get_no_badge(bench: Bench, alice: User) -> None:
    """The front page for a token is MLflow's, byte for byte."""
    token = bench.issuer().issue(alice, "access").text
    assert call(bench.app, "GET", "/", headers={"Authorization": token}).body == bench.inner.page


def test_error_is_answered_without_a_traceback(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong in the platform's own code is two words for the client and an error for the log."""
    monkeypatch.setattr("mantik.server.authority.Authority.bearer", lambda *_: 1 / 0)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": SEARCH, "query_string": b""}

    async def serve() -> None:
        await bench.app({**scope, "headers": [(b"authorization", b"x")]}, receive, send)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(serve())
    assert sent[0]["status"] == 500
    assert sent[1]["body"] == b"Internal Server Error"


def test_websocket_is_closed_before_it_opens(bench: Bench, alice: User) -> None:
    """MLflow never sees a WebSocket, not even with a token."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    token = bench.issuer().issue(alice, "access").text
    headers = [(b"authorization", token.encode())]

    async def serve() -> None:
        await bench.app({"type": "websocket", "path": "/health", "headers": headers}, receive, send)

    asyncio.run(serve())
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert not bench.inner.seen


def test_refused_upload_is_read_before_the_answer(bench: Bench) -> None:
    """A client that sends a body first and reads then sees the 401 and no broken connection."""
    received: list[int] = []

    async def refused() -> int:
        chunks = iter([True, True, False])

        async def receive() -> Message:
            received.append(1)
            return {"type": "http.request", "body": b"x" * 1000, "more_body": next(chunks)}

        statuses: list[int] = []

        async def send(message: Message) -> None:
            statuses.append(message.get("status", 0))

        scope: dict[str, Any] = {"type": "http", "method": "PUT", "path": "/x", "query_string": b"", "headers": []}
        await bench.app(scope, receive, send)
        return statuses[0]

    assert asyncio.run(refused()) == 401
    assert len(received) == 3


def test_many_requests_at_once(bench: Bench, alice: User) -> None:
    """Requests do not disturb each other."""
    token = bench.issuer().issue(alice, "access").text

    async def all_at_once() -> set[int]:
        answers = [request(bench.app, "GET", SEARCH, headers={"Authorization": token}) for _ in range(50)]
        return {answer.status for answer in await asyncio.gather(*answers)}

    assert asyncio.run(all_at_once()) == {200}
