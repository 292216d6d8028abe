"""One training is one run: with MLflow's variables, its active run, its fluent calls and its autologging."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow.utils.autologging_utils import AUTOLOGGING_INTEGRATIONS

import mantik
from mantik import MantikLogger
from mantik.exceptions import ConfigurationError
from tests.integrations.lightning.modules import Small, data, trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import torch

    from tests.integrations.arrivals import Arrived


class Fluent(Small):
    """Calls MLflow itself, as modules do that were written for another logger."""

    def on_train_epoch_end(self) -> None:
        """Call."""
        mlflow.log_metric("mine", 1.0, step=self.current_epoch)
        mlflow.log_param("theirs", 2)
        mlflow.set_tag("kind", "fluent")
        mlflow.log_text("hello", "note.txt")


class Nesting(Small):
    """Begins a run inside of the run in each epoch, and ends none."""

    def on_train_epoch_end(self) -> None:
        """Begin one."""
        mlflow.start_run(nested=True, run_name=f"inner-{self.current_epoch}")


class Failing(Small):
    """Fails in its first step."""

    def training_step(self, batch: list[torch.Tensor], batch_index: int) -> torch.Tensor:
        """Fail."""
        del batch, batch_index
        raise RuntimeError("no more")


@pytest.fixture
def autologging() -> Iterator[None]:
    """Switch MLflow's autologging off afterwards, and let it forget that it was ever on."""
    yield
    # Of every framework: other tests of this process train some of them.
    mlflow.autolog(disable=True)
    AUTOLOGGING_INTEGRATIONS.clear()


def test_the_run_of_the_environment(arrived: Arrived, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLFLOW_RUN_ID is the run; one that is new is no earlier attempt, and the next logger has a run of its own."""
    run_id = mlflow.MlflowClient().create_run("0", run_name="made by a platform").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    logger, later = MantikLogger(), MantikLogger()
    trainer(logger=logger).fit(Small(), data())
    trainer(logger=later).fit(Small(), data())
    assert logger.run_id == run_id != later.run_id
    run = arrived.run(run_id)
    assert (run.name, run.status) == ("made by a platform", "FINISHED")
    assert arrived.steps(run_id, "train/loss") == [0, 1, 2, 3]
    assert "mantik.attempt" not in run.tags


def test_the_argument_wins_over_the_environment(arrived: Arrived, monkeypatch: pytest.MonkeyPatch) -> None:
    """run_id wins over MLFLOW_RUN_ID."""
    client = mlflow.MlflowClient()
    given, named = (client.create_run("0").info.run_id for _ in range(2))
    monkeypatch.setenv("MLFLOW_RUN_ID", named)
    logger = MantikLogger(run_id=given)
    trainer(logger=logger).fit(Small(), data())
    assert logger.run_id == given
    assert arrived.run(given).status == "FINISHED"


@pytest.mark.parametrize("variable", ["MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"])
def test_the_experiment_of_the_environment(arrived: Arrived, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """The experiment of MLflow's variables is that of the run, and an argument wins over them."""
    name = f"of {variable}"
    created = mlflow.MlflowClient().create_experiment(name)
    monkeypatch.setenv(variable, created if variable.endswith("ID") else name)
    plain, argued = MantikLogger(), MantikLogger(f"not {name}")
    trainer(logger=plain).fit(Small(), data())
    trainer(logger=argued).fit(Small(), data())
    assert plain.experiment_id == arrived.run(plain.run_id).experiment_id == created
    assert [run.run_id for run in arrived.runs(f"not {name}")] == [argued.run_id]


def test_experiment_arguments(arrived: Arrived) -> None:
    """An experiment is created by its name with the artifact location that is given, and found by its id."""
    location = "mlflow-artifacts:/elsewhere"
    named = MantikLogger("by name", artifact_location=location)
    named.log_metrics({"a": 1.0})
    named.finalize("success")
    again = MantikLogger(experiment_name="by name", experiment_id=named.experiment_id)
    again.log_metrics({"a": 1.0})
    assert {run.run_id for run in arrived.runs("by name")} == {named.run_id, again.run_id}
    (experiment,) = [one for one in arrived.platform.read_back.experiments() if one.name == "by name"]
    assert experiment.artifact_location == location


def test_the_active_run_is_joined(arrived: Arrived) -> None:
    """The run that the user has begun gets the training, and is neither ended nor left by it."""
    with mlflow.start_run(run_name="mine") as run:
        mlflow.log_param("before", 1)
        logger = MantikLogger(tags={"joined": True}, description="text")
        training = trainer(logger=logger)
        training.fit(Fluent(), data())
        training.test(Small(), data(), verbose=False)
        active = mlflow.active_run()
        assert active is not None
        assert active.info.run_id == run.info.run_id == logger.run_id
        assert arrived.run(logger.run_id).status == "RUNNING"
        mlflow.log_metric("after", 1.0)
    held = arrived.run(run.info.run_id)
    assert (held.name, held.status) == ("mine", "FINISHED")
    assert held.params == {"before": "1", "lr": "0.1", "width": "4", "theirs": "2"}
    assert set(held.metrics) == {"train/loss", "test/loss", "epoch", "mine", "after"}
    assert held.tags.items() >= {"joined": "True", "mlflow.note.content": "text"}.items()


def test_a_joined_run_may_be_named(arrived: Arrived) -> None:
    """run_name names the run that is joined."""
    with mlflow.start_run() as run:
        MantikLogger(run_name="better").log_metrics({"a": 1.0})
    assert arrived.run(run.info.run_id).name == "better"


def test_an_exception_in_a_joined_run(arrived: Arrived) -> None:
    """The status of a joined run is left to whoever began it."""
    with mlflow.start_run() as run:
        with pytest.raises(RuntimeError, match="no more"):
            trainer(logger=MantikLogger()).fit(Failing(), data())
        assert arrived.run(run.info.run_id).status == "RUNNING"
    assert arrived.run(run.info.run_id).status == "FINISHED"


def test_an_exception(arrived: Arrived) -> None:
    """A run of one's own is FAILED, is not active any more, and the logger's next training is one again."""
    logger = MantikLogger()
    with pytest.raises(RuntimeError, match="no more"):
        trainer(logger=logger).fit(Failing(), data())
    assert mlflow.active_run() is None
    assert arrived.run(logger.run_id).status == "FAILED"
    trainer(logger=logger).fit(Small(), data())
    assert arrived.run(logger.run_id).status == "FINISHED"


def test_fluent_calls_of_a_module(arrived: Arrived) -> None:
    """What a module does with mlflow.* goes into the run of the training, and begins no other."""
    before = len(arrived.runs())
    logger = MantikLogger()
    trainer(logger=logger).fit(Fluent(), data())
    run = arrived.run(logger.run_id)
    assert len(arrived.runs()) == before + 1
    assert (run.metrics["mine"], run.params["theirs"], run.tags["kind"]) == (1.0, "2", "fluent")
    assert "note.txt" in arrived.artifacts(run.run_id)
    assert mlflow.active_run() is None


def test_nested_runs_that_a_module_leaves_open(arrived: Arrived) -> None:
    """They are ended with the run of the training, however deep they are, and the points do not go into them."""
    logger = MantikLogger()
    trainer(logger=logger, max_epochs=3).fit(Nesting(), data(2))
    assert mlflow.active_run() is None
    inner = [run for run in arrived.runs() if run.name.startswith("inner-")]
    assert [(run.name, run.status, run.metrics) for run in inner] == [
        (f"inner-{epoch}", "FINISHED", {}) for epoch in range(3)
    ]
    assert inner[0].tags["mlflow.parentRunId"] == logger.run_id
    assert arrived.steps(logger.run_id, "train/loss") == list(range(6))


def test_a_run_that_the_module_ends(arrived: Arrived) -> None:
    """A module that ends the run in the middle does not keep the rest of the training from it."""

    class Ending(Small):
        def on_train_epoch_end(self) -> None:
            mlflow.end_run()

    logger = MantikLogger(log_model=True)
    trainer(logger=logger, max_epochs=2).fit(Ending(), data())
    assert arrived.steps(logger.run_id, "train/loss") == list(range(8))
    assert arrived.run(logger.run_id).status == "FINISHED"


@pytest.mark.usefixtures("autologging")
@pytest.mark.parametrize(
    "autolog", [mlflow.pytorch.autolog, mantik.autolog, pytest.param(mlflow.autolog, marks=pytest.mark.thorough)]
)
def test_autologging(arrived: Arrived, autolog: Callable[..., Any]) -> None:
    """MLflow's autologging and the logger share one run: its params are there, and no metric of it beside ours."""
    before = len(arrived.runs())
    autolog(log_models=False, silent=True)
    logger = MantikLogger(log_model=True)
    training = trainer(logger=logger, max_epochs=2)
    training.fit(Small(), data(), data())
    training.test(Small(), data(), verbose=False)
    run = arrived.run(logger.run_id)
    assert len(arrived.runs()) == before + 1
    assert run.status == "FINISHED"
    assert run.params.items() >= {"lr": "0.1", "width": "4", "optimizer_name": "SGD", "epochs": "2"}.items()
    assert set(run.metrics) == {"train/loss", "val/loss", "test/loss", "epoch"}
    assert arrived.steps(run.run_id, "train/loss") == list(range(8))
    assert arrived.steps(run.run_id, "val/loss") == [3, 7]
    assert "mantik.checkpoint.last" in run.tags
    assert mlflow.active_run() is None


@pytest.mark.usefixtures("autologging")
def test_autologging_of_a_training_that_fails(arrived: Arrived) -> None:
    """With autologging a training that fails is one FAILED run."""
    before = len(arrived.runs())
    mlflow.pytorch.autolog(log_models=False, silent=True)
    logger = MantikLogger()
    with pytest.raises(RuntimeError, match="no more"):
        trainer(logger=logger).fit(Failing(), data())
    assert len(arrived.runs()) == before + 1
    assert arrived.run(logger.run_id).status == "FAILED"


def test_two_runs_at_once_are_refused(arrived: Arrived) -> None:
    """An active run and another one that is asked for contradict each other; the error says what to do."""
    other = mlflow.MlflowClient().create_run("0").info.run_id
    with mlflow.start_run() as run:
        with pytest.raises(ConfigurationError, match=rf"(?s){other}.*{run.info.run_id}.*End the active run"):
            trainer(logger=MantikLogger(run_id=other)).fit(Small(), data())
        with pytest.raises(ConfigurationError, match=r"(?s)experiment.*active run is in '0'.*End the active run"):
            trainer(logger=MantikLogger("another")).fit(Small(), data())
    assert arrived.run(run.info.run_id).metrics == {}


def test_an_active_run_at_another_place_is_refused(
    arrived: Arrived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was begun before the login, in a local store, does not get the training: the error says what to do."""
    match = r"at a sqlite store.*init_tracking\(\) before mlflow\.start_run"
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/local.db")
    with mlflow.start_run():
        with pytest.raises(ConfigurationError, match=match):
            trainer(logger=MantikLogger(tracking_uri=arrived.proxy.url)).fit(Small(), data())
        monkeypatch.setenv("MLFLOW_TRACKING_URI", arrived.proxy.url)
        with pytest.raises(ConfigurationError, match=match):
            trainer(logger=MantikLogger()).fit(Small(), data())
    # Whoever has begun it can end it.
    assert [run.info.status for run in mlflow.MlflowClient().search_runs(["0"])] == ["FINISHED"]
