"""What all tests share: nobody's own login and settings leak into a test."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.forked import end_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import FaultProxy

_PREFIXES = ("MANTIK_", "MLFLOW_")

# Keras chooses its backend when it is imported, and its own choice is one that is not installed here.
os.environ.setdefault("KERAS_BACKEND", "torch")

# How long one input takes says something about the machine alone.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what takes long to `make torture`."""
    if os.environ.get("THOROUGH") != "1":
        long = [item for item in items if item.get_closest_marker("thorough") is not None]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture(autouse=True)
def no_autologging_left() -> Iterator[None]:
    """Leave scikit-learn as it was, whatever a test has switched on."""
    yield
    autologging = sys.modules.get("mantik.integrations.sklearn.autologging")
    if autologging is not None:
        autologging.switch_off()


@pytest.fixture(scope="session", autouse=True)
def no_process_left() -> Iterator[None]:
    """End the process from which tests fork theirs."""
    yield
    end_all()


@pytest.fixture
def blank_environment(tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """No setting of mantik or MLflow, a home of its own, and everything as before afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(_PREFIXES)]:
            patch.delenv(name)
        patch.setenv("MANTIK_HOME", str(tmp_path / "mantik-home"))
        patch.setenv("HOME", str(tmp_path))
        yield patch
        for name in [name for name in os.environ if name.startswith(_PREFIXES)]:
            del os.environ[name]


@pytest.fixture
def tracked(
    mantik_environment: dict[str, str], mantik_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultProxy]:
    """Track through a fault proxy in this process; MLflow points nowhere afterwards."""
    import mlflow

    import mantik

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mantik_proxy.url)
    mantik.init_tracking()
    yield mantik_proxy
    mlflow.set_tracking_uri(None)
