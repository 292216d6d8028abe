"""The contract of the plugins, checked with the MLflow of this environment against one platform.

Reads the platform's address and user as a line of JSON from standard input, and writes one line of JSON for each check.
What is there is read by plain REST, and not by the code under test.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mantik.testing import FaultProxy, LoseAcknowledgement, ReadBack, Refuse

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATION_TAG = "mantik.op_id"
LOG_BATCH = "/api/2.0/mlflow/runs/log-batch"
NON_FINITE = (math.nan, math.inf, -math.inf)

OFFLINE = """
    import mantik, mlflow, numpy
    from sklearn.linear_model import LinearRegression

    mantik.init_tracking()
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name="offline") as run:
        mlflow.log_param("depth", 3)
        mlflow.log_metrics({"loss": 0.5, "accuracy": 0.75}, step=1)
        mlflow.log_metric("loss", float("nan"), step=2)
        mlflow.log_text("kept", "notes/offline.txt")
        mlflow.log_input(mlflow.data.from_numpy(numpy.zeros((2, 2)), name="zeros"))
        with mlflow.start_run(run_name="inner", nested=True):
            mlflow.log_metric("inner", 1.0)
        if MODELS:
            mlflow.sklearn.log_model(LinearRegression().fit([[0], [1]], [0, 1]), "model")
        assert mlflow.get_run(run.info.run_id).data.metrics["accuracy"] == 0.75
    """


class Pairing:
    """The MLflow here and the platform.

    Attributes:
        proxy: What stands before the platform, and is what MLflow here is given.
        held: A reader of what the platform holds.
        experiment: The name of the experiment in which everything happens.
        warnings: What was warned of.
        lacks_models: Whether models are things of their own here, and not on the platform.
    """

    def __init__(self, proxy: FaultProxy, user: dict[str, str]) -> None:
        self.proxy = proxy
        self.held = ReadBack(user["url"], user["username"], user["password"])
        self.experiment = f"matrix-{os.getpid()}-{time.time_ns()}"
        self.warnings: list[str] = []
        self.lacks_models = False

    @property
    def experiment_id(self) -> str:
        """The id of the experiment."""
        return self.held.experiment(self.experiment).experiment_id

    def run_named(self, name: str) -> Any:  # noqa: ANN401  # the test kit's Run, which an import would hide from here
        """Return the run of a name, which is there exactly once."""
        (run,) = [run for run in self.held.runs(self.experiment) if run.name == name]
        return run

    def points(self, run_id: str, key: str) -> list[tuple[int, float]]:
        """Return step and value of each point of a metric, in the order of steps."""
        return sorted((point.step, point.value) for point in self.held.metric_history(run_id, key))

    def models(self) -> list[Any]:
        """Return the logged models of the experiment; none where models are folders of their runs."""
        from mlflow.store.tracking.rest_store import RestStore

        return self.held.logged_models(self.experiment_id) if hasattr(RestStore, "create_logged_model") else []

    def answer(self, path: str, body: dict[str, Any]) -> Any:  # noqa: ANN401  # JSON
        """Ask the platform by plain REST."""
        return self.held._call("POST", path, body)  # noqa: SLF001  # the reader knows no datasets and no traces


def login(pairing: Pairing) -> str:
    """MLflow uses mantik's store, and what the pairing cannot do is said once."""
    import mlflow
    from mlflow.store.tracking.rest_store import RestStore
    from mlflow.tracking._tracking_service.utils import _get_store

    import mantik
    from mantik.exceptions import UnexpectedAnswerError
    from mantik.plugins.store import MantikStore

    mantik.init_tracking()
    asked = len(pairing.proxy.requests)
    mantik.init_tracking()
    assert len(pairing.proxy.requests) == asked
    mlflow.set_experiment(pairing.experiment)
    assert isinstance(_get_store(), MantikStore)
    try:
        pairing.answer("logged-models/search", {"experiment_ids": ["0"]})
        has_models = True
    except UnexpectedAnswerError as error:
        if error.status != 404:
            raise
        has_models = False
    pairing.lacks_models = hasattr(RestStore, "create_logged_model") and not has_models
    said = [text for text in pairing.warnings if "The platform runs MLflow" in text]
    assert any("logging models does not" in text for text in said) == pairing.lacks_models, said
    assert len(said) == len(set(said))
    return " ".join(said)


def writes(pairing: Pairing) -> None:  # noqa: PLR0915  # one after the other, as a training does
    """Everything a training logs is there once."""
    import mlflow
    import numpy as np
    from mlflow.entities import Metric, Param, RunTag

    import mantik

    client = mlflow.MlflowClient()
    with mlflow.start_run(run_name="writes") as run, tempfile.TemporaryDirectory() as folder:
        run_id = run.info.run_id
        mlflow.log_param("single", 1)
        mlflow.log_params({f"param-{number}": number for number in range(120)})
        mlflow.set_tag("kind", "first")
        mlflow.set_tags({"kind": "last", "other": "x" * 3000})
        for step in range(200):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_metrics({"accuracy": 0.5, "recall": 0.25}, step=3)
        for step, value in enumerate(NON_FINITE):
            mlflow.log_metric("odd", value, step=step)
        mlflow.log_metric("later", 2.0, step=1, synchronous=False)
        mlflow.log_metrics({"later": 3.0}, step=2, synchronous=False)
        mlflow.log_params({"later": "yes"}, synchronous=False)
        mlflow.set_tags({"later": "yes"}, synchronous=False)
        now = int(time.time() * 1000)
        client.log_batch(
            run_id, [Metric("batch", step, now, step) for step in range(1500)], [Param("b", "1")], [RunTag("b", "1")]
        )
        mlflow.log_text("hello", "texts/hello.txt")
        mlflow.log_dict({"a": 1}, "texts/a.json")
        Path(folder, "deep").mkdir()
        Path(folder, "deep", "file.bin").write_bytes(b"\0" * 100_000)
        Path(folder, "empty").touch()
        mlflow.log_artifacts(folder, "folder")
        mlflow.log_input(mlflow.data.from_numpy(np.zeros((2, 2)), name="zeros"), context="training")
        with mlflow.start_run(run_name="child", nested=True):
            mlflow.log_metric("inner", 1.0)
        assert {item.path for item in client.list_artifacts(run_id, "folder")} == {"folder/deep", "folder/empty"}
        downloaded = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="folder")
        assert Path(downloaded, "deep", "file.bin").stat().st_size == 100_000
        assert mlflow.get_run(run_id).data.metrics["accuracy"] == 0.5
        assert len(client.get_metric_history(run_id, "loss")) == 200
    assert mantik.flush(60)
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/texts/hello.txt") == "hello"
    held = pairing.held.run(run_id)
    assert held.status == "FINISHED"
    assert {key: held.params[key] for key in ("single", "param-119", "later", "b")} == {
        "single": "1",
        "param-119": "119",
        "later": "yes",
        "b": "1",
    }
    assert len(held.params) == 123
    assert (held.tags["kind"], held.tags["later"], held.tags["b"]) == ("last", "yes", "1")
    assert held.tags["other"] == "x" * 3000
    assert pairing.points(run_id, "loss") == [(step, 1 / (step + 1)) for step in range(200)]
    assert pairing.points(run_id, "batch") == [(step, float(step)) for step in range(1500)]
    assert pairing.points(run_id, "later") == [(1, 2.0), (2, 3.0)]
    require_odd(pairing, run_id, "odd")
    files = ["folder/deep/file.bin", "folder/empty", "texts/a.json", "texts/hello.txt"]
    assert pairing.held.artifacts(run_id) == files
    (dataset,) = inputs_of(pairing, run_id)
    assert dataset["dataset"]["name"] == "zeros"
    child = pairing.run_named("child")
    assert child.tags["mlflow.parentRunId"] == run_id
    assert child.metrics == {"inner": 1.0}


def search(pairing: Pairing) -> None:
    """A search finds what was logged a moment before."""
    import mlflow

    with mlflow.start_run(run_name="found"):
        mlflow.log_metric("unique", 42.0)
        found = mlflow.search_runs([pairing.experiment_id], "metrics.unique = 42")
    assert list(found["metrics.unique"]) == [42.0]


def outage(pairing: Pairing) -> None:
    """In an outage a training reads its own writes, begins runs, and all of it arrives."""
    import mlflow

    import mantik

    client = mlflow.MlflowClient()
    with mlflow.start_run(run_name="outage") as run:
        run_id = run.info.run_id
        mlflow.log_metric("loss", 0.0, step=0)
        assert mantik.flush(30)
        with pairing.proxy.fault(Refuse()):
            started = time.monotonic()
            mlflow.log_metric("loss", 1.0, step=1)
            mlflow.log_param("depth", 5)
            mlflow.log_text("kept", "kept.txt")
            assert mlflow.get_run(run_id).data.metrics["loss"] == 1.0
            assert mlflow.get_run(run_id).data.params == {"depth": "5"}
            assert 1.0 in [point.value for point in client.get_metric_history(run_id, "loss")]
            assert [item.path for item in client.list_artifacts(run_id)] == ["kept.txt"]
            with mlflow.start_run(run_name="begun in an outage", nested=True) as inner:
                mlflow.log_metric("inner", 7.0)
            assert inner.info.run_id.startswith("local-")
            assert time.monotonic() - started < 30
    assert mantik.flush(90)
    assert pairing.points(run_id, "loss") == [(0, 0.0), (1, 1.0)]
    assert pairing.held.download(run_id, "kept.txt") == b"kept"
    begun = pairing.run_named("begun in an outage")
    assert (begun.status, begun.metrics) == ("FINISHED", {"inner": 7.0})
    assert begun.tags["mlflow.parentRunId"] == run_id
    with mlflow.start_run(run_id=inner.info.run_id):
        mlflow.log_metric("again", 8.0)
    assert mantik.flush(30)
    again = pairing.held.run(begun.run_id)
    assert (again.status, again.metrics) == ("FINISHED", {"inner": 7.0, "again": 8.0})
    # Ended under the id that the platform gave it: nobody may take it for open any more.
    assert "RUNNING" not in str(mantik.receipt())


def resume(pairing: Pairing) -> None:
    """A run goes on under its id."""
    import mlflow

    import mantik

    with mlflow.start_run(run_name="resumed") as run:
        mlflow.log_metric("loss", 1.0, step=0)
    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.log_metric("loss", 2.0, step=1)
    assert mantik.flush(30)
    assert pairing.points(run.info.run_id, "loss") == [(0, 1.0), (1, 2.0)]
    assert pairing.held.run(run.info.run_id).status == "FINISHED"


def redelivery(pairing: Pairing) -> None:
    """What is sent again because its acknowledgement was lost is there once, NaN too, and nothing is refused."""
    import mlflow

    import mantik

    with mlflow.start_run(run_name="redelivered") as run:
        switch = pairing.proxy.fault(LoseAcknowledgement(), LOG_BATCH, times=6)
        for step, value in enumerate(NON_FINITE):
            mlflow.log_metric("odd", value, step=step)
        for step in range(150):
            mlflow.log_metric("many", math.nan, step=step)
            mlflow.log_metric("plain", float(step), step=step)
        mlflow.log_param("depth", 5)
        mlflow.set_tag("kind", "tag")
    assert mantik.flush(120)
    assert switch.hits >= 3
    run_id = run.info.run_id
    require_odd(pairing, run_id, "odd")
    assert [step for step, _ in pairing.points(run_id, "many")] == list(range(150))
    assert pairing.points(run_id, "plain") == [(step, float(step)) for step in range(150)]
    held = pairing.held.run(run_id)
    assert (held.params, held.tags["kind"]) == ({"depth": "5"}, "tag")
    require_no_refusal(run_id)


def models(pairing: Pairing) -> str:
    """A model is there and can be loaded; where the platform cannot hold it, that is said and holds nothing else up."""
    import mlflow
    from sklearn.linear_model import LinearRegression

    import mantik

    model = LinearRegression().fit([[0], [1]], [0, 1])
    with mlflow.start_run(run_name="model") as run:
        info = mlflow.sklearn.log_model(model, "model")
        mlflow.log_metric("after", 1.0)
    run_id = run.info.run_id
    assert not run_id.startswith("local-")
    if pairing.lacks_models:
        assert mantik.flush(60)
        held = pairing.held.run(run_id)
        assert (held.status, held.metrics) == ("FINISHED", {"after": 1.0})
        (entry,) = [entry for entry in mantik.receipt().runs if entry.run_id == run_id]
        assert entry.refused > 0
        assert "logged-models" in str(mantik.receipt())
        with mlflow.start_run(run_name="after the model") as run:
            assert not run.info.run_id.startswith("local-")
        return "models are refused with a reason, and kept in quarantine"
    assert mlflow.sklearn.load_model(info.model_uri).predict([[1]])[0] > 0.9
    assert mantik.flush(60)
    assert mlflow.pyfunc.load_model(info.model_uri).predict([[1]])[0] > 0.9
    if hasattr(info, "model_id"):
        (logged,) = pairing.held.logged_models(pairing.experiment_id)
        assert (logged.name, logged.status, logged.source_run_id) == ("model", "LOGGED_MODEL_READY", run_id)
    else:
        assert "model/MLmodel" in pairing.held.artifacts(run_id)
        assert run_id in pairing.held.run(run_id).tags["mlflow.log-model.history"]
    require_no_refusal(run_id)
    return ""


def autolog(pairing: Pairing) -> str:
    """Autologging records params, metrics, dataset and model of a fit."""
    import mlflow
    import numpy as np
    from sklearn.linear_model import LinearRegression

    import mantik

    mlflow.sklearn.autolog()
    with mlflow.start_run(run_name="autolog") as run:
        features = np.arange(20.0).reshape(10, 2)
        LinearRegression().fit(features, features.sum(axis=1))
    mlflow.sklearn.autolog(disable=True)
    assert mantik.flush(60)
    held = pairing.held.run(run.info.run_id)
    assert held.status == "FINISHED"
    assert held.params["fit_intercept"] == "True"
    assert "training_mean_squared_error" in held.metrics
    assert inputs_of(pairing, run.info.run_id)
    if not pairing.lacks_models:
        require_no_refusal(run.info.run_id)
        return ""
    return "autologging records everything but the model"


def traces(pairing: Pairing) -> str:
    """A trace with its spans is there."""
    import mlflow

    import mantik

    if not hasattr(mlflow, "trace"):
        return "no traces in this MLflow"

    @mlflow.trace
    def outer(number: int) -> int:
        with mlflow.start_span(name="inner"):
            return number + 1

    assert outer(1) == 2
    flush = getattr(mlflow, "flush_trace_async_logging", None)
    if flush is not None:
        flush()
    assert mantik.flush(60)
    found = mlflow.MlflowClient().search_traces([pairing.experiment_id])
    (trace,) = found
    assert sorted(span.name for span in trace.data.spans) == ["inner", "outer"]
    return ""


def offline(pairing: Pairing) -> None:
    """What an offline process recorded is there once after `mantik sync`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MANTIK_", "MLFLOW_"))}
    for name in ("MANTIK_HOME", "MANTIK_USERNAME", "MANTIK_PASSWORD", "MLFLOW_TRACKING_URI"):
        environment[name] = os.environ[name]
    environment["MANTIK_SPOOL"] = tempfile.mkdtemp(dir=os.environ["MANTIK_HOME"])
    code = OFFLINE.replace("EXPERIMENT", repr(pairing.experiment)).replace("MODELS", repr(not pairing.lacks_models))
    asked = len(pairing.proxy.requests)
    run_python("-c", "if True:" + code, environment={**environment, "MANTIK_MODE": "offline"})
    assert len(pairing.proxy.requests) == asked
    printed = run_python("-m", "mantik", "sync", environment=environment)
    run = pairing.run_named("offline")
    assert (run.status, run.params) == ("FINISHED", {"depth": "3"}), printed
    assert run.metrics["accuracy"] == 0.75
    assert [step for step, _ in pairing.points(run.run_id, "loss")] == [1, 2]
    assert "notes/offline.txt" in pairing.held.artifacts(run.run_id)
    assert len(inputs_of(pairing, run.run_id)) == 1
    assert pairing.run_named("inner").tags["mlflow.parentRunId"] == run.run_id
    if not pairing.lacks_models:
        import mlflow

        # Not by the run where models are things of their own: server 3.5 answers 500 for a file that is not
        # there, and MLflow itself tries that again for four minutes.
        own = [model for model in pairing.models() if model.source_run_id == run.run_id]
        uri = f"models:/{own[0].model_id}" if own else f"runs:/{run.run_id}/model"
        assert mlflow.pyfunc.load_model(uri).predict([[1]])[0] > 0.9


def receipts(pairing: Pairing) -> None:
    """The receipt names what was sent of each run, and that nothing waits."""
    import mantik

    receipt = mantik.receipt()
    run = pairing.run_named("writes")
    (entry,) = [entry for entry in receipt.runs if entry.run_id == run.run_id]
    # Ours and MLflow's own async variants: 200 + 2 + 3 + 2 + 1500.
    assert entry.sent.metrics == 1707, entry
    assert entry.sent.params == 123, entry
    assert not any(entry.waiting.total for entry in receipt.runs)
    assert "writes" in str(receipt)


CHECKS: tuple[Callable[[Pairing], str | None], ...] = (
    login,
    writes,
    search,
    outage,
    resume,
    redelivery,
    models,
    autolog,
    traces,
    offline,
    receipts,
)


def require_odd(pairing: Pairing, run_id: str, key: str) -> None:
    """Require NaN, infinity and its negative in this order, each once."""
    values = [value for _, value in sorted(pairing.points(run_id, key), key=lambda point: point[0])]
    assert len(values) == 3, values
    assert math.isnan(values[0]), values
    # A database has no infinity: MLflow keeps the largest number there is.
    assert values[1] > 1e308, values
    assert values[2] < -1e308, values


def require_no_refusal(run_id: str) -> None:
    """Require that nothing of a run is in quarantine."""
    import mantik

    assert [entry.refused for entry in mantik.receipt().runs if entry.run_id == run_id] == [0], str(mantik.receipt())


def inputs_of(pairing: Pairing, run_id: str) -> list[dict[str, Any]]:
    """Return the datasets of a run."""
    content = pairing.held._call("GET", "runs/get", {"run_id": run_id})  # noqa: SLF001  # the reader knows no datasets
    inputs: list[dict[str, Any]] = content["run"].get("inputs", {}).get("dataset_inputs", [])
    return inputs


def run_python(*arguments: str, environment: dict[str, str]) -> str:
    """Run this environment's Python to a good end, and return what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class _Listener(logging.Handler):
    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text."""
        self._heard.append(record.getMessage())


def main() -> int:
    """Run the checks that are named, or all; return the exit code."""
    user = json.loads(sys.stdin.readline())
    wanted = set(sys.argv[1:])
    failed = 0
    with FaultProxy(user["url"]) as proxy:
        os.environ |= {
            "MLFLOW_TRACKING_URI": proxy.url,
            "MANTIK_USERNAME": user["username"],
            "MANTIK_PASSWORD": user["password"],
            "MANTIK_EXIT_TIMEOUT": "20",
        }
        pairing = Pairing(proxy, user)
        logging.getLogger("mantik").addHandler(_Listener(pairing.warnings))
        for check in CHECKS:
            if wanted and check is not login and check.__name__ not in wanted:
                continue
            started, problem, note = time.monotonic(), None, None
            try:
                note = check(pairing)
            except Exception:  # noqa: BLE001  # whatever it is, the other checks are of interest too
                problem = traceback.format_exc()
                failed = 1
            proxy.clear()
            seconds = round(time.monotonic() - started, 1)
            report = {"check": check.__name__, "seconds": seconds, "problem": problem, "note": note or None}
            sys.stdout.write(f"REPORT {json.dumps(report)}\n")
            sys.stdout.flush()
        from mantik.delivery.ending import close_all

        close_all()
    return failed


if __name__ == "__main__":
    sys.exit(main())
