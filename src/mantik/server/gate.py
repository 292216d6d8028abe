"""The gate in front of MLflow: every request needs a token or a signed-in browser, except for a fixed list of paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from mantik.server.badge import Badge
from mantik.server.compute.routes import BEARER
from mantik.server.compute.routes import PREFIX as COMPUTE_PREFIX
from mantik.server.config import HEALTH_PATH
from mantik.server.drain import drain
from mantik.server.origin import may_use_cookie
from mantik.server.pages import SIGN_IN_PATH, sign_in_address
from mantik.server.routes import CREATE_PATH, OWN_PATHS, REFRESH_PATH, SESSION_COOKIE
from mantik.server.tokens import RefusedTokenError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from mantik.server.authority import Authority

OPEN_PATHS: Final = frozenset({CREATE_PATH, REFRESH_PATH, HEALTH_PATH, SIGN_IN_PATH, "/health", "/version"})
"""The paths that answer without a token. Exactly these: no other spelling of them and nothing below them."""

CLOSED_PATH: Final = "/ajax-api/3.0/mlflow/assistant"
"""MLflow's assistant, closed for everybody: it runs shell commands as the account of the server, and takes whoever
comes over loopback (each user of the machine, everything behind a proxy) for the server's owner."""

_CALLED_BY_PROGRAMS: Final = ("/api/", "/ajax-api/", "/v1/", "/gateway/", "/graphql", "/static-files/")
_CREDENTIALS: Final = frozenset({b"authorization", b"cookie"})
_UNAUTHORIZED: Final = {"WWW-Authenticate": "Bearer", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that may pass.

    Attributes:
        username: Who sent it.
        by_cookie: Whether a signed-in browser did.
    """

    username: str
    by_cookie: bool


class Gate:
    """Wraps MLflow's ASGI application.

    The platform's own paths go to ``own``, those of the compute backend with a token to ``compute``, open and admitted
    requests to ``inner``; all others are refused here. Credentials stop here as well: MLflow and the compute backend
    never see a token or the cookie, so that nothing behind them can pass them on.
    """

    def __init__(self, inner: ASGIApp, own: ASGIApp, compute: ASGIApp, authority: Authority) -> None:
        self._inner = inner
        self._own = own
        self._compute = compute
        self._authority = authority

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._inner(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            # MLflow has no WebSockets; before the handshake this is answered with 403.
            await send({"type": "websocket.close", "code": 1008})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _exact_path(scope)
        if path in OWN_PATHS:
            await self._own(scope, receive, send)
            return
        if path in OPEN_PATHS:
            await self._inner(_without_credentials(scope), receive, send)
            return
        if scope["path"] == COMPUTE_PREFIX or scope["path"].startswith(f"{COMPUTE_PREFIX}/"):
            await self._serve_compute(scope, receive, send)
            return
        admission = self._admit(scope)
        if isinstance(admission, Response):
            await drain(scope, receive)
            await admission(scope, receive, send)
            return
        if scope["path"].startswith(CLOSED_PATH):
            await drain(scope, receive)
            refusal = "Refused: the MLflow Assistant is switched off, because it runs commands on the server"
            await PlainTextResponse(refusal, 403)(scope, receive, send)
            return
        inner = self._inner
        scope = _without_credentials(scope)
        if admission.by_cookie:
            scope = _without_origin(scope)
            if path == "/":
                inner = Badge(inner, admission.username)
        await inner(scope, receive, send)

    async def _serve_compute(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request to the compute backend, which is for programs: the browser's cookie opens nothing there."""
        try:
            bearer = self._authority.bearer(_bearer_token(Headers(scope=scope)))
        except RefusedTokenError as error:
            await drain(scope, receive)
            await JSONResponse({"detail": str(error)}, 401, _UNAUTHORIZED)(scope, receive, send)
            return
        await self._compute({**_without_credentials(scope), BEARER: bearer}, receive, send)

    def _admit(self, scope: Scope) -> Admission | Response:
        """Say who sent the request, or how to refuse it."""
        headers = Headers(scope=scope)
        try:
            if "authorization" in headers:
                return Admission(self._authority.bearer(_bearer_token(headers)).user.name, by_cookie=False)
            user = self._authority.session(_session_cookie(headers))
        except RefusedTokenError as error:
            if _is_navigation(scope, headers):
                return RedirectResponse(sign_in_address(_path_and_query(scope)), 303, {"Cache-Control": "no-store"})
            return PlainTextResponse(str(error), 401, _UNAUTHORIZED)
        if not may_use_cookie(scope["method"], headers):
            return PlainTextResponse("Refused: the request comes from another site's page", 403, _UNAUTHORIZED)
        return Admission(user.name, by_cookie=True)


def _exact_path(scope: Scope) -> str:
    """Return the path if it was sent just as it reads, else a text that is no path."""
    path: str = scope["path"]
    raw = scope.get("raw_path")
    return path if raw is None or raw == path.encode("utf-8", "surrogateescape") else ""


def _bearer_token(headers: Headers) -> str:
    """Return the token of the Authorization header, with or without the scheme.

    Raises:
        RefusedTokenError: There is no header, it is empty, there are two, or it has another scheme.
    """
    values = headers.getlist("authorization")
    if not values:
        raise RefusedTokenError("'Authorization' header missing")
    words = values[0].split()
    if words and words[0].lower() == "bearer":
        del words[0]
    if not words:
        raise RefusedTokenError("Empty token in 'Authorization' header")
    if len(values) > 1 or len(words) > 1:
        raise RefusedTokenError("Invalid token")
    return words[0]


def _session_cookie(headers: Headers) -> str:
    """Return the value of the browser's cookie.

    Raises:
        RefusedTokenError: There is none.
    """
    for name, value in _cookies(headers):
        if name == SESSION_COOKIE:
            return value
    raise RefusedTokenError("'Authorization' header missing")


def _cookies(headers: Headers) -> list[tuple[str, str]]:
    pairs = (pair.partition("=") for line in headers.getlist("cookie") for pair in line.split(";"))
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def _is_navigation(scope: Scope, headers: Headers) -> bool:
    """Tell whether a person follows a link, so that the sign-in page is a better answer than a text."""
    return (
        scope["method"] in {"GET", "HEAD"}
        and "authorization" not in headers
        and "text/html" in headers.get("accept", "")
        and not scope["path"].startswith(_CALLED_BY_PROGRAMS)
    )


def _path_and_query(scope: Scope) -> str:
    query: str = scope["query_string"].decode("latin-1")
    return f"{scope['path']}?{query}" if query else scope["path"]


def _without_credentials(scope: Scope) -> Scope:
    headers = [(name, value) for name, value in scope["headers"] if name not in _CREDENTIALS]
    others = [f"{name}={value}" for name, value in _cookies(Headers(scope=scope)) if name and name != SESSION_COOKIE]
    if others:
        headers.append((b"cookie", "; ".join(others).encode("latin-1")))
    return {**scope, "headers": headers}


def _without_origin(scope: Scope) -> Scope:
    """Drop the Origin header that `may_use_cookie` has found to be our own.

    MLflow takes every origin but localhost for a foreign one, and would block its own page under a public name.
    """
    return {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != b"origin"]}
