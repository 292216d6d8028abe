"""Loops of one's own, and what a callback says of itself."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING

import keras
import mlflow

import mantik
from mantik import MantikCallback
from tests.integrations.keras.networks import classes, fit, net

if TYPE_CHECKING:
    from tests.integrations.arrivals import Arrived


def test_train_on_batch(arrived: Arrived) -> None:
    """In a `with` block metrics and params of one's own are recorded, in the run that MLflow's own calls go to, too."""
    x, y = classes()
    model = net(metrics=["accuracy"])
    with MantikCallback(prefix="own") as callback:
        callback.log_params({"schedule": {"kind": "none"}})
        mlflow.set_tag("by", "hand")
        for step in range(3):
            callback.log_metrics(model.train_on_batch(x, y, return_dict=True), step=step)
    run = arrived.run(callback.run_id)
    assert (run.status, run.params, run.tags["by"]) == ("FINISHED", {"schedule/kind": "none"}, "hand")
    assert set(run.metrics) == {"own-loss", "own-accuracy"}
    assert arrived.steps(callback.run_id, "own-loss") == [0, 1, 2]


def test_a_callback_list(arrived: Arrived) -> None:
    """The hooks may be called as Keras documents it for loops of one's own; an evaluation in between is one."""
    x, y = classes()
    model, callback = net(), MantikCallback(log_freq="batch")
    callbacks = keras.callbacks.CallbackList([callback], model=model, epochs=2, steps=2)
    callbacks.on_train_begin()
    for epoch in range(2):
        callbacks.on_epoch_begin(epoch)
        for batch in range(2):
            callbacks.on_train_batch_begin(batch)
            logs = model.train_on_batch(x, y, return_dict=True)
            callbacks.on_train_batch_end(batch, logs)
        callbacks.on_test_begin()
        callbacks.on_test_end({"loss": 9.0})
        callbacks.on_epoch_end(epoch, logs)
        model.evaluate(x, y, verbose=0, callbacks=[callback])
    callbacks.on_train_end()
    run = arrived.run(callback.run_id)
    assert (run.status, run.params["epochs"], run.params["steps"]) == ("FINISHED", "2", "2")
    assert arrived.steps(callback.run_id, "loss") == [0, 1]
    assert arrived.steps(callback.run_id, "batch/loss") == [0, 1, 2, 3]
    assert arrived.steps(callback.run_id, "test_loss") == [0, 1]
    assert 9.0 not in [value for _, value in arrived.points(callback.run_id, "test_loss")]


def test_hooks_called_by_hand(arrived: Arrived) -> None:
    """Hooks that somebody calls one by one work without a model and without Keras's list."""
    some, every = MantikCallback(), MantikCallback(log_freq="batch", log_model="best", save_freq="epoch")
    for epoch in range(2):
        some.on_epoch_begin(epoch)
        some.on_epoch_end(epoch, {"loss": 1.0})
    some.__exit__(None, None, None)
    every.on_train_begin()
    every.on_epoch_begin(0)
    for batch in range(2):
        every.on_train_batch_begin(batch)
        every.on_train_batch_end(batch, {"loss": 2.0})
    every.on_epoch_end(0, {"loss": 1.0})
    every.on_train_end()
    assert arrived.points(some.run_id, "loss") == [(0, 1.0), (1, 1.0)]
    assert arrived.points(every.run_id, "loss") == [(0, 1.0)]
    assert arrived.points(every.run_id, "batch/loss") == [(0, 2.0), (1, 2.0)]
    assert arrived.run(every.run_id).status == "FINISHED"


def test_evaluate_inside_of_a_fit(arrived: Arrived) -> None:
    """What another callback evaluates with the same callback is recorded at that epoch, and ends nothing."""
    x, y = classes()
    callback = MantikCallback()

    class Testing(keras.callbacks.Callback):
        """Evaluates after each epoch."""

        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            """Do so."""
            del epoch, logs
            self.model.evaluate(x, y, verbose=0, callbacks=[callback])

    fit([Testing(), callback], epochs=3, validation_data=(x, y))
    assert arrived.steps(callback.run_id, "test_loss") == [0, 1, 2]
    assert arrived.steps(callback.run_id, "val_loss") == [0, 1, 2]
    assert arrived.run(callback.run_id).status == "FINISHED"


def test_evaluate_alone(arrived: Arrived) -> None:
    """An evaluation without a training is a run of its own."""
    x, y = classes()
    callback = MantikCallback("tests", run_name="held out", tags={"n": 1}, description="What *this* is")
    net().evaluate(x, y, verbose=0, callbacks=[callback])
    run = arrived.run(callback.run_id)
    assert (run.name, run.status, run.tags["n"]) == ("held out", "FINISHED", "1")
    assert run.tags["mlflow.note.content"] == "What *this* is"
    assert arrived.steps(callback.run_id, "test_loss") == [0]
    assert [other.run_id for other in arrived.runs("tests")] == [run.run_id]


def test_making_one_does_nothing(arrived: Arrived) -> None:
    """A callback that is made, shown and copied has not logged in nor begun a run; a copy tracks runs of its own."""
    callback = MantikCallback()
    copies = [copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))]  # noqa: S301  # one's own
    assert repr(callback) == "MantikCallback(run_id=None, experiment_id=None)"
    assert (callback.link, arrived.proxy.count("/runs/create")) == ("", 0)
    for one in (callback, *copies):
        fit([one], epochs=1)
    assert len({one.run_id for one in (callback, *copies)}) == 3
    assert callback.link.endswith(f"/runs/{callback.run_id}")
    assert callback.link in callback._repr_html_()  # what notebooks call
    assert copy.deepcopy(callback).run_id == callback.run_id


def test_autologging(arrived: Arrived) -> None:
    """With MLflow's autologging it is one run, with each epoch once, and without the validation at step 0."""
    x, y = classes()
    callback = MantikCallback()
    mantik.autolog(log_models=False, silent=True)
    try:
        fit([callback], epochs=3, validation_data=(x, y))
    finally:
        mantik.autolog(disable=True)
    run = arrived.run(callback.run_id)
    assert (run.status, run.tags["mlflow.autologging"]) == ("FINISHED", "keras")
    assert arrived.steps(callback.run_id, "loss") == arrived.steps(callback.run_id, "val_loss") == [0, 1, 2]
    assert not [name for name in run.metrics if name.startswith("validation_")]
    assert run.params["batch_size"] == "4"
    assert "mantik.param_drift" not in run.tags


def test_a_tuple_of_callbacks(arrived: Arrived) -> None:
    """Callbacks may be a tuple: with it MLflow's autologging records no metrics, and the callback does."""
    callback = MantikCallback()
    mantik.autolog(log_models=False, silent=True)
    try:
        fit((callback, keras.callbacks.TerminateOnNaN()), epochs=2)
    finally:
        mantik.autolog(disable=True)
    run = arrived.run(callback.run_id)
    assert (run.status, run.params["batch_size"]) == ("FINISHED", "4")
    assert arrived.steps(callback.run_id, "loss") == [0, 1]
