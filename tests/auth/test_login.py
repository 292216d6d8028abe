from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mantik.auth.cache import TokenCache
from mantik.auth.flow import Credentials, TokenAnswer, TokenRequest
from mantik.auth.login import GivenToken, Login, login_for, token_source
from mantik.auth.urls import TokenEndpoint
from mantik.exceptions import LoginRefusedError, MissingSettingsError, PlatformUnreachableError
from mantik.secret import Secret
from mantik.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

ENDPOINT = TokenEndpoint("https://platform.example.org/api/mantik/tokens")
START = 1_700_000_000.0


class Office:
    """A platform's token office in memory: counts what it is asked, can be closed, and lives by the test's clock."""

    def __init__(self, lifetime: float = 3600.0) -> None:
        self.now = START
        self.lifetime = lifetime
        self.open = True
        self.refuses = False
        self.asked: list[str] = []
        self.gate: threading.Event | None = None

    def clock(self) -> float:
        """Return the time."""
        return self.now

    def __call__(self, request: TokenRequest) -> TokenAnswer:
        """Answer one request."""
        self.asked.append(request.secret_field)
        if self.gate is not None:
            assert self.gate.wait(30)
        if not self.open:
            raise PlatformUnreachableError("closed", request.url)
        if self.refuses:
            return TokenAnswer(401, b"Incorrect username or password", None, None, self.now)
        content = {"AccessToken": f"access-{len(self.asked)}", "ExpiresAt": _iso(self.now + self.lifetime)}
        if request.secret_field == "password":
            content["RefreshToken"] = "refresh"
        return TokenAnswer(201, json.dumps(content).encode(), None, None, self.now)


def _iso(moment: float) -> str:
    from datetime import datetime, timezone

    return datetime.fromtimestamp(moment, tz=timezone.utc).isoformat()


def make(office: Office, home: Path, password: str | None = "correct horse") -> Login:
    """Return a login as a process of its own would have it."""
    credentials = Credentials("ada", Secret(password) if password else None)
    cache = TokenCache(home, ENDPOINT.base, "ada")
    return Login(ENDPOINT, credentials, cache, transport=office, clock=office.clock)


def test_a_good_token_costs_no_request(tmp_path: Path) -> None:
    """While the token is good the platform is left alone."""
    office = Office()
    login = make(office, tmp_path)
    assert [login.token() for _ in range(100)] == [Secret("access-1")] * 100
    assert office.asked == ["password"]


def test_another_process_uses_the_cached_login_without_a_password(tmp_path: Path) -> None:
    """What one process got, another reads; and it can renew it without a password."""
    office = Office()
    make(office, tmp_path).token()
    other = make(office, tmp_path, password=None)
    assert other.token() == Secret("access-1")
    office.now += 3400
    assert other.token() == Secret("access-2")
    assert office.asked == ["password", "refresh_token"]


def test_renewal_ahead_of_expiry_makes_one_thread_wait_and_no_other(tmp_path: Path) -> None:
    """While one thread renews a token that is still good, the others go on with it."""
    office = Office()
    login = make(office, tmp_path)
    login.token()
    office.now += 3400
    office.gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(login.token)
        while len(office.asked) < 2:
            assert not renewing.done()
        assert login.token() == Secret("access-1")
        office.gate.set()
        assert renewing.result(30) == Secret("access-2")
    assert login.token() == Secret("access-2")


def test_many_threads_on_an_expired_token_refresh_once(tmp_path: Path) -> None:
    """Sixteen threads that find the token expired cause one refresh, and all get the new one."""
    office = Office()
    login = make(office, tmp_path)
    login.token()
    office.now += 4000
    start = threading.Barrier(16)

    def ask(_: int) -> Secret:
        start.wait(30)
        return login.token()

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(ask, range(16))) == {Secret("access-2")}
    assert office.asked == ["password", "refresh_token"]


def test_many_threads_with_a_rejected_token_renew_once(tmp_path: Path) -> None:
    """A 401 in eight threads at once causes one renewal."""
    office = Office()
    login = make(office, tmp_path)
    old = login.token()
    office.now += 100
    start = threading.Barrier(8)

    def renew(_: int) -> Secret:
        start.wait(30)
        return login.renew(old)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(renew, range(8))) == {Secret("access-2")}
    assert len(office.asked) == 2


def test_a_token_rejected_right_after_its_issue_is_not_renewed_again_and_again(tmp_path: Path) -> None:
    """A platform that refuses even fresh tokens is not asked for another at every call."""
    office = Office()
    login = make(office, tmp_path)
    fresh = login.token()
    assert login.renew(fresh) == fresh
    assert len(office.asked) == 1
    office.now += 6
    assert login.renew(fresh) != fresh


def test_a_cached_token_that_is_rejected_is_renewed_at_once(tmp_path: Path) -> None:
    """A token from the cache that the platform does not know any more is replaced at its first rejection."""
    office = Office()
    make(office, tmp_path).token()
    other = make(office, tmp_path)
    stale = other.token()
    assert other.renew(stale) == Secret("access-2")


def test_a_token_that_another_process_renewed_is_taken_from_the_cache(tmp_path: Path) -> None:
    """After a rejection the cache is looked at before the platform is asked."""
    office = Office()
    one, other = make(office, tmp_path), make(office, tmp_path)
    stale = one.token()
    assert other.token() == stale
    office.now += 100
    renewed = one.renew(stale)
    asked = len(office.asked)
    assert other.renew(stale) == renewed
    assert len(office.asked) == asked


def test_an_outage_during_renewal_keeps_the_good_token_and_leaves_the_platform_alone(tmp_path: Path) -> None:
    """A failed renewal ahead of expiry is not repeated at every call, and harms nothing."""
    office = Office()
    login = make(office, tmp_path)
    login.token()
    office.now += 3400
    office.open = False
    assert [login.token() for _ in range(50)] == [Secret("access-1")] * 50
    assert len(office.asked) == 2
    office.now += 31
    office.open = True
    assert login.token() == Secret("access-3")


def test_an_outage_beyond_expiry_still_gives_requests_a_token_to_try_with(tmp_path: Path) -> None:
    """A request gets the expired token, so that MLflow's own retries go on; `token()` says what is wrong."""
    office = Office()
    login = make(office, tmp_path)
    login.token()
    office.now += 4000
    office.open = False
    assert login.bearer() == Secret("access-1")
    with pytest.raises(PlatformUnreachableError):
        login.token()
    assert len(office.asked) == 2
    office.now += 31
    office.open = True
    assert login.bearer() == Secret("access-3")


def test_without_any_token_a_request_raises_the_reason(tmp_path: Path) -> None:
    """Where there never was a token, the reason comes out."""
    office = Office()
    office.refuses = True
    with pytest.raises(LoginRefusedError):
        make(office, tmp_path).bearer()
    with pytest.raises(MissingSettingsError):
        make(office, tmp_path, password=None).bearer()


def test_a_login_by_hand_ignores_what_is_cached(tmp_path: Path) -> None:
    """`log_in` uses the password even if a good token is at hand, and replaces it."""
    office = Office()
    login = make(office, tmp_path)
    login.token()
    assert login.log_in().access == Secret("access-2")
    assert login.token() == Secret("access-2")
    assert office.asked == ["password", "password"]


def test_a_forked_child_does_not_inherit_a_held_lock(tmp_path: Path) -> None:
    """A child that is forked while another thread renews can renew by itself."""
    office = Office()
    login = make(office, tmp_path)
    login.token()
    office.now += 4000
    office.gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(login.token)
        while len(office.asked) < 2:
            assert not renewing.done()
        child = os.fork()
        if child == 0:
            # The child's copy of the office lets it through; the cache is elsewhere, as the parent holds its file lock.
            office.gate = None
            login.cache = replace(login.cache, home=tmp_path / "child")
            os._exit(0 if login.token() == Secret("access-3") else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        office.gate.set()
        assert renewing.result(30) == Secret("access-2")


def test_the_same_settings_share_one_login(tmp_path: Path) -> None:
    """All threads of a process that ask with the same settings get the same login; another user gets another."""
    settings = Settings(tracking_uri="https://platform.example.org", username="ada", home=tmp_path)
    assert login_for(settings) is login_for(settings)
    assert login_for(settings) is not login_for(replace(settings, username="grace"))


def test_a_given_token_is_used_as_it_is(tmp_path: Path) -> None:
    """With a token and no user name nobody logs in; the user's name is what the token says."""
    settings = Settings(tracking_uri="https://platform.example.org", exported_token=Secret("opaque"), home=tmp_path)
    source = token_source(settings)
    assert source == GivenToken(Secret("opaque"))
    assert (source.token(), source.bearer(), source.renew(Secret("opaque"))) == (Secret("opaque"),) * 3
    assert source.username is None
