from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.testing import FaultProxy

USERS_TESTS = """
import os

from mantik.testing import ReadBack, Status


def client_variables():
    return {name: value for name, value in os.environ.items() if name.startswith(("MANTIK_", "MLFLOW_"))}


def test_clean(mantik_environment, mantik_platform, tmp_path):
    assert client_variables() == mantik_environment
    assert client_variables() == {
                **mantik_platform.environment(),
                "MANTIK_HOME": str(tmp_path / ".mantik"),
                "MANTIK_EXIT_TIMEOUT": "10",
            }
    assert os.environ["no_proxy"] == "internal,127.0.0.1,localhost"


def test_code_that_changes_the_environment(mantik_environment, monkeypatch):
    os.environ["MLFLOW_TRACKING_TOKEN"] = os.environ["MANTIK_TRACKING_CLAIM"] = "left by the code under test"
    os.environ["MLFLOW_TRACKING_URI"] = "changed"
    del os.environ["MANTIK_USERNAME"]
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "set by the test")


def test_as_before():
    assert client_variables() == {"MLFLOW_TRACKING_URI": "http://before", "MLFLOW_TRACKING_TOKEN": "before"}
    assert "no_proxy" not in os.environ


def test_proxy(mantik_proxy, mantik_platform):
    with ReadBack(mantik_proxy.url, mantik_platform.username, mantik_platform.password) as read_back:
        assert read_back.experiments() == mantik_platform.read_back.experiments()
    assert mantik_proxy.count("/api/mantik/tokens/create") == 1
    mantik_proxy.fault(Status(503))


def test_proxies_are_not_shared(mantik_proxy, mantik_platform):
    with ReadBack(mantik_proxy.url, mantik_platform.username, mantik_platform.password) as read_back:
        assert read_back.experiments()
"""


def test_the_fixtures_serve_a_users_tests(tmp_path: Path) -> None:
    """A test file in an empty folder gets platform, environment and proxy, and leaves the environment as it was."""
    (tmp_path / "test_training.py").write_text(USERS_TESTS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MANTIK_", "MLFLOW_"))}
    environment.pop("no_proxy", None)
    before = {"MLFLOW_TRACKING_URI": "http://before", "MLFLOW_TRACKING_TOKEN": "before", "NO_PROXY": "internal"}

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env={**environment, **before},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


def test_the_plugin_is_light() -> None:
    """Loading the plugin, as every pytest session does, loads neither mlflow nor requests nor the kit's own parts."""
    code = "import sys, mantik.testing.plugin; print(*(name for name in sys.modules if name.startswith(%r)))"
    done = subprocess.run(
        [sys.executable, "-c", code % (("mantik", "mlflow", "requests", "http.server"),)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == ["mantik", "mantik.testing", "mantik.testing.plugin"]


def test_every_public_name_is_there(mantik_proxy: FaultProxy) -> None:
    """What the package promises can be imported from it."""
    import mantik.testing

    assert {name for name in mantik.testing.__all__ if getattr(mantik.testing, name) is None} == set()
    assert isinstance(mantik_proxy, mantik.testing.FaultProxy)
