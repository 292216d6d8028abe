from __future__ import annotations

import socket
from dataclasses import dataclass

import pytest

import mantik
from mantik.auth.urls import Origin, is_local, token_endpoint
from mantik.exceptions import ConfigurationError, EndpointError, MantikError, PlatformUnreachableError
from mantik.settings import Settings


@dataclass(frozen=True)
class Case:
    """One configuration: what it says, and the one URL or the one error that follows."""

    tracking_uri: str | None
    base: str | None = None
    error: str = ""
    api_url: str | None = None
    allow_http: bool = False


_A = "/api/mantik/tokens"
_E = "/mantik/tokens"

CASES = [
    # Era A: the base URL alone.
    Case("https://test.cloud.mantik.ai", f"https://test.cloud.mantik.ai{_A}"),
    Case("https://test.cloud.mantik.ai/", f"https://test.cloud.mantik.ai{_A}"),
    Case("https://test.cloud.mantik.ai//", f"https://test.cloud.mantik.ai{_A}"),
    Case("HTTPS://Test.Cloud.Mantik.AI", f"https://test.cloud.mantik.ai{_A}"),
    Case("  https://test.cloud.mantik.ai\n", f"https://test.cloud.mantik.ai{_A}"),
    Case("https://platform.example.org:8443", f"https://platform.example.org:8443{_A}"),
    Case("https://10.1.2.3", f"https://10.1.2.3{_A}"),
    # Loopback may be plain http.
    Case("http://localhost:5000", f"http://localhost:5000{_A}"),
    Case("http://localhost:5000/", f"http://localhost:5000{_A}"),
    Case("http://127.0.0.1:5000", f"http://127.0.0.1:5000{_A}"),
    Case("http://127.8.9.1", f"http://127.8.9.1{_A}"),
    Case("http://[::1]:5000", f"http://[::1]:5000{_A}"),
    # Era E: tracking under a path of the API's own host.
    Case("https://api.cloud.mantik.ai/tracking", f"https://api.cloud.mantik.ai{_E}"),
    Case("https://api.cloud.mantik.ai/tracking/", f"https://api.cloud.mantik.ai{_E}"),
    Case("https://api.cloud.mantik.ai//tracking//", f"https://api.cloud.mantik.ai{_E}"),
    # MANTIK_API_URL decides alone.
    Case("https://tracking.example.org", f"https://api.example.org{_E}", api_url="https://api.example.org"),
    Case("https://tracking.example.org", f"https://api.example.org{_E}", api_url="https://api.example.org/"),
    Case("https://a.example.org", f"https://b.example.org/mantik-api{_E}", api_url="https://b.example.org/mantik-api"),
    Case(None, f"https://api.example.org{_E}", api_url="https://api.example.org"),
    Case("https://tracking.cloud.mantik.ai", f"https://api.cloud.mantik.ai{_E}", api_url="https://api.cloud.mantik.ai"),
    Case("https://a.example.org/deep/path", f"https://b.example.org{_E}", api_url="https://b.example.org"),
    # Http elsewhere only where it is allowed.
    Case("http://platform.example.org", error="MANTIK_ALLOW_HTTP=1"),
    Case("http://platform.example.org", f"http://platform.example.org{_A}", allow_http=True),
    Case("http://10.1.2.3:5000", error="unencrypted"),
    Case("http://0.0.0.0:5000", error="unencrypted"),
    Case("http://localhost.example.org", error="unencrypted"),
    Case("http://127.0.0.1.example.org", error="unencrypted"),
    Case("https://a.example.org", error="MANTIK_API_URL begins with http://", api_url="http://api.example.org"),
    # No other host is ever derived.
    Case("https://tracking.cloud.mantik.ai", error="MANTIK_API_URL=https://api.cloud.mantik.ai"),
    Case("https://trackingserver.cloud.mantik.ai/", error="MANTIK_API_URL=https://api.cloud.mantik.ai"),
    # A path that says nothing about tokens.
    Case("https://platform.example.org/mlflow", error="has the path '/mlflow'"),
    Case("https://platform.example.org/tracking/more", error="MANTIK_API_URL"),
    Case("https://platform.example.org/api/2.0/mlflow", error="base URL alone"),
    Case("https://platform.example.org/tracking/..", error="has the path"),
    # What would end up in logs, or swallow the endpoint.
    Case("https://ada:secret@platform.example.org", error="user information"),
    Case("https://ada@platform.example.org", error="user information"),
    Case("ada:secret@platform.example.org", error="user information"),
    Case("https://platform.example.org@evil.example.com", error="user information"),
    Case("https://platform.example.org?x=1", error="query or a fragment"),
    Case("https://platform.example.org/#top", error="query or a fragment"),
    Case("https://platform.example.org/?", error="query or a fragment"),
    Case("https://a.example.org", error="MANTIK_API_URL has a query", api_url="https://b.example.org?x"),
    # No platform at all.
    Case(None, error="MLFLOW_TRACKING_URI"),
    Case("", error="MLFLOW_TRACKING_URI"),
    Case("   ", error="MLFLOW_TRACKING_URI"),
    Case("databricks", error="Databricks"),
    Case("databricks://profile", error="Databricks"),
    Case("file:///tmp/mlruns", error="no http(s) URL"),
    Case("sqlite:///mlflow.db", error="no http(s) URL"),
    Case("s3://bucket/mlruns", error="no http(s) URL"),
    Case("ftp://platform.example.org", error="no http(s) URL"),
    # Slips of the keyboard.
    Case("localhost:5000", error="Did you mean http://localhost:5000 ?"),
    Case("127.0.0.1:5000", error="Did you mean http://127.0.0.1:5000 ?"),
    Case("test.cloud.mantik.ai", error="Did you mean https://test.cloud.mantik.ai ?"),
    Case("//test.cloud.mantik.ai", error="Did you mean https://test.cloud.mantik.ai ?"),
    Case("https:/test.cloud.mantik.ai", error="no host"),
    Case("https://", error="no host"),
    Case("https://:5000", error="no host"),
    Case("https://platform.example.org:port", error="not a valid URL"),
    Case("https://platform.example.org:99999", error="not a valid URL"),
    Case("https://platform.example.org:0", error="port 0"),
    Case("https://platform example.org", error="blank"),
    Case("https:\\\\platform.example.org", error="backslash"),
    Case("https://platform.example.org\\@evil.example.com", error="backslash"),
    Case("https://plat%66orm.example.org", error="not a valid host name"),
    Case("https://plätform.example.org", error="'xn--'"),
    Case("https://-platform.example.org", error="not a valid host name"),
    Case("https://[::1", error="not a valid URL"),
]


def _environment(case: Case) -> dict[str, str]:
    environment = {"MANTIK_USERNAME": "ada", "MANTIK_PASSWORD": "correct horse"}
    if case.tracking_uri is not None:
        environment["MLFLOW_TRACKING_URI"] = case.tracking_uri
    if case.api_url is not None:
        environment["MANTIK_API_URL"] = case.api_url
    if case.allow_http:
        environment["MANTIK_ALLOW_HTTP"] = "1"
    return environment


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.tracking_uri!r}+{case.api_url!r}")
def test_every_configuration_gives_one_url_or_one_error(case: Case, blank_environment: pytest.MonkeyPatch) -> None:
    """A configuration resolves to exactly one token URL, or to one error that says what is wrong."""
    for name, value in _environment(case).items():
        blank_environment.setenv(name, value)
    settings = Settings.from_environment()
    if case.base is not None:
        endpoint = token_endpoint(settings)
        assert (endpoint.create_url, endpoint.refresh_url) == (f"{case.base}/create", f"{case.base}/refresh")
    else:
        with pytest.raises(ConfigurationError) as caught:
            token_endpoint(settings)
        assert case.error in str(caught.value)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.tracking_uri!r}+{case.api_url!r}")
def test_no_other_host_is_ever_asked(case: Case, blank_environment: pytest.MonkeyPatch) -> None:
    """`init_tracking()` looks up the resolved host alone, and none where the configuration is wrong."""
    for name, value in _environment(case).items():
        blank_environment.setenv(name, value)
    # Otherwise a platform that does not answer is no error.
    blank_environment.setenv("MANTIK_STRICT", "1")
    asked: list[str] = []

    def refuse(host: object, *_arguments: object, **_options: object) -> None:
        asked.append(str(host))
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    blank_environment.setattr(socket, "getaddrinfo", refuse)
    if case.base is None and case.tracking_uri is not None and is_local(case.tracking_uri.strip() or "https://"):
        assert mantik.init_tracking().token == ""
        assert asked == []
        return
    with pytest.raises(MantikError) as caught:
        mantik.init_tracking()
    if case.base is not None and case.tracking_uri is not None and not isinstance(caught.value, EndpointError):
        expected = Origin.of(case.base)
        assert expected is not None
        assert isinstance(caught.value, PlatformUnreachableError)
        assert set(asked) == {expected.host}
    else:
        assert asked == []


@pytest.mark.parametrize(
    ("uri", "local"),
    [
        ("mlruns", True),
        ("./mlruns", True),
        ("/scratch/ada/mlruns", True),
        ("~/mlruns", True),
        ("file:///tmp/mlruns", True),
        ("file:mlruns", True),
        ("sqlite:///mlflow.db", True),
        ("postgresql+psycopg2://ada:secret@db/mlflow", True),
        ("https://test.cloud.mantik.ai", False),
        ("test.cloud.mantik.ai", False),
        ("localhost", False),
        ("localhost:5000", False),
        ("databricks", False),
        ("s3://bucket", False),
    ],
)
def test_a_local_store_is_told_from_a_platform(uri: str, local: bool) -> None:  # noqa: FBT001  # a table's column
    """Paths, `file:` and databases are local; a host name without its scheme is not taken for a folder."""
    assert is_local(uri) is local


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://a.example.org", "https://a.example.org:443/x?y#z"),
        ("http://A.example.org", "http://a.example.org:80"),
    ],
)
def test_the_same_origin_is_recognised(one: str, other: str) -> None:
    """An origin is scheme, host and effective port; path, query and case do not count."""
    assert Origin.of(one) == Origin.of(other) is not None


@pytest.mark.parametrize(
    "other",
    ["http://a.example.org", "https://b.example.org", "https://a.example.org:444", "https://a.example.org.evil"],
)
def test_another_origin_is_another(other: str) -> None:
    """Another scheme, host or port is another origin."""
    assert Origin.of("https://a.example.org") != Origin.of(other)
