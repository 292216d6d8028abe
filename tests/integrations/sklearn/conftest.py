"""What the tests of scikit-learn's autologging share: it is switched on for one test, and scikit-learn is as before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow.utils.autologging_utils import AUTOLOGGING_INTEGRATIONS

import mantik
from mantik.integrations.sklearn.autologging import switch_off

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integrations.arrivals import Arrived


@pytest.fixture
def autologging(arrived: Arrived, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Switches autologging of scikit-learn on, with options, in an experiment of one's own; off after the test."""
    del arrived
    mlflow.set_experiment(tmp_path.name)

    def switch_on(**options: Any) -> None:  # noqa: ANN401  # the options that there are
        mantik.sklearn_autolog(strict=True, **options)

    yield switch_on
    mantik.flush(60)
    switch_off()
    mlflow.autolog(disable=True)
    AUTOLOGGING_INTEGRATIONS.clear()
