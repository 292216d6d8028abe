"""Puts the token on a request, and tries once more with a new one when the platform says 401.

The token goes to the claimed scheme, host and port and nowhere else, whatever redirects or URLs a request meets on its
way.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from requests import codes
from requests.auth import AuthBase
from requests.exceptions import RequestException

from mantik.auth.login import token_source
from mantik.auth.urls import Origin, platform_origin
from mantik.exceptions import MantikError
from mantik.secret import Secret
from mantik.settings import Settings

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

    from mantik.auth.login import TokenSource

__all__ = ["BearerAuth", "claimed_auth"]

_logger = logging.getLogger(__name__)

_SCHEME = "Bearer "


@dataclass(frozen=True, slots=True)
class BearerAuth(AuthBase):
    """A ``requests`` auth object for one platform.

    Attributes:
        origin: The only scheme, host and port that get the token.
        source: Where tokens come from.
        exported: The token in ``MLFLOW_TRACKING_TOKEN``, which MLflow puts on requests to every server; taken off where
            it does not belong.
    """

    origin: Origin
    source: TokenSource
    exported: Secret | None = None

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Add the token to a request that is about to be sent.

        Raises:
            MantikError: There is no token at all; why.
        """
        if Origin.of(request.url or "") != self.origin:
            self._take_off(request)
            return request
        request.headers["Authorization"] = _SCHEME + self.source.bearer().reveal()
        resend = _Resend(self, _position(request.body))
        request.hooks["response"].append(resend)
        return request

    def _take_off(self, request: PreparedRequest) -> None:
        if self.exported is not None and request.headers.get("Authorization") == _SCHEME + self.exported.reveal():
            del request.headers["Authorization"]
            _logger.warning(
                "The platform's token was not sent to %s, which is another server. To use that one with a token of its "
                "own, unset "
                "MLFLOW_TRACKING_AUTH and set MLFLOW_TRACKING_TOKEN.",
                request.url,
            )


@dataclass(frozen=True, slots=True)
class _Resend:
    """What happens when an answer comes: on 401 from the platform, one more attempt with a new token."""

    auth: BearerAuth
    body_position: int | None

    def __call__(self, response: Response, **options: Any) -> Response:  # noqa: ANN401  # requests' signature
        sent = response.request
        if response.status_code != codes.unauthorized or Origin.of(sent.url or "") != self.auth.origin:
            return response
        if any(earlier.status_code == codes.unauthorized for earlier in response.history):
            return response
        rejected = Secret(sent.headers.get("Authorization", "").removeprefix(_SCHEME))
        try:
            fresh = self.auth.source.renew(rejected)
        except MantikError as error:
            _logger.warning("The platform rejected the token, and there is no new one: %s", error)
            return response
        if fresh == rejected or not _rewind(sent, self.body_position):
            return response
        return self._send_again(response, fresh, options)

    def _send_again(self, refused: Response, fresh: Secret, options: dict[str, Any]) -> Response:
        # Reading the rest frees the connection, so that the second attempt goes over the same one.
        try:
            _ = refused.content
        except RequestException:
            return refused
        refused.close()
        again = refused.request.copy()
        again.headers["Authorization"] = _SCHEME + fresh.reveal()
        connection: Any = refused.connection
        answer: Response = connection.send(again, **options)
        answer.history.append(refused)
        answer.request = again
        return answer


def claimed_auth() -> AuthBase:
    """Return the auth object for the platform that ``init_tracking()`` claimed, here or in a parent process.

    Without a claim it adds nothing: a server that nobody claimed gets what MLflow itself would send.

    Raises:
        ConfigurationError: The environment was changed since and does not make sense any more.
    """
    settings = Settings.from_environment()
    if settings.claim is None:
        _logger.warning("MLFLOW_TRACKING_AUTH=mantik is set, but no platform: call mantik.init_tracking() first.")
        return _Nothing()
    # Checked again: the claim comes from the environment, and may have been changed on the way.
    origin = platform_origin(settings.claim, allow_http=settings.allow_http)
    return BearerAuth(origin, token_source(settings.for_claim()), settings.exported_token)


class _Nothing(AuthBase):
    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        return request


def _position(body: object) -> int | None:
    """Remember where a streamed body begins, to send it once more from there."""
    tell = getattr(body, "tell", None)
    if tell is None:
        return None
    try:
        return int(tell())
    except OSError:
        return None


def _rewind(request: PreparedRequest, position: int | None) -> bool:
    """Put a streamed body back to its beginning; tell whether the request can be sent again."""
    if request.body is None or isinstance(request.body, bytes | str):
        return True
    seek = getattr(request.body, "seek", None)
    if seek is None or position is None:
        return False
    try:
        seek(position)
    except OSError:
        return False
    return True
