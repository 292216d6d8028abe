"""Who somebody is: tokens checked against the users of this moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mantik.server.tokens import Claims, ExpiredTokenError, RefusedTokenError, Token, TokenIssuer, TokenUse

if TYPE_CHECKING:
    from collections.abc import Callable

    from mantik.server.store import Store, User


@dataclass(frozen=True, slots=True)
class Login:
    """What a client gets for a password."""

    access: Token
    refresh: Token


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who presents an access token.

    Attributes:
        user: The user.
        job: The id of the compute job that acts for the user; ``None`` if the user does so in person.
    """

    user: User
    job: str | None


class Authority:
    """Issues tokens to users and recognises users by tokens.

    A signature alone is not enough: the user must still exist and must not have changed the password since, and the job
    that a token was given to must not be over.
    """

    def __init__(self, store: Store, tokens: TokenIssuer, is_over: Callable[[str], bool] = lambda _: True) -> None:
        """Take the users, what signs the tokens, and what tells whether the compute job of an id is over."""
        self._store = store
        self._tokens = tokens
        self._is_over = is_over

    def log_in(self, user: User, job: str | None = None) -> Login:
        """Return fresh tokens for a client, or for the compute job of an id, whose login is good until it is over."""
        return Login(self._tokens.issue(user, "access", job), self._tokens.issue(user, "refresh", job))

    def renew(self, username: str, refresh_token: str) -> Token:
        """Return a new access token for a refresh token.

        Raises:
            RefusedTokenError: The refresh token is no good, or belongs to another user.
        """
        try:
            user, claims = self._identify(refresh_token, "refresh")
        except ExpiredTokenError as error:
            raise ExpiredTokenError("Refresh token has expired") from error
        except RefusedTokenError as error:
            raise RefusedTokenError("Refresh token is invalid") from error
        if user.name != username:
            raise RefusedTokenError("Refresh token is invalid")
        return self._tokens.issue(user, "access", claims.job)

    def bearer(self, access_token: str) -> Bearer:
        """Return who presents an access token.

        Raises:
            RefusedTokenError: The token is no good.
        """
        user, claims = self._identify(access_token, "access")
        return Bearer(user, claims.job)

    def open_session(self, user: User) -> Token:
        """Return the token for a browser's cookie."""
        return self._tokens.issue(user, "session")

    def session(self, session_token: str) -> User:
        """Return the user who presents a browser's cookie.

        Raises:
            RefusedTokenError: The cookie is no good, or its session was ended.
        """
        user, claims = self._identify(session_token, "session")
        if self._store.is_ended(claims.jti):
            raise RefusedTokenError("Invalid token")
        return user

    def end_session(self, session_token: str) -> None:
        """End a browser's session on the server, so that a kept copy of the cookie opens nothing.

        Raises:
            RefusedTokenError: The cookie is no good.
        """
        claims = self._tokens.check(session_token, "session")
        self._store.end_sign_in(claims.jti, claims.expires_at)

    def _identify(self, token: str, use: TokenUse) -> tuple[User, Claims]:
        claims = self._tokens.check(token, use)
        user = self._store.user_with_id(claims.user_id)
        if user is None or user.generation != claims.generation:
            raise RefusedTokenError("Invalid token")
        if claims.job is not None and self._is_over(claims.job):
            raise ExpiredTokenError("Token expired")
        return user, claims
