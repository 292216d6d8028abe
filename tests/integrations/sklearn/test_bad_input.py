"""Data and estimators that are odd: tracking adapts, the training is as it would be, and nothing is raised."""

# ruff: noqa: ANN401  # estimators take and return anything

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import mantik
from mantik.integrations.sklearn import data as data_module

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mantik.testing import Platform
    from mantik.testing.holdings import Run
    from tests.integrations.arrivals import Arrived
    from tests.integrations.trainings import Trainings

X, Y = load_iris(return_X_y=True)


class Wordless(BaseEstimator):
    """An estimator whose params can be neither printed nor asked for."""

    class Unprintable:
        """Something that raises when it is shown."""

        def __repr__(self) -> str:
            """Raise."""
            raise RuntimeError("nothing to see")

    def __init__(self, thing: Any = None, long: str = "") -> None:
        self.thing = thing
        self.long = long

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002  # scikit-learn's form
        """Refuse to say."""
        raise RuntimeError(f"not even deep={deep}")

    def fit(self, features: Any, targets: Any = None) -> Wordless:
        """Learn nothing."""
        del features, targets
        self.done_ = True
        return self


def fitted(arrived: Arrived) -> Run:
    """Return the run of the last fit, once it has arrived."""
    active = mlflow.last_active_run()
    assert active is not None
    return arrived.run(active.info.run_id)


ODD = {
    "sparse": (LogisticRegression(max_iter=500), sparse.csr_matrix(X), Y),
    "sparse array": (LogisticRegression(max_iter=500), sparse.csr_array(X), Y),
    "lists": (DecisionTreeClassifier(), X.tolist(), Y.tolist()),
    "texts": (make_pipeline(TfidfVectorizer(), DecisionTreeClassifier()), ["red", "green", "blue"] * 50, Y),
    "objects": (
        make_pipeline(OneHotEncoder(), DecisionTreeClassifier()),
        np.array([["a", 1], ["b", 2], ["c", 3]] * 50, dtype=object),
        Y,
    ),
    "a frame with odd names": (
        DecisionTreeClassifier(),
        pd.DataFrame(X, columns=["a/b", "ünï", "x" * 300, " "]),
        pd.Series(Y, name="@"),
    ),
    "texts as classes": (DecisionTreeClassifier(), X, np.array(["no", "yes", "maybe $x$"], dtype=object)[Y]),
    "one class": (DummyClassifier(), X, np.zeros(150)),
    "missing targets": (DummyClassifier(strategy="constant", constant=1), X, np.where(Y == 2, np.nan, Y)),
    "missing features": (DecisionTreeRegressor(), np.where(X > 6, np.nan, X), Y),
    "several outputs": (MultiOutputClassifier(DecisionTreeClassifier()), X, np.c_[Y, Y > 0]),
    "one sample": (DecisionTreeClassifier(), X[:1], Y[:1]),
    "one feature": (LinearRegression(), X[:, :1], Y),
    "infinite targets": (DecisionTreeRegressor(), X, X[:, 0] * 1e300),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_data(
    arrived: Arrived, autologging: Callable[..., None], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """A fit to odd data ends as without tracking, its run is there with params and model, and nobody is warned."""
    estimator, features, targets = ODD[name]
    autologging(log_input_examples=True)
    outcome: Any
    try:
        outcome = estimator.fit(features, targets)
    except ValueError:
        # scikit-learn refuses these data; so it does with tracking.
        assert fitted(arrived).status == "FAILED"
        return
    assert outcome is estimator
    run = fitted(arrived)
    assert run.status == "FINISHED"
    assert run.params
    assert mlflow.sklearn.load_model(f"runs:/{run.run_id}/model") is not None
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_wordless_estimators(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """An estimator whose params raise, are unprintable or enormous is tracked with what can be had of it."""
    autologging()
    Wordless(Wordless.Unprintable(), "x" * 100_000).fit(X)
    run = fitted(arrived)
    assert run.status == "FINISHED"
    assert 1000 < len(run.params["long"]) <= 6000
    assert "Unprintable" in run.params["thing"]
    assert mantik.receipt().refused == 0


def test_many_samples(arrived: Arrived, autologging: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of data that are too large to be copied some rows are evaluated, chosen with a fixed seed, and a tag says so."""
    monkeypatch.setattr(data_module, "_MOST_BYTES", 2000)
    autologging(log_plots=False)
    state = np.random.get_state()[1].tolist()  # noqa: NPY002  # the user's
    DecisionTreeClassifier().fit(X, Y)
    run = fitted(arrived)
    kept, _, rows = run.tags["mantik.evaluated_rows"].partition(" of ")
    assert rows == "150"
    assert 1 <= int(kept) < 150
    assert run.metrics["training_score"] == 1.0
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


READ_ONLY = """
import mantik
mantik.autolog()
import mlflow
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
X, y = load_iris(return_X_y=True)
mlflow.set_experiment("read-only")
print("SCORE", LogisticRegression(max_iter=500).fit(X, y).score(X, y))
"""


def test_a_home_that_cannot_be_written(mantik_platform: Platform, trainings: Trainings, tmp_path: Path) -> None:
    """Where the home cannot be written the fit is tracked without being durable, and a warning says so once."""
    home = tmp_path / "home"
    home.write_text("a file where the folder should be")
    environment = {**mantik_platform.environment(), "MANTIK_HOME": str(home), "HOME": str(home)}
    output = trainings.run(READ_ONLY, {**environment, "MPLCONFIGDIR": str(tmp_path)}, tmp_path).output
    assert "SCORE 0.9" in output
    (run,) = mantik_platform.read_back.runs("read-only")
    assert run.status == "FINISHED"
    assert run.metrics["training_score"] > 0.9
    assert output.count("Nothing can be kept in") == 1, output
