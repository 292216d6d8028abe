"""Carries token requests to the platform: one POST, to one URL, once."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import requests

from mantik.auth.flow import TokenAnswer
from mantik.auth.urls import Origin
from mantik.exceptions import PlatformUnreachableError

if TYPE_CHECKING:
    from mantik.auth.flow import TokenRequest

__all__ = ["CONNECT_TIMEOUT_SECONDS", "READ_TIMEOUT_SECONDS", "reason_of", "send"]

CONNECT_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 15.0

_MAX_BODY_BYTES = 256 * 1024


def send(request: TokenRequest) -> TokenAnswer:
    """Send one token request.

    No redirect is followed, no ``.netrc`` is read, and the proxies of the environment are not used towards this machine
    itself, so that a password on its way to loopback stays on the machine.

    Raises:
        PlatformUnreachableError: No answer within 5 s to connect and 15 s to read, connection refused, bad certificate.
    """
    origin = Origin.of(request.url)
    problem = ""
    with requests.Session() as session:
        # Without this, requests would honour HTTP_PROXY for 127.0.0.1 unless NO_PROXY names it.
        session.trust_env = origin is None or not origin.is_loopback
        try:
            return _post(session, request)
        except requests.exceptions.RequestException as error:
            problem = reason_of(error)
    # Raised outside the except block: a chained error of requests would carry the request, and with it the password,
    # into every traceback.
    raise PlatformUnreachableError(f"The platform at {request.url} cannot be reached: {problem}.", request.url)


def _post(session: requests.Session, request: TokenRequest) -> TokenAnswer:
    with session.post(
        request.url,
        data=json.dumps({"username": request.username, request.secret_field: request.secret.reveal()}).encode(),
        headers={"Content-Type": "application/json", "Accept": "application/json"},
        # Any auth object keeps requests from looking into .netrc.
        auth=_no_auth,
        allow_redirects=False,
        timeout=(CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS),
        stream=True,
    ) as response:
        body = next(response.iter_content(_MAX_BODY_BYTES), b"")
        return TokenAnswer(
            status=response.status_code,
            body=body,
            date=response.headers.get("Date"),
            location=response.headers.get("Location"),
            received_at=time.time(),
        )


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def reason_of(error: requests.exceptions.RequestException) -> str:
    """Say in plain words why a request got no answer."""
    if isinstance(error, requests.exceptions.SSLError):
        return (
            f"its certificate was not accepted ({_innermost(error)}). "
            "Set REQUESTS_CA_BUNDLE if it is signed by your institution"
        )
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"no connection within {CONNECT_TIMEOUT_SECONDS:.0f} s"
    if isinstance(error, requests.exceptions.Timeout):
        return f"no answer within {READ_TIMEOUT_SECONDS:.0f} s"
    return _innermost(error)


def _innermost(error: Exception) -> str:
    """Name the innermost cause: the outer texts repeat the URL and object addresses."""
    cause: BaseException = error
    while True:
        inner = (
            cause.__cause__
            or cause.__context__
            or getattr(cause, "reason", None)
            or (cause.args[0] if cause.args else None)
        )
        if not isinstance(inner, BaseException) or inner is cause:
            break
        cause = inner
    text = getattr(cause, "strerror", None) or str(cause)
    return str(text).strip().rstrip(".").lower() or type(cause).__name__
