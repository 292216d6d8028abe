from __future__ import annotations

import re
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from mantik.server.compute.routes import ComputeRoutes
from mantik.server.gate import OPEN_PATHS
from mantik.server.pages import SIGN_IN_PATH, SIGN_OUT_PATH
from mantik.server.routes import OWN_PATHS

from .running import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .running import RunningPlatform

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def routes_of(app: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - FastAPI, Starlette and Flask objects
    """Yield method and path of every route, through routers, mounts and the Flask application."""
    if hasattr(app, "url_map"):
        for rule in app.url_map.iter_rules():
            yield from ((method, rule.rule) for method in rule.methods)
    elif hasattr(app, "effective_route_contexts"):
        for route in app.effective_route_contexts():
            yield from ((method, route.path) for method in route.methods or ())
    elif getattr(app, "methods", None):
        yield from ((method, app.path) for method in app.methods)
    elif getattr(app, "routes", None):
        for route in app.routes:
            yield from routes_of(route)
    elif hasattr(app, "app"):
        yield from routes_of(app.app)


def filled(path: str) -> str:
    """Put something in the place of path parameters."""
    return re.sub(r"\{[^}]*\}|<[^>]*>", "1", path)


class Anonymous:
    """A client without any credentials, on one connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        self._connection = HTTPConnection(parts.hostname, parts.port, timeout=DEADLINE)

    def is_refused(self, method: str, target: str, accept: str = "*/*") -> bool:
        """Tell whether the answer is 401 or the way to the sign-in page."""
        self._connection.request(method, target, headers={"Accept": accept})
        answer = self._connection.getresponse()
        answer.read()
        to_sign_in = answer.status == 303 and answer.headers["Location"].startswith(SIGN_IN_PATH)
        return answer.status == 401 or to_sign_in


@pytest.mark.parametrize("accept", ["*/*", "text/html,application/xhtml+xml"])
def test_no_route_of_the_server_answers_anonymously(platform: RunningPlatform, accept: str) -> None:
    """Every method of every route, MLflow's and the platform's, is refused, but for the open list."""
    from mlflow.server.fastapi_app import app

    # The router of the compute backend is made without what its routes need when they answer.
    compute = ComputeRoutes(None, None, None).router()  # type: ignore[arg-type]
    routes = {(method, filled(path)) for each in (app, compute) for method, path in routes_of(each)}
    routes |= {(method, path) for _, path in routes for method in METHODS}
    routes -= {(method, path) for method, path in routes if path in OPEN_PATHS}
    assert len({path for _, path in routes}) > 200
    for path in ("/", "/graphql", "/v1/traces", "/api/2.0/mlflow/experiments/search", "/static-files/1"):
        assert ("GET", path) in routes
    for method, path in (("POST", "submit/1"), ("GET", "jobs/1/files/1"), ("POST", "jobs/1/cancel")):
        assert (method, f"/compute-backend/{path}") in routes
    for method in ("GET", "PUT"):
        assert (method, "/api/2.0/mlflow-artifacts/artifacts/1") in routes
    client = Anonymous(platform.url)
    answered = [(method, path) for method, path in sorted(routes) if not client.is_refused(method, path, accept)]
    assert answered == []


def test_the_assistant_is_closed_for_everybody(platform: RunningPlatform) -> None:
    """No signed-in user reaches MLflow's assistant, which runs commands as the server, under any of its routes."""
    from mlflow.server.fastapi_app import app

    paths = {filled(path) for _, path in routes_of(app) if "assistant" in path}
    assert len(paths) > 3
    token = platform.access_token("alice")
    assert {platform.get(path, token).status_code for path in paths} == {403}
    assert platform.get("/ajax-api/2.0/mlflow/experiments/search?max_results=1", token).status_code == 200


def test_the_open_list_is_the_documented_one() -> None:
    """Tokens, sign-in, health and version are open; nothing else is."""
    assert (
        frozenset(
            {
                "/api/mantik/tokens/create",
                "/api/mantik/tokens/refresh",
                "/api/mantik/health",
                "/mantik/sign-in",
                "/health",
                "/version",
            }
        )
        == OPEN_PATHS
    )
    assert {SIGN_OUT_PATH} == OWN_PATHS - OPEN_PATHS


def test_signing_out_is_no_way_in(platform: RunningPlatform) -> None:
    """The one own route that is not open needs a page of the platform, and then only leads to the sign-in page."""
    client = HTTPConnection(urlsplit(platform.url).netloc, timeout=DEADLINE)
    client.request("POST", SIGN_OUT_PATH)
    answer = client.getresponse()
    assert answer.status == 403
    answer.read()
    client.request("POST", SIGN_OUT_PATH, headers={"Origin": platform.url})
    answer = client.getresponse()
    assert (answer.status, answer.headers["Location"]) == (303, SIGN_IN_PATH)


@pytest.mark.parametrize(
    "target",
    [
        "//health",
        "/health/",
        "/health//",
        "/Health",
        "/%68ealth",
        "/health%2f",
        "/health%00",
        "/health;x=1",
        "/health/../graphql",
        "/health/%2e%2e/graphql",
        "/health/..%2fgraphql",
        "/./health",
        "/%2e/health",
        "/x/../health",
        "/version/1",
        "/api/mantik/health/",
        "/api/mantik/tokens/create/../../../2.0/mlflow/experiments/search",
        "/api/mantik/tokens/..",
        "//api/2.0/mlflow/experiments/search",
        "/mantik/sign-in/",
        "/mantik/sign-in/../../graphql",
        "/mantik/sign-in%3f/graphql",
        "http://other.example/health",
        "/api/2.0/mlflow/experiments/search?/health",
        "/graphql#/health",
        "/compute-backend",
        "/compute-backend/",
        "/compute-backend/jobs/..%2f..%2fhealth",
        "/compute-backend/../health",
        "//compute-backend/jobs",
        "/%63ompute-backend/jobs",
        "/compute-backend%2fjobs",
        "/compute-backendx",
    ],
)
def test_no_spelling_of_a_path_opens_anything(platform: RunningPlatform, target: str) -> None:
    """Only the exact open paths are open: no prefix, no other case, no encoding, no dots, no extra slash."""
    client = Anonymous(platform.url)
    assert all(client.is_refused(method, target) for method in ("GET", "POST"))


def test_open_paths_answer(platform: RunningPlatform) -> None:
    """What is open works without a login."""
    client = HTTPConnection(urlsplit(platform.url).netloc, timeout=DEADLINE)
    for path, text in (("/health", b"OK"), ("/version", b"3."), ("/api/mantik/health", b"I'm healthy!")):
        client.request("GET", path)
        answer = client.getresponse()
        assert answer.status == 200
        assert answer.read().startswith(text)


def test_websockets_are_refused(platform: RunningPlatform) -> None:
    """No WebSocket is opened, with or without a token."""
    client = HTTPConnection(urlsplit(platform.url).netloc, timeout=DEADLINE)
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    client.request("GET", "/x", headers={**headers, "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="})
    assert client.getresponse().status in {401, 403}
