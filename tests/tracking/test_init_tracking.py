from __future__ import annotations

import os
import shlex
import subprocess
import time
from typing import TYPE_CHECKING

import mlflow
import pytest

import mantik
from mantik import tracking
from mantik.exceptions import (
    ConfigurationError,
    EndpointError,
    LoginExpiredError,
    MissingSettingsError,
    PlatformUnreachableError,
)
from mantik.testing import FaultProxy, Hang, Refuse, Status
from mantik.tracking import Environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import Platform
    from mantik.testing.faults import Fault


@pytest.fixture(autouse=True)
def mlflow_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let each test find MLflow pointing nowhere and every warning unsaid."""
    monkeypatch.setattr(tracking, "_said", set())
    mlflow.set_tracking_uri(None)
    yield
    mlflow.set_tracking_uri(None)


def test_called_again_it_sends_nothing_and_changes_nothing(
    mantik_environment: dict[str, str], mantik_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call logs in and asks for the version; a hundred more send and write nothing and return the same."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mantik_proxy.url)
    first = mantik.init_tracking()
    asked = len(mantik_proxy.requests)

    def refuse(_name: str, _value: str) -> None:
        raise AssertionError("a variable was written")

    with monkeypatch.context() as watched:
        watched.setattr(os, "putenv", refuse)
        assert [mantik.init_tracking() for _ in range(100)] == [first] * 100
    assert asked == len(mantik_proxy.requests) == 2
    assert [request.path for request in mantik_proxy.requests] == ["/api/mantik/tokens/create", "/version"]


def test_the_environment_for_mlflow_is_set(mantik_platform: Platform, mantik_environment: dict[str, str]) -> None:
    """URI, auth plugin, token and claim are set, and mlflow, imported long before, points at the platform."""
    environment = mantik.init_tracking()
    assert environment == Environment(
        tracking_uri=mantik_platform.url, token=environment.token, username=mantik_platform.username
    )
    assert os.environ["MLFLOW_TRACKING_URI"] == mlflow.get_tracking_uri() == mantik_platform.url
    assert os.environ["MLFLOW_TRACKING_AUTH"] == "mantik"
    assert os.environ["MLFLOW_TRACKING_TOKEN"] == environment.token
    assert os.environ["MANTIK_TRACKING_CLAIM"] == mantik_platform.url


def test_what_would_override_the_token_is_taken_away(
    mantik_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Variables that make MLflow authenticate in another way are removed, said once, and empty in other shells."""
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_AWS_SIGV4"):
        monkeypatch.setenv(name, "true")
    environment = mantik.init_tracking()
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_AWS_SIGV4"):
        assert name not in os.environ
        assert environment.to_dict()[name] == ""
        assert caplog.text.count(f"{name} was removed") == 1


def test_files_that_would_override_the_token_elsewhere_are_named(
    mantik_environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`~/.mlflow/credentials` and a netrc entry for the host are named once, without their content."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text(
        "[mlflow]\nmlflow_tracking_username = grace\nmlflow_tracking_password = file-secret\n"
    )
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login grace password netrc-secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    mantik.init_tracking()
    mantik.init_tracking()
    assert caplog.text.count(".mlflow/credentials holds a user name and password") == 1
    assert caplog.text.count(".netrc has an entry for 127.0.0.1") == 1
    assert "secret" not in caplog.text
    # And neither wins over the plugin.
    with mlflow.start_run() as run:
        assert run.data.tags["mlflow.user"] == mantik_environment["MANTIK_USERNAME"]


@pytest.mark.parametrize(
    ("set_names", "missing"),
    [
        ([], ("MLFLOW_TRACKING_URI", "MANTIK_USERNAME", "MANTIK_PASSWORD")),
        (["MANTIK_USERNAME", "MANTIK_PASSWORD"], ("MLFLOW_TRACKING_URI",)),
        (["MANTIK_USERNAME"], ("MLFLOW_TRACKING_URI", "MANTIK_PASSWORD")),
        (["MLFLOW_TRACKING_URI"], ("MANTIK_USERNAME", "MANTIK_PASSWORD")),
        (["MLFLOW_TRACKING_URI", "MANTIK_PASSWORD"], ("MANTIK_USERNAME",)),
        (["MLFLOW_TRACKING_URI", "MANTIK_USERNAME"], ("MANTIK_PASSWORD",)),
        (["MLFLOW_TRACKING_TOKEN"], ("MLFLOW_TRACKING_URI",)),
    ],
)
def test_missing_settings_are_named_all_at_once(
    set_names: list[str], missing: tuple[str, ...], blank_environment: pytest.MonkeyPatch
) -> None:
    """One error names everything that is missing and how to set it; nothing is asked before."""
    values = {"MLFLOW_TRACKING_URI": "https://platform.invalid"}
    for name in set_names:
        blank_environment.setenv(name, values.get(name, "x"))
    with pytest.raises(MissingSettingsError) as caught:
        mantik.init_tracking()
    assert caught.value.names == missing
    assert all(name in str(caught.value) for name in missing)
    assert "mantik login" in str(caught.value)


@pytest.mark.parametrize("empty", ["", "   "])
def test_an_empty_setting_is_a_missing_one(empty: str, blank_environment: pytest.MonkeyPatch) -> None:
    """Empty variables count as unset, they are not used as names."""
    for name in ("MLFLOW_TRACKING_URI", "MANTIK_USERNAME"):
        blank_environment.setenv(name, empty)
    blank_environment.setenv("MANTIK_PASSWORD", "")
    with pytest.raises(MissingSettingsError) as caught:
        mantik.init_tracking()
    assert caught.value.names == ("MLFLOW_TRACKING_URI", "MANTIK_USERNAME", "MANTIK_PASSWORD")


def test_a_switch_that_is_neither_true_nor_false_is_refused(blank_environment: pytest.MonkeyPatch) -> None:
    """`MANTIK_ALLOW_HTTP=maybe` is an error, not a yes."""
    blank_environment.setenv("MANTIK_ALLOW_HTTP", "maybe")
    with pytest.raises(ConfigurationError, match="MANTIK_ALLOW_HTTP"):
        mantik.init_tracking()


def test_after_an_error_nothing_is_changed(
    mantik_environment: dict[str, str], mantik_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that fails leaves the environment and mlflow as they were."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mantik_proxy.url)
    monkeypatch.setenv("MANTIK_STRICT", "1")
    mantik_proxy.fault(Status(503))
    before = dict(os.environ)
    with pytest.raises(mantik.MantikError):
        mantik.init_tracking()
    assert dict(os.environ) == before


@pytest.mark.parametrize("kind", ["sqlite", "path", "file"])
def test_with_a_local_store_nobody_logs_in(
    kind: str, blank_environment: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A local tracking URI needs no user, sends nothing, and says so once; a database's password stays unseen."""
    uri = {
        "sqlite": f"sqlite:///{tmp_path}/mlflow.db?password=secret",
        "path": str(tmp_path),
        "file": tmp_path.as_uri(),
    }[kind]
    blank_environment.setenv("MLFLOW_TRACKING_URI", uri)
    environment = mantik.init_tracking()
    assert environment == mantik.init_tracking() == Environment(tracking_uri=uri)
    assert environment.to_dict() == {"MLFLOW_TRACKING_URI": uri}
    assert "MLFLOW_TRACKING_AUTH" not in os.environ
    assert caplog.text.count("nobody was logged in") == 1
    assert "secret" not in caplog.text


def test_going_local_after_a_platform_leaves_no_claim(
    mantik_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever changes to a local store takes the platform's claim, plugin and token out of the environment."""
    mantik.init_tracking()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mantik.init_tracking()
    assert not {"MANTIK_TRACKING_CLAIM", "MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_TOKEN"} & set(os.environ)
    assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"


def test_in_a_compute_job_the_given_token_is_used(
    mantik_platform: Platform,
    mantik_environment: dict[str, str],
    mantik_proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A token and no user name: nobody logs in, nothing but MLflow's version is asked for, and the user is known."""
    token = mantik.init_tracking().token
    for name in [name for name in os.environ if name.startswith(("MANTIK_", "MLFLOW_")) and name != "MANTIK_HOME"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mantik_proxy.url)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
    environment = mantik.init_tracking()
    assert (environment.token, environment.username) == (token, mantik_platform.username)
    assert [request.path for request in mantik_proxy.requests] == ["/version"]
    # Nobody can log in there, so no user name is passed on that would say so.
    assert "MANTIK_USERNAME" not in environment.to_dict()
    with mlflow.start_run() as run:
        mlflow.log_metric("loss", 1.0)
    assert mantik_platform.read_back.run(run.info.run_id).tags["mlflow.user"] == mantik_platform.username
    assert mantik.init_tracking() == environment


def test_a_dead_given_token_stops_nobody_and_is_said(
    mantik_platform: Platform,
    blank_environment: pytest.MonkeyPatch,
    mantik_proxy: FaultProxy,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """With a job's token that is over what is logged waits on disk, the reason is said, and nobody logs in."""
    blank_environment.setenv("MANTIK_HOME", str(tmp_path))
    blank_environment.setenv("MLFLOW_TRACKING_URI", mantik_proxy.url)
    blank_environment.setenv("MLFLOW_TRACKING_TOKEN", "not.a.token")
    blank_environment.setenv("MANTIK_EXIT_TIMEOUT", "0")
    mantik.init_tracking()
    mlflow.create_experiment("never")
    assert not mantik.flush(1)
    assert mantik.receipt().problem == "HTTP 401"
    assert "HTTP 401" in caplog.text
    assert mantik_proxy.count("/api/mantik/tokens") == 0


@pytest.mark.parametrize("uri", ["http://platform.example.org", "https://ada:secret@platform.example.org"])
def test_a_given_token_is_guarded_like_a_password(uri: str, blank_environment: pytest.MonkeyPatch) -> None:
    """A job's token does not travel unencrypted either, nor to a URL with user information."""
    blank_environment.setenv("MLFLOW_TRACKING_URI", uri)
    blank_environment.setenv("MLFLOW_TRACKING_TOKEN", "opaque")
    with pytest.raises(EndpointError):
        mantik.init_tracking()


def test_a_dead_login_without_a_password_is_one_clear_error(
    mantik_environment: dict[str, str], mantik_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the refresh token is refused and no password is set, the error says how to log in again."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mantik_proxy.url)
    mantik.init_tracking()
    entry = next((tracking.Settings.from_environment().home / "tokens").glob("*.json"))
    entry.write_text(entry.read_text().replace('"expires_at": ', '"expires_at": -'))
    monkeypatch.delenv("MANTIK_PASSWORD")
    mantik_proxy.fault(Status(401, "Refresh token has expired"), path="/api/mantik/tokens/refresh")
    with pytest.raises(LoginExpiredError, match=r"Refresh token has expired.*mantik login"):
        mantik.init_tracking()


def test_an_outage_of_the_platform_at_start_is_an_error_where_tracking_is_strict(
    mantik_environment: dict[str, str], mantik_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a cached login and without a platform there is no token: strict tracking says so, and names the URL."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mantik_proxy.url)
    monkeypatch.setenv("MANTIK_STRICT", "0")
    mantik_proxy.fault(Refuse())
    with pytest.raises(PlatformUnreachableError) as caught:
        mantik.init_tracking(strict=True)
    assert caught.value.url == f"{mantik_proxy.url}/api/mantik/tokens/create"


@pytest.mark.parametrize("fault", [Refuse(), Status(503), Hang()], ids=["refused", "503", "silent"])
@pytest.mark.usefixtures("mantik_environment")
def test_an_outage_of_the_platform_at_start_stops_nobody(
    fault: Fault,
    mantik_platform: Platform,
    mantik_proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without a token and a platform training begins at once, and its run arrives when the platform is back."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mantik_proxy.url)
    outage = mantik_proxy.fault(fault)
    started = time.monotonic()
    assert mantik.init_tracking().token == ""
    with mlflow.start_run(run_name=f"begun without a platform: {fault}"):
        mlflow.log_metric("loss", 0.5)
    assert time.monotonic() - started < 15
    assert "Training begins without it" in caplog.text
    outage.clear()
    assert mantik.flush(60)
    (run,) = [run for run in mantik_platform.read_back.runs("0") if run.name == f"begun without a platform: {fault}"]
    assert (run.status, run.metrics) == ("FINISHED", {"loss": 0.5})


def test_another_user_never_gets_the_cached_token(
    mantik_platform: Platform, mantik_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a change of MANTIK_USERNAME the new user logs in; the old token is not used."""
    ada = mantik.init_tracking()
    mantik_platform.add_user("grace", "nanoseconds of wire")
    monkeypatch.setenv("MANTIK_USERNAME", "grace")
    monkeypatch.setenv("MANTIK_PASSWORD", "nanoseconds of wire")
    grace = mantik.init_tracking()
    assert grace.username == "grace"
    assert grace.token != ada.token
    with mlflow.start_run() as run:
        pass
    assert mantik_platform.read_back.run(run.info.run_id).tags["mlflow.user"] == "grace"


def test_a_shell_reads_back_exactly_what_was_printed() -> None:
    """Values with blanks and quotes survive the shell; empty ones stay empty; nothing else is printed."""
    environment = Environment(
        tracking_uri="https://platform.example.org",
        token="a'b c$d",  # made to be nasty
        username="ada lovelace",
        overridden=("MLFLOW_TRACKING_PASSWORD",),
    )
    text = environment.to_bash_statement()
    assert all(line.startswith("export ") for line in text.splitlines())
    assert not any(line.startswith("export ") for line in environment.to_bash_statement(no_export=True).splitlines())
    shown = subprocess.run(
        [
            "/bin/sh",
            "-c",
            f'{text}\nprintf "%s\\n" "$MLFLOW_TRACKING_TOKEN" "$MANTIK_USERNAME" "$MLFLOW_TRACKING_PASSWORD"',
        ],
        capture_output=True,
        text=True,
        check=True,
        env={"MLFLOW_TRACKING_PASSWORD": "old"},
    ).stdout
    assert shown == "a'b c$d\nada lovelace\n\n"
    assert (
        shlex.split(environment.to_bash_statement(no_export=True))[0]
        == "MLFLOW_TRACKING_URI=https://platform.example.org"
    )
