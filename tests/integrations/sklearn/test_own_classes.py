"""Models whose classes nobody else has: that they load where the script that logged them is not, and offline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mantik.delivery.ids import operation_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mantik.testing import Platform
    from tests.integrations.trainings import Trainings

OWN = """
from functools import partial
import threading
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

LOCK = threading.Lock()

def halved(number):
    import yaml
    return yaml.safe_load(str(number // 2))

class Odd(ClassifierMixin, BaseEstimator):
    def __init__(self, rule=None):
        self.rule = rule
    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self
    def predict(self, X):
        GUARD
        return np.array([self.rule(int(row[0])) % 2 for row in X])
"""

LOG = """
import mantik, mlflow
import numpy as np
from mantik.delivery.ids import operation_of
from mantik.integrations.sklearn.data import Data
from mantik.integrations.sklearn.model import log_model
from mantik.integrations.sklearn.options import Options
mantik.init_tracking()
X = np.arange(40)[:, None]
y = np.arange(40) % 2
client = mlflow.MlflowClient()
run_id = client.create_run("0").info.run_id
estimator = Odd(halved).fit(X, y)
log_model(estimator, Data(X, y, rows=40, kept=40), run_id, "model", Options(), {})
client.set_terminated(run_id)
print("RUN", run_id, estimator.predict(X).tolist())
"""

LOAD = """
import mantik, mlflow
import numpy as np
mantik.init_tracking()
X = np.arange(40)[:, None]
print("LOADED", mlflow.sklearn.load_model("runs:/{run_id}/model").predict(X).tolist())
print("SERVED", mlflow.pyfunc.load_model("runs:/{run_id}/model").predict(X).tolist())
print(open(mlflow.artifacts.download_artifacts("runs:/{run_id}/model/requirements.txt")).read().split())
print(mlflow.models.get_model_info("runs:/{run_id}/model").metadata)
"""


SYNC = "import sys; from mantik.cli import main; sys.argv = ['mantik', 'sync']; main()"


def logged_by(trainings: Trainings, code: str, environment: Mapping[str, str], folder: Path) -> tuple[str, str, str]:
    """Run a script that logs, and return run id, predictions and everything that it said."""
    (folder / "train.py").write_text(code)
    # What is defined in a script is found in the module `__main__`.
    output = trainings.run("import runpy; runpy.run_path('train.py', run_name='__main__')", environment, folder).output
    (line,) = [line for line in output.splitlines() if line.startswith("RUN ")]
    _, run_id, predictions = line.split(" ", 2)
    return run_id, predictions, output


@pytest.mark.parametrize("place", ["script", "module"])
def test_classes_of_ones_own_load_elsewhere(
    place: str, mantik_platform: Platform, trainings: Trainings, tmp_path: Path
) -> None:
    """What is defined in a script or a module beside it travels with the model, and what its code needs is required."""
    environment = mantik_platform.environment()
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    own = OWN.replace("GUARD", "pass")
    (here / "oddities.py").write_text(own)
    code = f"{own}\n{LOG}" if place == "script" else f"from oddities import Odd, halved\n{LOG}"
    run_id, predictions, output = logged_by(trainings, code, environment, here)
    assert "oddities" not in output
    loaded = trainings.run(LOAD.format(run_id=run_id), environment, there).output
    assert f"LOADED {predictions}" in loaded
    assert f"SERVED {predictions}" in loaded
    assert "PyYAML==" in loaded
    reason = "{'mantik.unpublished_modules': {'oddities': 'not installed, but found on the path'}}"
    assert (reason in loaded) == (place == "module")


def test_a_module_that_cannot_travel(mantik_platform: Platform, trainings: Trainings, tmp_path: Path) -> None:
    """Where a module holds what cannot be pickled, the model refers to it, and it is said what that means."""
    environment = mantik_platform.environment()
    (tmp_path / "oddities.py").write_text(OWN.replace("GUARD", "assert not LOCK.locked()"))
    run_id, predictions, output = logged_by(
        trainings, f"from oddities import Odd, halved\n{LOG}", environment, tmp_path
    )
    assert "The model of Odd can be loaded only where Python finds oddities, which no package index has." in output
    assert f"LOADED {predictions}" in trainings.run(LOAD.format(run_id=run_id), environment, tmp_path).output


def test_without_the_platform(mantik_platform: Platform, trainings: Trainings, tmp_path: Path) -> None:
    """A model that is logged offline is loaded at once, and from the platform after a sync."""
    environment = mantik_platform.environment()
    code = f"""{OWN.replace("GUARD", "pass")}\n{LOG}
assert (mlflow.sklearn.load_model(f"runs:/{{run_id}}/model").predict(X) == estimator.predict(X)).all()
"""
    local, predictions, _ = logged_by(trainings, code, {**environment, "MANTIK_MODE": "offline"}, tmp_path)
    output = trainings.run(SYNC, environment, tmp_path).output
    (run,) = [run for run in mantik_platform.read_back.runs("0") if run.tags.get("mantik.op_id") == operation_of(local)]
    loaded = trainings.run(LOAD.format(run_id=run.run_id), environment, tmp_path).output
    assert f"LOADED {predictions}" in loaded, output
