"""Fits whose estimators are tried on other data, in functions that tell of calls as hooks do."""

from __future__ import annotations

import functools
import json
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import sklearn.metrics
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline

from mantik.integrations.sklearn.afterwards import Afterwards
from mantik.integrations.sklearn.data import Data, data_of_call
from mantik.integrations.sklearn.held_out import HeldOut, metric_called
from mantik.integrations.sklearn.listening import is_outermost, silence
from mantik.integrations.sklearn.options import Options
from mantik.integrations.sklearn.record import Record
from mantik.training.writer import RunWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from mantik.integrations.sklearn.afterwards import Job
    from tests.integrations.arrivals import Arrived

__all__ = ["Trials", "Watch", "classes", "fitted", "measure", "predict", "score"]

METHODS = ("predict", "predict_proba", "transform", "score")
FUNCTIONS = ("accuracy_score", "f1_score", "log_loss", "mean_squared_error", "r2_score", "silhouette_score")


class Watch:
    """Tells of calls as the hooks do: of the outermost ones, with the frame of the user's code.

    Args:
        held_out: Gives each fitted estimator its own.
    """

    def __init__(self, held_out: Callable[[Any, Data], HeldOut]) -> None:
        self.held_out = held_out
        self.known: list[tuple[Any, HeldOut]] = []

    def put(self, patch: pytest.MonkeyPatch) -> None:
        """Watch the classes and functions of the scripts."""
        for kind in (LogisticRegression, Ridge, Pipeline):
            for name in ("fit", *METHODS):
                method = next((vars(owner)[name] for owner in kind.__mro__ if name in vars(owner)), None)
                if method is not None:
                    patch.setattr(kind, name, self._method(name, method), raising=False)
        for name in FUNCTIONS:
            patch.setattr(sklearn.metrics, name, self._function(name, getattr(sklearn.metrics, name)))

    def _method(self, name: str, method: Any) -> Any:  # noqa: ANN401
        def called(estimator: Any, *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
            call = method.__get__(estimator, type(estimator))
            is_users = is_outermost()
            with silence():
                result = call(*arguments, **keywords)
            if is_users:
                tell(self._find(estimator, call, arguments, keywords), name, call, arguments, keywords, result)
            return result

        return called

    def _function(self, name: str, function: Any) -> Any:  # noqa: ANN401
        @functools.wraps(function)
        def called(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
            is_users = is_outermost()
            with silence():
                value = function(*arguments, **keywords)
            if is_users:
                metric_called(name, function, arguments, keywords, value, users_frame())
            return value

        return called

    def _find(self, estimator: Any, call: Any, arguments: Any, keywords: Any) -> HeldOut:  # noqa: ANN401
        for one, held_out in self.known:
            if one is estimator:
                return held_out
        data = data_of_call(call, arguments, keywords)
        assert data is not None
        self.known.append((estimator, self.held_out(estimator, data)))
        return self.known[-1][1]


def users_frame() -> Any:  # noqa: ANN401
    """Return the frame of the code that is not among the functions of this module that stand for hooks."""
    frame = sys._getframe(1)  # noqa: SLF001  # as the hooks do
    while frame.f_code.co_name in {"called", "tell", "predict", "score", "measure"} and frame.f_back is not None:
        frame = frame.f_back
    return frame


def tell(held_out: HeldOut, name: str, call: Any, arguments: Any, keywords: Any, result: Any) -> None:  # noqa: ANN401, PLR0913, PLR0917
    """Tell of a call of a method."""
    if name == "score":
        held_out.scored(call, arguments, keywords, result, users_frame())
    elif name != "fit":
        held_out.predicted(name, call, arguments, keywords, result, users_frame())


def score(held_out: HeldOut, estimator: Any, *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
    """Call `score` and tell of it."""
    value = estimator.score(*arguments, **keywords)
    tell(held_out, "score", estimator.score, arguments, keywords, value)
    return value


def predict(held_out: HeldOut, estimator: Any, features: Any, method: str = "predict") -> Any:  # noqa: ANN401
    """Call a method and tell of it."""
    call = getattr(estimator, method)
    result = call(features)
    tell(held_out, method, call, (features,), {}, result)
    return result


def measure(function: Any, *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
    """Call a metric function and tell of it."""
    value = function(*arguments, **keywords)
    metric_called(function.__name__, function, arguments, keywords, value, users_frame())
    return value


class Trials:
    """Runs of fits, and what arrives of what is done afterwards.

    Args:
        arrived: What is on the platform.
    """

    def __init__(self, arrived: Arrived) -> None:
        self.arrived = arrived
        self.client = mlflow.MlflowClient()
        self.afterwards = Afterwards()
        self.jobs: list[Job] = []
        self.run_id = ""

    def held_out(
        self,
        estimator: object,
        training: Data | None = None,
        *,
        prefix: str = "",
        wait: bool = False,
        **options: Any,  # noqa: ANN401
    ) -> HeldOut:
        """Return a new one for an estimator, in a run of its own.

        Args:
            estimator: The estimator.
            training: What it was fitted to.
            prefix: Of the names in the run.
            wait: Whether jobs wait in `jobs` until somebody looks at the run.
            options: As of autologging.
        """
        self.run_id = self.client.create_run("0").info.run_id
        writer = RunWriter(self.client, self.run_id, known_params={})
        record = Record(self.run_id, "0", prefix, self.client, writer, threading.Lock())
        later = self.jobs.append if wait else self.afterwards.add
        return HeldOut(record, weakref.ref(estimator), training, Options(**options), later)

    def work(self) -> None:
        """Have all jobs done."""
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            self.afterwards.add(job)
        assert self.afterwards.wait_for(self.run_id, 60)

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the last run."""
        self.work()
        return self.arrived.run(self.run_id).metrics

    def tags(self) -> dict[str, str]:
        """Return the tags of the last run."""
        self.work()
        return self.arrived.run(self.run_id).tags

    def points(self, name: str) -> list[tuple[int, float]]:
        """Return the points of a metric of the last run."""
        self.work()
        return self.arrived.points(self.run_id, name)

    def files(self) -> list[str]:
        """Return the artifacts of the last run."""
        self.work()
        return self.arrived.artifacts(self.run_id)

    def content(self, path: str) -> str:
        """Return what an artifact of the last run holds."""
        self.work()
        return self.arrived.content(self.run_id, path).decode()

    def info(self) -> dict[str, str]:
        """Return what is told of the calls of the last run."""
        calls: dict[str, str] = json.loads(self.content("metric_info.json"))
        return calls


def classes(rows: int = 40, seed: int = 1) -> tuple[Any, Any]:
    """Return features and classes."""
    features = np.random.default_rng(seed).normal(size=(rows, 3))
    return features, (features[:, 0] + features[:, 1] > 0).astype(int)


def fitted(estimator: Any = None) -> tuple[Any, Data]:  # noqa: ANN401
    """Return a classifier, and what it is fitted to."""
    features, targets = classes(seed=0)
    estimator = LogisticRegression() if estimator is None else estimator
    return estimator.fit(features, targets), Data(features, targets, rows=len(features), kept=len(features))
