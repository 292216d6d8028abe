from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import argon2
import pytest

from mantik.server.tokens import TokenIssuer, load_signing_key

from .asgi import call, post_json
from .conftest import make_bench
from .running import PASSWORD

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.server.store import User

    from .conftest import Bench

CREATE = "/api/mantik/tokens/create"
REFRESH = "/api/mantik/tokens/refresh"


def test_create_answers_as_the_contract_says(bench: Bench, alice: User) -> None:
    """201, two tokens, and the end of the access token with an offset."""
    answer = post_json(bench.app, CREATE, username=alice.name, password=PASSWORD)
    content = answer.json()
    assert answer.status == 201
    assert set(content) == {"AccessToken", "RefreshToken", "ExpiresAt"}
    assert content["ExpiresAt"].endswith("+00:00")
    assert "." not in content["ExpiresAt"]
    ends = datetime.fromisoformat(content["ExpiresAt"])
    assert timedelta(seconds=3590) < ends - datetime.now(timezone.utc) <= timedelta(seconds=3600)
    assert bench.issuer().check(content["AccessToken"], "access").expires_at == ends.timestamp()
    assert answer.headers["cache-control"] == "no-store"


def test_short_lifetime_has_fractions(tmp_path: Path) -> None:
    """The end of a token of 1.5 s is exact to the millisecond."""
    bench = make_bench(tmp_path / "data", token_lifetime=1.5)
    bench.add_user("alice")
    content = post_json(bench.app, CREATE, username="alice", password=PASSWORD).json()
    claimed = bench.issuer().check(content["AccessToken"], "access").expires_at
    assert datetime.fromisoformat(content["ExpiresAt"]).timestamp() == claimed


def test_refresh_answers_as_the_contract_says(bench: Bench, alice: User) -> None:
    """201, a new access token that works, and no new refresh token."""
    first = post_json(bench.app, CREATE, username=alice.name, password=PASSWORD).json()
    answer = post_json(bench.app, REFRESH, username=alice.name, refresh_token=first["RefreshToken"])
    content = answer.json()
    assert answer.status == 201
    assert set(content) == {"AccessToken", "ExpiresAt"}
    headers = {"Authorization": f"Bearer {content['AccessToken']}"}
    assert call(bench.app, "GET", "/x", headers=headers).status == 200


def test_unknown_user_and_wrong_password_answer_alike(
    bench: Bench, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same status, same body, same headers, and the same work: one argon2 verification with the same parameters."""
    verified: list[argon2.Parameters] = []
    verify = argon2.PasswordHasher.verify

    def counted(self: argon2.PasswordHasher, stored: str, password: bytes) -> bool:
        verified.append(argon2.extract_parameters(stored))
        return verify(self, stored, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counted)
    wrong = post_json(bench.app, CREATE, username=alice.name, password="wrong-password")
    unknown = post_json(bench.app, CREATE, username="nobody", password="wrong-password")
    impossible = post_json(bench.app, CREATE, username="no body:", password="wrong-password")
    assert (wrong.status, wrong.text) == (401, "Incorrect username or password")
    assert wrong.headers["content-type"].startswith("text/plain")
    for other in (unknown, impossible):
        assert (other.status, other.body, other.headers.raw) == (wrong.status, wrong.body, wrong.headers.raw)
    assert len(verified) == 3
    assert len(set(map(repr, verified))) == 1


@pytest.mark.parametrize("name", ["", "\ud800", "a" * 10_000, "nul\0nul", "' OR 1=1 --"])
@pytest.mark.parametrize("password", ["", "\ud800", "a" * 5_000])
def test_strange_texts_are_wrong_and_no_errors(bench: Bench, name: str, password: str) -> None:
    """Whatever text JSON can carry is just not right."""
    assert post_json(bench.app, CREATE, username=name, password=password).status == 401


@pytest.mark.parametrize("path", [CREATE, REFRESH])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b"[" * 16_000,
        b'{"username": "alice"}',
        b'{"username": "alice", "password": 1, "refresh_token": null}',
        b'{"username": ["alice"], "password": "x", "refresh_token": "x"}',
    ],
)
def test_malformed_body_is_told_what_was_expected(bench: Bench, path: str, body: bytes) -> None:
    """400 with the names of the fields, in plain text, without the body."""
    answer = call(bench.app, "POST", path, body=body)
    second = "password" if path == CREATE else "refresh_token"
    assert (answer.status, answer.text) == (400, f"Expected a JSON object with the texts 'username' and '{second}'")
    assert answer.headers["content-type"].startswith("text/plain")


def test_long_body_is_refused(bench: Bench) -> None:
    """Nobody needs 16 KiB to log in."""
    assert call(bench.app, "POST", CREATE, body=b" " * 16_385).status == 413


@pytest.mark.parametrize("path", [CREATE, REFRESH])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods_are_not_allowed(bench: Bench, path: str, method: str) -> None:
    """405, which names what is allowed."""
    answer = call(bench.app, method, path)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_bad_refresh_tokens(bench: Bench, alice: User) -> None:
    """A refresh token must be one, be this user's, and not be too old; the texts are those of the contract."""
    bob = bench.add_user("bob")
    issuer = bench.issuer()
    past = TokenIssuer(load_signing_key(bench.config.signing_key), 3600.0, lambda: 1_700_000_000.0)
    invalid = "Refresh token is invalid"
    for name, token, text in [
        ("alice", past.issue(alice, "refresh").text, "Refresh token has expired"),
        ("alice", issuer.issue(alice, "access").text, invalid),
        ("alice", issuer.issue(alice, "session").text, invalid),
        ("alice", issuer.issue(bob, "refresh").text, invalid),
        ("Alice", issuer.issue(alice, "refresh").text, invalid),
        ("alice", TokenIssuer(bytes(32), 9.0).issue(alice, "refresh").text, invalid),
        ("alice", "x", invalid),
        ("alice", "", invalid),
    ]:
        answer = post_json(bench.app, REFRESH, username=name, refresh_token=token)
        assert (answer.status, answer.text) == (401, text)
        assert answer.headers["content-type"].startswith("text/plain")


def test_refresh_token_ends_with_password_and_user(bench: Bench, alice: User) -> None:
    """After a new password, and after removal, a refresh token is worth nothing."""
    token = bench.issuer().issue(alice, "refresh").text
    bench.store.change_password("alice", "new")
    assert post_json(bench.app, REFRESH, username="alice", refresh_token=token).text == "Refresh token is invalid"
    bench.store.remove_user("alice")
    assert post_json(bench.app, REFRESH, username="alice", refresh_token=token).text == "Refresh token is invalid"


def test_name_and_password_in_another_normal_form_are_the_same(bench: Bench) -> None:
    """An é is an é, composed or not."""
    bench.add_user("ren\u00e9", "caf\u00e9-caf\u00e9-caf\u00e9")
    answer = post_json(bench.app, CREATE, username="rene\u0301", password="cafe\u0301-cafe\u0301-cafe\u0301")
    assert answer.status == 201


def test_health_is_open_and_cheerful(bench: Bench) -> None:
    """The health check answers the contract's text."""
    answer = call(bench.app, "GET", "/api/mantik/health")
    assert (answer.status, answer.text) == (200, "I'm healthy!")
