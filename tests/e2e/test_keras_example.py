"""The Keras example, and what it leaves on a platform: read back, loaded back, and seen in a real Chromium."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.e2e.test_browser import CHROMIUM, keep, page  # noqa: F401  # a fixture
from tests.e2e.test_lightning_example import assert_loaded
from tests.scripts import clean_environment, run_script

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from mantik.testing import Platform
    from mantik.testing.holdings import Run

EXAMPLES = Path(__file__).parents[2] / "examples"
BATCHES = 17
"""Batches of an epoch: 1078 images, 64 in each."""

TRAIN = f"""
    import sys
    sys.path.insert(0, {str(EXAMPLES)!r})
    import keras_digits as it
    import numpy as np
    run_id, model = it.main()
    np.save("predicted.npy", model.predict(it.load_data()[2][0], verbose=0))
    print("RUN", run_id)
    """

LOAD = f"""
    import sys
    sys.path.insert(0, {str(EXAMPLES)!r})
    import keras_digits as it
    import mantik, mlflow, numpy as np
    mantik.init_tracking()
    images = it.load_data()[2][0]
    model = mlflow.keras.load_model("runs:/RUN/model")
    served = mlflow.pyfunc.load_model("runs:/RUN/model")
    for predicted in (model.predict(images, verbose=0), served.predict(images)):
        np.testing.assert_allclose(predicted, np.load("predicted.npy"), rtol=1e-5, atol=1e-6)
    """


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the working directory of the example, which is its home too."""
    return tmp_path_factory.mktemp("keras")


@pytest.fixture(scope="module")
def environment(mantik_platform: Platform, folder: Path) -> dict[str, str]:
    """Return the environment in which the example runs: without a choice of Keras's backend, and with one thread."""
    found = clean_environment({**mantik_platform.environment(), "OMP_NUM_THREADS": "1"}, folder)
    return {name: value for name, value in found.items() if name != "KERAS_BACKEND"}


@pytest.fixture(scope="module")
def run(mantik_platform: Platform, folder: Path, environment: dict[str, str]) -> Run:
    """Train the example, once for all tests here."""
    run_id = run_script(TRAIN, environment, folder).partition("RUN ")[2].split()[0]
    return mantik_platform.read_back.run(run_id)


def test_the_example_is_tracked_whole(run: Run, mantik_platform: Platform) -> None:
    """Its run is named, described, tagged and FINISHED, and has params, curves of training and validation, results."""
    held = mantik_platform.read_back
    assert (run.name, run.status) == ("small-cnn", "FINISHED")
    assert run.tags["data"] == "sklearn.datasets.load_digits"
    assert "two convolutions" in run.tags["mlflow.note.content"]
    wanted = {"backend": "torch", "optimizer_name": "AdamW", "batch_size": "64", "total_params": "6090"}
    assert run.params.items() >= wanted.items()
    assert run.metrics["test_accuracy"] > 0.9
    # How many epochs is for EarlyStopping to say.
    epochs = list(range(len(held.metric_history(run.run_id, "loss"))))
    for name in ("loss", "val_loss", "accuracy", "val_accuracy", "learning_rate", "epoch_time", "samples_per_second"):
        assert [point.step for point in held.metric_history(run.run_id, name)] == epochs
    batches = [point.step for point in held.metric_history(run.run_id, "batch/loss")]
    assert batches == list(range(0, BATCHES * len(epochs), 5))
    assert yaml.safe_load(held.download(run.run_id, "hparams.yaml"))["fit"]["batch_size"] == 64
    assert b"conv2d" in held.download(run.run_id, "model_summary.txt")
    assert json.loads(held.download(run.run_id, "model.json"))["config"]["name"] == "small_cnn"


def test_the_logged_model_loads_back_and_predicts_the_same(run: Run, environment: dict[str, str], folder: Path) -> None:
    """In another process, by Keras's flavour and as a served model, it is the model of the best epoch."""
    run_script(LOAD.replace("RUN", run.run_id), environment, folder)


def test_tables_and_pictures_of_the_example_are_there(run: Run, mantik_platform: Platform) -> None:
    """The evaluation of the best epoch agrees with its accuracy, and the table of mistakes has their pictures."""
    held = mantik_platform.read_back
    artifacts = set(held.artifacts(run.run_id))
    last = len(held.metric_history(run.run_id, "loss")) - 1
    table = json.loads(held.download(run.run_id, f"tables/evaluation/step-{last:08d}.json"))
    right = sum(row[table["columns"].index("correct")] for row in table["data"]) / len(table["data"])
    assert len(table["data"]) == 200
    assert right > 0.9
    assert held.download(run.run_id, f"figures/evaluation/confusion_matrix/step-{last:08d}.png").startswith(b"\x89PNG")
    losses = {point.step: point.value for point in held.metric_history(run.run_id, "val_loss")}
    assert losses[int(run.metrics["restored_epoch"])] == min(losses.values())
    mistakes = json.loads(held.download(run.run_id, "tables/mistakes/step-00000004.json"))
    assert mistakes["columns"] == ["image", "digit", "guess", "confidence"]
    assert mistakes["data"]
    assert {row[0]["filepath"] for row in mistakes["data"]} <= artifacts
    assert all(row[1] != row[2] for row in mistakes["data"])


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian's package 'chromium')")
def test_the_example_is_seen_in_the_browser(run: Run, page: Page, mantik_platform: Platform) -> None:  # noqa: F811
    """Training is beside validation on one axis of epochs; table, matrix and model can be looked at."""
    link = f"{mantik_platform.url}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
    last = len(mantik_platform.read_back.metric_history(run.run_id, "loss")) - 1
    page.goto(link)
    page.get_by_label("User name").fill(mantik_platform.username)
    page.get_by_label("Password").fill(mantik_platform.password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("A network of two convolutions").wait_for()
    page.get_by_text("optimizer_name").first.wait_for()
    keep(page, "20-keras-run")

    # Charts are drawn when they come into view.
    page.set_viewport_size({"width": 1280, "height": 5000})
    page.goto(f"{link}/model-metrics")
    page.get_by_text("small-cnn (val_loss)").wait_for()
    keep(page, "21-keras-metrics")
    page.set_viewport_size({"width": 1280, "height": 900})

    page.goto(chart_of(mantik_platform.url, run, ["loss", "val_loss"]))
    page.reload()
    page.get_by_text("loss vs val_loss").wait_for()
    page.get_by_text("small-cnn (val_loss)").wait_for()
    page.locator(".js-plotly-plot .scatterlayer .trace").nth(1).wait_for()
    # Both end at the last epoch.
    assert page.get_by_text(f"(step={last})").count() >= 2
    keep(page, "22-keras-loss-and-val-loss")

    page.goto(f"{link}/artifacts/tables/mistakes/step-00000004.json")
    page.reload()
    page.get_by_role("columnheader", name="guess").wait_for()
    assert_loaded(page, "table_images")
    keep(page, "23-keras-mistakes")

    page.goto(f"{link}/artifacts/figures/evaluation/confusion_matrix/step-{last:08d}.png")
    page.reload()
    assert_loaded(page, "blob:")
    keep(page, "24-keras-matrix")


def chart_of(url: str, run: Run, names: list[str]) -> str:
    """Return the address of MLflow's page that draws metrics of a run into one chart."""
    lists = {"runs": [run.run_id], "experiments": [run.experiment_id], "plot_metric_keys": names}
    query = "&".join(f"{name}={json.dumps(values)}" for name, values in lists.items())
    return f'{url}/#/metric?{query}&metric="{names[0]}"&plot_layout={{}}&x_axis=step&line_smoothness=1'
