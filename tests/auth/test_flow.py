from __future__ import annotations

import json
import pickle

import pytest

from mantik.auth.flow import Credentials, TokenAnswer, TokenRequest, token_flow
from mantik.auth.token import Token
from mantik.auth.urls import TokenEndpoint
from mantik.exceptions import (
    LoginExpiredError,
    LoginRefusedError,
    MantikError,
    MissingSettingsError,
    UnexpectedAnswerError,
)
from mantik.secret import Secret

NOW = 1_700_000_000.0
ENDPOINT = TokenEndpoint("https://platform.example.org/api/mantik/tokens")
ADA = Credentials("ada", Secret("correct horse"))
NO_PASSWORD = Credentials("ada")
GOOD = Token(Secret("old-access"), Secret("old-refresh"), expires_at=NOW + 60, lifetime=3600)
EXPIRED = Token(Secret("old-access"), Secret("old-refresh"), expires_at=NOW - 1, lifetime=3600)
HTML = b"  <!doctype html><html><body>Welcome to the guest network</body></html>"


def answer(status: int, body: object = b"", location: str | None = None) -> TokenAnswer:
    """Answer with bytes as they are, with anything else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return TokenAnswer(status, content, None, location, NOW)


def tokens(**more: object) -> dict[str, object]:
    """Return the fields of a login's answer."""
    return {"AccessToken": "new-access", "ExpiresAt": "2023-11-14T23:13:20Z", **more}


def converse(
    credentials: Credentials, known: Token | None, *answers: TokenAnswer
) -> tuple[list[TokenRequest], Token | MantikError]:
    """Hold the whole conversation and return what was asked and what came of it."""
    flow = token_flow(ENDPOINT, credentials, known, NOW)
    asked = []
    try:
        asked.append(next(flow))
        for reply in answers:
            asked.append(flow.send(reply))  # noqa: PERF401  # the list is needed when it raises
    except StopIteration as finished:
        return asked, finished.value
    except MantikError as error:
        return asked, error
    raise AssertionError(f"the flow asks for more after {asked}")


def test_a_first_login_sends_name_and_password_to_the_one_url() -> None:
    """Without a known token the password is exchanged for one."""
    asked, token = converse(ADA, None, answer(201, tokens(RefreshToken="new-refresh")))
    assert asked == [TokenRequest(f"{ENDPOINT.base}/create", "ada", "password", Secret("correct horse"))]
    assert token == Token(Secret("new-access"), Secret("new-refresh"), NOW + 3600, 3600)


def test_a_refresh_needs_no_password() -> None:
    """A known token is renewed with user name and refresh token alone, and keeps its refresh token."""
    asked, token = converse(NO_PASSWORD, GOOD, answer(201, tokens()))
    assert asked == [TokenRequest(f"{ENDPOINT.base}/refresh", "ada", "refresh_token", Secret("old-refresh"))]
    assert isinstance(token, Token)
    assert (token.access, token.refresh) == (Secret("new-access"), Secret("old-refresh"))


def test_a_rotated_refresh_token_is_taken() -> None:
    """A refresh that brings a new refresh token replaces the old one."""
    _, token = converse(ADA, GOOD, answer(200, tokens(RefreshToken="rotated")))
    assert isinstance(token, Token)
    assert token.refresh == Secret("rotated")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 422, 429])
def test_a_refused_refresh_is_followed_by_one_login(status: int) -> None:
    """Any 4xx of the refresh leads to one login at the same platform."""
    asked, token = converse(
        ADA, GOOD, answer(status, b"Refresh token is invalid"), answer(201, tokens(RefreshToken="new"))
    )
    assert [request.url for request in asked] == [ENDPOINT.refresh_url, ENDPOINT.create_url]
    assert isinstance(token, Token)


def test_a_500_is_a_refusal_only_once_the_token_has_expired() -> None:
    """Early platforms answer unusual refusals with 500: log in if the old token is dead, wait if it is not."""
    asked, token = converse(ADA, EXPIRED, answer(500, HTML), answer(201, tokens()))
    assert len(asked) == 2
    assert isinstance(token, Token)
    asked, error = converse(ADA, GOOD, answer(500, HTML))
    assert len(asked) == 1
    assert isinstance(error, UnexpectedAnswerError)


def test_a_dead_login_without_a_password_says_how_to_log_in() -> None:
    """The error carries the platform's own words and the way out."""
    _, error = converse(NO_PASSWORD, EXPIRED, answer(401, b"Refresh token has expired"))
    assert isinstance(error, LoginExpiredError)
    assert "Refresh token has expired" in str(error)
    assert "mantik login" in str(error)


def test_neither_login_nor_password_is_one_clear_error() -> None:
    """With nothing to log in with, nothing is asked."""
    asked, error = converse(NO_PASSWORD, None)
    assert asked == []
    assert isinstance(error, MissingSettingsError)
    assert error.names == ("MANTIK_PASSWORD",)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"Incorrect username or password", "Incorrect username or password"),
        ({"detail": "User is disabled"}, "User is disabled"),
        ({"message": "No"}, "No"),
        ({"detail": {"code": 7}}, "{'code': 7}"),
        ({}, "no reason given"),
        (b"wrong: correct horse\r\nSet-Cookie: x", "wrong: *** Set-Cookie: x"),
        (b"\x1b[31mred", "[31mred"),
        (b"x" * 1000, "x" * 200 + "..."),
    ],
)
def test_a_refused_login_repeats_the_platforms_words_but_no_secret(body: object, words: str) -> None:
    """The words come through in one short line, without the password if the platform echoes it."""
    _, error = converse(ADA, None, answer(401, body))
    assert isinstance(error, LoginRefusedError)
    assert words in str(error)
    assert "correct horse" not in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (answer(200, HTML), "captive portal"),
        (answer(201, b"not json"), "without a usable token"),
        (answer(201, {}), "without a usable token"),
        (answer(201, []), "without a usable token"),
        (answer(201, {"AccessToken": ""}), "without a usable token"),
        (answer(201, {"AccessToken": 7}), "without a usable token"),
        (answer(201, {"AccessToken": "a b"}), "without a usable token"),
        (answer(201, {"AccessToken": "a\r\nHost: evil"}), "without a usable token"),
        (answer(204), "without a usable token"),
        (answer(404, HTML), "issues no tokens"),
        (answer(405, b"Method Not Allowed"), "issues no tokens"),
        (answer(403, HTML), "captive portal"),
        (answer(302, b"", "https://ada:secret@evil.example.com/login?next=x"), "to https://evil.example.com."),
        (answer(307, b"", None), "to nowhere"),
        (answer(429, b"slow"), "slow down"),
        (answer(500, HTML), "failed to issue a token"),
        (answer(503, b"maintenance"), "maintenance"),
    ],
)
def test_an_answer_that_no_platform_gives_is_one_error_and_no_second_attempt(reply: TokenAnswer, words: str) -> None:
    """HTML, redirects, 404 and the like end the conversation; the error names the URL that was asked."""
    asked, error = converse(ADA, None, reply)
    assert len(asked) == 1
    assert isinstance(error, UnexpectedAnswerError)
    assert error.status == reply.status
    assert words in str(error)
    assert ENDPOINT.create_url in str(error)
    assert "secret" not in str(error)


def test_a_page_in_place_of_a_refresh_keeps_the_password_at_home() -> None:
    """A captive portal that answers 200 with a page is no reason to send it the password."""
    asked, error = converse(ADA, EXPIRED, answer(200, HTML))
    assert [request.secret_field for request in asked] == ["refresh_token"]
    assert isinstance(error, UnexpectedAnswerError)


def test_errors_cross_process_borders_whole() -> None:
    """Every error of the flow survives pickling with its fields."""
    _, error = converse(ADA, None, answer(404))
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert isinstance(copy, UnexpectedAnswerError)
    assert (str(copy), copy.url, copy.status) == (str(error), ENDPOINT.create_url, 404)


def test_no_part_of_the_conversation_shows_a_secret() -> None:
    """Requests, answers and tokens are masked wherever they are printed."""
    asked, token = converse(ADA, GOOD, answer(401), answer(201, tokens(RefreshToken="new-refresh")))
    shown = f"{asked} {token} {ADA} {answer(201, tokens())}"
    for secret in ("correct horse", "old-refresh", "old-access", "new-access", "new-refresh"):
        assert secret not in shown
