from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from mantik.server.authority import Authority
from mantik.server.compute.jobs import State
from mantik.server.tokens import ExpiredTokenError, RefusedTokenError, TokenIssuer, load_signing_key
from tests.server.asgi import Answer, call, post_json

if TYPE_CHECKING:
    from mantik.server.authority import Login
    from mantik.server.compute.jobs import Job

    from .conftest import Backend

SEARCH = "/api/2.0/mlflow/experiments/search"


@pytest.fixture
def job(backend: Backend) -> Job:
    """A job of alice that runs."""
    return backend.jobs.update(backend.submitted().job_id, state=State.RUNNING)


@pytest.fixture
def login(backend: Backend, job: Job) -> Login:
    """The login of the job."""
    return backend.authority().log_in(backend.alice, job.job_id)


def track(backend: Backend, token: str) -> Answer:
    """Ask MLflow for something."""
    return call(backend.app, "GET", SEARCH, headers={"Authorization": f"Bearer {token}"})


def refresh(backend: Backend, token: str) -> Answer:
    """Renew as clients do."""
    return post_json(backend.app, "/api/mantik/tokens/refresh", username="alice", refresh_token=token)


def test_job_tracks_as_its_user_and_renews_its_token(backend: Backend, login: Login) -> None:
    """The ordinary flow works with the job's tokens, and a renewed token is the job's too."""
    assert track(backend, login.access.text).status == 200
    answer = refresh(backend, login.refresh.text)
    assert answer.status == 201
    renewed = answer.json()["AccessToken"]
    assert track(backend, renewed).status == 200
    assert backend.authority().bearer(renewed).job == backend.authority().bearer(login.access.text).job is not None


@pytest.mark.parametrize("end", [state for state in State if state.is_over])
def test_tokens_end_with_the_job(backend: Backend, job: Job, login: Login, end: State) -> None:
    """However it ends, at that moment, with the texts of the contract."""
    renewed = refresh(backend, login.refresh.text).json()["AccessToken"]
    backend.jobs.update(job.job_id, state=end)
    for token in (login.access.text, renewed):
        answer = track(backend, token)
        assert (answer.status, answer.text) == (401, "Token expired")
    answer = refresh(backend, login.refresh.text)
    assert (answer.status, answer.text) == (401, "Refresh token has expired")


def test_tokens_of_a_job_that_never_was_open_nothing(backend: Backend) -> None:
    """Also where the platform has no compute backend at all."""
    login = backend.authority().log_in(backend.alice, "0000")
    assert track(backend, login.access.text).text == "Token expired"
    without = Authority(backend.users, TokenIssuer(load_signing_key(backend.config.signing_key), 3600.0))
    with pytest.raises(ExpiredTokenError):
        without.bearer(login.access.text)


def test_login_of_a_job_lasts_for_years(backend: Backend, job: Job) -> None:
    """Its refresh token is good as long as the job is not over; its access tokens are as short as all others."""
    key = load_signing_key(backend.config.signing_key)
    long_ago = time.time() - 3 * 365 * 24 * 3600
    old = TokenIssuer(key, 3600.0, lambda: long_ago)
    assert refresh(backend, old.issue(backend.alice, "refresh", job.job_id).text).status == 201
    assert refresh(backend, old.issue(backend.alice, "refresh").text).text == "Refresh token has expired"
    assert track(backend, old.issue(backend.alice, "access", job.job_id).text).text == "Token expired"


def test_queue_time_does_not_count(backend: Backend) -> None:
    """A job that waits has a login that works when it is made, whenever that is."""
    waiting = backend.submitted()
    login = backend.authority().log_in(backend.alice, waiting.job_id)
    assert track(backend, login.access.text).status == 200


def test_login_of_a_job_ends_with_user_and_password(backend: Backend, login: Login) -> None:
    """Whoever takes a user's access away takes it from the user's jobs as well."""
    backend.users.change_password("alice", "new")
    assert track(backend, login.access.text).text == "Invalid token"
    assert refresh(backend, login.refresh.text).text == "Refresh token is invalid"


def test_job_may_neither_submit_nor_cancel(backend: Backend, job: Job) -> None:
    """Not even itself; and nothing is left of what it sent."""
    other = backend.submitted()
    answer = backend.submit(job=job.job_id)
    assert (answer.status, answer.json()) == (403, {"detail": "The token of a job may not submit jobs"})
    for target in (job, other):
        answer = backend.ask("POST", f"/jobs/{target.job_id}/cancel", job=job.job_id)
        assert (answer.status, answer.json()) == (403, {"detail": "The token of a job may not cancel jobs"})
    assert backend.jobs.to_cancel() == []
    assert backend.jobs.of_user(backend.alice.id)[1] == 2


def test_job_sees_itself_and_no_other(backend: Backend, job: Job) -> None:
    """Another job of the same user is not there for it."""
    other = backend.submitted()
    listed = backend.ask("GET", "/jobs", job=job.job_id).json()
    assert ([found["job_id"] for found in listed["jobs"]], listed["total"]) == ([job.job_id], 1)  # type: ignore[index]
    for name in (job.job_id, job.run_id):
        assert backend.ask("GET", f"/jobs/{name}", job=job.job_id).json()["job_id"] == job.job_id
    for name in (other.job_id, other.run_id):
        for path in ("", "/logs", "/files", "/files/train.py"):
            assert backend.ask("GET", f"/jobs/{name}{path}", job=job.job_id).status == 404


def test_token_of_a_job_opens_no_session(backend: Backend, login: Login) -> None:
    """It works neither as a browser's cookie nor as a refresh token, nor the other way round."""
    for token in (login.access.text, login.refresh.text):
        assert call(backend.app, "GET", "/", headers={"Cookie": f"mantik_session={token}"}).status == 401
    assert refresh(backend, login.access.text).text == "Refresh token is invalid"
    assert track(backend, login.refresh.text).status == 401
    with pytest.raises(RefusedTokenError):
        backend.authority().end_session(login.access.text)


def test_signed_in_browser_opens_nothing_of_the_backend(backend: Backend) -> None:
    """Its paths are for programs: a page of the platform, or of anybody, cannot submit with the cookie."""
    cookie = {"Cookie": f"mantik_session={backend.authority().open_session(backend.alice).text}"}
    own = {"Origin": "https://platform.example", "Accept": "text/html"}
    for method, path in (("GET", "/jobs"), ("POST", "/submit/1"), ("GET", "")):
        answer = call(backend.app, method, f"/compute-backend{path}", headers={**cookie, **own})
        assert (answer.status, answer.json()) == (401, {"detail": "'Authorization' header missing"})
        assert answer.headers["www-authenticate"] == "Bearer"
