"""A platform behind a fault proxy, as delivery asks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mantik.auth.bearer import BearerAuth
from mantik.auth.login import token_source
from mantik.auth.urls import platform_origin
from mantik.delivery.ids import Identities
from mantik.delivery.rest import MlflowApi
from mantik.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import FaultProxy


@pytest.fixture
def api(mantik_environment: dict[str, str], mantik_proxy: FaultProxy) -> Iterator[MlflowApi]:
    """Ask the platform through the proxy."""
    settings = Settings.from_environment()
    origin = platform_origin(mantik_proxy.url, allow_http=settings.allow_http)
    api = MlflowApi(mantik_proxy.url, BearerAuth(origin, token_source(settings)))
    yield api
    api.close()


@pytest.fixture
def ids(tmp_path: Path) -> Identities:
    """Return the provisional ids of a spool."""
    return Identities(tmp_path / "ids")
