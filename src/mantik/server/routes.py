"""The platform's own routes: tokens, health, sign-in and sign-out."""

from __future__ import annotations

import contextlib
import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, Router

from mantik.server.attempts import Refusal, SignInAttempts
from mantik.server.config import HEALTH_PATH, INSTANCE_HEADER
from mantik.server.origin import is_own_page
from mantik.server.pages import HEADERS, SIGN_IN_PATH, SIGN_OUT_PATH, safe_next, sign_in_page
from mantik.server.tokens import SESSION_LIFETIME, RefusedTokenError, Token

if TYPE_CHECKING:
    from starlette.requests import Request

    from mantik.server.authority import Authority
    from mantik.server.store import User

CREATE_PATH: Final = "/api/mantik/tokens/create"
REFRESH_PATH: Final = "/api/mantik/tokens/refresh"
OWN_PATHS: Final = frozenset({CREATE_PATH, REFRESH_PATH, HEALTH_PATH, SIGN_IN_PATH, SIGN_OUT_PATH})

SESSION_COOKIE: Final = "mantik_session"

_MAX_BODY: Final = 16 * 1024
_MAX_FIELDS: Final = 16
_NO_STORE: Final = {"Cache-Control": "no-store"}
_CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}
_FOREIGN_PAGE: Final = "Refused: the request does not come from a page of this platform"


class Routes:
    """Answers the paths in `OWN_PATHS`."""

    def __init__(self, authority: Authority, attempts: SignInAttempts, instance: str) -> None:
        self._authority = authority
        self._attempts = attempts
        self._instance = instance

    def router(self) -> Router:
        """Return the routes as an ASGI application."""
        return Router(
            [
                Route(CREATE_PATH, self._create, methods=["POST"]),
                Route(REFRESH_PATH, self._refresh, methods=["POST"]),
                Route(HEALTH_PATH, self._health, methods=["GET"]),
                Route(SIGN_IN_PATH, self._sign_in, methods=["GET", "POST"]),
                Route(SIGN_OUT_PATH, self._sign_out, methods=["POST"]),
            ],
            redirect_slashes=False,
        )

    async def _health(self, _request: Request) -> Response:
        return PlainTextResponse("I'm healthy!", headers={INSTANCE_HEADER: self._instance} | _NO_STORE)

    async def _create(self, request: Request) -> Response:
        fields = await _json_texts(request, "username", "password")
        if isinstance(fields, Response):
            return fields
        username, password = fields
        outcome = await self._attempts.check(_client(request), username, password)
        if isinstance(outcome, Refusal):
            return PlainTextResponse(outcome.text, outcome.status, _refusal_headers(outcome))
        login = self._authority.log_in(outcome)
        return _created(
            {
                "AccessToken": login.access.text,
                "RefreshToken": login.refresh.text,
                "ExpiresAt": _iso(login.access),
            }
        )

    async def _refresh(self, request: Request) -> Response:
        fields = await _json_texts(request, "username", "refresh_token")
        if isinstance(fields, Response):
            return fields
        username, refresh_token = fields
        try:
            access = self._authority.renew(username, refresh_token)
        except RefusedTokenError as error:
            return PlainTextResponse(str(error), 401, _CHALLENGE | _NO_STORE)
        return _created({"AccessToken": access.text, "ExpiresAt": _iso(access)})

    async def _sign_in(self, request: Request) -> Response:
        if request.method != "POST":
            return HTMLResponse(sign_in_page(), headers=HEADERS)
        if not is_own_page(request.headers):
            return _forbidden()
        form = await _form(request)
        if isinstance(form, Response):
            return form
        username = form.get("username", "")
        outcome = await self._attempts.check(_client(request), username, form.get("password", ""))
        if isinstance(outcome, Refusal):
            headers = HEADERS | _refusal_headers(outcome)
            return HTMLResponse(sign_in_page(username, f"{outcome.text}."), outcome.status, headers)
        return self._signed_in(request, outcome)

    def _signed_in(self, request: Request, user: User) -> Response:
        response = RedirectResponse(safe_next(request.query_params.get("next", "/")), 303, HEADERS)
        response.set_cookie(
            SESSION_COOKIE,
            self._authority.open_session(user).text,
            max_age=int(SESSION_LIFETIME),
            path="/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="lax",
        )
        return response

    async def _sign_out(self, request: Request) -> Response:
        if not is_own_page(request.headers):
            return _forbidden()
        # Whoever is signed out already wants to see the sign-in page as well.
        with contextlib.suppress(RefusedTokenError):
            self._authority.end_session(request.cookies.get(SESSION_COOKIE, ""))
        response = RedirectResponse(SIGN_IN_PATH, 303, HEADERS)
        response.delete_cookie(
            SESSION_COOKIE, path="/", secure=request.url.scheme == "https", httponly=True, samesite="lax"
        )
        return response


def _created(content: dict[str, str]) -> Response:
    return JSONResponse(content, 201, _NO_STORE)


def _forbidden() -> Response:
    return PlainTextResponse(_FOREIGN_PAGE, 403, HEADERS)


def _refusal_headers(refusal: Refusal) -> dict[str, str]:
    if refusal.retry_after:
        return _NO_STORE | {"Retry-After": str(refusal.retry_after)}
    return _NO_STORE | _CHALLENGE


def _client(request: Request) -> str:
    return request.client.host if request.client else ""


def _iso(token: Token) -> str:
    moment = datetime.fromtimestamp(token.expires_at, timezone.utc)
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds")


async def _json_texts(request: Request, *names: str) -> tuple[str, ...] | Response:
    """Return the named texts of a JSON object, or the answer that says what was expected."""
    body = await _body(request)
    if isinstance(body, Response):
        return body
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        texts = tuple(value for name in names if isinstance(value := content.get(name), str))
        if len(texts) == len(names):
            return texts
    expected = " and ".join(repr(name) for name in names)
    return PlainTextResponse(f"Expected a JSON object with the texts {expected}", 400, _NO_STORE)


async def _form(request: Request) -> dict[str, str] | Response:
    """Return the fields of the sign-in form, or the answer that says what was expected."""
    body = await _body(request)
    if isinstance(body, Response):
        return body
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        return PlainTextResponse("Expected the fields of the sign-in form", 400, _NO_STORE)
    return {name: values[0] for name, values in fields.items()}


async def _body(request: Request) -> bytes | Response:
    """Return the whole body, or the answer that says it is too long."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            return PlainTextResponse(f"Expected a body of at most {_MAX_BODY} bytes", 413, _NO_STORE)
    return bytes(body)
