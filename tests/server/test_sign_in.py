from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import requests

from mantik.server.pages import safe_next

from .asgi import OWN_PAGE, call, cookie_of, sign_in
from .running import DEADLINE, PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mantik.server.store import User

    from .conftest import Bench
    from .running import RunningPlatform

AS_A_BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def browser() -> Iterator[requests.Session]:
    """A client that keeps cookies and follows links."""
    with requests.Session() as session:
        session.headers.update(AS_A_BROWSER)
        yield session


def submit(browser: requests.Session, platform: RunningPlatform, password: str, query: str = "") -> requests.Response:
    """Send the sign-in form of the user alice."""
    return browser.post(
        f"{platform.url}/mantik/sign-in{query}",
        data={"username": "alice", "password": password},
        headers={"Origin": platform.url},
        timeout=DEADLINE,
        allow_redirects=False,
    )


def test_browser_signs_in_and_out(platform: RunningPlatform, browser: requests.Session) -> None:
    """From the front page to the sign-in page, into MLflow, out again; a kept cookie opens nothing afterwards."""
    asked = browser.get(platform.url, timeout=DEADLINE)
    assert asked.url == f"{platform.url}/mantik/sign-in"
    assert asked.status_code == 200

    answer = submit(browser, platform, PASSWORD)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    page = browser.get(platform.url, timeout=DEADLINE)
    assert "<title>MLflow</title>" in page.text
    assert ">alice</span>" in page.text
    static = re.search(r'src="(static-files/[^"]*\.js)"', page.text)
    assert static
    assert browser.get(f"{platform.url}/{static[1]}", timeout=DEADLINE).status_code == 200
    search = f"{platform.url}/ajax-api/2.0/mlflow/experiments/search"
    own = {"Origin": platform.url}
    assert browser.post(search, json={"max_results": 5}, headers=own, timeout=DEADLINE).status_code == 200

    kept = dict(browser.cookies)
    out = browser.post(f"{platform.url}/mantik/sign-out", headers=own, timeout=DEADLINE, allow_redirects=False)
    assert (out.status_code, out.headers["Location"]) == (303, "/mantik/sign-in")
    assert not browser.cookies
    refused = requests.post(search, json={}, cookies=kept, headers=own, timeout=DEADLINE)
    assert (refused.status_code, refused.text) == (401, "Invalid token")


def test_wrong_password_shows_the_page_again(platform: RunningPlatform, browser: requests.Session) -> None:
    """The page says what is wrong, keeps the name, never the password, and sets no cookie."""
    answer = submit(browser, platform, "wrong-password")
    assert answer.status_code == 401
    assert 'role="alert">Incorrect username or password.<' in answer.text
    assert 'value="alice"' in answer.text
    assert "wrong-password" not in answer.text
    assert not browser.cookies


def test_link_leads_where_it_was_meant_to(platform: RunningPlatform, browser: requests.Session) -> None:
    """Path and query of the first address come back after the sign-in."""
    wanted = "/get-artifact?path=a%20b/c&run_uuid=1"
    asked = browser.get(platform.url + wanted, timeout=DEADLINE, allow_redirects=False)
    location = asked.headers["Location"]
    assert location.startswith("/mantik/sign-in?next=")
    answer = submit(browser, platform, PASSWORD, location.removeprefix("/mantik/sign-in"))
    assert answer.headers["Location"] == wanted


@pytest.mark.parametrize(
    "accept",
    ["*/*", "application/json", ""],
)
def test_programs_are_not_sent_to_the_sign_in_page(bench: Bench, accept: str) -> None:
    """Who does not ask for a page gets 401."""
    assert call(bench.app, "GET", "/", headers={"Accept": accept}).status == 401


@pytest.mark.parametrize("path", ["/api/2.0/mlflow/runs/get", "/ajax-api/x", "/v1/traces", "/graphql", "/gateway/x"])
def test_program_paths_never_redirect(bench: Bench, path: str) -> None:
    """A redirect would turn an API call into a page with status 200."""
    assert call(bench.app, "GET", path, headers=AS_A_BROWSER).status == 401


def test_only_reading_redirects(bench: Bench) -> None:
    """A form that comes too late is refused, not swallowed."""
    assert call(bench.app, "POST", "/x", headers=AS_A_BROWSER).status == 401


def test_cookie_is_kept_from_scripts_and_other_sites(bench: Bench, alice: User) -> None:
    """HttpOnly, SameSite=Lax, for the whole site, for 12 hours; Secure where the connection is."""
    plain = sign_in(bench.app, alice.name, PASSWORD).headers["set-cookie"]
    attributes = set(plain.split("; ")[1:])
    assert attributes == {"HttpOnly", "SameSite=lax", "Path=/", "Max-Age=43200"}
    secure = sign_in(bench.app, alice.name, PASSWORD, scheme="https").headers["set-cookie"]
    assert set(secure.split("; ")[1:]) == attributes | {"Secure"}


@pytest.mark.parametrize(
    ("wanted", "leads_to"),
    [
        ("/", "/"),
        ("/x?y=1&z=2", "/x?y=1&z=2"),
        ("/x//y", "/x//y"),
        ("", "/"),
        ("x", "/"),
        ("//other.example", "/"),
        ("///other.example", "/"),
        ("/\\other.example", "/"),
        ("\\\\other.example", "/"),
        ("/x\\y", "/"),
        ("https://other.example", "/"),
        ("https:/other.example", "/"),
        ("javascript:alert(1)", "/"),
        (" //other.example", "/"),
        ("/\t/other.example", "/"),
        ("/\n/other.example", "/"),
        ("/x\r\nSet-Cookie: a=b", "/"),
        ("/\x00", "/"),
    ],
)
def test_next_stays_on_this_site(wanted: str, leads_to: str) -> None:
    """Only a path of this site is followed after the sign-in."""
    assert safe_next(wanted) == leads_to


def test_next_is_checked_where_it_counts(bench: Bench, alice: User) -> None:
    """The redirect after the sign-in never leaves the site, however the query is encoded."""
    for query in ("next=//other.example", "next=%2F%2Fother.example", "next=/%5Cother.example", "next=/%0d%0aX:y"):
        assert sign_in(bench.app, alice.name, PASSWORD, query=query).headers["location"] == "/"


@pytest.mark.parametrize("path", ["/mantik/sign-in", "/mantik/sign-out"])
@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "https://other.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_forms_of_other_sites_are_refused(bench: Bench, alice: User, path: str, headers: dict[str, str]) -> None:
    """Nobody is signed in or out by another site's page."""
    cookie = cookie_of(sign_in(bench.app, alice.name, PASSWORD))
    body = f"username=alice&password={PASSWORD}".encode()
    answer = call(bench.app, "POST", path, body=body, headers={**cookie, **headers})
    assert answer.status == 403
    assert "set-cookie" not in answer.headers
    assert call(bench.app, "GET", "/", headers=cookie).status == 200


def test_bad_forms(bench: Bench) -> None:
    """What is no sign-in form is answered, not crashed on."""
    for body, status in [(b"", 401), (b"\xff", 400), (b"a=1&" * 20, 400), (b"x" * 20_000, 413)]:
        assert call(bench.app, "POST", "/mantik/sign-in", body=body, headers=OWN_PAGE).status == status


def test_name_is_escaped_on_the_page(bench: Bench) -> None:
    """What was typed comes back as text."""
    answer = sign_in(bench.app, "%22%3E%3Cscript%3E", "wrong-password")
    assert "&quot;&gt;&lt;script&gt;" in answer.text
    assert "<script" not in answer.text


def test_page_may_load_nothing_and_be_framed_by_nobody(bench: Bench) -> None:
    """The headers of the own pages keep everything foreign out."""
    headers = call(bench.app, "GET", "/mantik/sign-in").headers
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"


def test_session_ends_with_password_and_user(bench: Bench, alice: User) -> None:
    """A new password signs every browser out."""
    cookie = cookie_of(sign_in(bench.app, alice.name, PASSWORD))
    bench.store.change_password("alice", "new")
    assert call(bench.app, "GET", "/", headers=cookie).status == 401


def test_access_token_is_no_cookie(bench: Bench, alice: User) -> None:
    """Only a session's token works as a cookie."""
    token = bench.issuer().issue(alice, "access").text
    answer = call(bench.app, "GET", "/x", headers={"Cookie": f"mantik_session={token}"})
    assert (answer.status, answer.text) == (401, "Token type 'access' not allowed ('session' required)")
