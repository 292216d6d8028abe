"""What the tests of `MantikLogger` share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .trainings import LightningTrainings

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LightningTrainings]:
    """Warm a process up."""
    with LightningTrainings(tmp_path_factory.mktemp("trainings")) as warm:
        yield warm
