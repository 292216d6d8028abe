"""What makes no sense is said clearly, and training is not harmed by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pytest

from mantik import MantikCallback
from mantik.exceptions import ConfigurationError, InvalidValueError
from tests.integrations.keras.networks import Subclassed, classes, fit, net

if TYPE_CHECKING:
    from tests.integrations.arrivals import Arrived


class PerClass(keras.metrics.Metric):
    """A metric that is an array."""

    def update_state(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
        """Take nothing in."""

    def result(self) -> Any:  # noqa: ANN401
        """Return a value for each class."""
        return keras.ops.convert_to_tensor([0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"log_freq": "step"}, "log_freq is 'step', which is none of: 'epoch', 'batch', or a number of batches"),
        ({"log_freq": 0}, "log_freq is 0"),
        ({"log_freq": True}, "log_freq is True"),
        ({"log_model": "last"}, "log_model is 'last', which is none of: False, True, 'best'"),
        ({"log_model": 1.0}, "log_model is 1.0"),
        ({"mode": "up"}, "mode is 'up', which is none of: 'auto', 'min', 'max'"),
        ({"save_freq": -1}, "save_freq is -1, which is none of: 'epoch', a number of batches from 1 on, 'callbacks'"),
        ({"save_freq": "callbacks", "save_best_only": True}, "leave out save_best_only"),
        ({"initial_global_step": -3}, "initial_global_step is -3"),
        ({"registered_model_name": "net"}, "give log_model=True or 'best' besides"),
        ({"resume": "yes"}, "resume is 'yes', which is none of"),
        ({"resume": "never", "run_id": "a" * 32}, "leave out run_id"),
    ],
)
def test_arguments(options: dict[str, Any], message: str) -> None:
    """What is none of the possible values is refused where it is given, with those that are."""
    with pytest.raises(ConfigurationError, match=message):
        MantikCallback(**options)


def test_a_run_that_is_not_there(arrived: Arrived) -> None:
    """A run to go on with that is not there stops the fit before it begins; `allow` takes a new one."""
    with pytest.raises(ConfigurationError, match="The run 'aaaa"):
        fit([MantikCallback(run_id="a" * 32)])
    callback = MantikCallback(run_id="a" * 32, resume="allow")
    fit([callback])
    assert arrived.run(callback.run_id).status == "FINISHED"
    with pytest.raises(ConfigurationError, match="resume is 'must', but there is no run to go on with"):
        fit([MantikCallback(resume="must")])


@pytest.mark.parametrize("options", [{"save_freq": "epoch"}, {"save_best_only": True}, {"log_model": "best"}])
def test_a_monitor_that_is_never_produced(
    options: dict[str, Any], arrived: Arrived, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, with the metrics that there are; the last epoch is kept in place of the best one."""
    callback = MantikCallback(monitor="val_acuracy", **options)
    fit([callback], epochs=3)
    assert caplog.text.count("monitor is 'val_acuracy', but the metrics are: loss.") == 1
    artifacts = arrived.artifacts(callback.run_id)
    if "log_model" in options:
        models = arrived.platform.read_back.logged_models("0")
        assert callback.run_id in [model.source_run_id for model in models]
    else:
        assert "checkpoints/last/last.keras" in artifacts
    assert arrived.run(callback.run_id).status == "FINISHED"


def test_a_monitor_that_comes_late(arrived: Arrived, caplog: pytest.LogCaptureFixture) -> None:
    """Where only some epochs are validated, the metric of the validation is waited for."""
    callback = MantikCallback(save_best_only=True)
    fit([callback], epochs=4, validation_data=classes(), validation_freq=2)
    assert "monitor is" not in caplog.text
    (best,) = arrived.yaml(callback.run_id, "checkpoints/index.yaml")["checkpoints"][:1]
    assert (best["aliases"], best["checkpoint"]["monitor"]) == (["best"], "val_loss")


def test_a_direction_that_cannot_be_told(arrived: Arrived, caplog: pytest.LogCaptureFixture) -> None:
    """A metric of which nobody knows whether more is better is asked about, once; Keras would end the training."""

    class Score(keras.metrics.Mean):
        """A metric."""

        def update_state(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
            """Take something in."""
            super().update_state(1.0)

    callback = MantikCallback(monitor="quality", save_freq="epoch")
    fit([callback], net(metrics=[Score(name="quality")]))
    assert caplog.text.count("Whether more or less of 'quality' is better cannot be told: give mode='max'") == 1
    assert "checkpoints/last/last.keras" in arrived.artifacts(callback.run_id)


def test_a_metric_that_is_an_array(arrived: Arrived, caplog: pytest.LogCaptureFixture) -> None:
    """A metric with several elements is left out with one warning, and the others are recorded."""
    callback = MantikCallback(log_freq="batch")
    fit([callback], net(metrics=[PerClass(name="each")]), epochs=3)
    assert caplog.text.count("The metric 'each' is ") == 1
    assert caplog.text.count("The metric 'batch/each' is ") == 1
    assert arrived.steps(callback.run_id, "loss") == [0, 1, 2]
    assert len(arrived.steps(callback.run_id, "batch/loss")) == 15
    assert not [name for name in arrived.run(callback.run_id).metrics if "each" in name]
    with pytest.raises(InvalidValueError, match="The metric 'each' is "), MantikCallback(strict=True) as strict:
        fit([strict], net(metrics=[PerClass(name="each")]))


def test_names_that_mlflow_cannot_hold(arrived: Arrived) -> None:
    """A metric with a name that MLflow refuses is recorded under another one, which a tag explains."""
    callback = MantikCallback()
    fit([callback], net(metrics=[keras.metrics.SparseTopKCategoricalAccuracy(2, name="acc@2")]))
    tags = arrived.run(callback.run_id).tags
    (mapped,) = [name.removeprefix("mantik.name.") for name, original in tags.items() if original == "acc@2"]
    assert arrived.steps(callback.run_id, mapped) == [0, 1]


def test_a_model_that_is_not_built_yet(arrived: Arrived, caplog: pytest.LogCaptureFixture) -> None:
    """A model that gets its weights with its first batch is described after its first epoch."""
    model = keras.Sequential([keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    callback = MantikCallback(log_model=True, save_freq="epoch")
    fit([callback], model)
    assert "model_summary.txt" in arrived.artifacts(callback.run_id)
    assert "15" in arrived.content(callback.run_id, "model_summary.txt").decode()
    by_hand = MantikCallback()
    callbacks = keras.callbacks.CallbackList([by_hand], model=Subclassed(4))
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    callbacks.on_epoch_end(0, {"loss": 1.0})
    callbacks.on_train_end()
    assert arrived.points(by_hand.run_id, "loss") == [(0, 1.0)]
    assert caplog.text.count("is not recorded") <= 2


def test_a_model_that_is_not_compiled(arrived: Arrived) -> None:
    """`predict` of a model that was not compiled is tracked, and a fit of it fails as ever, without a run."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    callback = MantikCallback()
    model.predict(classes()[0], verbose=0, callbacks=[callback])
    assert arrived.run(callback.run_id).status == "FINISHED"
    before = len(arrived.runs())
    with pytest.raises(ValueError, match="compile"):
        fit([MantikCallback()], model)
    assert len(arrived.runs()) == before


def test_nan(arrived: Arrived) -> None:
    """A training that diverges is recorded as such, and its best epoch is one with a number."""
    callback, model = MantikCallback(save_freq="epoch", log_model="best"), net(1, "mse")
    fit([callback], model, y=np.full(20, np.inf), epochs=2)
    values = [value for _, value in arrived.points(callback.run_id, "loss")]
    assert len(values) == 2
    assert not np.isfinite(values).all()
    assert arrived.run(callback.run_id).status == "FINISHED"
