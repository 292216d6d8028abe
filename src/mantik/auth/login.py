"""Where a process gets its bearer token from: the user's login, or the token that a compute job was given.

One source serves all threads of a process. It may be called from any thread and, after a fork, from the child.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mantik.auth.cache import TokenCache
from mantik.auth.flow import Credentials, token_flow
from mantik.auth.token import claims_of
from mantik.auth.transport import send
from mantik.auth.urls import token_endpoint
from mantik.exceptions import MantikError, MissingSettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mantik.auth.flow import TokenAnswer, TokenRequest
    from mantik.auth.token import Token
    from mantik.auth.urls import TokenEndpoint
    from mantik.secret import Secret
    from mantik.settings import Settings

__all__ = ["GivenToken", "Login", "TokenSource", "token_source"]

_logger = logging.getLogger(__name__)

_FAILURE_PAUSE_SECONDS = 30.0
"""After a failed renewal the platform is left alone this long: a training must not wait for a timeout at every call."""

_REJECTION_PAUSE_SECONDS = 5.0
"""A platform that refuses a token this young will refuse the next one too."""


class TokenSource(Protocol):
    """What can hand out a bearer token."""

    @property
    def username(self) -> str | None:
        """The platform user, where it is known."""

    @property
    def is_at_hand(self) -> bool:
        """Whether a token that is good now can be had without a request."""

    @property
    def is_waiting(self) -> bool:
        """Whether there is no token and somebody waits for the platform to give one."""

    def token(self) -> Secret:
        """Return a token that is good now, or raise why there is none."""

    def bearer(self) -> Secret:
        """Return the best token there is for one request; raise only if there never was one."""

    def renew(self, rejected: Secret) -> Secret:
        """Return another token than the one that the platform just rejected; the same one if there is no other."""


@dataclass(frozen=True, slots=True)
class GivenToken:
    """The token that a compute job was given: used as it is, renewed by nobody here.

    Attributes:
        given: The token.
    """

    given: Secret

    @property
    def username(self) -> str | None:
        """The user whom the token names, if it tells."""
        name = claims_of(self.given.reveal()).get("username")
        return name if isinstance(name, str) else None

    @property
    def is_at_hand(self) -> bool:
        """Always."""
        return True

    @property
    def is_waiting(self) -> bool:
        """Never."""
        return False

    def token(self) -> Secret:
        """Return the given token."""
        return self.given

    def bearer(self) -> Secret:
        """Return the given token."""
        return self.given

    def renew(self, rejected: Secret) -> Secret:  # noqa: ARG002  # part of the protocol
        """Return the given token: there is no other."""
        return self.given


class Login:
    """A user's login, renewed when it is time.

    A renewal ahead of expiry is done by one thread while the others go on with the token that is still good; only an
    expired token makes them wait. Across processes one renews and the others read what it wrote.
    """

    def __init__(
        self,
        endpoint: TokenEndpoint,
        credentials: Credentials,
        cache: TokenCache,
        *,
        transport: Callable[[TokenRequest], TokenAnswer] = send,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep the parts; nothing is read, sent or written yet."""
        self.endpoint = endpoint
        self.cache = cache
        self._credentials = credentials
        self._transport = transport
        self._clock = clock
        self._known: Token | None = None
        self._issued_at = 0.0
        self._failure: MantikError | None = None
        self._quiet_until = 0.0
        self._lock = threading.Lock()
        _logins.add(self)

    @property
    def username(self) -> str | None:
        """The platform user."""
        return self._credentials.username

    @property
    def known(self) -> Token | None:
        """The token at hand, without any request: from memory, else from the cache."""
        return self._known or self.cache.load()

    @property
    def is_at_hand(self) -> bool:
        """Whether a token that is good now can be had without a request."""
        known = self.known
        return known is not None and not known.wants_renewal(self._clock())

    @property
    def is_waiting(self) -> bool:
        """Whether there is no token and a thread of this process waits for the platform to give one."""
        return self._lock.locked() and self._known is None

    def token(self) -> Secret:
        """Return a token that is good now.

        Raises:
            AuthenticationError: The platform refused the login.
            MissingSettingsError: There is no cached login and no password.
            PlatformError: The platform did not answer, or not as a platform does.
        """
        return self._current().access

    def bearer(self) -> Secret:
        """Return the best token there is for one request.

        If the platform cannot renew it right now, that is an expired one: MLflow then retries the request as it always
        does, and the answer 401 brings the next attempt to renew.

        Raises:
            MantikError: There never was a token; why.
        """
        try:
            return self.token()
        except MantikError:
            if self._known is None:
                raise
            return self._known.access

    def renew(self, rejected: Secret) -> Secret:
        """Return another token than the one that the platform just rejected.

        Raises:
            MantikError: There is no other; why.
        """
        with self._lock:
            if self._known is None or self._known.access == rejected:
                youth = self._clock() - self._issued_at
                if self._known is not None and 0 <= youth < min(_REJECTION_PAUSE_SECONDS, self._known.lifetime / 2):
                    return rejected
                self._obtain(rejected)
            return self._must_know().access

    def log_in(self) -> Token:
        """Exchange user name and password for new tokens, whatever is cached.

        Raises:
            AuthenticationError: The platform refused the login.
            PlatformError: The platform did not answer, or not as a platform does.
        """
        with self._lock, self.cache.locked():
            return self._converse(None)

    def forget_lock(self) -> None:
        """Take a new lock in a forked child, where the thread that held the old one does not exist."""
        self._lock = threading.Lock()

    def _current(self) -> Token:
        known = self._known
        now = self._clock()
        if known is not None and not known.wants_renewal(now):
            return known
        usable = known is not None and not known.has_expired(now)
        if not self._lock.acquire(blocking=not usable):
            return self._must_know()
        try:
            if self._known is None or self._known.wants_renewal(self._clock()):
                self._obtain(None)
        except MantikError as error:
            if not usable:
                raise
            _logger.debug("Renewing ahead of expiry failed (%s); the present token is still good.", error)
        finally:
            self._lock.release()
        return self._must_know()

    def _obtain(self, rejected: Secret | None) -> None:
        """Get a token from the cache or from the platform. The lock is held."""
        if self._failure is not None and self._clock() < self._quiet_until:
            raise self._failure.with_traceback(None)
        cached = self._usable_in_cache(rejected)
        if cached is None:
            with self.cache.locked():
                # Another process may have renewed while this one waited for the lock.
                cached = self._usable_in_cache(rejected)
                if cached is None:
                    self._converse(self.cache.load() or self._known)
                    return
        self._known, self._issued_at, self._failure = cached, 0.0, None

    def _usable_in_cache(self, rejected: Secret | None) -> Token | None:
        cached = self.cache.load()
        if cached is None or cached.wants_renewal(self._clock()) or cached.access == rejected:
            return None
        return cached

    def _converse(self, renewable: Token | None) -> Token:
        flow = token_flow(self.endpoint, self._credentials, renewable, self._clock())
        try:
            request = next(flow)
            while True:
                request = flow.send(self._transport(request))
        except StopIteration as finished:
            token: Token = finished.value
        except MissingSettingsError:
            # Nothing was asked, so there is nothing to leave alone: the user may set the password and call again at
            # once.
            raise
        except MantikError as error:
            pause = min(_FAILURE_PAUSE_SECONDS, renewable.lifetime / 4) if renewable is not None else 0.0
            self._failure, self._quiet_until = error, self._clock() + pause
            raise
        self.cache.store(token)
        self._known, self._issued_at, self._failure = token, self._clock(), None
        return token

    def _must_know(self) -> Token:
        if self._known is None:
            raise RuntimeError("a token is known after every successful renewal")
        return self._known


_logins: weakref.WeakSet[Login] = weakref.WeakSet()
_sources: dict[tuple[str, Credentials, str], Login] = {}


def _forget_locks() -> None:
    for login in list(_logins):
        login.forget_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


def token_source(settings: Settings) -> TokenSource:
    """Return the process's source of tokens for these settings.

    Raises:
        MissingSettingsError: User name or platform are not configured.
        EndpointError: The platform's URL is none that credentials may be sent to.
    """
    if settings.given_token is not None:
        return GivenToken(settings.given_token)
    return login_for(settings)


def login_for(settings: Settings) -> Login:
    """Return the process's login for these settings; the same settings give the same login.

    Raises:
        MissingSettingsError: User name or platform are not configured.
        EndpointError: The platform's URL is none that credentials may be sent to.
    """
    endpoint = token_endpoint(settings)
    if settings.username is None:
        raise MissingSettingsError(
            "No user is configured: set MANTIK_USERNAME, or run 'mantik login' once.", ("MANTIK_USERNAME",)
        )
    credentials = Credentials(settings.username, settings.password)
    key = (endpoint.base, credentials, str(settings.home))
    login = _sources.get(key)
    if login is None:
        cache = TokenCache(settings.home, endpoint.base, settings.username)
        # setdefault: of two threads that come here at once, both get the same login, and with it the same lock.
        login = _sources.setdefault(key, Login(endpoint, credentials, cache))
    return login
