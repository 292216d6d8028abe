from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from mantik.exceptions import ConfigurationError
from mantik.server.store import User
from mantik.server.tokens import ExpiredTokenError, RefusedTokenError, TokenIssuer, load_signing_key

if TYPE_CHECKING:
    from pathlib import Path

KEY = bytes(range(32))
NOW = 1_700_000_000.25
ALICE = User("alice", "3f2b", "-", 4, "2026-01-01T00:00:00+00:00")


class Clock:
    """A clock that is set by hand."""

    now = NOW

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def issuer(clock: Clock) -> TokenIssuer:
    """An issuer of tokens that live one hour."""
    return TokenIssuer(KEY, 3600.0, clock)


def signed(key: bytes = KEY, algorithm: str = "HS256", **claims: object) -> str:
    """Sign claims that differ from good ones."""
    good = {"sub": "3f2b", "iss": "mantik-server", "client_id": "mantik", "token_use": "access", "exp": NOW + 9}
    more = {"jti": "1", "username": "alice", "generation": 4}
    return jwt.encode({"alg": algorithm}, {**good, **more, **claims}, OctKey.import_key(key), algorithms=[algorithm])


def unsigned(header: dict[str, str], signature: str = "") -> str:
    """Spell a token by hand."""
    parts = (json.dumps(part).encode() for part in (header, {"sub": "3f2b", "exp": NOW + 9, "token_use": "access"}))
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), signature])


def test_token_says_who_and_for_how_long(issuer: TokenIssuer) -> None:
    """A checked token carries the user, the generation and an end at a whole second."""
    claims = issuer.check(issuer.issue(ALICE, "access").text, "access")
    assert (claims.user_id, claims.username, claims.generation) == ("3f2b", "alice", 4)
    assert claims.expires_at == int(NOW) + 3600


def test_header_and_claims_are_those_of_the_contract(issuer: TokenIssuer) -> None:
    """The token has the claims that clients know from the original platform."""
    token = jwt.decode(issuer.issue(ALICE, "access").text, OctKey.import_key(KEY))
    assert token.header == {"alg": "HS256", "typ": "JWT"}
    expected = {"sub", "iss", "client_id", "token_use", "iat", "exp", "jti", "username", "generation"}
    assert set(token.claims) == expected


def test_short_lifetime_is_exact(clock: Clock) -> None:
    """A token of 1.5 s is good until then and not longer."""
    issuer = TokenIssuer(KEY, 1.5, clock)
    token = issuer.issue(ALICE, "access")
    assert token.expires_at == NOW + 1.5
    clock.now = NOW + 1.499
    issuer.check(token.text, "access")
    clock.now = NOW + 1.5
    with pytest.raises(ExpiredTokenError, match=r"^Token expired$"):
        issuer.check(token.text, "access")


def test_every_token_is_different(issuer: TokenIssuer) -> None:
    """Two tokens of the same second differ."""
    assert issuer.issue(ALICE, "access").text != issuer.issue(ALICE, "access").text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Invalid token"),
        ("x", "Invalid token"),
        ("a.b.c", "Invalid token"),
        ("a.b.c.d.e", "Invalid token"),
        ("…", "Invalid token"),
        ("x" * 5000, "Invalid token"),
        (unsigned({"alg": "none"}), "Invalid token"),
        (unsigned({"alg": "None"}), "Invalid token"),
        (unsigned({"alg": "HS256"}), "Invalid signature"),
        (unsigned({"alg": "HS256"}, "AAAA"), "Invalid signature"),
        (unsigned({"typ": "JWT"}, "AAAA"), "Invalid token"),
        (signed(algorithm="HS512"), "Invalid token"),
        (signed(key=bytes(32)), "Invalid signature"),
        (signed()[:-2] + "AA", "Invalid signature"),
        (signed(exp=NOW - 1), "Token expired"),
        (signed(exp=NOW - 1, iss="other"), "Token expired"),
        (signed(iss="other"), "Token issued by unauthorized client"),
        (signed(client_id="other"), "Token issued by unauthorized client"),
        (signed(token_use="refresh"), "Token type 'refresh' not allowed ('access' required)"),
        (signed(token_use="session"), "Token type 'session' not allowed ('access' required)"),
    ],
)
def test_bad_token_is_refused_with_its_reason(issuer: TokenIssuer, text: str, reason: str) -> None:
    """Each flaw has the text of the contract, and the flaw that is checked first wins."""
    with pytest.raises(RefusedTokenError) as caught:
        issuer.check(text, "access")
    assert str(caught.value) == reason


def test_token_signed_with_an_rsa_key_is_refused(issuer: TokenIssuer) -> None:
    """The header cannot choose another algorithm."""
    text = jwt.encode({"alg": "RS256"}, {"exp": NOW + 9}, RSAKey.generate_key(2048), algorithms=["RS256"])
    with pytest.raises(RefusedTokenError, match=r"^Invalid token$"):
        issuer.check(text, "access")


def test_key_is_made_once_and_private(tmp_path: Path) -> None:
    """The key is random, stays the same, and is readable by its owner only."""
    path = tmp_path / "signing.key"
    key = load_signing_key(path)
    assert len(key) == 32
    assert load_signing_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_signing_key(tmp_path / "other.key") != key


def test_racing_processes_get_one_key(tmp_path: Path) -> None:
    """Whoever comes at the same time gets the same key, and no draft is left behind."""
    path = tmp_path / "signing.key"
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: load_signing_key(path), range(64)))
    assert len(keys) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_key_is_not_used(tmp_path: Path) -> None:
    """A key file that was cut is an error that names the file."""
    path = tmp_path / "signing.key"
    path.write_bytes(b"short")
    with pytest.raises(ConfigurationError, match=r"signing\.key holds no signing key"):
        load_signing_key(path)
