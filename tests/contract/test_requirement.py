"""Every section of the requirement document, with its code as written there (paths and names filled in)."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
import requests

from tests.forked import run_forked
from tests.scripts import clean_environment, run_script

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.testing import Platform


@pytest.fixture
def environment(mantik_platform: Platform, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user who set the three variables that the document names, and nothing else."""
    return clean_environment(mantik_platform.environment(), tmp_path)


def run_id_in(output: str) -> str:
    """Return the run id that a script printed last."""
    match = re.findall(r"RUN (\w+)", output)
    assert match, output
    return str(match[-1])


def test_simple_tracking(mantik_platform: Platform, environment: dict[str, str], tmp_path: Path) -> None:
    """Section "Simple tracking": `init_tracking()` reads the environment, gets a token, points mlflow there."""
    output = run_script(
        """
        import mantik

        mantik.init_tracking()

        import mlflow

        print("URI", mlflow.get_tracking_uri())
        with mlflow.start_run() as run:
            print("RUN", run.info.run_id)
        """,
        environment,
        tmp_path,
    )
    assert f"URI {mantik_platform.url}" in output
    run = mantik_platform.read_back.run(run_id_in(output))
    assert run.status == "FINISHED"
    assert run.tags["mlflow.user"] == mantik_platform.username


@pytest.mark.parametrize("suffix", ["", "/", "//"])
def test_remote_tracking(mantik_platform: Platform, environment: dict[str, str], tmp_path: Path, suffix: str) -> None:
    """Section "Remote tracking": the domain is enough, the API path is added; also when mlflow was imported before."""
    output = run_forked(
        """
        import mlflow
        import mantik

        mantik.init_tracking()
        print("URI", mlflow.get_tracking_uri())
        with mlflow.start_run() as run:
            print("RUN", run.info.run_id)
        """,
        {**environment, "MLFLOW_TRACKING_URI": mantik_platform.url + suffix},
        tmp_path,
    )
    assert f"URI {mantik_platform.url}\n" in output
    assert mantik_platform.read_back.run(run_id_in(output)).status == "FINISHED"


def test_a_compute_job_needs_no_init_tracking(mantik_platform: Platform, tmp_path: Path) -> None:
    """Section "Remote tracking": with URI and token given, plain mlflow works; `init_tracking()` does no harm."""
    login = requests.post(
        f"{mantik_platform.url}/api/mantik/tokens/create",
        json={"username": mantik_platform.username, "password": mantik_platform.password},
        timeout=30,
    )
    job = clean_environment(
        {"MLFLOW_TRACKING_URI": mantik_platform.url, "MLFLOW_TRACKING_TOKEN": login.json()["AccessToken"]}, tmp_path
    )
    output = run_script(
        """
        import mlflow

        with mlflow.start_run() as run:
            mlflow.log_metric("loss", 0.5)

        import mantik

        environment = mantik.init_tracking()
        mlflow.start_run(run_id=run.info.run_id)
        mlflow.log_metric("loss", 0.25)
        mlflow.end_run()
        print("USER", environment.username)
        print("RUN", run.info.run_id)
        """,
        job,
        tmp_path,
    )
    assert f"USER {mantik_platform.username}" in output
    history = mantik_platform.read_back.metric_history(run_id_in(output), "loss")
    assert sorted(point.value for point in history) == [0.25, 0.5]


@pytest.mark.parametrize("by", ["MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"])
def test_experiment_specification(
    mantik_platform: Platform, environment: dict[str, str], tmp_path: Path, by: str
) -> None:
    """Section "Experiment specification": the experiment is chosen by id (or name) through the environment."""
    output = run_forked(
        f"""
        import mantik, mlflow, os

        mantik.init_tracking()
        experiment_id = mlflow.create_experiment("specified by {by}")
        os.environ["{by}"] = experiment_id if "{by}".endswith("ID") else "specified by {by}"
        with mlflow.start_run() as run:
            print("RUN", run.info.run_id)
        """,
        environment,
        tmp_path,
    )
    held = mantik_platform.read_back
    assert held.run(run_id_in(output)).experiment_id == held.experiment(f"specified by {by}").experiment_id


def test_tracking_functions(mantik_platform: Platform, environment: dict[str, str], tmp_path: Path) -> None:
    """Sections "Parameters", "Metrics" and "Artifacts": what is logged explicitly arrives."""
    (tmp_path / "artifact_name").write_text("some generated text")
    output = run_forked(
        """
        import mantik

        mantik.init_tracking()
        value = 0.125
        artifact = "texts"

        import mlflow

        mlflow.log_param("parameter_name", value)

        import mlflow

        mlflow.log_metric("metric_name", value)

        import mlflow

        mlflow.log_artifact("artifact_name", artifact)

        print("RUN", mlflow.active_run().info.run_id)
        """,
        environment,
        tmp_path,
    )
    held = mantik_platform.read_back
    run = held.run(run_id_in(output))
    assert run.params == {"parameter_name": "0.125"}
    assert run.metrics == {"metric_name": 0.125}
    assert held.download(run.run_id, "texts/artifact_name") == b"some generated text"
    assert run.status == "FINISHED"


def test_autologging_and_models(mantik_platform: Platform, environment: dict[str, str], tmp_path: Path) -> None:
    """Sections "Autologging" and "Models": a fit is recorded by itself, and a model logged as written loads back."""
    # MLflow asks a process for the packages that a model needs; what it finds is its own affair.
    environment["MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT"] = "1"
    output = run_forked(
        """
        import mantik

        mantik.init_tracking()

        import mlflow

        mlflow.autolog()

        import json
        from sklearn.datasets import load_wine
        from sklearn.linear_model import LogisticRegression

        features, labels = load_wine(return_X_y=True)
        with mlflow.start_run() as run:
            model = LogisticRegression(max_iter=100).fit(features, labels)

            import mlflow.sklearn

            logged = mlflow.sklearn.log_model(model)

        loaded = mlflow.sklearn.load_model(logged.model_uri)
        print("SAME", bool((loaded.predict(features) == model.predict(features)).all()))
        print("RUN", run.info.run_id)
        """,
        environment,
        tmp_path,
    )
    held = mantik_platform.read_back
    run = held.run(run_id_in(output))
    assert "SAME True" in output
    assert run.params["max_iter"] == "100"
    assert run.metrics["training_accuracy_score"] > 0.9
    models = [model for model in held.logged_models(run.experiment_id) if model.source_run_id == run.run_id]
    assert len(models) == 2
    assert {model.status for model in models} == {"LOGGED_MODEL_READY"}


def test_the_one_liner(mantik_platform: Platform, environment: dict[str, str], tmp_path: Path) -> None:
    """`mantik.autolog()` alone logs in and records a fit; its arguments are MLflow's."""
    output = run_forked(
        """
        import mantik

        mantik.autolog(log_models=False, extra_tags={"team": "wine"})

        import mlflow
        from sklearn.datasets import load_wine
        from sklearn.tree import DecisionTreeClassifier

        DecisionTreeClassifier(max_depth=2).fit(*load_wine(return_X_y=True))
        print("RUN", mlflow.last_active_run().info.run_id)

        mantik.autolog(disable=True)
        DecisionTreeClassifier(max_depth=3).fit(*load_wine(return_X_y=True))
        print("AFTER", mlflow.last_active_run().info.run_id)
        """,
        environment,
        tmp_path,
    )
    run = mantik_platform.read_back.run(run_id_in(output))
    assert run.params["max_depth"] == "2"
    assert run.tags["team"] == "wine"
    assert f"AFTER {run.run_id}" in output
    models = mantik_platform.read_back.logged_models(run.experiment_id)
    assert run.run_id not in {model.source_run_id for model in models}


def test_the_returned_environment_serves_other_processes(
    mantik_platform: Platform, environment: dict[str, str], tmp_path: Path
) -> None:
    """What `init_tracking()` returns gives another process the same platform, user and token."""
    output = run_forked(
        """
        import json, mantik

        environment = mantik.init_tracking()
        assert environment == mantik.init_tracking()
        assert environment.token not in repr(environment)
        print("ENV", json.dumps(environment.to_dict()))
        """,
        environment,
        tmp_path,
    )
    given = json.loads(output.partition("ENV ")[2])
    assert given["MLFLOW_TRACKING_URI"] == given["MANTIK_TRACKING_CLAIM"] == mantik_platform.url
    assert given["MANTIK_USERNAME"] == mantik_platform.username
    # The child has no password: the cached login serves it.
    output = run_forked(
        """
        import mlflow

        with mlflow.start_run() as run:
            print("RUN", run.info.run_id)
        """,
        clean_environment(given, tmp_path),
        tmp_path,
    )
    assert mantik_platform.read_back.run(run_id_in(output)).tags["mlflow.user"] == mantik_platform.username
