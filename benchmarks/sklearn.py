"""How long autologging of scikit-learn keeps a program waiting: a fit of a few milliseconds, and a search.

Each autologging has a process of its own, in which the same call is made in turn without it and with it, in the next
round the other way round. A call is timed until it returns, and until what belongs to its run has arrived: the program
waits for the one, and whoever looks at the run for the other. The platform is a real one on the same processors, for
MLflow's autologging through MLflow's own store. It is at rest when a call begins, as everything was delivered before;
what it does meanwhile counts. The first round is not counted: it imports what is needed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import mantik
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mantik.testing import Platform

__all__ = ["CANDIDATES", "fits", "searches"]

CANDIDATES = 60

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Of linear algebra: with more, the time of a fit of a few milliseconds varies tenfold on a busy machine."""

CALLS = """
import json, os, sys, time, warnings
warnings.filterwarnings("ignore")
import numpy
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

LIBRARY, MODELS, CANDIDATES, ROUNDS = sys.argv[1], sys.argv[2] == "models", int(sys.argv[3]), int(sys.argv[4])
X, y = load_breast_cancer(return_X_y=True)

if LIBRARY == "mantik":
    import mantik
    switch, arrive = mantik.sklearn_autolog, lambda: mantik.flush(120)
else:
    import mlflow
    switch, arrive = mlflow.sklearn.autolog, mlflow.flush_async_logging

def estimator():
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    if not CANDIDATES:
        return pipeline
    return GridSearchCV(pipeline, {"logisticregression__C": numpy.logspace(-3, 2, CANDIDATES)}, cv=3)

def call(tracked):
    switch(log_models=MODELS) if tracked else switch(disable=True)
    one = estimator()
    began = time.perf_counter()
    one.fit(X, y)
    returned = time.perf_counter()
    arrive()
    return returned - began, time.perf_counter() - began

rows = []
for number in range(ROUNDS + 1):
    if number % 2:
        (plain, _), tracked = call(False), call(True)
    else:
        tracked, (plain, _) = call(True), call(False)
    rows.append((plain, *tracked))
print("FOUND", json.dumps(rows[1:]), flush=True)
"""


def fits(platform: Platform, home: str, rounds: int, few_rounds: int) -> list[Figure]:
    """Time a fit of a pipeline to 569 x 30 numbers.

    Args:
        platform: Where runs are recorded.
        home: mantik's home.
        rounds: Fits per figure.
        few_rounds: The same for MLflow's autologging with the model, which takes seconds each.
    """
    figures = []
    for library, models, name, count in (
        ("mlflow", "none", "mlflow.sklearn.autolog, no model", rounds),
        ("mantik", "none", "mantik.sklearn_autolog, no model", rounds),
        ("mlflow", "models", "mlflow.sklearn.autolog", few_rounds),
        ("mantik", "models", "mantik.sklearn_autolog", rounds),
    ):
        figures += _figures(name, _measure(platform, home, (library, models, "0", str(count))))
    return figures


def searches(platform: Platform, home: str, rounds: int) -> list[Figure]:
    """Time a grid search, with its model and five child runs, as is the default of both.

    Args:
        platform: Where runs are recorded.
        home: mantik's home.
        rounds: Searches per figure.
    """
    figures = []
    for library, name in (("mlflow", "mlflow.sklearn.autolog"), ("mantik", "mantik.sklearn_autolog")):
        rows = _measure(platform, home, (library, "models", str(CANDIDATES), str(rounds)))
        figures += _figures(name, rows)
    return figures


def _figures(name: str, rows: list[list[float]]) -> list[Figure]:
    names = (f"no autologging, beside {name}", name, f"{name}: all has arrived")
    return [Figure(what, column) for what, column in zip(names, zip(*rows, strict=True), strict=True)]


def _measure(platform: Platform, home: str, arguments: tuple[str, ...]) -> list[list[float]]:
    """Return seconds by round: without autologging, until the call returned, and until all had arrived.

    Raises:
        RuntimeError: It could not be measured.
    """
    settings: Mapping[str, str] = {**platform.environment(), "MANTIK_HOME": home}
    if arguments[0] == "mlflow":
        settings = {"MLFLOW_TRACKING_URI": platform.url, "MLFLOW_TRACKING_TOKEN": mantik.init_tracking().token}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", CALLS, *arguments],
            env={"PATH": os.environ["PATH"], "HOME": folder, **_ONE_THREAD, **settings},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    line = next((line for line in done.stdout.splitlines() if line.startswith("FOUND ")), None)
    if line is None:
        raise RuntimeError(f"{' '.join(arguments)} could not be measured:\n{done.stderr[-3000:]}")
    rows: list[list[float]] = json.loads(line.removeprefix("FOUND "))
    return rows
