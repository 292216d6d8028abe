"""Offline end to end: what a platform holds after `mantik sync` is what it holds of the same training online."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mantik.testing import FaultProxy, Refuse
from tests.durability.comparison import difference, holding_of
from tests.durability.nursery import kept_ids
from tests.durability.training import mantik, spool_of
from tests.forked import Warm
from tests.scripts import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mantik.testing import Platform
    from tests.durability.comparison import Holding
    from tests.forked import Forked

PROVISIONAL = re.compile(rb"local-[0-9a-f]{32}")
SCRIPT_SECONDS = 200.0

TRACKING = """
    import os, sys
    import mantik, mlflow
    import numpy as np, pandas as pd, matplotlib
    matplotlib.use("agg")
    from matplotlib.figure import Figure
    from PIL import Image
    from sklearn.linear_model import LinearRegression
    from mlflow.models import infer_signature

    mantik.init_tracking()
    mlflow.set_experiment(os.environ["EXPERIMENT"])
    mlflow.set_experiment_tag("team", "physics")
    mlflow.set_system_metrics_sampling_interval(0.2)
    mlflow.set_system_metrics_samples_before_logging(1)
    generator = np.random.default_rng(7)
    table = pd.DataFrame(generator.random((40, 3)), columns=["a", "b", "c"])
    target = table["a"] * 2 - table["c"]

    outer_run = {"run_name": "outer", "description": "All kinds of things.", "tags": {"kind": "any"}}
    with mlflow.start_run(**outer_run, log_system_metrics=True) as outer:
        mlflow.log_params({"depth": 3, "rate": 0.25})
        for step in range(20):
            mlflow.log_metrics({"loss": 1 / (step + 1), "odd": float("nan") if step % 2 else float("inf")}, step=step)
        dataset = mlflow.data.from_pandas(table, source="memory.csv", name="table")
        mlflow.log_input(dataset, context="training", tags={"part": "first"})
        mlflow.log_text("first", "notes/read me.txt")
        mlflow.log_dict({"run": 1, "deep": {"list": [1, 2]}}, "config.json")
        figure = Figure()
        figure.subplots().plot([1, 2, 3])
        mlflow.log_figure(figure, "plots/line.png")
        mlflow.log_image(Image.new("RGB", (8, 8), "red"), "red.png")
        mlflow.log_image(np.zeros((8, 8), dtype=np.uint8), key="zeros", step=1)
        mlflow.log_table({"question": ["one"], "answer": [1]}, "table.json")
        mlflow.log_table({"question": ["two"], "answer": [2]}, "table.json")
        read = mlflow.artifacts.load_dict(f"runs:/{outer.info.run_id}/table.json")
        assert read["data"] == [["one", 1], ["two", 2]], read
        for number in range(2):
            with mlflow.start_run(run_name=f"inner-{number}", nested=True):
                mlflow.log_metric("score", number)
                with mlflow.start_run(run_name=f"innermost-{number}", nested=True):
                    mlflow.log_param("number", number)
        model = LinearRegression().fit(table, target)
        info = mlflow.sklearn.log_model(
            model, name="linear", signature=infer_signature(table, model.predict(table)), input_example=table[:2],
            pip_requirements=[], params={"alpha": 1}, tags={"stage": "first"}, serialization_format="cloudpickle",
        )
        mlflow.log_metric("r2", model.score(table, target), model_id=info.model_id, step=3, dataset=dataset)
        mlflow.set_logged_model_tags(info.model_id, {"checked": "yes"})
        loaded = mlflow.pyfunc.load_model(info.model_uri)
        assert np.allclose(loaded.predict(table), model.predict(table))
        with mlflow.start_span("question", span_type="CHAIN") as span:
            span.set_inputs({"q": 1})
            with mlflow.start_span("answer") as child:
                child.set_attribute("depth", 2)
            span.set_outputs({"a": 2})
        mlflow.set_trace_tag(span.trace_id, "judged", "fine")

    with mlflow.start_run(run_id=outer.info.run_id):
        mlflow.log_metric("later", 1.0)
        mlflow.set_tag("again", "same process")

    with mlflow.start_run() as unnamed:
        mlflow.set_tag("label", "unnamed")

    mlflow.sklearn.autolog(log_input_examples=True)
    with mlflow.start_run(run_name="autologged"):
        fitted = LinearRegression().fit(table, target)
        fitted.score(table, target)
    mlflow.sklearn.autolog(log_models=False)
    LinearRegression().fit(table, target)
    mlflow.MlflowClient().set_tag(mlflow.last_active_run().info.run_id, "label", "autologged alone")
    mlflow.sklearn.autolog(disable=True)
    mlflow.flush_trace_async_logging()
    print("OUTER", outer.info.run_id, flush=True)
    sys.stdin.readline()
    """

ELSEWHERE = """
    import mantik, mlflow

    mantik.init_tracking()
    with mlflow.start_run() as run:
        mlflow.log_metric("elsewhere", 2.0)
        mlflow.log_text("from another process", "elsewhere.txt")
        mlflow.set_tag("again", "other process")
        with mlflow.start_run(run_name="nested elsewhere", nested=True):
            pass
    """

IMPORTS = """
import os
os.environ["KERAS_BACKEND"] = "torch"
import keras, lightning, lightning.pytorch.loggers, matplotlib.figure, mlflow.keras, mlflow.sklearn, torch
import sklearn.linear_model
"""
"""What all of this imports."""

FRAMEWORKS = """
    import os
    os.environ["KERAS_BACKEND"] = "torch"
    import mantik, mlflow
    import numpy as np
    import torch
    import lightning
    from lightning.pytorch.loggers import MLFlowLogger

    mantik.init_tracking()
    mlflow.set_experiment(os.environ["EXPERIMENT"])
    import mlflow.keras
    import keras

    class Line(lightning.LightningModule):
        def __init__(self, rate):
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch, number):
            loss = self.layer(batch[0]).square().mean()
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.hparams.rate)

    lightning.seed_everything(3)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(16, 2)), batch_size=4)
    logger = MLFlowLogger(
        experiment_name=os.environ["EXPERIMENT"], run_name="lightning", tracking_uri=os.environ["MLFLOW_TRACKING_URI"],
        log_model=True, tags={"from": "lightning"},
    )
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": logger}
    lightning.Trainer(max_epochs=2, log_every_n_steps=1, **quiet).fit(Line(0.1), data)

    keras.utils.set_random_seed(5)
    with mlflow.start_run(run_name="keras"):
        model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        model.compile(optimizer="sgd", loss="mse", metrics=["mae"])
        inputs, targets = np.ones((16, 2), "float32"), np.zeros((16, 1), "float32")
        model.fit(inputs, targets, epochs=3, batch_size=8, verbose=0,
            callbacks=[mlflow.keras.MlflowCallback(log_every_epoch=False, log_every_n_steps=1)])
        mlflow.keras.log_model(model, name="dense", pip_requirements=[],
            signature=mlflow.models.infer_signature(inputs))
    """

LOADING = """
    import os, sys
    os.environ["KERAS_BACKEND"] = "torch"
    import mantik, mlflow
    import numpy as np, pandas as pd

    mantik.init_tracking()
    table = pd.DataFrame(np.random.default_rng(7).random((40, 3)), columns=["a", "b", "c"])
    for uri in sys.stdin.read().split():
        model = mlflow.pyfunc.load_model(uri)
        rows = np.ones((2, 2), "float32") if "keras" in model.metadata.flavors else table
        print("PREDICTED", np.asarray(model.predict(rows)).tobytes().hex())
    """

SCRIPTS = {
    "offline": TRACKING,
    # In online mode, with a server that is down from before the beginning to after the end.
    "dead": TRACKING,
    "frameworks": FRAMEWORKS,
}


EXPERIMENTS = ["online tracking", "online frameworks", *(f"later {name}" for name in SCRIPTS)]


@dataclass
class Trainings:
    """The same scripts with and without the platform.

    Attributes:
        warm: What they were forked from.
        platform: Where all of it is now.
        online: What it holds of the trainings that were there all the time, by script.
        later: What it holds of the ones that were not, by kind.
        environments: Those of the latter.
        synced_at: When the first of them was shipped, in milliseconds since 1970.
    """

    warm: Warm
    platform: Platform
    online: dict[str, Holding]
    later: dict[str, Holding]
    environments: dict[str, dict[str, str]]
    synced_at: int


@pytest.fixture(scope="module")
def trainings(mantik_platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    """Run the scripts online, then offline with the platform away, and ship what the latter left."""
    with Warm(IMPORTS) as warm, FaultProxy(mantik_platform.url) as proxy:
        user = {**mantik_platform.environment(), "MLFLOW_TRACKING_URI": proxy.url}

        def run(experiments: dict[str, str], settings: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
            started = {}
            for experiment, code in experiments.items():
                folder = tmp_path_factory.mktemp(experiment)
                own = {**user, "EXPERIMENT": experiment, **settings.get(experiment, {})}
                environment = clean_environment(own, folder)
                started[experiment] = warm.start(code, environment, folder), environment
            for experiment, (process, environment) in started.items():
                output = ""
                if experiments[experiment] is TRACKING:
                    output, run_id = said(process, "OUTER ")
                    elsewhere = {**environment, "MLFLOW_RUN_ID": run_id, "MLFLOW_EXPERIMENT_NAME": experiment}
                    output += finish(warm.start(ELSEWHERE, elsewhere, tmp_path_factory.mktemp("elsewhere")))
                finish(process, output)
            return {experiment: environment for experiment, (_, environment) in started.items()}

        run({"online tracking": TRACKING, "online frameworks": FRAMEWORKS}, {})
        switch = proxy.fault(Refuse())
        # Without a server and without a password: nobody could log in if somebody tried.
        offline = {"MANTIK_MODE": "offline", "MANTIK_PASSWORD": ""}
        settings = {"offline": offline, "dead": {"MANTIK_EXIT_TIMEOUT": "1"}, "frameworks": offline}
        left = run(
            {f"later {name}": code for name, code in SCRIPTS.items()},
            {f"later {name}": own for name, own in settings.items()},
        )
        assert switch.hits
        switch.clear()
        synced_at = int(time.time() * 1000)
        environments = {name: {**left[f"later {name}"], **user} for name in SCRIPTS}
        for environment in environments.values():
            shipped = mantik("sync", environment=environment)
            assert shipped.returncode == 0, shipped.stdout + shipped.stderr
        online = {name: holding_of(mantik_platform, f"online {name}") for name in ("tracking", "frameworks")}
        later = {name: holding_of(mantik_platform, f"later {name}") for name in SCRIPTS}
        yield Trainings(warm, mantik_platform, online, later, environments, synced_at)


def said(process: Forked, word: str) -> tuple[str, str]:
    """Return what a process prints up to a line that begins with a word, and the rest of that line."""
    output = ""
    for line in process.stdout:
        output += line
        if line.startswith(word):
            return output, line.removeprefix(word).strip()
    raise AssertionError(output)


def finish(process: Forked, output: str = "") -> str:
    """Let a process end, and return what it has printed in all."""
    rest, _ = process.communicate("\n", timeout=SCRIPT_SECONDS)
    assert process.returncode == 0, output + rest
    return output + rest


def test_the_training_logs_every_kind_of_thing(trainings: Trainings) -> None:
    """What is compared below is there: runs, nested ones, histories, datasets, models, files and traces."""
    held = trainings.online["tracking"]
    inner = {f"inner-{number}" for number in range(2)} | {f"innermost-{number}" for number in range(2)}
    assert set(held.runs) == {"outer", *inner, "nested elsewhere", "unnamed", "autologged", "autologged alone"}
    assert set(held.models) == {"outer/linear", "autologged/model"}
    assert len(held.histories["outer/loss"]) == 20
    assert held.histories["outer/later"]
    assert held.histories["outer/elsewhere"]
    assert "system/cpu_utilization_percentage" in held.system["outer"]
    outer = held.runs["outer"]
    assert len(outer["inputs"]["dataset_inputs"]) == 1
    assert len(outer["outputs"]["model_outputs"]) == 1
    assert held.runs["autologged"]["inputs"]["dataset_inputs"]
    names = [name.removeprefix("run outer: ") for name in held.files if name.startswith("run outer: ")]
    assert {"elsewhere.txt", "config.json", "notes/read me.txt", "plots/line.png", "red.png", "table.json"} < set(names)
    assert "two" in held.files["run outer: table.json"]
    assert "<model outer/linear>" in held.files["model outer/linear: MLmodel"]
    assert held.models["outer/linear"]["info"]["status"] == "LOGGED_MODEL_READY"
    assert held.models["outer/linear"]["data"]["metrics"]
    assert [span["child of"] for span in held.traces["question"]["spans"]] == ["question", None]
    frameworks = trainings.online["frameworks"]
    assert set(frameworks.runs) == {"lightning", "keras"}
    assert len(frameworks.histories["lightning/train_loss"]) == 8
    assert frameworks.histories["keras/loss"]
    assert any(name.endswith(".ckpt") for name in frameworks.files)


@pytest.mark.parametrize(
    ("kind", "script"), [("offline", "tracking"), ("dead", "tracking"), ("frameworks", "frameworks")]
)
def test_the_platform_holds_what_it_holds_of_an_online_training(trainings: Trainings, kind: str, script: str) -> None:
    """Entity by entity: runs, params, histories, tags, datasets, models, every file and every trace are the same."""
    assert difference(trainings.online[script], trainings.later[kind]) == []
    assert spool_of(trainings.environments[kind]) == []


@pytest.mark.parametrize("kind", list(SCRIPTS))
def test_everything_keeps_its_own_time(trainings: Trainings, kind: str) -> None:
    """Starts, ends and points carry the time at which they were recorded, not the one at which they were shipped."""
    moments = trainings.later[kind].moments
    assert len(moments) > 20
    assert trainings.synced_at - 600_000 < min(moments)
    assert max(moments) < trainings.synced_at


def test_no_provisional_id_is_left_on_the_platform(trainings: Trainings) -> None:
    """Nothing in the database and in no file is an id that a training made up, but for Lightning's note of a path."""
    own = [str(trainings.platform.read_back.experiment(name).experiment_id) for name in EXPERIMENTS]
    made_up = {
        local_id.removeprefix("m-")
        for environment in trainings.environments.values()
        for local_id in kept_ids(environment)
    }
    assert len(made_up) > 20
    found, searched = [], 0
    for where, _, names in os.walk(trainings.platform.data):
        is_own = any(part in own for part in Path(where).relative_to(trainings.platform.data).parts)
        for name in names:
            path = Path(where, name)
            searched += is_own
            ids = {local_id.decode() for local_id in PROVISIONAL.findall(path.read_bytes())}
            # A checkpoint says in which folder of the training's own disk it was written.
            if (ids if is_own else ids & made_up) and path.suffix != ".ckpt":
                found.append(path)
    assert searched > 80
    assert found == []


def test_models_load_from_the_platform_and_predict_the_same(
    trainings: Trainings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A process that knows nothing of the spool loads each model by its id on the platform, and by its run."""
    folder = tmp_path_factory.mktemp("loading")
    tracked = [trainings.online["tracking"], trainings.later["offline"], trainings.later["dead"]]
    uris = [f"models:/{held.model_ids['outer/linear']}" for held in tracked]
    uris += [f"runs:/{held.run_ids['outer']}/linear" for held in tracked]
    uris += [
        f"models:/{held.model_ids['keras/dense']}"
        for held in (trainings.online["frameworks"], trainings.later["frameworks"])
    ]
    process = trainings.warm.start(LOADING, clean_environment(trainings.platform.environment(), folder), folder)
    output, _ = process.communicate("\n".join(uris), timeout=SCRIPT_SECONDS)
    assert process.returncode == 0, output
    predictions = [line.split()[1] for line in output.splitlines() if line.startswith("PREDICTED")]
    assert len(predictions) == 8, output
    assert len(set(predictions[:6])) == 1
    assert len(set(predictions[6:])) == 1
