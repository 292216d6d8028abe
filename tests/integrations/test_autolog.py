"""One line for all frameworks: `mantik.autolog()`."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING

import lightgbm
import mlflow
import numpy as np
import pytest
import torch
import xgboost
from mlflow.utils.autologging_utils import AUTOLOGGING_INTEGRATIONS, autologging_is_disabled
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mantik
from mantik.exceptions import ConfigurationError, MissingSettingsError
from mantik.integrations.sklearn.autologging import switch_off
from tests.integrations.lightning.modules import Small, data, trainer
from tests.integrations.trainings import BEGINNING, Trainings
from tests.scripts import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import Platform
    from mantik.testing.holdings import Run
    from tests.integrations.arrivals import Arrived

X, Y = load_breast_cancer(return_X_y=True)
X = StandardScaler().fit_transform(X)

# All that is imported on the way but scikit-learn and what is built upon it.
IMPORTS = """
import git, IPython, matplotlib.backends.backend_agg, mlflow.pyfunc, sys
from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

warn_dependency_requirement_mismatches(["mlflow"])
assert "sklearn" not in sys.modules
"""


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    """Return the process from which scripts are forked that have imported MLflow and no framework."""
    with Trainings(tmp_path_factory.mktemp("trainings"), BEGINNING, IMPORTS) as warm:
        yield warm


@pytest.fixture(autouse=True)
def as_before(arrived: Arrived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Track in an experiment of one's own, and switch autologging off afterwards."""
    del arrived
    # Otherwise MLflow loads each model in a process of its own, to see which packages it needs.
    monkeypatch.setenv("MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT", "0")
    mlflow.set_experiment(tmp_path.name)
    yield
    mantik.flush(60)
    mlflow.autolog(disable=True)
    switch_off()
    AUTOLOGGING_INTEGRATIONS.clear()


def the_run(arrived: Arrived, tmp_path: Path) -> Run:
    """Return the only run of the test."""
    (run,) = arrived.runs(tmp_path.name)
    return run


def test_xgboost_itself(arrived: Arrived, tmp_path: Path) -> None:
    """A training with XGBoost's own functions is one run with params, curves of each metric and the model."""
    mantik.autolog(strict=True)
    matrix = xgboost.DMatrix(X, Y)
    booster = xgboost.train({"max_depth": 2, "eval_metric": "logloss"}, matrix, 5, evals=[(matrix, "train")])
    run = the_run(arrived, tmp_path)
    assert run.params["max_depth"] == "2"
    assert arrived.steps(run.run_id, "train-logloss") == list(range(5))
    loaded = mlflow.xgboost.load_model(f"runs:/{run.run_id}/model")
    assert loaded.predict(matrix).tolist() == booster.predict(matrix).tolist()


def test_lightgbm_itself(arrived: Arrived, tmp_path: Path) -> None:
    """A training with LightGBM's own functions is one run with params, curves of each metric and the model."""
    mantik.autolog(strict=True)
    held = lightgbm.Dataset(X, Y)
    settings = {"objective": "binary", "num_leaves": 4, "verbose": -1}
    lightgbm.train(settings, held, 5, valid_sets=[held], valid_names=["train"])
    run = the_run(arrived, tmp_path)
    assert run.params["num_leaves"] == "4"
    assert arrived.steps(run.run_id, "train-binary_logloss") == list(range(5))
    assert run.status == "FINISHED"


@pytest.mark.parametrize("kind", [xgboost.XGBClassifier, lightgbm.LGBMClassifier])
def test_boosters_as_estimators(arrived: Arrived, tmp_path: Path, kind: type) -> None:
    """Their estimators are one run with params, curves of `eval_set`, scores, one model, and pictures."""
    mantik.autolog(strict=True)
    options = {"verbose": -1} if kind is lightgbm.LGBMClassifier else {"eval_metric": "logloss"}
    model = kind(n_estimators=5, max_depth=2, **options)
    fit = {} if kind is lightgbm.LGBMClassifier else {"verbose": False}
    model.fit(X, Y, eval_set=[(X, Y)], **fit)
    run = the_run(arrived, tmp_path)
    assert run.params["max_depth"] == "2"
    assert run.metrics["training_score"] == model.score(X, Y)
    (curve,) = [name for name in run.metrics if name.endswith("logloss")]
    assert arrived.steps(run.run_id, curve) == list(range(5))
    assert mlflow.sklearn.load_model(f"runs:/{run.run_id}/model").predict(X).tolist() == model.predict(X).tolist()
    assert "feature_importance.png" in arrived.artifacts(run.run_id)
    assert len(arrived.platform.read_back.logged_models(run.experiment_id)) == 1


@pytest.mark.parametrize("kind", [xgboost.XGBClassifier, lightgbm.LGBMClassifier])
def test_boosters_in_searches(arrived: Arrived, tmp_path: Path, kind: type) -> None:
    """A search over a pipeline with a booster is one run with child runs, and MLflow logs none of them besides."""
    mantik.autolog(strict=True, sklearn={"max_tuning_runs": None, "log_plots": False})
    options = {"verbose": -1} if kind is lightgbm.LGBMClassifier else {}
    seed = make_pipeline(StandardScaler(), kind(n_estimators=3, **options))
    GridSearchCV(seed, {f"{kind.__name__.lower()}__max_depth": [1, 2]}, cv=2).fit(X, Y)
    parent, *children = arrived.runs(tmp_path.name)
    assert parent.tags["estimator_name"] == "GridSearchCV"
    assert [run.tags["mlflow.parentRunId"] for run in children] == [parent.run_id] * 2
    assert mantik.receipt().refused == 0


def test_lightning_without_a_logger(arrived: Arrived, tmp_path: Path) -> None:
    """A Lightning training without a logger of ours is one run with curves, by MLflow's autologging."""
    mantik.autolog(strict=True, log_models=False)
    trainer(max_epochs=2, logger=False).fit(Small(), data())
    run = the_run(arrived, tmp_path)
    (curve,) = [name for name in run.metrics if name.startswith("train")]
    assert len(arrived.steps(run.run_id, curve)) > 1
    assert run.status == "FINISHED"


def test_lightning_with_a_logger(arrived: Arrived, tmp_path: Path) -> None:
    """With `MantikLogger` there is one run all the same."""
    mantik.autolog(strict=True, log_models=False)
    trainer(max_epochs=2, logger=mantik.MantikLogger()).fit(Small(), data())
    assert the_run(arrived, tmp_path).status == "FINISHED"


def test_a_loop_of_torch(arrived: Arrived, tmp_path: Path) -> None:
    """A loop of the user's own over torch, with estimators around it, is one run with its curve."""
    mantik.autolog(strict=True, log_models=False, sklearn={"log_plots": False})
    features = torch.tensor(X, dtype=torch.float32)
    targets = torch.tensor(Y, dtype=torch.float32)
    network = torch.nn.Linear(30, 1)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    with mlflow.start_run():
        for step in range(4):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network(features)[:, 0], targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            mlflow.log_metric("loss", loss.item(), step=step)
        LogisticRegression().fit(network(features).detach().numpy(), Y)
    run = the_run(arrived, tmp_path)
    assert arrived.steps(run.run_id, "loss") == [0, 1, 2, 3]
    assert run.tags["estimator_name"] == "LogisticRegression"


ORDERS = """
import mantik
{imports}
import mlflow
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import f1_score
X, y = load_breast_cancer(return_X_y=True)
X_test, y_test = X[400:], y[400:]
mlflow.set_experiment("{name}")
model = XGBClassifier(n_estimators=3).fit(X[:400], y[:400])
f1_score(y_test, model.predict(X_test))
"""


@pytest.mark.parametrize(
    ("name", "imports"),
    [
        ("before", "from xgboost import XGBClassifier; mantik.autolog(strict=True)"),
        ("after", "mantik.autolog(strict=True); from xgboost import XGBClassifier"),
        ("twice", "mantik.autolog(strict=True); from xgboost import XGBClassifier; mantik.autolog(strict=True)"),
    ],
)
def test_it_does_not_matter_when_a_framework_is_imported(
    mantik_platform: Platform, trainings: Trainings, tmp_path: Path, name: str, imports: str
) -> None:
    """The order of imports and of the one line changes nothing: one run, one model, the metric of the held-out data."""
    trainings.run(ORDERS.format(imports=imports, name=name), mantik_platform.environment(), tmp_path)
    (run,) = mantik_platform.read_back.runs(name)
    assert run.status == "FINISHED"
    assert {"training_score", "f1_score_X_test", "fit_time"} <= {*run.metrics}
    assert run.params["n_estimators"] == "3"
    assert len(mantik_platform.read_back.logged_models(run.experiment_id)) == 1


def test_options_for_one_framework(arrived: Arrived, tmp_path: Path) -> None:
    """Options by the name of a framework are for it alone."""
    mantik.autolog(strict=True, log_models=False, xgboost={"log_models": True}, sklearn={"log_plots": False})
    LogisticRegression().fit(X, Y)
    xgboost.train({"max_depth": 1}, xgboost.DMatrix(X, Y), 1)
    first, second = arrived.runs(tmp_path.name)
    (model,) = arrived.platform.read_back.logged_models(first.experiment_id)
    assert model.source_run_id == second.run_id
    assert not [path for path in arrived.artifacts(first.run_id) if path.endswith(".png")]


def test_disable(arrived: Arrived, tmp_path: Path) -> None:
    """`disable=True` undoes it for every framework."""
    mantik.autolog(strict=True)
    mantik.autolog(disable=True)
    LogisticRegression().fit(X, Y)
    xgboost.train({"max_depth": 1}, xgboost.DMatrix(X, Y), 1)
    assert arrived.runs(tmp_path.name) == []
    assert autologging_is_disabled("xgboost")


BAD = [
    ({"log_modles": True}, "log_modles"),
    ({"sklearn": {"max_tuning": 3}}, "max_tuning"),
    ({"sklearn": True}, "holds options for sklearn alone"),
    ({"sklearn": {"max_tuning_runs": -1}}, "max_tuning_runs is -1"),
    ({"sklearn": {"serialization_format": "json"}}, "serialization_format is 'json'"),
]


@pytest.mark.parametrize(("options", "text"), BAD)
def test_bad_options(arrived: Arrived, caplog: pytest.LogCaptureFixture, options: dict[str, object], text: str) -> None:
    """A wrong option is warned of, with those there are, and raises where tracking is strict."""
    with caplog.at_level(logging.WARNING):
        mantik.autolog(**options)
    assert text in caplog.text
    with pytest.raises(ConfigurationError, match=text):
        mantik.autolog(strict=True, **options)
    del arrived


def test_without_settings(blank_environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Without a platform there is a warning that names what is missing, and trainings go on; strict raises."""
    with caplog.at_level(logging.WARNING):
        mantik.autolog()
    assert "MLFLOW_TRACKING_URI" in caplog.text
    model = LogisticRegression().fit(X, Y)
    assert np.isfinite(model.coef_).all()
    with pytest.raises(MissingSettingsError):
        mantik.autolog(strict=True)
    del blank_environment


def test_the_one_line_imports_no_framework(mantik_environment: dict[str, str], tmp_path: Path) -> None:
    """`mantik.autolog()` waits for a framework to be imported: it imports none."""
    code = (
        "import sys, mantik; mantik.autolog(strict=True)\n"
        "print([name for name in ('sklearn', 'xgboost', 'lightgbm', 'torch', 'keras') if name in sys.modules])"
    )
    environment = clean_environment(mantik_environment, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "[]"
