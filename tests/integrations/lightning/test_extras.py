"""What a training logs beside numbers: pictures, tables, gradients, the model, the machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import lightning.pytorch as pl
import mlflow
import numpy as np
import pytest
import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from matplotlib.figure import Figure

import mantik
from mantik import MantikLogger
from mantik.exceptions import ConfigurationError
from mantik.testing import wait_until
from tests.integrations.lightning.modules import Small, data, trainer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integrations.arrivals import Arrived

STEPS = 4


class Showing(Small):
    """Logs one of each kind at the end of validation."""

    def on_validation_epoch_end(self) -> None:
        """Log them."""
        show(self.logger, self.global_step)


class Mixed(Small):
    """Takes more than one input, which no signature of MLflow describes."""

    def forward(self, inputs: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
        """Return what the layers make of it, times a factor."""
        return super().forward(inputs) * factor

    def training_step(self, batch: list[torch.Tensor], batch_index: int) -> torch.Tensor:
        """Call with both."""
        del batch_index
        return torch.nn.functional.mse_loss(self(batch[0], 2.0), batch[1])


class Spoiling(Small):
    """Keeps its gradients, and makes those of the second step NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.norms: list[float] = []

    def on_after_backward(self) -> None:
        """Spoil, and keep."""
        weight = self.get_parameter("layers.2.weight")
        assert weight.grad is not None
        if self.norms:
            weight.grad *= float("nan")
        self.norms.append(float(weight.grad.norm()))


@dataclass
class UntilMeasured(pl.Callback):
    """Lets no training end before the machine has been recorded in its run."""

    arrived: Arrived

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait."""
        del pl_module
        assert isinstance(trainer.logger, MantikLogger)
        run_id, name = trainer.logger.run_id, "system/cpu_utilization_percentage"
        wait_until(lambda: name in self.arrived.run(run_id).metrics, deadline=60, what=name)


@pytest.fixture
def quick_models(arrived: Arrived, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let MLflow not import a module once more, in a process of its own, to see which packages it needs."""
    monkeypatch.setenv("MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT", "1")
    del arrived


def show(logger: MantikLogger, step: int) -> None:
    """Log one of each kind."""
    picture = np.linspace(0, 255, 8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    figure = Figure()
    figure.subplots().plot([1, 2])
    logger.log_image("val/digits", [picture, torch.rand(3, 8, 8)], step=step, caption=["a", "b"])
    logger.log_table("wrong", ["label", "score"], [["three", 0.5], ["four", 0.25]], step=step)
    logger.log_text("note", "all is well", step=step)
    logger.log_text("samples", ["text"], [["one"], ["two"]])
    logger.log_figure("curve", figure, step=step)
    logger.log_audio("beep", [np.sin(np.arange(800) / 5)], step=step, sample_rate=8000)
    logger.log_video("film", [np.zeros((3, 3, 8, 8), dtype=np.uint8)], step=step)


def test_every_kind_reaches_the_run(arrived: Arrived, tmp_path: Path) -> None:
    """Pictures, tables, texts, figures, sounds, films and files are artifacts of the training's run."""
    logger = MantikLogger()
    trainer(logger=logger, num_sanity_val_steps=0).fit(Showing(), data(), data(1))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "one.txt").write_text("1")
    logger.log_artifact(tmp_path / "notes" / "one.txt", "kept")
    logger.log_artifact(tmp_path / "notes")
    found = arrived.artifacts(logger.run_id)
    step = f"step-{STEPS:08d}"
    assert {"kept/one.txt", "one.txt", f"text/note/{step}.txt", f"tables/wrong/{step}.json"} <= set(found)
    assert sum(path.startswith("images/val~digits~") and path.endswith(".png") for path in found) == 2
    assert any(path.startswith("figures/curve/") and path.endswith(".png") for path in found)
    assert any(path.startswith("audio/beep/") and path.endswith(".wav") for path in found)
    assert any(path.startswith("videos/film/") and path.endswith(".gif") for path in found)
    table = json.loads(arrived.content(logger.run_id, f"tables/wrong/{step}.json"))
    assert table["columns"] == ["label", "score"]
    assert table["data"] == [["three", 0.5], ["four", 0.25]]
    assert arrived.run(logger.run_id).status == "FINISHED"


def test_other_ranks_log_nothing(arrived: Arrived, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a rank that is not zero every method returns at once, and no run is begun."""
    before = len(arrived.runs())
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    (tmp_path / "file").write_text("1")
    logger = MantikLogger()
    show(logger, 0)
    logger.log_artifact(tmp_path / "file")
    logger.log_graph(Small())
    logger.log_hyperparams({"lr": 1})
    logger.log_metrics({"loss": 1.0}, 0)
    logger.finalize("success")
    assert logger.run_id is None
    assert logger.save_dir is None
    assert len(arrived.runs()) == before


@pytest.mark.parametrize(("what", "kinds"), [("gradients", {"gradients"}), ("all", {"gradients", "parameters"})])
def test_watching(arrived: Arrived, what: str, kinds: set[str]) -> None:
    """Norm, mean and deviation of each tensor and the norm of all are logged every so many steps."""
    logger, module = MantikLogger(), Small()
    logger.watch(module, log=what, log_freq=2)  # type: ignore[arg-type]  # one of the words
    trainer(logger=logger).fit(module, data())
    metrics = arrived.run(logger.run_id).metrics
    assert {name.partition("/")[0] for name in metrics} - {"train", "epoch"} == kinds
    for kind in kinds:
        assert arrived.steps(logger.run_id, f"{kind}/norm") == [0, 2]
        assert {f"{kind}/layers.0.weight/{fact}" for fact in ("norm", "mean", "std")} <= set(metrics)
        norms = [metrics[f"{kind}/{name}/norm"] for name, _ in module.named_parameters()]
        assert metrics[f"{kind}/norm"] == pytest.approx(sum(norm**2 for norm in norms) ** 0.5, rel=1e-5)


def test_what_is_watched_are_the_gradients(arrived: Arrived) -> None:
    """The values are those with which the optimizer steps, and NaN shows where it is."""
    logger, module = MantikLogger(), Spoiling()
    logger.watch(module, log_freq=1)
    trainer(logger=logger).fit(module, data(2))
    points = arrived.points(logger.run_id, "gradients/layers.2.weight/norm")
    assert [step for step, _ in points] == [0, 1]
    assert [value for _, value in points] == pytest.approx(module.norms, rel=1e-5, nan_ok=True)


def test_watching_no_more(arrived: Arrived) -> None:
    """A module that is not watched any more logs nothing of itself."""
    logger, module = MantikLogger(), Small()
    logger.watch(module, log_freq=1)
    logger.unwatch(module)
    trainer(logger=logger).fit(module, data())
    assert not [name for name in arrived.run(logger.run_id).metrics if name.startswith("gradients")]


def test_watching_what_is_no_module() -> None:
    """It is an error at the call, like an unknown word and a frequency of zero."""
    logger = MantikLogger()
    with pytest.raises(ConfigurationError, match=r"got list: give it a torch\.nn\.Module"):
        logger.watch([])  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ConfigurationError, match="log is 'grads', which is none of: 'gradients', 'parameters', 'all'"):
        logger.watch(Small(), log="grads")  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ConfigurationError, match="log_freq is 0: give it a number of steps"):
        logger.watch(Small(), log_freq=0)


def test_the_summary_of_the_model(arrived: Arrived) -> None:
    """Which layers a module has is kept by itself, without calling the module: it trains on as it was."""
    logger, module = MantikLogger(), Small()
    module.example_input_array = torch.zeros(1, 99)
    trainer(logger=logger).fit(module, data())
    text = arrived.content(logger.run_id, "model_summary.txt").decode()
    assert "layers.0 | Linear" in text
    assert "25        Total params" in text
    logger.log_graph(module)
    assert all(part.training for part in module.modules())
    assert module.example_input_array.shape == (1, 99)


@pytest.mark.usefixtures("quick_models")
def test_a_model_that_loads_back(arrived: Arrived) -> None:
    """mlflow_model logs the trained module: it loads, predicts the same, and has a signature from the first batch."""
    logger, module = MantikLogger(mlflow_model=True), Small()
    trainer(logger=logger).fit(module, data())
    assert mantik.flush(60)
    loaded = mlflow.pytorch.load_model(f"runs:/{logger.run_id}/model")
    inputs = torch.ones(2, 4)
    assert torch.equal(loaded(inputs), module.cpu()(inputs))
    signature = mlflow.models.get_model_info(f"runs:/{logger.run_id}/model").signature
    assert signature.inputs.inputs[0].shape == (-1, 4)
    assert signature.outputs.inputs[0].shape == (-1, 1)
    assert arrived.run(logger.run_id).status == "FINISHED"


@pytest.mark.usefixtures("quick_models")
def test_a_model_has_the_last_metrics(arrived: Arrived) -> None:
    """MLflow shows with a model the metrics of the training's last step, and not those of the first."""
    logger = MantikLogger(mlflow_model=True)
    trainer(logger=logger, max_epochs=2).fit(Small(), data(), data())
    run = arrived.run(logger.run_id)
    (model,) = [one for one in arrived.platform.read_back.logged_models("0") if one.source_run_id == run.run_id]
    assert model.metrics == run.metrics
    assert arrived.steps(run.run_id, "train/loss") == list(range(2 * STEPS))


@pytest.mark.usefixtures("quick_models")
def test_a_model_without_a_signature(arrived: Arrived, caplog: pytest.LogCaptureFixture) -> None:
    """A module whose inputs MLflow does not describe is logged without a signature, and that is said."""
    logger = MantikLogger(mlflow_model=True)
    trainer(logger=logger).fit(Mixed(), data())
    assert mantik.flush(60)
    assert mlflow.models.get_model_info(f"runs:/{logger.run_id}/model").signature is None
    assert "logged without a signature" in caplog.text
    assert arrived.run(logger.run_id).status == "FINISHED"


def test_a_model_that_cannot_be_pickled(arrived: Arrived, caplog: pytest.LogCaptureFixture) -> None:
    """After a training it is a warning, and everything else is there."""
    logger, module = MantikLogger(mlflow_model=True), Small()
    module.generator = (number for number in range(3))  # type: ignore[assignment]  # any attribute
    trainer(logger=logger).fit(module, data())
    run = arrived.run(logger.run_id)
    assert "cannot be logged as an MLflow model" in caplog.text
    assert run.status == "FINISHED"
    assert arrived.steps(logger.run_id, "train/loss") == list(range(STEPS))


def test_system_metrics(arrived: Arrived) -> None:
    """The machine is recorded when asked for, also into a run that somebody else has begun."""
    mlflow.set_system_metrics_sampling_interval(0.05)
    mlflow.set_system_metrics_samples_before_logging(1)
    try:
        logger = MantikLogger(system_metrics=True)
        trainer(logger=logger, callbacks=[UntilMeasured(arrived)]).fit(Small(), data())
        with mlflow.start_run() as run:
            trainer(logger=MantikLogger(system_metrics=True), callbacks=[UntilMeasured(arrived)]).fit(Small(), data())
            assert arrived.run(run.info.run_id).status == "RUNNING"
    finally:
        mlflow.set_system_metrics_sampling_interval(None)
        mlflow.set_system_metrics_samples_before_logging(None)
    for run_id in (logger.run_id, run.info.run_id):
        assert "system/cpu_utilization_percentage" in arrived.run(run_id).metrics


def test_no_system_metrics(arrived: Arrived, monkeypatch: pytest.MonkeyPatch) -> None:
    """With system_metrics=False there are none, whatever MLflow's settings say."""
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    logger = MantikLogger(system_metrics=False)
    trainer(logger=logger).fit(Small(), data())
    assert not any(name.startswith("system/") for name in arrived.run(logger.run_id).metrics)


def test_after_the_training(arrived: Arrived) -> None:
    """What is logged after a training goes into its run, and leaves its status."""
    logger = MantikLogger()
    trainer(logger=logger).fit(Small(), data())
    logger.log_text("note", "later")
    logger.log_metrics({"later": 1.0}, step=9)
    logger.log_hyperparams({"later": 1})
    run = arrived.run(logger.run_id)
    assert (run.status, run.metrics["later"], run.params["later"]) == ("FINISHED", 1.0, "1")
    assert arrived.content(run.run_id, "text/note.txt") == b"later"


def test_one_line_on_the_console(arrived: Arrived, capfd: pytest.CaptureFixture[str]) -> None:
    """A training says once where it is to be seen, on stderr."""
    logger = MantikLogger(run_name="seen")
    trainer(logger=logger, max_epochs=2).fit(Small(), data())
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("mantik:")]
    assert lines == [f"mantik: run 'seen' begins: {logger.link}"]
    del arrived


def test_how_it_shows_itself(arrived: Arrived) -> None:
    """Before a run it shows that there is none; then its id, and in a notebook a link to its page."""
    logger = MantikLogger()
    assert repr(logger) == "MantikLogger(run_id=None, experiment_id=None)"
    assert "<a" not in logger._repr_html_()  # what a notebook calls
    trainer(logger=logger).fit(Small(), data())
    page = f"{arrived.proxy.url}/#/experiments/{logger.experiment_id}/runs/{logger.run_id}"
    assert logger.link == page
    assert repr(logger) == f"MantikLogger(run_id='{logger.run_id}', experiment_id='{logger.experiment_id}')"
    assert f'<a href="{page}"' in logger._repr_html_()
