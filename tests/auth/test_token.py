from __future__ import annotations

import base64
import json
import pickle
from email.utils import formatdate

import pytest

from mantik.auth.token import Token, claims_of, local_expiry, parse_expiry
from mantik.secret import Secret

NOON = 1_700_000_000.0


def jwt(**claims: object) -> str:
    """Write an unsigned token with these claims."""

    def part(content: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part(claims)}.signature"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2022-05-24T09:40:19+00:00", 1653385219.0),
        ("2022-05-24T09:40:19Z", 1653385219.0),
        ("2022-05-24T09:40:19z", 1653385219.0),
        ("2022-05-24T09:40:19", 1653385219.0),
        ("2022-05-24T11:40:19+02:00", 1653385219.0),
        ("2022-05-24T09:40:19.5Z", 1653385219.5),
        ("2022-05-24T09:40:19.250+00:00", 1653385219.25),
        ("2022-05-24T09:40:19.1234567+00:00", 1653385219.123456),
        (" 2022-05-24 09:40:19 ", 1653385219.0),
        ("soon", None),
        ("", None),
        (None, None),
        (1653385219, None),
    ],
)
def test_times_of_every_era_are_read(text: object, moment: float | None) -> None:
    """`Z`, offsets, naive times (UTC) and any fraction are read; anything else is unknown, not an error."""
    assert parse_expiry(text) == moment


def test_an_unusable_time_falls_back_to_the_tokens_own() -> None:
    """Where `ExpiresAt` cannot be read, the claim `exp` of the token counts."""
    assert local_expiry(jwt(exp=NOON + 90), "soon", None, NOON) == (NOON + 90, 90)


def test_a_token_that_tells_nothing_is_good_for_five_minutes() -> None:
    """An opaque token without an end is renewed after minutes, not trusted for ever."""
    assert local_expiry("opaque", None, None, NOON) == (NOON + 300, 300)


@pytest.mark.parametrize("skew", [-7200.0, 7200.0, 40 * 365 * 86400.0])
def test_a_clock_that_is_hours_off_does_not_shorten_or_stretch_a_token(skew: float) -> None:
    """With the platform's `Date` the remaining time counts, whatever this machine believes the time is."""
    platform_now, local_now = NOON, NOON + skew
    end, lifetime = local_expiry("opaque", "2023-11-14T23:13:20Z", formatdate(platform_now, usegmt=True), local_now)
    assert lifetime == 3600
    assert end == local_now + 3600


def test_without_a_date_the_tokens_issue_time_tells_the_skew() -> None:
    """A platform that sends no `Date` is understood through the claim `iat`."""
    end, lifetime = local_expiry(jwt(iat=NOON, exp=NOON + 60), None, None, NOON - 86400)
    assert (end, lifetime) == (NOON - 86400 + 60, 60)


@pytest.mark.parametrize(("lifetime", "leeway"), [(3600, 300), (86400, 300), (600, 150), (2, 0.5)])
def test_renewal_comes_ahead_of_the_end(lifetime: float, leeway: float) -> None:
    """A token is renewed five minutes ahead, a short-lived one in the last quarter of its life."""
    token = Token(Secret("a"), None, expires_at=NOON + lifetime, lifetime=lifetime)
    assert not token.wants_renewal(NOON + lifetime - leeway - 0.01)
    assert token.wants_renewal(NOON + lifetime - leeway)
    assert not token.has_expired(NOON + lifetime - 0.01)
    assert token.has_expired(NOON + lifetime)


@pytest.mark.parametrize("text", ["opaque", "a.b", "a.!!!.c", "a.W10.c", f"a.{'x' * 9}.c", "..", "a.\u00e4.c"])
def test_what_is_no_jwt_has_no_claims(text: str) -> None:
    """Anything but a JWT with an object of claims has none, and raises nothing."""
    assert claims_of(text) == {}


def test_a_secret_shows_nowhere_by_accident() -> None:
    """Repr, str and formatting mask the value; equality, truth and pickling work."""
    secret = Secret("hunter2")
    token = Token(secret, secret, 1.0, 1.0)
    assert "hunter2" not in f"{secret} {secret!r} {secret!s} {token} {[secret]} {token!r}"
    assert secret == Secret("hunter2") != Secret("other")
    assert not Secret("")
    assert pickle.loads(pickle.dumps(secret)).reveal() == "hunter2"  # noqa: S301  # our own bytes
