"""What users of MLflow's autologging were surprised by (mlflow/mlflow#7358, #7402, #7947), and how it is here."""

# ruff: noqa: ANN401  # estimators take and return anything

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pytest
from lightgbm import LGBMClassifier
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mantik
from tests.integrations.sklearn.test_fits import runs_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integrations.arrivals import Arrived

X, Y = load_breast_cancer(return_X_y=True, as_frame=True)
X, Y = X.iloc[:150, :6], Y.iloc[:150]


class Contest(ClassifierMixin, BaseEstimator):
    """An automatic choice between models, as packages for it make one: it trains several, and some twice."""

    def __init__(self, models: int = 2) -> None:
        self.models = models

    def fit(self, features: Any, targets: Any) -> Contest:
        """Train all models, and keep the one that does best."""
        rivals = [LogisticRegression(C=c, max_iter=500) for c in (0.1, 10.0)] + [RandomForestClassifier(5)]
        scores = [model.fit(features, targets).score(features, targets) for model in rivals[: self.models]]
        self.best_ = rivals[int(np.argmax(scores))].fit(features, targets)
        self.classes_ = self.best_.classes_
        return self

    def predict(self, features: Any) -> Any:
        """Predict as the best model does."""
        return self.best_.predict(features)


def test_what_trains_others_is_one_training(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """An estimator in a pipeline that fits others, with the same params twice, is one run without any conflict."""
    autologging(log_plots=False)
    make_pipeline(StandardScaler(), Contest(3)).fit(X, Y)
    (run,) = runs_of(arrived)
    assert run.params["contest__models"] == "3"
    assert "C" not in run.params
    assert "mantik.param_drift" not in run.tags
    assert mantik.receipt().refused == 0


def distance(targets: Any, probabilities: Any) -> float:
    """Return how far probabilities are from what was true, on average."""
    return float(np.abs(np.asarray(targets) - np.asarray(probabilities)).mean())


def confidence(model: Any, features: Any, _: Any) -> float:
    """Return how sure a model is, as a scorer that is no wrapped metric."""
    return float(model.predict_proba(features).max(axis=1).mean())


def test_scorers_of_ones_own(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """Scorers that the user has made are recorded as scikit-learn's are: of the search and of each candidate."""
    autologging(log_models=False, max_tuning_runs=None)
    scoring = {
        "closeness": make_scorer(distance, response_method="predict_proba", greater_is_better=False),
        "confidence": confidence,
    }
    model = LGBMClassifier(n_estimators=5, min_child_samples=2, verbose=-1, n_jobs=1)
    search = GridSearchCV(model, {"num_leaves": [2, 4]}, scoring=scoring, refit="closeness", cv=2).fit(X, Y)
    runs = runs_of(arrived)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.tags]
    children = [run for run in runs if run is not parent]
    best = search.best_index_
    for scorer in scoring:
        found = search.cv_results_[f"mean_test_{scorer}"]
        assert parent.metrics[f"best_cv_{scorer}"] == pytest.approx(found[best])
        assert sorted(run.metrics[f"mean_test_{scorer}"] for run in children) == pytest.approx(sorted(found))
    assert parent.metrics["training_score"] == pytest.approx(search.score(X, Y))


def test_trials_of_a_tuner(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """Fits of a loop over params are a run each outside of a run, and one name space each inside of one."""
    autologging(log_plots=False, log_models=False)
    for c in (0.1, 1.0):
        LogisticRegression(C=c, max_iter=500).fit(X, Y)
    with mlflow.start_run():
        for c in (10.0, 100.0):
            LogisticRegression(C=c, max_iter=500).fit(X, Y)
    first, second, both = runs_of(arrived)
    assert [run.params["C"] for run in (first, second)] == ["0.1", "1.0"]
    assert [both.params["C"], both.params["LogisticRegression/C"]] == ["10.0", "100.0"]
    assert {run.status for run in (first, second, both)} == {"FINISHED"}
    assert mantik.receipt().refused == 0
