from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests

from mantik.testing import FaultProxy

from .upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A tiny server."""
    with Upstream() as server:
        yield server


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[FaultProxy]:
    """A proxy in front of the tiny server."""
    with FaultProxy(upstream.url) as running:
        yield running


@pytest.fixture
def session() -> Iterator[requests.Session]:
    """A client that ignores the machine's HTTP proxies."""
    with requests.Session() as client:
        client.trust_env = False
        yield client
