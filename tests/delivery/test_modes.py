"""MANTIK_MODE: disabled leaves no trace, offline says what it cannot do, and anything else is a setting's mistake."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest

import mantik
from mantik.exceptions import ConfigurationError
from mantik.settings import Settings
from mantik.testing import FaultProxy
from tests.forked import run_forked
from tests.scripts import clean_environment

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.testing import Platform

TRAINING = """
    import os
    import numpy as np
    import mantik, mlflow
    from mantik.delivery.registry import outbox_for
    from mlflow.entities import LoggedModelStatus
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from sklearn.linear_model import LinearRegression

    mantik.init_tracking()
    mlflow.set_experiment("nothing of this")
    mlflow.sklearn.autolog()
    rows = np.arange(8.0).reshape(4, 2)
    with mlflow.start_run(run_name="outer") as run:
        model = LinearRegression().fit(rows, rows.sum(axis=1))
        for step in range(100):
            mlflow.log_metrics({"loss": 1.0, "accuracy": 0.5}, step=step)
        mlflow.log_params({"depth": 3})
        mlflow.set_tag("kind", "any")
        mlflow.log_text("text", "folder/file.txt")
        mlflow.log_table({"a": [1]}, "table.json")
        mlflow.log_table({"a": [2]}, "table.json")
        mlflow.log_input(mlflow.data.from_numpy(rows), context="training")
        with mlflow.start_run(nested=True):
            mlflow.log_metric("inner", 1.0)
        info = mlflow.sklearn.log_model(model, name="model", pip_requirements=[])
        assert mlflow.get_logged_model(info.model_id).name == "model"
        with mlflow.start_span("span"):
            pass
        assert mlflow.get_run(run.info.run_id).info.run_name == "outer"
    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.log_metric("again", 1.0)
        get_artifact_repository(mlflow.get_artifact_uri()).delete_artifacts("folder")
        outbox_for(mlflow.get_tracking_uri()).hand_over(run.info.run_id)
    with mlflow.start_run() as failing:
        mlflow.MlflowClient().set_terminated(failing.info.run_id, "FAILED")
    mlflow.flush_trace_async_logging()
    assert mantik.flush(1)
    for name in ("MANTIK_HOME", "MANTIK_SPOOL"):
        assert not os.path.exists(os.environ.get(name, "nowhere"))
    print("DONE")
    """

ASKING = """
    import time
    import mantik, mlflow
    from mlflow import MlflowClient

    mantik.init_tracking()
    client = MlflowClient()
    began = time.monotonic()
    with mlflow.start_run() as run:
        run_id = run.info.run_id
        mlflow.log_metric("loss", 0.5)
        mlflow.set_tag("kind", "any")
    questions = {
        "SearchRuns": lambda: mlflow.search_runs(experiment_ids=["0"]),
        "SearchExperiments": lambda: mlflow.search_experiments(),
        "DeleteRun": lambda: mlflow.delete_run(run_id),
        "RestoreRun": lambda: client.restore_run(run_id),
        "DeleteTag": lambda: client.delete_tag(run_id, "kind"),
        "DeleteExperiment": lambda: mlflow.delete_experiment("0"),
        "SearchRegisteredModels": lambda: mlflow.search_registered_models(),
        "CreateRegisteredModel": lambda: client.create_registered_model("name"),
    }
    for name, ask in questions.items():
        try:
            ask()
        except mlflow.MlflowException as error:
            print("SAID", name, "|", error)
        else:
            print("ANSWERED", name)
    assert time.monotonic() - began < 60
    print("READ", mlflow.get_run(run_id).data.metrics)
    """


def files_in(folder: Path) -> list[str]:
    """Return the files below a folder that are not matplotlib's."""
    found = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    return sorted(path for path in found if not path.startswith("matplotlib"))


def test_disabled_needs_no_setting_and_leaves_nothing(tmp_path: Path) -> None:
    """Without an address and without a user every call works; no file is written, and no receipt is printed."""
    # MLflow asks a process for the packages that a model needs; what it finds is its own affair.
    settings = {"MANTIK_MODE": "disabled", "MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT": "1"}
    environment = clean_environment(settings, tmp_path)
    output = run_forked(TRAINING, environment, tmp_path)
    assert "DONE" in output
    assert "mantik: " not in output
    assert files_in(tmp_path) == []


def test_disabled_sends_nothing(mantik_platform: Platform, tmp_path: Path) -> None:
    """With all settings of a user, not one request is sent, and nothing is written."""
    with FaultProxy(mantik_platform.url) as proxy:
        settings = {**mantik_platform.environment(), "MLFLOW_TRACKING_URI": proxy.url, "MANTIK_MODE": "disabled"}
        quicker = TRAINING.replace("autolog()", "autolog(log_models=False)")
        run_forked(quicker, clean_environment(settings, tmp_path), tmp_path)
        assert proxy.requests == []
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(
    ("mode", "why"),
    [("offline", "MANTIK_MODE is offline"), ("online", "connection refused")],
)
def test_what_only_the_platform_can_do_is_said_at_once(
    mantik_platform: Platform, tmp_path: Path, mode: str, why: str
) -> None:
    """Searches, deletions and the registry name the request and the platform that it needs, and harm nothing."""
    with FaultProxy(mantik_platform.url) as proxy:
        gone = proxy.url
    settings = {"MANTIK_MODE": mode, "MANTIK_EXIT_TIMEOUT": "0", "MLFLOW_TRACKING_URI": gone}
    environment = clean_environment({**mantik_platform.environment(), **settings}, tmp_path)
    output = run_forked(ASKING, environment, tmp_path)
    said = [line for line in output.splitlines() if line.startswith("SAID ")]
    assert len(said) == 8
    assert "ANSWERED " not in output
    for line in said:
        name = line.split()[1]
        assert f"{name} needs the platform at {gone}" in line
    assert why in output
    assert "READ {'loss': 0.5}" in output


def test_where_tracking_is_disabled_nothing_is_found_and_nothing_fails(tmp_path: Path) -> None:
    """Searches, deletions and the registry do nothing, as all other calls do."""
    output = run_forked(ASKING, clean_environment({"MANTIK_MODE": "disabled"}, tmp_path), tmp_path)
    assert "SAID " not in output
    assert output.count("ANSWERED ") == 8
    # A run forgets what is logged to it.
    assert "READ {}" in output


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("MANTIK_MODE", "of-line", "online, offline, disabled"),
        ("MANTIK_MODE", "0", "online, offline, disabled"),
        ("MANTIK_SPOOL_LIMIT", "plenty", "500M or 20G"),
        ("MANTIK_SPOOL_LIMIT", "-1", "500M or 20G"),
        ("MANTIK_SPOOL_LIMIT", "10 apples", "500M or 20G"),
    ],
)
def test_a_setting_that_means_nothing_is_named(
    blank_environment: pytest.MonkeyPatch, name: str, value: str, hint: str
) -> None:
    """`init_tracking()` names the variable, its value and what it may be."""
    blank_environment.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        mantik.init_tracking()
    for text in (name, value, hint):
        assert text in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301  # made here


@pytest.mark.parametrize(
    ("text", "size"),
    [("", None), ("0", 0), ("1000", 1000), ("2k", 2000), ("1.5 GB", 1_500_000_000), ("20GiB", 20 * 10**9)],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int | None) -> None:
    """A spool limit is a number of bytes, with or without a unit; without one there is no limit."""
    assert Settings.from_environment({"MANTIK_SPOOL_LIMIT": text}).spool_limit == size


@pytest.mark.parametrize(("text", "mode"), [("", "online"), (" Offline ", "offline"), ("DISABLED", "disabled")])
def test_modes_are_read_in_any_case(text: str, mode: str) -> None:
    """Capitals and blanks do not matter, and no mode is online."""
    assert Settings.from_environment({"MANTIK_MODE": text}).mode == mode
