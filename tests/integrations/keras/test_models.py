"""Models that are logged: which weights, with which signature, and that they load back and predict the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import mlflow
import numpy as np
import pytest

from mantik import MantikCallback
from tests.integrations.keras.networks import Subclassed, classes, fit, net

if TYPE_CHECKING:
    from tests.integrations.arrivals import Arrived


class Scores(keras.callbacks.Callback):
    """Says what `val_score` is after each epoch, and keeps the weights of that time."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.scores = scores
        self.weights: list[list[np.ndarray]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Say it."""
        assert logs is not None
        logs["val_score"] = self.scores[epoch]
        self.weights.append(self.model.get_weights())


def logged(arrived: Arrived, callback: MantikCallback) -> keras.Model:
    """Load the model that a callback has logged last."""
    run_id = callback.run_id
    arrived.run(run_id)
    models = [model for model in arrived.platform.read_back.logged_models("0") if model.source_run_id == run_id]
    return mlflow.keras.load_model(f"models:/{models[0].model_id}")


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    """Compare weights."""
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_the_last_model(arrived: Arrived) -> None:
    """The logged model predicts what the trained one does, is served with a signature, and names what it needs."""
    callback, model = MantikCallback(log_model=True), net()
    fit([callback], model)
    loaded = logged(arrived, callback)
    x, _ = classes()
    assert np.allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    (found,) = [one for one in arrived.platform.read_back.logged_models("0") if one.source_run_id == callback.run_id]
    served = mlflow.pyfunc.load_model(f"models:/{found.model_id}")
    assert np.allclose(served.predict(x), model.predict(x, verbose=0))
    assert [(one.type, one.shape) for one in served.metadata.signature.inputs] == [(np.dtype("float32"), (-1, 4))]
    assert [one.shape for one in served.metadata.signature.outputs] == [(-1, 3)]
    requirements = Path(mlflow.pyfunc.get_model_dependencies(f"models:/{found.model_id}")).read_text().split()
    assert [one.partition("==")[0] for one in requirements] == ["mlflow", "keras", keras.backend.backend(), "numpy"]
    assert "+" not in "".join(requirements)


@pytest.mark.parametrize(
    ("mode", "scores", "best"), [("max", (1, 3, 2), 1), ("min", (1, 3, 2), 0), ("max", (1, 2, 3), 2)]
)
def test_the_best_model(mode: Any, scores: tuple[float, ...], best: int, arrived: Arrived) -> None:  # noqa: ANN401
    """With `best` the weights of the best epoch are logged, and the model keeps those of the last one."""
    kept, model = Scores(*scores), net()
    callback = MantikCallback(log_model="best", monitor="val_score", mode=mode)
    fit([kept, callback], model, epochs=3)
    assert same(logged(arrived, callback).get_weights(), kept.weights[best])
    assert same(model.get_weights(), kept.weights[-1])


@pytest.mark.parametrize("after", [True, False])
def test_restored_weights(after: bool, arrived: Arrived) -> None:  # noqa: FBT001
    """The weights that EarlyStopping restores are those of the logged model, before or behind the callback."""
    kept, callback = Scores(1, 3, 2, 2), MantikCallback(log_model=True)
    stopping = keras.callbacks.EarlyStopping("val_score", mode="max", patience=2, restore_best_weights=True)
    model = net()
    fit([kept, *([callback, stopping] if after else [stopping, callback])], model, epochs=9)
    assert same(logged(arrived, callback).get_weights(), kept.weights[1])
    assert same(model.get_weights(), kept.weights[1])
    run = arrived.run(callback.run_id)
    assert (run.status, run.metrics["stopped_epoch"], run.metrics["restored_epoch"]) == ("FINISHED", 3, 1)
    assert arrived.steps(callback.run_id, "loss") == [0, 1, 2, 3]


def test_another_model_has_a_best_epoch_of_its_own(arrived: Arrived) -> None:
    """A callback that trains a second model logs that one, whatever the first one's metrics were."""
    callback, second = MantikCallback(log_model="best", monitor="val_score", mode="max"), net(outputs=4)
    fit([Scores(9, 9), callback])
    fit([Scores(1, 1), callback], second)
    assert logged(arrived, callback).output_shape == (None, 4)


def test_several_inputs_and_outputs(arrived: Arrived) -> None:
    """A model with several inputs and outputs has them all in its signature, by their names, and is served."""
    first, second = keras.Input((4,), name="first"), keras.Input((2,), name="second")
    joined = keras.layers.Concatenate()([first, second])
    outputs = [keras.layers.Dense(1, name=name)(joined) for name in ("left", "right")]
    model = keras.Model([first, second], outputs)
    model.compile("sgd", ["mse", "mse"])
    x, y = classes()
    data = [x, x[:, :2]]
    callback = MantikCallback(log_model=True, log_evaluation=True)
    fit([callback], model, x=data, y=[y, y], validation_split=0.2)
    (found,) = [one for one in arrived.platform.read_back.logged_models("0") if one.source_run_id == callback.run_id]
    served = mlflow.pyfunc.load_model(f"models:/{found.model_id}")
    assert [one.name for one in served.metadata.signature.inputs] == ["first", "second"]
    expected = model.predict(data, verbose=0)
    result = served.predict({"first": data[0], "second": data[1]})
    assert np.allclose(np.asarray(result).reshape(2, -1), np.asarray(expected).reshape(2, -1))


def test_a_model_that_cannot_say_what_it_is_made_of(arrived: Arrived, caplog: pytest.LogCaptureFixture) -> None:
    """A subclassed model without get_config is trained and tracked, and it is said what is not recorded."""
    callback, model = MantikCallback(log_model=True, save_freq="epoch"), Subclassed(object())
    model.compile("sgd", "sparse_categorical_crossentropy")
    fit([callback], model)
    run = arrived.run(callback.run_id)
    assert run.status == "FINISHED"
    assert arrived.steps(callback.run_id, "loss") == [0, 1]
    assert "model_summary.txt" in arrived.artifacts(callback.run_id)
    assert "model.json is not recorded: NotImplementedError: " in caplog.text


def test_what_is_logged_must_not_fail_where_tracking_is_strict(arrived: Arrived) -> None:
    """With `strict` the error is the training's, and the run is FAILED."""
    callback, model = MantikCallback(strict=True), Subclassed(object())
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(NotImplementedError):
        fit([callback], model)
    with callback:
        pass
    assert arrived.run(callback.run_id).status == "FAILED"
