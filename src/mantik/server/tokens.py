"""Signed tokens: what is in them, how long they live, and why one is refused.

The texts of the refusals are those of the platform contract, so that clients of any age understand them.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from joserfc import jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import OctKey

from mantik.exceptions import AuthenticationError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mantik.server.store import User

TokenUse = Literal["access", "refresh", "session"]

ISSUER: Final = "mantik-server"
CLIENT_ID: Final = "mantik"
REFRESH_LIFETIME: Final = 30 * 24 * 3600.0
SESSION_LIFETIME: Final = 12 * 3600.0
# The login of a job ends with the job, not with time: this is only longer than any job.
JOB_REFRESH_LIFETIME: Final = 10 * 365 * 24 * 3600.0

_ALGORITHM: Final = "HS256"
_KEY_BYTES: Final = 32
# Ours have about 500 characters; nobody needs to have megabytes decoded.
_MAX_LENGTH: Final = 4096
# From this lifetime on a token expires at a whole second, which every reader of JWTs can parse.
_WHOLE_SECONDS_FROM: Final = 60.0


class RefusedTokenError(AuthenticationError):
    """A token that does not open anything. The text says why and may be shown to whoever presented it."""


class ExpiredTokenError(RefusedTokenError):
    """A token that was good and is too old."""


@dataclass(frozen=True, slots=True)
class Token:
    """A signed token and what it says.

    Attributes:
        text: The JWT.
        expires_at: Seconds since 1970 from which on it is refused.
    """

    text: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good token says about its bearer; `job` is the compute job that it was given to, if it was."""

    user_id: str
    username: str
    generation: int
    jti: str
    expires_at: float
    job: str | None = None


class TokenIssuer:
    """Issues and checks the platform's tokens with one key."""

    def __init__(self, key: bytes, access_lifetime: float, clock: Callable[[], float] = time.time) -> None:
        self._key = OctKey.import_key(key)
        self._lifetimes: dict[TokenUse, float] = {
            "access": access_lifetime,
            "refresh": REFRESH_LIFETIME,
            "session": SESSION_LIFETIME,
        }
        self._clock = clock

    def issue(self, user: User, use: TokenUse, job: str | None = None) -> Token:
        """Return a new token of this kind for ``user``.

        Args:
            user: Who is its bearer.
            use: What it is good for.
            job: The id of the compute job that acts for the user, if one does. Whether the job is over is for
                `Authority` to say: of itself a refresh token of a job is good for years.
        """
        now = self._clock()
        lifetime = JOB_REFRESH_LIFETIME if job is not None and use == "refresh" else self._lifetimes[use]
        expires_at = math.floor(now + lifetime) if lifetime >= _WHOLE_SECONDS_FROM else round(now + lifetime, 3)
        claims = {
            "sub": user.id,
            "iss": ISSUER,
            "client_id": CLIENT_ID,
            "token_use": use,
            "iat": int(now),
            "exp": expires_at,
            "jti": str(uuid.uuid4()),
            "username": user.name,
            "generation": user.generation,
            **({} if job is None else {"job": job}),
        }
        text = jwt.encode({"alg": _ALGORITHM, "typ": "JWT"}, claims, self._key, algorithms=[_ALGORITHM])
        return Token(text, expires_at)

    def check(self, text: str, use: TokenUse) -> Claims:
        """Return what the token says, if it is ours, of this kind, and not too old.

        The checks come in the order of the platform contract: signature, expiry, client, issuer, kind.

        Raises:
            ExpiredTokenError: The token is too old.
            RefusedTokenError: Anything else is wrong with it.
        """
        if len(text) > _MAX_LENGTH:
            raise RefusedTokenError("Invalid token")
        try:
            claims = jwt.decode(text, self._key, algorithms=[_ALGORITHM]).claims
        except BadSignatureError as error:
            raise RefusedTokenError("Invalid signature") from error
        except (JoseError, ValueError) as error:
            raise RefusedTokenError("Invalid token") from error
        if self._clock() >= claims.get("exp", 0):
            raise ExpiredTokenError("Token expired")
        if claims.get("client_id") != CLIENT_ID or claims.get("iss") != ISSUER:
            raise RefusedTokenError("Token issued by unauthorized client")
        if claims.get("token_use") != use:
            raise RefusedTokenError(f"Token type {str(claims.get('token_use'))!r} not allowed ({use!r} required)")
        return Claims(
            claims["sub"], claims["username"], claims["generation"], claims["jti"], claims["exp"], claims.get("job")
        )


def load_signing_key(path: Path) -> bytes:
    """Return the key in ``path``, make it if there is none. Processes that race for it get the same key.

    Raises:
        ConfigurationError: The file cannot be read or written, or does not hold a key.
    """
    try:
        if not path.exists():
            _create_signing_key(path)
        key = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"The signing key {path} cannot be read or made: {error.strerror}.") from error
    if len(key) != _KEY_BYTES:
        raise ConfigurationError(
            f"{path} holds no signing key of {_KEY_BYTES} bytes. Restore it, or remove it to end all tokens."
        )
    return key


def _create_signing_key(path: Path) -> None:
    """Write a complete file beside ``path`` and link it there, so that nobody ever reads half a key."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # Another process that was quicker has made the key: then that one counts.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
