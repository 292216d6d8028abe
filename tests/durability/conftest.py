"""A platform behind a fault proxy, and a user of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mantik.testing import FaultProxy
from tests.scripts import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import Platform


@pytest.fixture
def proxy(mantik_platform: Platform) -> Iterator[FaultProxy]:
    """Stand in front of the platform."""
    with FaultProxy(mantik_platform.url) as standing:
        yield standing


@pytest.fixture
def environment(mantik_platform: Platform, proxy: FaultProxy, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user of the proxy, whose processes wait a minute for delivery at their end."""
    return clean_environment({**mantik_platform.environment(), "MLFLOW_TRACKING_URI": proxy.url}, tmp_path)
