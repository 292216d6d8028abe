from __future__ import annotations

import json
import os
import pty
import select
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from mantik.testing import FaultProxy, Hang, Html, Status
from tests.scripts import clean_environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mantik.testing import Platform


def mantik(
    *arguments: str, environment: Mapping[str, str], stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user's shell does."""
    return subprocess.run(
        [sys.executable, "-m", "mantik", *arguments],
        env=dict(environment),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def user(mantik_platform: Platform, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user who set the three variables."""
    return clean_environment(mantik_platform.environment(), tmp_path)


@pytest.fixture
def nobody(tmp_path: Path) -> dict[str, str]:
    """Return the environment of somebody who set nothing."""
    return clean_environment({}, tmp_path)


def log_in(platform: Platform, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Log in as a script does."""
    arguments = ("login", "--uri", platform.url, "--username", platform.username, "--password-stdin")
    return mantik(*arguments, environment=environment, stdin=platform.password + "\n")


def test_after_a_login_nothing_has_to_be_set(mantik_platform: Platform, nobody: dict[str, str]) -> None:
    """`mantik login` once, and platform, user and token are known; the password is kept nowhere."""
    done = log_in(mantik_platform, nobody)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert f"Logged in to {mantik_platform.url} as ada." in done.stderr
    shown = mantik("status", "--json", environment=nobody)
    assert shown.returncode == 0, shown.stderr
    report = json.loads(shown.stdout)
    assert (report["works"], report["tracking_uri"], report["username"]) == (True, mantik_platform.url, "ada")
    assert report["token_valid_until"].endswith("+00:00")
    assert report["platform_mlflow"] == report["client_mlflow"]
    home = next(path for name, path in nobody.items() if name == "MANTIK_HOME")
    for folder, _, names in os.walk(home):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700  # noqa: PTH116  # walked as text
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118  # walked as text
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600  # noqa: PTH116
            with open(path, encoding="utf-8") as file:  # noqa: PTH123
                assert mantik_platform.password not in file.read()


def test_a_login_does_not_reach_over_to_another_platform(mantik_platform: Platform, nobody: dict[str, str]) -> None:
    """What was remembered for one platform is void where the environment names another."""
    assert log_in(mantik_platform, nobody).returncode == 0
    shown = mantik("status", "--json", environment={**nobody, "MLFLOW_TRACKING_URI": "https://other.invalid"})
    assert shown.returncode == 1
    report = json.loads(shown.stdout)
    assert report["username"] is None
    assert "MANTIK_USERNAME" in report["problem"]


def test_after_a_logout_nobody_is_logged_in(mantik_platform: Platform, nobody: dict[str, str]) -> None:
    """`mantik logout` removes tokens and profile; a second one says that there was nothing."""
    log_in(mantik_platform, nobody)
    assert "Logged out." in mantik("logout", environment=nobody).stderr
    assert mantik("status", environment=nobody).returncode == 1
    again = mantik("logout", environment=nobody)
    assert (again.returncode, again.stdout) == (0, "")
    assert "Nobody was logged in." in again.stderr


def test_the_password_is_asked_for_without_an_echo(mantik_platform: Platform, nobody: dict[str, str]) -> None:
    """At a terminal, platform, user and password are asked for, and the password is not shown."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, [sys.executable, "-m", "mantik", "login"], nobody)  # noqa: S606
    try:
        screen = expect(terminal, "Platform", b"")
        os.write(terminal, mantik_platform.url.encode() + b"\n")
        screen = expect(terminal, "User name", screen)
        os.write(terminal, b"ada\n")
        screen = expect(terminal, "Password:", screen)
        os.write(terminal, mantik_platform.password.encode() + b"\n")
        screen = expect(terminal, "Logged in to", screen)
        _, status = os.waitpid(child, 0)
    finally:
        # Hangs the child up, should it still be waiting for an answer.
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert mantik_platform.password.encode() not in screen


def expect(terminal: int, text: str, screen: bytes) -> bytes:
    """Read what a terminal shows until a text appears in it."""
    deadline = time.monotonic() + 60
    while text.encode() not in screen:
        assert select.select([terminal], [], [], max(0, deadline - time.monotonic()))[0], screen
        screen += os.read(terminal, 4096)
    return screen


@pytest.mark.parametrize("arguments", [["--password", "x"], ["secret"], ["--password=x"]])
def test_a_password_cannot_be_an_argument(arguments: list[str], nobody: dict[str, str]) -> None:
    """Process lists are public: there is no option that takes a password."""
    assert mantik("login", *arguments, environment=nobody).returncode == 2


def test_a_wrong_password_is_one_sentence(mantik_platform: Platform, nobody: dict[str, str]) -> None:
    """The refusal names the platform and the user, keeps nothing and does not repeat the password."""
    arguments = ("login", "--uri", mantik_platform.url, "--username", "ada", "--password-stdin")
    done = mantik(*arguments, environment=nobody, stdin="mistyped-password\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert f"{mantik_platform.url} refused the login of 'ada'" in done.stderr
    assert "mistyped-password" not in done.stderr
    assert mantik("status", environment=nobody).returncode == 1


def test_a_url_that_must_not_get_a_password_is_refused_before_one_is_read(nobody: dict[str, str]) -> None:
    """A public http:// name is refused with nothing asked and nothing sent."""
    done = mantik("login", "--uri", "http://platform.example.org", "--username", "ada", environment=nobody)
    assert done.returncode == 1
    assert "Password" not in done.stderr
    assert "MANTIK_ALLOW_HTTP=1" in done.stderr


def test_an_empty_password_is_not_sent(mantik_platform: Platform, nobody: dict[str, str]) -> None:
    """Nothing on standard input is an error, not an attempt."""
    with FaultProxy(mantik_platform.url) as proxy:
        arguments = ("login", "--uri", proxy.url, "--username", "ada", "--password-stdin")
        done = mantik(*arguments, environment=nobody, stdin="")
        assert proxy.requests == []
    assert done.returncode == 1
    assert "password is empty" in done.stderr


def test_the_shells_environment_is_set_by_eval(mantik_platform: Platform, user: dict[str, str]) -> None:
    """`eval $(mantik init)` in a plain shell is enough for MLflow's own command line to be let in."""
    script = f"""
        eval $("{sys.executable}" -m mantik init)
        unset MANTIK_PASSWORD
        "{sys.executable}" -m mlflow experiments search
        """
    done = subprocess.run(
        ["/bin/sh", "-ec", script], env=user, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Default" in done.stdout


def test_one_command_gets_the_environment_by_env(mantik_platform: Platform, user: dict[str, str]) -> None:
    """`env $(mantik init --no-export) command` works, also with a variable that would override the token."""
    script = f"""env $("{sys.executable}" -m mantik init --no-export) "{sys.executable}" -m mlflow experiments search"""
    overriding = {"MLFLOW_TRACKING_USERNAME": "grace", "MLFLOW_TRACKING_PASSWORD": "other"}
    done = subprocess.run(
        ["/bin/sh", "-ec", script], env={**user, **overriding}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Default" in done.stdout


def test_init_prints_one_line_per_variable_and_nothing_else(mantik_platform: Platform, user: dict[str, str]) -> None:
    """Each line of `mantik init` is one export."""
    done = mantik("init", environment=user)
    names = [line.removeprefix("export ").partition("=")[0] for line in done.stdout.splitlines()]
    assert all(line.startswith("export ") for line in done.stdout.splitlines())
    assert names == [
        "MLFLOW_TRACKING_URI",
        "MLFLOW_TRACKING_AUTH",
        "MLFLOW_TRACKING_TOKEN",
        "MANTIK_TRACKING_CLAIM",
        "MANTIK_USERNAME",
    ]


@pytest.mark.parametrize("fault", [Status(500), Html(), Status(404)])
def test_a_failed_init_prints_nothing_for_the_shell(
    fault: Status | Html, mantik_platform: Platform, user: dict[str, str]
) -> None:
    """On failure stdout is empty, the reason is on stderr and the exit code is not zero."""
    with FaultProxy(mantik_platform.url) as proxy:
        proxy.fault(fault)
        done = mantik("init", environment={**user, "MLFLOW_TRACKING_URI": proxy.url})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nothing set", "MLFLOW_TRACKING_URI"),
        ("wrong password", "refused the login"),
        ("no platform", "issues no tokens"),
        ("tracking does not answer", "does not answer as an MLflow server (HTTP 502)"),
        ("tracking hangs", "no answer"),
        ("user information", "user information"),
    ],
)
def test_status_says_why_tracking_would_not_work(  # noqa: PLR0913, PLR0917  # a table and three fixtures
    kind: str,
    words: str,
    as_json: bool,  # noqa: FBT001  # a parameter
    mantik_platform: Platform,
    user: dict[str, str],
    nobody: dict[str, str],
) -> None:
    """Exit code 1 and the reason, for people and for scripts, without a secret."""
    with FaultProxy(mantik_platform.url) as proxy:
        environment = {**user, "MLFLOW_TRACKING_URI": proxy.url}
        if kind == "nothing set":
            environment = nobody
        elif kind == "wrong password":
            environment["MANTIK_PASSWORD"] = "mistyped-password"
        elif kind == "no platform":
            proxy.fault(Status(404))
        elif kind == "tracking does not answer":
            proxy.fault(Status(502), path="/api/2.0/")
        elif kind == "tracking hangs":
            proxy.fault(Hang(), path="/version")
        elif kind == "user information":
            environment["MLFLOW_TRACKING_URI"] = "https://ada:url-secret@platform.example.org"
        done = mantik("status", *(["--json"] if as_json else []), environment=environment)
    assert done.returncode == 1
    text = json.loads(done.stdout)["problem"] if as_json else " ".join(done.stdout.split())
    assert words in text
    assert done.stderr == ""
    for secret in ("mistyped-password", "url-secret", user["MANTIK_PASSWORD"]):
        assert secret not in done.stdout


def test_status_of_a_local_store_is_fine(nobody: dict[str, str], tmp_path: Path) -> None:
    """A local tracking URI works and says that nobody logs in."""
    done = mantik("status", environment={**nobody, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"})
    assert done.returncode == 0
    assert "nobody logs in" in done.stdout


def test_status_is_readable_and_plain_where_it_is_no_terminal(mantik_platform: Platform, user: dict[str, str]) -> None:
    """Platform, user, validity and versions, one per line, without control characters."""
    done = mantik("status", environment=user)
    assert done.returncode == 0, done.stderr
    for words in (mantik_platform.url, "ada", "valid until", "on the platform", "Tracking works."):
        assert words in done.stdout
    assert "\x1b" not in done.stdout


def test_help_names_every_command_without_importing_any_framework(nobody: dict[str, str]) -> None:
    """`mantik --help` lists the commands; an unknown one is a usage error."""
    done = mantik("--help", environment=nobody)
    for command in ("init", "login", "logout", "server", "status"):
        assert f"\n  {command} " in done.stdout
    assert mantik("no-such-command", environment=nobody).returncode == 2
    assert mantik("--version", environment=nobody).stdout.startswith("mantik, version ")
