"""What the tests of `MantikCallback` share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integrations.keras.trainings import KerasTrainings
from tests.integrations.lightning.conftest import arrived

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["arrived", "torch_trainings"]


@pytest.fixture(scope="session")
def torch_trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KerasTrainings]:
    """Trainings on torch, for what does not depend on the backend."""
    with KerasTrainings("torch", tmp_path_factory.mktemp("torch")) as warm:
        yield warm
