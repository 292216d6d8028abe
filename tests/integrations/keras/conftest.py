"""What the tests of `MantikCallback` share."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.integrations.keras.trainings import KerasTrainings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def trainings_on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], KerasTrainings]]:
    """Return trainings on a backend, which is warmed up when it is first asked for."""
    warm: dict[str, KerasTrainings] = {}
    with contextlib.ExitStack() as stack:

        def on(backend: str) -> KerasTrainings:
            if backend not in warm:
                warm[backend] = stack.enter_context(KerasTrainings(backend, tmp_path_factory.mktemp(backend)))
            return warm[backend]

        yield on


@pytest.fixture
def torch_trainings(trainings_on: Callable[[str], KerasTrainings]) -> KerasTrainings:
    """Return trainings on torch, for what does not depend on the backend."""
    return trainings_on("torch")
