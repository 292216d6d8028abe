"""Searches with child runs while the platform is away, refuses, or is never asked: everything arrives, as it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from mantik.testing import Refuse, Status, wait_until
from tests.scripts import clean_environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mantik.testing import FaultProxy, Platform
    from mantik.testing.holdings import Run
    from tests.integrations.trainings import Trainings

SEARCH = """
import mantik
mantik.autolog(sklearn={"max_tuning_runs": None, "log_plots": False})
import mlflow
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
X, y = load_breast_cancer(return_X_y=True)
X = X[:, :5]
mlflow.set_experiment(EXPERIMENT)
search = GridSearchCV(LogisticRegression(max_iter=300), {"C": [0.1, 1.0, 10.0, 100.0]}, cv=2)
BEFORE
search.fit(X, y)
AFTER
scores = search.cv_results_["mean_test_score"].tolist()
print("FOUND", json.dumps([search.best_params_["C"], search.best_score_, scores]))
"""

SYNC = "import sys; from mantik.cli import main; sys.argv = ['mantik', 'sync']; main()"

GRID = ["0.1", "1.0", "10.0", "100.0"]


@pytest.fixture
def settings(mantik_environment: dict[str, str], mantik_proxy: FaultProxy, tmp_path: Path) -> dict[str, str]:
    """The variables of a training that tracks through the proxy."""
    return {**clean_environment(mantik_environment, tmp_path), "MLFLOW_TRACKING_URI": mantik_proxy.url}


def code(name: str, before: str = "", after: str = "") -> str:
    """Return the script, with an experiment of its own and something to do before and after the search."""
    return SEARCH.replace("EXPERIMENT", repr(name)).replace("BEFORE", before).replace("AFTER", after)


def found(output: str) -> list[Any]:
    """Return what the search has found."""
    (line,) = [line for line in output.splitlines() if line.startswith("FOUND ")]
    best, score, scores = json.loads(line.removeprefix("FOUND "))
    return [best, score, scores]


def sync(trainings: Trainings, settings: Mapping[str, str], folder: Path) -> None:
    """Send what was left behind."""
    trainings.run(SYNC, settings, folder)


def assert_complete(platform: Platform, name: str, outcome: list[Any]) -> Run:
    """Check that the search, its model and each of its child runs are there, once and as they were; return the run."""
    runs = sorted(platform.read_back.runs(name), key=lambda run: "mlflow.parentRunId" in run.tags)
    parent, *children = runs
    assert {run.status for run in runs} == {"FINISHED"}
    assert parent.params["best_C"] == str(outcome[0])
    assert parent.metrics["best_cv_score"] == pytest.approx(outcome[1])
    assert {run.tags["mlflow.parentRunId"] for run in children} == {parent.run_id}
    by_c = {run.params["C"]: run.metrics["mean_test_score"] for run in children}
    assert len(children) == len(by_c) == len(GRID)
    assert [by_c[c] for c in GRID] == pytest.approx(outcome[2])
    assert {"cv_results.csv", "estimator.html"} <= {*platform.read_back.artifacts(parent.run_id)}
    assert {model.status for model in platform.read_back.logged_models(parent.experiment_id)} == {"LOGGED_MODEL_READY"}
    return parent


def test_dead_from_the_beginning(
    mantik_platform: Platform,
    mantik_proxy: FaultProxy,
    trainings: Trainings,
    settings: dict[str, str],
    tmp_path: Path,
) -> None:
    """A search while nobody answers ends as if nothing were wrong, and arrives with a sync."""
    with mantik_proxy.fault(Refuse()):
        training = trainings.run(code("dead"), {**settings, "MANTIK_EXIT_TIMEOUT": "1"}, tmp_path)
    sync(trainings, settings, tmp_path)
    assert_complete(mantik_platform, "dead", found(training.output))


def test_dead_in_the_middle(
    mantik_platform: Platform,
    mantik_proxy: FaultProxy,
    trainings: Trainings,
    settings: dict[str, str],
    tmp_path: Path,
) -> None:
    """A platform that goes away after the run has begun, and comes back, has everything by the end of the process."""
    before, after = 'mlflow.start_run(); wait("begun")', 'mlflow.end_run(); wait("fitted")'
    training = trainings.start(code("middle", before, after), settings, tmp_path)
    training.reach("begun")
    with mantik_proxy.fault(Refuse()):
        training.go_on("begun")
        training.reach("fitted")
    training.go_on("fitted")
    assert_complete(mantik_platform, "middle", found(training.end()))


def test_offline(
    mantik_platform: Platform,
    mantik_proxy: FaultProxy,
    trainings: Trainings,
    settings: dict[str, str],
    tmp_path: Path,
) -> None:
    """A search offline asks nobody, and a sync brings it to the platform as it was."""
    training = trainings.run(code("offline"), {**settings, "MANTIK_MODE": "offline"}, tmp_path)
    assert mantik_proxy.count() == 0
    sync(trainings, settings, tmp_path)
    assert_complete(mantik_platform, "offline", found(training.output))


def test_a_refused_token(
    mantik_platform: Platform,
    mantik_proxy: FaultProxy,
    trainings: Trainings,
    settings: dict[str, str],
    tmp_path: Path,
) -> None:
    """A platform that answers 401 to everything for a while costs the search nothing."""
    with mantik_proxy.fault(Status(401, "Token expired"), path="/api/2.0/"):
        training = trainings.run(code("refused"), {**settings, "MANTIK_EXIT_TIMEOUT": "1"}, tmp_path)
    sync(trainings, settings, tmp_path)
    assert_complete(mantik_platform, "refused", found(training.output))


def test_killed(mantik_platform: Platform, trainings: Trainings, settings: dict[str, str], tmp_path: Path) -> None:
    """What was recorded before SIGKILL arrives with a sync: params and what of the search had been written."""
    script = code("killed", after='mantik.flush(0.001); wait("fitted")')
    training = trainings.start(script, {**settings, "MANTIK_MODE": "offline"}, tmp_path)
    training.reach("fitted")
    spool = tmp_path / ".mantik" / "spool"

    def has_the_last_child() -> bool:
        return any(b'"100.0"' in path.read_bytes() for path in spool.rglob("*") if path.is_file())

    wait_until(has_the_last_child, deadline=60)
    training.kill()
    training.end(None)
    sync(trainings, settings, tmp_path)
    runs = mantik_platform.read_back.runs("killed")
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.tags]
    assert parent.status == "FINISHED"
    assert parent.params["cv"] == "2"
    assert len({run.run_id for run in runs}) == len(runs) <= 1 + len(GRID)


def test_killed_in_the_fit(
    mantik_platform: Platform, trainings: Trainings, settings: dict[str, str], tmp_path: Path
) -> None:
    """A process that is killed while it fits leaves a run with its params, which a sync ends as it was ended."""
    script = code("during").replace(
        "search.fit(X, y)",
        'class Slow(LogisticRegression):\n    def fit(self, X, y):\n        wait("fitting")\n'
        "        return super().fit(X, y)\n"
        'GridSearchCV(Slow(), {"C": [7.0]}, cv=2).fit(X, y)',
    )
    training = trainings.start(script, settings, tmp_path)
    training.reach("fitting")
    training.kill()
    training.end(None)
    sync(trainings, settings, tmp_path)
    (run,) = mantik_platform.read_back.runs("during")
    assert run.params["cv"] == "2"
    assert run.status in {"FAILED", "KILLED"}
