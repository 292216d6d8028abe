from __future__ import annotations

import io
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
import requests

from mantik.auth.bearer import BearerAuth
from mantik.auth.urls import Origin
from mantik.exceptions import LoginExpiredError
from mantik.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Source:
    """Tokens on demand: each renewal counts up, unless the login is over."""

    username = "ada"

    def __init__(self, over: bool = False) -> None:  # noqa: FBT001, FBT002  # one switch
        self.number = 1
        self.over = over

    def token(self) -> Secret:
        """Return the present token."""
        return Secret(f"token-{self.number}")

    bearer = token

    def renew(self, rejected: Secret) -> Secret:
        """Return the next token."""
        if self.over:
            raise LoginExpiredError("the login is over")
        if rejected == self.token():
            self.number += 1
        return self.token()


class Site(ThreadingHTTPServer):
    """A site that accepts some tokens, redirects from `/away`, and remembers what it was sent."""

    daemon_threads = True

    def __init__(self, accepted: set[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.accepted = {f"Bearer {token}" for token in accepted}
        self.away = ""
        self.seen: list[tuple[str | None, bytes]] = []

    @property
    def url(self) -> str:
        """Return the site's address."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Site
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(body)

    def do_POST(self) -> None:
        self.do_PUT()

    def do_GET(self) -> None:
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        self.server.seen.append((self.headers.get("Authorization"), body))
        if self.path == "/away":
            self.send_response(307)
            self.send_header("Location", self.server.away)
        else:
            self.send_response(200 if self.headers.get("Authorization") in self.server.accepted else 401)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's signature
        """Keep quiet."""


@contextmanager
def serving(*accepted: str) -> Iterator[Site]:
    """Run a site while the block lasts."""
    with Site(set(accepted)) as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site
        finally:
            site.shutdown()
            thread.join()


def auth_for(site: Site, source: Source, exported: str | None = None) -> BearerAuth:
    """Return the auth object that claims a site."""
    origin = Origin.of(site.url)
    assert origin is not None
    return BearerAuth(origin, source, Secret(exported) if exported else None)


def test_a_request_carries_the_present_token() -> None:
    """The token is put on, whatever header MLflow set before."""
    with serving("token-1") as site:
        auth = auth_for(site, Source())
        answer = requests.get(site.url, auth=auth, headers={"Authorization": "Basic x"}, timeout=10)
        assert answer.status_code == 200
        assert [header for header, _ in site.seen] == ["Bearer token-1"]


@pytest.mark.parametrize("body", [b'{"key": "value"}', io.BytesIO(b"x" * 3_000_000), None])
def test_a_401_is_answered_with_a_new_token_once(body: bytes | io.BytesIO | None) -> None:
    """JSON and streamed file bodies arrive whole at the second attempt, and the caller sees only that."""
    whole = body.getvalue() if isinstance(body, io.BytesIO) else body or b""
    with serving("token-2") as site:
        answer = requests.put(site.url, data=body, auth=auth_for(site, Source()), timeout=10)
        assert answer.status_code == 200
        assert site.seen == [("Bearer token-1", whole), ("Bearer token-2", whole)]
        assert [earlier.status_code for earlier in answer.history] == [401]


def test_a_stream_is_sent_again_from_where_it_began() -> None:
    """A body that was read up to its middle before the request starts again from there."""
    body = io.BytesIO(b"header|content")
    body.read(7)
    with serving("token-2") as site:
        assert requests.put(site.url, data=body, auth=auth_for(site, Source()), timeout=10).status_code == 200
        assert [content for _, content in site.seen] == [b"content", b"content"]


def test_a_second_401_reaches_the_caller() -> None:
    """A platform that refuses the new token too is not asked a third time."""
    with serving("no-such-token") as site:
        assert requests.post(site.url, json={}, auth=auth_for(site, Source()), timeout=10).status_code == 401
        assert len(site.seen) == 2


def test_a_body_that_cannot_be_rewound_is_not_sent_twice() -> None:
    """A generator is gone after the first attempt; the 401 reaches the caller."""

    def chunks() -> Iterator[bytes]:
        yield b"once"

    with serving("token-2") as site:
        # With a length of its own the generator is not sent in chunks, which the tiny site does not decode.
        request = requests.Request("PUT", site.url, data=chunks(), auth=auth_for(site, Source())).prepare()
        del request.headers["Transfer-Encoding"]
        request.headers["Content-Length"] = "4"
        assert requests.Session().send(request, timeout=10).status_code == 401
        assert len(site.seen) == 1


def test_when_the_login_is_over_the_401_reaches_the_caller_with_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    """No exception out of the hook: the answer stays, and the log says why there is no new token."""
    with serving("token-2") as site:
        assert requests.get(site.url, auth=auth_for(site, Source(over=True)), timeout=10).status_code == 401
    assert "the login is over" in caplog.text


def test_another_server_never_gets_the_token() -> None:
    """Another port is another server: nothing is put on, and the exported token is taken off."""
    with serving() as claimed, serving() as foreign:
        auth = auth_for(claimed, Source(), exported="exported")
        headers = {"Authorization": "Bearer exported"}
        assert requests.get(foreign.url, auth=auth, headers=headers, timeout=10).status_code == 401
        assert requests.get(foreign.url, auth=auth, headers={"Authorization": "Bearer its-own"}, timeout=10).ok is False
        assert requests.get(foreign.url, auth=auth, timeout=10).status_code == 401
        assert [header for header, _ in foreign.seen] == [None, "Bearer its-own", None]


def test_a_redirect_to_another_server_does_not_take_the_token_along() -> None:
    """After a redirect to another port the token is gone, and a 401 there brings no new one."""
    with serving("token-1") as claimed, serving() as foreign:
        claimed.away = foreign.url
        source = Source()
        answer = requests.get(f"{claimed.url}/away", auth=auth_for(claimed, source), timeout=10)
        assert answer.status_code == 401
        assert [header for header, _ in foreign.seen] == [None]
        assert source.number == 1


def test_netrc_does_not_replace_the_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An entry in .netrc for the host is not used."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ada password netrc-password\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with serving("token-1") as site:
        assert requests.get(site.url, auth=auth_for(site, Source()), timeout=10).status_code == 200
