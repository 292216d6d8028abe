"""What the tests of trainings in this process share: a folder of their own, and a look at what has arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlflow
import pytest

from tests.integrations.arrivals import Arrived

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import FaultProxy, Platform


@pytest.fixture
def arrived(
    tracked: FaultProxy, mantik_platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Arrived]:
    """Track from a folder of one's own; no run and no experiment of MLflow stays active in this process."""
    monkeypatch.chdir(tmp_path)
    yield Arrived(mantik_platform, tracked)
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.tracking.fluent._active_experiment_id = None  # noqa: SLF001  # what MLflow has no function for
