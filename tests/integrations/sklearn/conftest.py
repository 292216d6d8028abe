"""What the tests of scikit-learn's autologging share: it is switched on for one test, and scikit-learn is as before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow.utils.autologging_utils import AUTOLOGGING_INTEGRATIONS

import mantik
from mantik.integrations.sklearn.autologging import switch_off
from tests.integrations.trainings import BEGINNING, Trainings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integrations.arrivals import Arrived

# What a first fit imports on its way; and MLflow looks through all that is installed before it logs the first model.
_IMPORTS = """
import git, IPython, matplotlib.backends.backend_agg, mlflow.pyfunc, mlflow.sklearn
import sklearn.datasets, sklearn.linear_model, sklearn.model_selection
from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

from mantik.integrations.sklearn import autologging, held_out, model, pictures

model._import_skops()
warn_dependency_requirement_mismatches(["mlflow"])
"""


@pytest.fixture(scope="session")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    """Return the process from which trainings are forked that have imported scikit-learn and MLflow."""
    with Trainings(tmp_path_factory.mktemp("trainings"), BEGINNING, _IMPORTS) as warm:
        yield warm


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
