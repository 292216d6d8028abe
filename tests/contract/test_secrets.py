"""Whatever goes wrong, no password and no token is ever seen, and each failure is one clear error in good time."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from mantik.auth.transport import CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS
from mantik.testing import FaultProxy, Hang, Html, LoseAcknowledgement, Redirect, Refuse, Status
from tests.forked import run_forked
from tests.scripts import clean_environment, run_script

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from mantik.testing import Platform
    from mantik.testing.faults import Fault

PASSWORD = "Wr0ng-and-Secret-Passw0rd"

FAILING = """
    import logging, sys, time, traceback
    from http.client import HTTPConnection

    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)

    import mantik
    from mantik.settings import Settings

    print("SETTINGS", Settings.from_environment())
    print("ARGUMENTS", open("/proc/self/cmdline").read())
    started = time.monotonic()
    try:
        mantik.init_tracking()
    except Exception as error:
        print("SECONDS", time.monotonic() - started)
        print("ERROR", type(error).__name__, error)
        print("REPR", repr(error), vars(error), error.__cause__, error.__context__)
        traceback.print_exc()
        # The frames of all libraries, each with all its variables, as error reporters collect them.
        print("".join(traceback.TracebackException.from_exception(error, capture_locals=True).format()))
    else:
        raise SystemExit("no error")
    """

CASES = {
    "wrong password": (
        None,
        "LoginRefusedError",
        "refused the login of 'ada' (HTTP 401: Incorrect username or password)",
    ),
    "500": (Status(500, "Internal Server Error"), "UnexpectedAnswerError", "failed to issue a token (HTTP 500"),
    "500 that echoes the request": (Status(500, PASSWORD), "UnexpectedAnswerError", "***"),
    "403 that echoes the request": (Status(403, f'{{"detail": "{PASSWORD}"}}'), "LoginRefusedError", "***"),
    "captive portal": (Html(200), "UnexpectedAnswerError", "captive portal"),
    "no platform": (Status(404, "Not Found"), "UnexpectedAnswerError", "issues no tokens (HTTP 404)"),
    "only GET": (Status(405, "Method Not Allowed"), "UnexpectedAnswerError", "issues no tokens (HTTP 405)"),
    "nonsense": (Status(201, '{"AccessToken": 7}'), "UnexpectedAnswerError", "without a usable token"),
    "hang": (Hang(), "PlatformUnreachableError", "no answer within 15 s"),
    "refused": (Refuse(), "PlatformUnreachableError", "cannot be reached"),
    "lost answer": (LoseAcknowledgement(), "PlatformUnreachableError", "cannot be reached"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_failed_login_is_one_clear_error_and_no_secret(name: str, mantik_platform: Platform, tmp_path: Path) -> None:
    """Logs at DEBUG, errors, their reprs, tracebacks with all variables and process arguments hold no password."""
    fault, kind, words = CASES[name]
    with FaultProxy(mantik_platform.url) as proxy, applied(proxy, fault):
        settings = {"MANTIK_USERNAME": "ada", "MANTIK_PASSWORD": PASSWORD, "MLFLOW_TRACKING_URI": proxy.url}
        # An outage is an error only where the user wants it to be one.
        settings["MANTIK_STRICT"] = "1"
        output = run_script(FAILING, clean_environment(settings, tmp_path), tmp_path)
        assert proxy.count("/api/mantik/tokens/create") == len(proxy.requests) == 1
    assert f"ERROR {kind} " in output
    assert words in output
    assert PASSWORD not in output
    assert float(output.partition("SECONDS ")[2].split()[0]) < CONNECT_TIMEOUT_SECONDS + READ_TIMEOUT_SECONDS


@pytest.mark.parametrize("name", ["500", "500 that echoes the request", "hang", "refused", "lost answer"])
def test_an_outage_at_the_start_is_one_warning_and_no_secret(
    name: str, mantik_platform: Platform, tmp_path: Path
) -> None:
    """A training that begins without the platform says why, and shows no password at DEBUG either."""
    fault, _, _ = CASES[name]
    code = """
        import logging, sys

        logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)

        import mantik, mlflow

        print(mantik.init_tracking())
        with mlflow.start_run():
            mlflow.log_metric("loss", 1.0)
        print(mantik.receipt(), repr(mantik.receipt()))
        """
    with FaultProxy(mantik_platform.url) as proxy, applied(proxy, fault):
        settings = {"MANTIK_USERNAME": "ada", "MANTIK_PASSWORD": PASSWORD, "MLFLOW_TRACKING_URI": proxy.url}
        settings["MANTIK_EXIT_TIMEOUT"] = "1"
        output = run_forked(code, clean_environment(settings, tmp_path), tmp_path)
    assert output.count("Training begins without it") == 1
    assert PASSWORD not in output


def test_a_redirect_is_not_followed(mantik_platform: Platform, tmp_path: Path) -> None:
    """The error names where the redirect leads, without its query; nothing arrives there."""
    with FaultProxy(mantik_platform.url) as elsewhere, FaultProxy(mantik_platform.url) as proxy:
        proxy.fault(Redirect(f"{elsewhere.url}/login?next=secret-query", status=307))
        settings = {**mantik_platform.environment(), "MANTIK_PASSWORD": PASSWORD, "MLFLOW_TRACKING_URI": proxy.url}
        output = run_script(FAILING, clean_environment(settings, tmp_path), tmp_path)
        assert elsewhere.requests == []
        assert f"redirects (HTTP 307) to {elsewhere.url}." in output
    assert PASSWORD not in output


def test_a_server_that_is_not_there_is_named(tmp_path: Path, mantik_platform: Platform) -> None:
    """A refused connection is one error that names the URL."""
    with FaultProxy(mantik_platform.url) as proxy:
        url = proxy.url
    settings = {"MANTIK_USERNAME": "ada", "MANTIK_PASSWORD": PASSWORD, "MLFLOW_TRACKING_URI": url, "MANTIK_STRICT": "1"}
    output = run_script(FAILING, clean_environment(settings, tmp_path), tmp_path)
    assert f"ERROR PlatformUnreachableError The platform at {url}/api/mantik/tokens/create cannot be reached:" in output
    assert "connection refused" in output
    assert PASSWORD not in output


def test_a_whole_training_at_debug_shows_no_token(mantik_platform: Platform, tmp_path: Path) -> None:
    """Login, refresh, rejected tokens, metrics and artifacts at DEBUG leave neither password nor tokens anywhere."""
    settings = mantik_platform.environment()
    code = """
        import logging, sys

        logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)

        import json, os
        import mantik, mlflow
        from mantik.auth.login import token_source
        from mantik.secret import Secret
        from mantik.settings import Settings

        environment = mantik.init_tracking()
        source = token_source(Settings.from_environment())
        print(environment, source, source.known, vars(source), Settings.from_environment())
        source._issued_at = 0.0
        source.renew(Secret(environment.token))
        mlflow.set_experiment("quiet")
        with mlflow.start_run():
            mlflow.log_metric("loss", 1.0)
            mlflow.log_text("text", "text.txt")
        print("ARGUMENTS", open("/proc/self/cmdline").read())
        """
    output = run_script(code, clean_environment(settings, tmp_path), tmp_path)
    (entry,) = (tmp_path / ".mantik" / "tokens").glob("*.json")
    kept = json.loads(entry.read_text())
    assert "tokens/refresh" in output
    for secret in (settings["MANTIK_PASSWORD"], kept["access_token"], kept["refresh_token"]):
        assert secret not in output
    # Every token of the platform is a JWT, whose header always begins like this.
    assert kept["access_token"][:20] not in output


def applied(proxy: FaultProxy, fault: Fault | None) -> AbstractContextManager[object]:
    """Switch a fault on while the block lasts, if there is one."""
    return proxy.fault(fault) if fault is not None else nullcontext()
