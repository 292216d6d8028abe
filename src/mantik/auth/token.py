"""A token and what can be known about it without asking anybody."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mantik.secret import Secret

__all__ = ["Token", "claims_of", "local_expiry", "parse_expiry"]

_LEEWAY_SECONDS = 300.0
"""Renew this long ahead of expiry: MLflow's own retries keep one prepared header in use for about 4 minutes."""

_LEEWAY_SHARE = 0.25
"""...but never give away more than this share of a short-lived token's life."""

_SKEW_TOLERANCE_SECONDS = 30.0
_UNKNOWN_LIFETIME_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Token:
    """An access token with its means of renewal.

    Attributes:
        access: The bearer token.
        refresh: What renews it, if the platform gave one.
        expires_at: When it ends, in seconds since the epoch by *this machine's* clock.
        lifetime: Seconds from its issue to its end.
    """

    access: Secret = field(repr=False)
    refresh: Secret | None = field(repr=False)
    expires_at: float
    lifetime: float

    def has_expired(self, now: float) -> bool:
        """Tell whether the token's end has passed."""
        return now >= self.expires_at

    def wants_renewal(self, now: float) -> bool:
        """Tell whether it is time to renew: some minutes ahead of the end, or the last quarter of a short life."""
        return now >= self.expires_at - min(_LEEWAY_SECONDS, self.lifetime * _LEEWAY_SHARE)


def parse_expiry(text: object) -> float | None:
    """Read an ISO 8601 time as seconds since the epoch.

    Takes what platforms of every era wrote: a ``Z`` suffix, any number of fractional digits, and naive times, which are
    UTC. Anything else is None, not an error: the token itself still tells its end (contract, section 9, rule 12).
    """
    if not isinstance(text, str):
        return None
    # Python 3.10 knows neither "Z" nor fractions of other than three or six digits.
    plain = re.sub(r"[zZ]$", "+00:00", text.strip())
    plain = re.sub(r"\.(\d+)", lambda match: f".{match[1][:6]:0<6}", plain)
    try:
        moment = datetime.fromisoformat(plain)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.timestamp()


def claims_of(token: str) -> dict[str, object]:
    """Read the claims of a JWT without verifying them; an opaque token has none.

    Only for what is shown or estimated: who may do what is decided by the platform.
    """
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004  # header, claims and signature, RFC 7519
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}


def local_expiry(access: str, expires_at: object, server_date: str | None, now: float) -> tuple[float, float]:
    """Work out when a fresh token ends by this machine's clock.

    The platform says the end in its own time. Where its ``Date`` header shows that the two clocks differ by more than
    half a minute, the remaining time is taken from its clock and counted from now; a laptop that woke up in the wrong
    year neither renews on every call nor trusts a dead token.

    Args:
        access: The access token, whose ``exp`` and ``iat`` serve where ``ExpiresAt`` is unusable.
        expires_at: ``ExpiresAt`` of the answer.
        server_date: ``Date`` header of the answer.
        now: This machine's time in seconds since the epoch.

    Returns:
        The end (seconds since the epoch, local clock) and the lifetime (seconds). A token that tells nothing counts as
        valid for five minutes.
    """
    claims = claims_of(access)
    end = parse_expiry(expires_at)
    if end is None:
        end = _number(claims.get("exp"))
    if end is None:
        return now + _UNKNOWN_LIFETIME_SECONDS, _UNKNOWN_LIFETIME_SECONDS
    server_now = _http_date(server_date)
    if server_now is None:
        server_now = _number(claims.get("iat"))
    if server_now is None or abs(server_now - now) <= _SKEW_TOLERANCE_SECONDS:
        server_now = now
    lifetime = max(end - server_now, 0.0)
    return now + lifetime, lifetime


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _http_date(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None
