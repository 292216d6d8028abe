"""Login and refresh as a conversation without I/O: what to ask, what to make of the answer.

The generator yields requests and is sent answers, so that every rule can be tested with ``next()`` and ``send()``. Who
carries the requests to the platform is :mod:`mantik.auth.transport`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mantik.auth.token import Token, local_expiry
from mantik.exceptions import LoginExpiredError, LoginRefusedError, MissingSettingsError, UnexpectedAnswerError
from mantik.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Generator

    from mantik.auth.urls import TokenEndpoint
    from mantik.exceptions import MantikError

__all__ = ["Credentials", "TokenAnswer", "TokenRequest", "token_flow"]

_MAX_WORDS = 200
_REFUSALS = frozenset({400, 401, 403, 422})


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who logs in, and with what.

    Attributes:
        username: The platform user.
        password: Needed to create a token, not to refresh one.
    """

    username: str
    password: Secret | None = None


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One POST of a JSON object to the token endpoint.

    Attributes:
        url: The one URL.
        username: Field ``username`` of the body.
        secret_field: Name of the secret field, ``password`` or ``refresh_token``.
        secret: Its value.
    """

    url: str
    username: str
    secret_field: str
    secret: Secret


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """What came back.

    Attributes:
        status: HTTP status code.
        body: The body, cut to a sane size by the transport.
        date: ``Date`` header.
        location: ``Location`` header of a redirect.
        received_at: Local time in seconds since the epoch.
    """

    status: int
    body: bytes = field(repr=False)
    date: str | None
    location: str | None
    received_at: float


def token_flow(
    endpoint: TokenEndpoint, credentials: Credentials, known: Token | None, now: float
) -> Generator[TokenRequest, TokenAnswer, Token]:
    """Get a token: refresh the known one if it can be refreshed, else log in.

    A refused refresh (any 4xx; any 5xx once the known token has expired, because early platforms report unusual
    refusals as 500) is followed by one login at the same platform if a password is at hand (contract, section 9, rule
    11).

    Args:
        endpoint: Where to ask.
        credentials: Who asks.
        known: The token to renew, if there is one.
        now: Local time in seconds since the epoch.

    Yields:
        The requests to send, one or two.

    Returns:
        The new token; the refresh token is the rotated one if one came, else the one that was used.

    Raises:
        LoginRefusedError: User name and password were refused.
        LoginExpiredError: The refresh was refused and there is no password.
        MissingSettingsError: There is neither a refresh token nor a password.
        UnexpectedAnswerError: The answer is none that a platform gives.
    """
    if known is not None and known.refresh is not None:
        request = TokenRequest(endpoint.refresh_url, credentials.username, "refresh_token", known.refresh)
        answer = yield request
        if _is_success(answer):
            return _granted(answer, request, previous=known.refresh)
        refused = _is_client_error(answer) or (_is_server_error(answer) and known.has_expired(now))
        if not refused:
            raise _unexpected(answer, request)
        if credentials.password is None:
            if answer.status not in _REFUSALS:
                raise _unexpected(answer, request)
            raise LoginExpiredError(
                f"The login of {credentials.username!r} at {_site(request.url)} is over (the platform says: "
                f"{_words(answer, request)}) and no "
                "password is at hand. Run 'mantik login', or set MANTIK_PASSWORD."
            )
    if credentials.password is None:
        raise MissingSettingsError(
            f"{credentials.username!r} is not logged in at {_site(endpoint.create_url)}: set MANTIK_PASSWORD, or run "
            f"'mantik login' once.",
            ("MANTIK_PASSWORD",),
        )
    request = TokenRequest(endpoint.create_url, credentials.username, "password", credentials.password)
    answer = yield request
    if _is_success(answer):
        return _granted(answer, request, previous=None)
    if answer.status in _REFUSALS and not _is_page(answer):
        raise LoginRefusedError(
            f"{_site(request.url)} refused the login of {credentials.username!r} (HTTP {answer.status}: "
            f"{_words(answer, request)}). "
            "Check MANTIK_USERNAME and MANTIK_PASSWORD."
        )
    raise _unexpected(answer, request)


def _is_success(answer: TokenAnswer) -> bool:
    return 200 <= answer.status < 300  # noqa: PLR2004  # the classes of RFC 9110


def _is_client_error(answer: TokenAnswer) -> bool:
    return 400 <= answer.status < 500  # noqa: PLR2004


def _is_server_error(answer: TokenAnswer) -> bool:
    return answer.status >= 500  # noqa: PLR2004


def _is_page(answer: TokenAnswer) -> bool:
    return answer.body.lstrip()[:1] == b"<"


def _granted(answer: TokenAnswer, request: TokenRequest, previous: Secret | None) -> Token:
    # Raised here and not where the body is read: that frame holds tokens in the open, and tracebacks may show a frame's
    # variables.
    token = _token_in(answer, previous)
    if token is None:
        raise _unexpected(answer, request)
    return token


def _token_in(answer: TokenAnswer, previous: Secret | None) -> Token | None:
    try:
        content = json.loads(answer.body)
    except ValueError:
        return None
    access = content.get("AccessToken") if isinstance(content, dict) else None
    # A token goes into a header: visible ASCII only, or requests could be split with it.
    if not isinstance(access, str) or not re.fullmatch(r"[\x21-\x7e]+", access):
        return None
    refresh = content.get("RefreshToken")
    expires_at, lifetime = local_expiry(access, content.get("ExpiresAt"), answer.date, answer.received_at)
    return Token(
        access=Secret(access),
        refresh=Secret(refresh) if isinstance(refresh, str) and refresh else previous,
        expires_at=expires_at,
        lifetime=lifetime,
    )


def _unexpected(answer: TokenAnswer, request: TokenRequest) -> MantikError:
    url, status = request.url, answer.status
    rule = (
        "mantik asks {MLFLOW_TRACKING_URI}/api/mantik/tokens, or {MANTIK_API_URL}/mantik/tokens where MANTIK_API_URL "
        "is set: "
        "check both settings against the platform's documentation."
    )
    if 300 <= status < 400:  # noqa: PLR2004
        message = (
            f"{url} redirects (HTTP {status}) to {_site(answer.location or '') or 'nowhere'}. Credentials are never "
            f"sent on: put the final "
            "address into MLFLOW_TRACKING_URI, or log in to the network first if it has a sign-in page."
        )
    elif status in {404, 405}:
        message = f"{url} issues no tokens (HTTP {status}). {rule}"
    elif status == 429:  # noqa: PLR2004
        message = f"{url} asks to slow down (HTTP 429). Wait a moment, then try again."
    elif _is_server_error(answer):
        said = _words(answer, request)
        message = f"The platform failed to issue a token (HTTP {status} from {url}: {said}). Try again later."
    elif _is_page(answer):
        message = (
            f"{url} answered with a web page (HTTP {status}) where a token was expected: either a sign-in page of the "
            f"network "
            f"(captive portal) or no mantik platform. {rule}"
        )
    else:
        message = f"{url} answered (HTTP {status}) without a usable token. {rule}"
    return UnexpectedAnswerError(message, url, status)


def _words(answer: TokenAnswer, request: TokenRequest) -> str:
    """Return the platform's own words, short, in one line, and without the secret that was sent should it echo it."""
    if _is_page(answer):
        return "a web page"
    text = answer.body.decode("utf-8", errors="replace")
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if isinstance(content, dict):
        text = str(content.get("detail") or content.get("message") or content.get("error") or "no reason given")
    text = " ".join(text.replace(request.secret.reveal(), "***").split())
    text = "".join(character for character in text if character.isprintable())
    return text if len(text) <= _MAX_WORDS else f"{text[:_MAX_WORDS]}..."


def _site(url: str) -> str:
    """Shorten a URL to what may be shown: scheme, host and port, without user information, path or query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else ""
