"""The pytest plugin: fixtures for tests of code that tracks on a platform.

pytest loads this module in every session of everybody who has mantik, so importing it imports nothing but pytest.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing.platform import Platform
    from mantik.testing.proxy import FaultProxy

__all__ = ["mantik_environment", "mantik_platform", "mantik_proxy"]

_CLIENT_VARIABLES = ("MANTIK_", "MLFLOW_")


@pytest.fixture(scope="session")
def mantik_platform() -> Iterator[Platform]:
    """A running platform with one user, shared by the whole session. Tests that stop or kill one start their own."""
    from mantik.testing.platform import Platform

    with Platform() as platform:
        yield platform


@pytest.fixture
def mantik_environment(mantik_platform: Platform, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The variables of a client of `mantik_platform`, and no other `MANTIK_*` or `MLFLOW_*` variable.

    `MANTIK_HOME` is a folder in `tmp_path`, so no login is found and none is left. After the test the variables are as
    they were before, whatever the test or the code under test did to them. What MLflow itself remembers in the process
    is not reset: an active run, the experiment that was chosen, `mlflow.set_tracking_uri`. What the test recorded is
    delivered at the end, within ten seconds.

    The value is the dictionary of the variables that are set.
    """
    own = {"MANTIK_HOME": str(tmp_path / ".mantik"), "MANTIK_EXIT_TIMEOUT": "10"}
    environment = {**mantik_platform.environment(), **own}
    # A context of its own, not the `monkeypatch` fixture: a test's `monkeypatch.undo()` must not undo this.
    with pytest.MonkeyPatch.context() as patch:
        for name in _client_variables():
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        # Otherwise a machine's HTTP proxy would be asked for a page of 127.0.0.1. The lower-case name wins.
        direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        patch.setenv("no_proxy", f"{direct},127.0.0.1,localhost".lstrip(","))
        yield environment
        _deliver_and_forget()
        # What the code under test has set is not known to the patch.
        for name in _client_variables():
            del os.environ[name]


@pytest.fixture
def mantik_proxy(mantik_platform: Platform) -> Iterator[FaultProxy]:
    """A fault proxy in front of `mantik_platform`; give its `url` to the client in the platform's place."""
    from mantik.testing.proxy import FaultProxy

    with FaultProxy(mantik_platform.url) as proxy:
        yield proxy
        # What the test recorded through the proxy can only be delivered while it stands.
        proxy.clear()
        _deliver_and_forget()


def _deliver_and_forget() -> None:
    """Deliver what the test recorded in this process: its home and maybe its platform are about to go away."""
    registry = sys.modules.get("mantik.delivery.registry")
    if registry is not None and registry.all_outboxes():
        from mantik.delivery.ending import close_all

        close_all()


def _client_variables() -> list[str]:
    return [name for name in os.environ if name.startswith(_CLIENT_VARIABLES)]
