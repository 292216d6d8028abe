"""Which run a fit is part of, in one process: one that fails is tried again, joined, or held open for a block."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import keras
import mlflow
import pytest

from mantik import MantikCallback
from mantik.testing import Status, wait_until
from tests.integrations.keras.networks import classes, fit, net

if TYPE_CHECKING:
    from types import FrameType

    from tests.integrations.arrivals import Arrived


class At(keras.callbacks.Callback):
    """Fails, or is interrupted, at the end of an epoch."""

    def __init__(self, epoch: int, number: int | None = None) -> None:
        super().__init__()
        self.at, self.number = epoch, number

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Do so."""
        del logs
        if epoch == self.at and self.number is None:
            raise ValueError("the training is broken")
        if epoch == self.at and self.number is not None:
            os.kill(os.getpid(), self.number)


def fail(callback: MantikCallback, **options: Any) -> None:  # noqa: ANN401
    """Train until an error, which is dealt with."""
    with contextlib.suppress(ValueError):
        fit([callback, At(0)], **options)


def test_a_fit_that_is_tried_again_makes_good(arrived: Arrived) -> None:
    """A fit that fails is FAILED; another one in the same run makes it FINISHED, and its epochs follow on."""
    callback = MantikCallback()
    fail(callback)
    assert arrived.run(callback.run_id).status == "FAILED"
    assert mlflow.active_run() is None
    try:
        fit([callback, At(0)])
    except ValueError as error:
        kept = error
    assert arrived.run(callback.run_id).status == "RUNNING"
    fit([callback], epochs=2)
    assert arrived.run(callback.run_id).status == "FINISHED"
    assert arrived.steps(callback.run_id, "loss") == [0, 1, 2, 3]
    assert kept.args == ("the training is broken",)


def test_what_comes_after_a_failure_is_no_success(arrived: Arrived) -> None:
    """An evaluation after a fit that has failed leaves the run FAILED."""
    callback, model = MantikCallback(), net()
    fail(callback, model=model)
    model.evaluate(*classes(), verbose=0, callbacks=[callback])
    assert arrived.run(callback.run_id).status == "FAILED"
    assert arrived.steps(callback.run_id, "test_loss") == [0]


def test_a_block_is_one_run(arrived: Arrived) -> None:
    """In a `with` block the run stays RUNNING over all that is done, and an error of the block is the run's."""
    callback, model, seen = MantikCallback(), net(), []

    def work() -> None:
        with callback:
            fit([callback], model)
            seen.append(arrived.run(callback.run_id).status)
            fail(callback, model=model)
            seen.append(arrived.run(callback.run_id).status)
            fit([callback], model, epochs=1)
            model.evaluate(*classes(), verbose=0, callbacks=[callback])
            seen.append(arrived.run(callback.run_id).status)
            raise KeyError("outside of any fit")

    with pytest.raises(KeyError):
        work()
    assert seen == ["RUNNING", "RUNNING", "RUNNING"]
    assert arrived.run(callback.run_id).status == "FAILED"
    assert arrived.steps(callback.run_id, "loss") == [0, 1, 2, 3]


def test_a_fault_in_a_block_is_not_forgotten(arrived: Arrived) -> None:
    """A block that ends well after its last fit has failed is FAILED; one that is interrupted is KILLED."""
    with MantikCallback() as callback:
        fail(callback)
    assert arrived.run(callback.run_id).status == "FAILED"
    with pytest.raises(KeyboardInterrupt), MantikCallback() as interrupted:
        raise KeyboardInterrupt
    assert arrived.run(interrupted.run_id).status == "KILLED"


def test_the_active_run_is_joined(arrived: Arrived) -> None:
    """A fit in the user's own run is part of it, and does not end it, nor when it fails."""
    callback = MantikCallback(tags={"kind": "joined"})
    with mlflow.start_run() as run:
        fit([callback], epochs=1)
        fail(callback)
        mlflow.log_param("mine", 1)
        assert callback.run_id == run.info.run_id
        assert arrived.run(callback.run_id).status == "RUNNING"
    found = arrived.run(callback.run_id)
    assert (found.status, found.params["mine"], found.tags["kind"]) == ("FINISHED", "1", "joined")


def test_the_run_of_the_environment(arrived: Arrived, monkeypatch: pytest.MonkeyPatch) -> None:
    """`MLFLOW_RUN_ID` names the run to go on with."""
    first = MantikCallback("environment")
    fit([first], epochs=1)
    monkeypatch.setenv("MLFLOW_RUN_ID", str(first.run_id))
    second = MantikCallback()
    fit([second], epochs=1)
    assert second.run_id == first.run_id
    assert [run.run_id for run in arrived.runs("environment")] == [first.run_id]


def test_an_experiment_that_another_training_has_created(arrived: Arrived) -> None:
    """Where two trainings begin at the same moment and create an experiment, both are in it."""
    first, second = MantikCallback("created"), MantikCallback("created")
    fit([first], epochs=1)
    gone = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "not yet"})
    asked = "/api/2.0/mlflow/experiments/get-by-name"
    arrived.proxy.fault(Status(404, gone, headers={"Content-Type": "application/json"}), path=asked, times=1)
    fit([second], epochs=1)
    assert [run.run_id for run in arrived.runs("created")] == [first.run_id, second.run_id]


def test_a_ctrl_c_handler_is_left_alone(arrived: Arrived) -> None:
    """A handler for Ctrl-C of the user's own is called and stays; a fit that it stops gracefully is FINISHED."""
    callback, model = MantikCallback(), net()

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        model.stop_training = True

    before = signal.signal(signal.SIGINT, stop)
    try:
        fit([callback, At(1, signal.SIGINT)], model, epochs=5)
        assert signal.getsignal(signal.SIGINT) is stop
    finally:
        signal.signal(signal.SIGINT, before)
    assert arrived.run(callback.run_id).status == "FINISHED"
    assert arrived.steps(callback.run_id, "loss") == [0, 1]


def test_system_metrics(arrived: Arrived, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's metrics are recorded on request."""
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    with MantikCallback(system_metrics=True) as callback:
        fit([callback])
        wait_until(
            lambda: any(name.startswith("system/") for name in arrived.run(callback.run_id).metrics),
            deadline=60,
            what="metrics of the machine",
        )
    assert arrived.run(callback.run_id).status == "FINISHED"
