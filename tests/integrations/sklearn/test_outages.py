"""Searches with child runs while the platform is away, refuses, or is never asked: everything arrives, as it was."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from mantik.testing import Refuse, Status, wait_until
from tests.scripts import clean_environment, run_script, start_script
from tests.spools import mantik

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mantik.testing import FaultProxy, Platform
    from mantik.testing.holdings import Run

SEARCH = """
import json, sys
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


def sync(settings: Mapping[str, str]) -> None:
    """Send what was left behind."""
    done = mantik("sync", environment=settings)
    assert done.returncode == 0, done.stderr


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
    mantik_platform: Platform, mantik_proxy: FaultProxy, settings: dict[str, str], tmp_path: Path
) -> None:
    """A search while nobody answers ends as if nothing were wrong, and arrives with a sync."""
    with mantik_proxy.fault(Refuse()):
        outcome = found(run_script(code("dead"), {**settings, "MANTIK_EXIT_TIMEOUT": "1"}, tmp_path))
    sync(settings)
    assert_complete(mantik_platform, "dead", outcome)


def test_dead_in_the_middle(
    mantik_platform: Platform, mantik_proxy: FaultProxy, settings: dict[str, str], tmp_path: Path
) -> None:
    """A platform that goes away after the run has begun, and comes back, has everything by the end of the process."""
    before = 'mlflow.start_run(); print("begun", flush=True); sys.stdin.readline()'
    after = 'mlflow.end_run(); print("fitted", flush=True); sys.stdin.readline()'
    process = start_script(code("middle", before, after), settings, tmp_path)
    assert process.stdin is not None
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    while not next(lines).startswith("begun"):
        pass
    with mantik_proxy.fault(Refuse()):
        process.stdin.write("\n")
        process.stdin.flush()
        while not next(lines).startswith("fitted"):
            pass
    output, _ = process.communicate("\n", timeout=120)
    assert process.returncode == 0, output
    assert_complete(mantik_platform, "middle", found(output))


def test_offline(mantik_platform: Platform, mantik_proxy: FaultProxy, settings: dict[str, str], tmp_path: Path) -> None:
    """A search offline asks nobody, and a sync brings it to the platform as it was."""
    outcome = found(run_script(code("offline"), {**settings, "MANTIK_MODE": "offline"}, tmp_path))
    assert mantik_proxy.count() == 0
    sync(settings)
    assert_complete(mantik_platform, "offline", outcome)


def test_a_refused_token(
    mantik_platform: Platform, mantik_proxy: FaultProxy, settings: dict[str, str], tmp_path: Path
) -> None:
    """A platform that answers 401 to everything for a while costs the search nothing."""
    with mantik_proxy.fault(Status(401, "Token expired"), path="/api/2.0/"):
        outcome = found(run_script(code("refused"), {**settings, "MANTIK_EXIT_TIMEOUT": "1"}, tmp_path))
    sync(settings)
    assert_complete(mantik_platform, "refused", outcome)


def test_killed(mantik_platform: Platform, settings: dict[str, str], tmp_path: Path) -> None:
    """What was recorded before SIGKILL arrives with a sync: params and what of the search had been written."""
    script = code("killed", after='mantik.flush(0.001); print("fitted", flush=True); sys.stdin.readline()')
    process = start_script(script, {**settings, "MANTIK_MODE": "offline"}, tmp_path)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("fitted"):
        pass
    spool = tmp_path / ".mantik" / "spool"

    def has_the_last_child() -> bool:
        return any(b'"100.0"' in path.read_bytes() for path in spool.rglob("*") if path.is_file())

    wait_until(has_the_last_child, deadline=60)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    sync(settings)
    runs = mantik_platform.read_back.runs("killed")
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.tags]
    assert parent.status == "FINISHED"
    assert parent.params["cv"] == "2"
    assert len({run.run_id for run in runs}) == len(runs) <= 1 + len(GRID)


def test_killed_in_the_fit(mantik_platform: Platform, settings: dict[str, str], tmp_path: Path) -> None:
    """A process that is killed while it fits leaves a run with its params, which a sync ends as it was ended."""
    script = code("during").replace(
        "search.fit(X, y)",
        'class Slow(LogisticRegression):\n    def fit(self, X, y):\n        print("fitting", flush=True)\n'
        "        sys.stdin.readline()\n        return super().fit(X, y)\n"
        'GridSearchCV(Slow(), {"C": [7.0]}, cv=2).fit(X, y)',
    )
    process = start_script(script, settings, tmp_path)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("fitting"):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    sync(settings)
    (run,) = mantik_platform.read_back.runs("during")
    assert run.params["cv"] == "2"
    assert run.status in {"FAILED", "KILLED"}
