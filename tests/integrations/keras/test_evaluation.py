"""Tables of predictions, confusion matrices, sample images, and callbacks for tables of one's own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import keras
import mlflow
import numpy as np
import pytest

from mantik import MantikCallback
from mantik.exceptions import ConfigurationError
from mantik.integrations.keras import MantikEvaluation
from mantik.integrations.keras.mosaic import images_of, mosaic, verdicts
from mantik.integrations.keras.predictions import classes_of, confusion_figure, table_of
from tests.integrations.keras.networks import classes, fit, net

if TYPE_CHECKING:
    from tests.integrations.arrivals import Arrived

CROSSENTROPY = "sparse_categorical_crossentropy"


class Worst(MantikEvaluation):
    """Shows the samples that the model is least sure of."""

    def table(self, x: Any, y: Any, predictions: Any) -> Any:  # noqa: ANN401
        """Return two of them."""
        worst = predictions.max(axis=1).argsort()[:2]
        return ["image", "true"], [[x[at].reshape(2, 2), int(y[at])] for at in worst]


class Doubled(MantikEvaluation):
    """Predicts in a way of its own."""

    def predict(self, x: Any) -> Any:  # noqa: ANN401
        """Return twice what goes in."""
        return x[:, :1] * 2


def table(arrived: Arrived, run_id: str | None, key: str, step: int) -> dict[str, Any]:
    """Return a table."""
    content: dict[str, Any] = json.loads(arrived.content(run_id, f"tables/{key}/step-{step:08d}.json"))
    return content


def test_tables_of_ones_own(arrived: Arrived) -> None:
    """A subclass logs its own table after the epochs that it is asked for, into the callback's run, on its axis."""
    callback = MantikCallback()
    own = Worst(classes(), key="worst", every=2)
    fit([own, callback], epochs=3)
    fit([callback, own], epochs=2)
    tables = arrived.artifacts(callback.run_id, "tables")
    assert tables == [f"tables/worst/step-{step:08d}.json" for step in (1, 4)]
    found = table(arrived, callback.run_id, "worst", 4)
    assert found["columns"] == ["image", "true"]
    assert [row[0]["type"] for row in found["data"]] == ["image", "image"]


def test_an_evaluation_by_itself(arrived: Arrived) -> None:
    """Without data of its own it takes those of the validation, and without a callback MLflow's active run."""
    x, y = classes()
    with mlflow.start_run() as run:
        fit([Doubled(rows=3)], net(1, "mse"), epochs=1, y=x[:, 0], validation_data=(x, x[:, 0]))
    found = table(arrived, run.info.run_id, "evaluation", 0)
    assert found["columns"] == ["sample", "target", "prediction"]
    assert [row[2] for row in found["data"]] == pytest.approx([2 * float(value) for value in x[:3, 0]])
    assert len(y) == len(x)


def test_without_a_run(arrived: Arrived, caplog: pytest.LogCaptureFixture) -> None:
    """Where there is no run it is said, and nothing is begun."""
    before = len(arrived.runs())
    fit([MantikEvaluation(classes())], epochs=3)
    assert caplog.text.count("The evaluation 'evaluation' is left out: there is no run.") == 1
    assert len(arrived.runs()) == before


def test_an_evaluation_that_fails(arrived: Arrived, caplog: pytest.LogCaptureFixture) -> None:
    """What a table's own code raises is said, and the training goes on; strict tracking raises it."""

    class Broken(MantikEvaluation):
        """Cannot do it."""

        def table(self, x: Any, y: Any, predictions: Any) -> Any:  # noqa: ANN401
            """Fail."""
            del x, y, predictions
            raise KeyError("no such column")

    callback = MantikCallback()
    fit([callback, Broken(classes())])
    assert "The evaluation 'evaluation' is not logged: KeyError" in caplog.text
    assert arrived.steps(callback.run_id, "loss") == [0, 1]
    with pytest.raises(KeyError), MantikCallback(strict=True) as strict:
        fit([strict, Broken(classes())])


@pytest.mark.parametrize("options", [{"every": 0}, {"samples": "all"}, {"rows": True}])
def test_numbers_that_are_none(options: dict[str, Any]) -> None:
    """A number that is none is refused where it is given."""
    with pytest.raises(ConfigurationError, match="which is no whole number from 1 on"):
        MantikEvaluation(**options)


@pytest.mark.parametrize(
    ("y", "predictions", "loss", "targets", "predicted"),
    [
        ([0, 2], [[0.9, 0.1, 0.0], [0.2, 0.5, 0.3]], CROSSENTROPY, [0, 2], [0, 1]),
        ([[0], [2]], [[5.0, 1.0, -3.0], [0.0, 0.0, 9.0]], "<lambda>", [0, 2], [0, 2]),
        ([[1.0, 0.0], [0.0, 1.0]], [[0.4, 0.6], [0.1, 0.9]], "categorical_crossentropy", [0, 1], [1, 1]),
        ([0, 1, 1], [[0.2], [0.4], [0.8]], "binary_crossentropy", [0, 1, 1], [0, 0, 1]),
        ([0.0, 1.0], [[-3.0], [4.0]], "binary_crossentropy", [0, 1], [0, 1]),
        ([-1.0, 1.0], [[-3.0], [4.0]], "hinge", [0, 1], [0, 1]),
    ],
)
def test_classes(y: Any, predictions: Any, loss: str, targets: list[int], predicted: list[int]) -> None:  # noqa: ANN401
    """Classes are found by number, marked in a row, as yes and no, from probabilities and from logits."""
    found = classes_of(np.array(y), np.array(predictions), loss)
    assert found is not None
    assert (found.targets.tolist(), found.predicted.tolist()) == (targets, predicted)
    assert ((found.confidence > 0.3) & (found.confidence <= 1)).all()
    figure = confusion_figure(found)
    assert figure is not None
    right = sum(one == other for one, other in zip(targets, predicted, strict=True))
    assert figure.axes[0].get_title() == f"{right} of {len(targets)} right"


@pytest.mark.parametrize(
    ("y", "predictions", "loss"),
    [
        ([0.5, 1.5], [[0.4], [1.2]], "mse"),
        ([[0.5, 1.5], [2.0, 1.0]], [[0.4, 1.0], [1.2, 1.0]], "mse"),
        ([0, 7], [[0.9, 0.1], [0.1, 0.9]], CROSSENTROPY),
        ([0, 1], [[0.4], [1.2]], "mean_squared_error"),
        ([1, 2, 3], [[0.9, 0.1]], CROSSENTROPY),
    ],
)
def test_no_classes(y: Any, predictions: Any, loss: str) -> None:  # noqa: ANN401
    """Numbers that are no classes are not taken for some."""
    assert classes_of(np.array(y), np.array(predictions), loss) is None


def test_other_tables() -> None:
    """Of what is no class, targets and predictions are shown as they are, several by name and large ones by shape."""
    predictions = {"left": np.array([[0.5], [1.5]]), "right": np.zeros((2, 9, 9))}
    columns, rows = table_of(np.array([[1.0, 2.0], [3.0, 4.0]]), predictions, None, 1)
    assert columns == ["sample", "target", "prediction left", "prediction right"]
    assert rows == [[0, [1.0, 2.0], 0.5, "array of the shape (9, 9)"]]
    assert table_of(None, np.array([1, 2]), None, 9) == (["sample", "prediction"], [[0, 1], [1, 2]])


def test_images() -> None:
    """Gray and coloured images are found in either order of axes, and nothing else is taken for one."""
    assert [image.shape for image in images_of(np.zeros((5, 28, 28)), 2) or []] == [(28, 28)] * 2
    assert [image.shape for image in images_of(np.zeros((1, 8, 9, 3)), 2) or []] == [(8, 9, 3)]
    kept = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    assert [image.shape for image in images_of(np.zeros((1, 3, 8, 9)), 2) or []] == [(8, 9, 3)]
    keras.config.set_image_data_format(kept)
    assert images_of(np.zeros((5, 30)), 2) is None
    assert images_of(np.zeros((5, 28, 28, 7)), 2) is None
    assert images_of([np.zeros((5, 28, 28))], 2) is None


def test_what_is_said_of_samples() -> None:
    """Above each image is what it is and what it was taken for; red is for a wrong class alone, not for a number."""
    y, predictions = np.array([0, 2]), np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3]])
    found = verdicts(y, predictions, classes_of(y, predictions, CROSSENTROPY), 16)
    assert found == [("true 0\npredicted 0", False), ("true 2\npredicted 1", True)]
    numbers = verdicts(np.array([0.5, 1.0]), np.array([[0.51], [1.23456]]), None, 1)
    assert numbers == [("true 0.5\npredicted 0.51", False)]
    assert verdicts(np.zeros((2, 8, 8)), np.zeros((2, 8, 8)), None, 16) is None
    assert verdicts(None, np.zeros(2), None, 16) is None


def test_a_picture_of_samples() -> None:
    """All samples are in one picture, eight in a row, gray or in colours, with what is said of them."""
    words = [(str(at), at == 8) for at in range(9)]
    axes = mosaic([np.ones((8, 8, 1))] * 9, words).axes
    assert [(one.get_title(), one.title.get_color() == "tab:red") for one in axes] == words
    assert {one.get_subplotspec().get_gridspec().get_geometry() for one in axes} == {(2, 8)}
    assert axes[0].get_images()[0].get_array().shape == (8, 8)
    (alone,) = mosaic([np.ones((8, 9, 3))], None).axes
    assert (alone.get_title(), alone.get_images()[0].get_array().shape) == ("", (8, 9, 3))
