"""What cannot be meant is refused, with an error that says what to do, and before training where that can be known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pytest
import torch

from mantik import MantikLogger
from mantik.exceptions import ConfigurationError, InvalidValueError
from tests.integrations.lightning.modules import Small, data, trainer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integrations.arrivals import Arrived


class Untrained(Small):
    """Must not be trained."""

    def training_step(self, batch: list[torch.Tensor], batch_index: int) -> torch.Tensor:
        """Fail."""
        del batch, batch_index
        pytest.fail("the training has begun")


def refused(match: str, **arguments: Any) -> None:  # noqa: ANN401
    """See that a training is refused before it begins, and leaves no run active."""
    with pytest.raises(ConfigurationError, match=match):
        trainer(logger=MantikLogger(**arguments)).fit(Untrained(), data())
    assert mlflow.active_run() is None


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"log_model": "best"}, r"log_model is 'best', which is none of: False, True, 'all'"),
        ({"log_model": 1}, r"log_model is 1, which is none of"),
        ({"resume": "yes"}, r"resume is 'yes', which is none of: 'auto', 'allow', 'must', 'never'"),
        ({"resume": "never", "run_id": "x"}, r"leave out run_id for a new run"),
        ({"checkpoint_name": "/"}, r"checkpoint_name is '/', which is no artifact folder"),
        ({"checkpoint_name": "../x"}, r"such as 'weights/fine'"),
        ({"checkpoint_name": "a#b"}, r"'a#b'"),
    ],
)
def test_arguments(arguments: dict[str, Any], match: str) -> None:
    """Values that an argument cannot have, or that contradict each other, are refused by the constructor."""
    with pytest.raises(ConfigurationError, match=match):
        MantikLogger(**arguments)


def test_must_without_a_run(arrived: Arrived) -> None:
    """resume="must" names all places where a run was looked for."""
    before = len(arrived.runs())
    refused(r"no run_id, no MLFLOW_RUN_ID, no checkpoint .* and no earlier attempt of this job", resume="must")
    assert len(arrived.runs()) == before


@pytest.mark.parametrize("run_id", ["0" * 32, "never-was", "../x"])
def test_a_run_that_does_not_exist(arrived: Arrived, run_id: str) -> None:
    """A run_id that the platform does not know is an error that names both."""
    refused(rf"run '{run_id}' is not on the platform at {arrived.proxy.url}", run_id=run_id)


def test_a_run_of_the_environment_that_does_not_exist(arrived: Arrived, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is an MLFLOW_RUN_ID."""
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    refused(rf"run '{'0' * 32}' is not on the platform")
    del arrived


def test_a_run_that_was_deleted(arrived: Arrived) -> None:
    """A deleted run is an error that says so."""
    run_id = mlflow.MlflowClient().create_run("0").info.run_id
    mlflow.MlflowClient().delete_run(run_id)
    refused(rf"run '{run_id}' was deleted", run_id=run_id)
    del arrived


def test_a_run_of_another_experiment(arrived: Arrived) -> None:
    """A run and an experiment that contradict each other are refused, and nothing happens to the run."""
    client = mlflow.MlflowClient()
    run_id = client.create_run("0").info.run_id
    client.log_param(run_id, "a", 1)
    client.set_terminated(run_id)
    refused(r"is in the experiment '0', not in .* which was asked for", run_id=run_id, experiment_name="another one")
    run = arrived.run(run_id)
    assert (run.status, "mantik.attempt" in run.tags) == ("FINISHED", False)


def test_an_experiment_whose_name_and_id_disagree(arrived: Arrived) -> None:
    """Both have to be those of one experiment."""
    held = mlflow.MlflowClient().create_experiment("with an id")
    disagreeing = rf"experiment_name is 'with an id' and experiment_id is '0', which disagree: its id is '{held}'"
    refused(disagreeing, experiment_name="with an id", experiment_id="0")
    refused(r"there is none of this name", experiment_name="with no id", experiment_id="0")
    assert "with no id" not in {experiment.name for experiment in arrived.platform.read_back.experiments()}


def test_a_deleted_experiment(arrived: Arrived) -> None:
    """A deleted experiment is refused by its name and by its id."""
    client = mlflow.MlflowClient()
    deleted = client.create_experiment("no longer")
    client.delete_experiment(deleted)
    refused(r"experiment 'no longer' was deleted. Restore it, or choose another", experiment_name="no longer")
    refused(rf"experiment '{deleted}' takes no run .*deleted.*Name another", experiment_id=deleted)
    del arrived


@pytest.mark.parametrize("experiment_id", ["99999", "abc"])
def test_an_experiment_that_does_not_exist(
    arrived: Arrived, monkeypatch: pytest.MonkeyPatch, experiment_id: str
) -> None:
    """An id of no experiment is refused, from the argument and from the environment."""
    refused(rf"experiment '{experiment_id}' takes no run", experiment_id=experiment_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment_id)
    refused(r"experiment of MLflow's settings takes no run")
    del arrived


@pytest.mark.parametrize("name", ["", "x" * 600])
def test_the_name_of_no_experiment(arrived: Arrived, name: str) -> None:
    """A name that the platform refuses is an error with its reason."""
    refused(rf"experiment_name is '{name}', which the platform does not take", experiment_name=name)
    del arrived


@pytest.mark.parametrize("how", ["begun", "resumed", "joined"])
def test_tags_that_mlflow_does_not_take(arrived: Arrived, how: str) -> None:
    """Tags with such names are mapped in all ways to get a run: no later attempt fails of what the first one had."""
    logger = MantikLogger(tags={"a@b": "c", 5: 6})
    if how == "resumed":
        logger = MantikLogger(tags=logger.tags, run_id=mlflow.MlflowClient().create_run("0").info.run_id)
    elif how == "joined":
        mlflow.start_run()
    trainer(logger=logger).fit(Small(), data())
    assert arrived.run(logger.run_id).tags.items() >= {"a_at_b-7508d8b5": "c", "5": "6"}.items()


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (None, r"'bad' is None \(a NoneType\), which is no number"),
        ("high", r"'bad' is 'high' \(a str\).*texts belong into log_text or tags"),
        ([1, 2], r"'bad' is \[1, 2\] \(a list\)"),
        (torch.tensor([1, 2]), r"'bad' is Tensor\(shape=\(2,\), dtype=torch.int64\)"),
        (np.zeros(3), r"'bad' is ndarray\(shape=\(3,\)"),
        ({"deep": object()}, r"'bad/deep' is <object object>"),
        (1j, r"'bad' is 1j"),
        (10**400, r"'bad' is larger than a float can be"),
    ],
)
def test_a_metric_that_is_no_number(arrived: Arrived, value: object, match: str) -> None:
    """Nothing of that call is recorded, and what was recorded before stays."""
    logger = MantikLogger()
    logger.log_metrics({"good": 1.0}, step=1)
    with pytest.raises(InvalidValueError, match=match):
        logger.log_metrics({"good": 2.0, "bad": value}, step=2)
    logger.log_metrics({"good": 3.0}, step=3)
    assert arrived.points(logger.run_id, "good") == [(1, 1.0), (3, 3.0)]


def test_hyperparameters_without_names(arrived: Arrived) -> None:
    """What has no names are no hyper-parameters."""
    with pytest.raises(InvalidValueError, match=r"hyperparameters are \[1\] .* Log a dict"):
        MantikLogger().log_hyperparams([1])  # type: ignore[arg-type]
    del arrived


def test_a_picture_of_a_wrong_shape(arrived: Arrived) -> None:
    """The error names the picture, its shape and those that there are."""
    logger = MantikLogger()
    with pytest.raises(InvalidValueError, match=r"image 1 of 'k' has the shape \(2, 3, 4, 5\). Expected is height x"):
        logger.log_image("k", [np.zeros((4, 4)), np.zeros((2, 3, 4, 5))])
    assert arrived.artifacts(logger.run_id) == []


def test_an_artifact_that_does_not_exist(arrived: Arrived, tmp_path: Path) -> None:
    """A file that is not there is the error that Python has for it."""
    logger = MantikLogger()
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        logger.log_artifact(tmp_path / "none.txt")
    logger.log_metrics({"a": 1.0})
    assert arrived.run(logger.run_id).metrics == {"a": 1.0}


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"model": 5}, r"watch\(\) got int: give it a torch.nn.Module"),
        ({"log": "weights"}, r"log is 'weights', which is none of: 'gradients', 'parameters', 'all'"),
        ({"log_freq": 0}, r"log_freq is 0: give it a number of steps, 1 or more"),
    ],
)
def test_what_cannot_be_watched(arguments: dict[str, Any], match: str) -> None:
    """What is no module, or how nothing can be watched, is refused at once."""
    with pytest.raises(ConfigurationError, match=match):
        MantikLogger().watch(**{"model": torch.nn.Linear(1, 1), **arguments})
