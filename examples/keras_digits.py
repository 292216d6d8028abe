"""Train a small network with Keras to recognise handwritten digits, and track all of it.

Install what it needs, torch as Keras's backend for instance, and tell it where the platform is and who you are::

    pip install 'mantik[keras,sklearn,media]' torch
    export MLFLOW_TRACKING_URI=https://test.cloud.mantik.ai
    export MANTIK_USERNAME=...
    export MANTIK_PASSWORD=...

    python examples/keras_digits.py
"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # or jax, or tensorflow; before Keras is imported

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

from mantik.integrations.keras import MantikCallback, MantikEvaluation


class Mistakes(MantikEvaluation):
    """A table with the mistakes that the network is surest of, each with its picture."""

    def table(self, x: np.ndarray, y: np.ndarray, predictions: np.ndarray) -> tuple[list[str], list[list[object]]]:
        """Return columns and rows."""
        guesses, confidence = predictions.argmax(axis=1), predictions.max(axis=1)
        wrong = np.flatnonzero(guesses != y)
        surest = wrong[confidence[wrong].argsort()[::-1]][: self.rows]
        rows = [[x[one], int(y[one]), int(guesses[one]), round(float(confidence[one]), 3)] for one in surest]
        return ["image", "digit", "guess", "confidence"], rows


def build_model(channels: int = 16, dropout: float = 0.2, learning_rate: float = 0.01) -> keras.Model:
    """Return a convolutional network for images of 8 x 8 pixels."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(channels, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(2 * channels, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(dropout),
            layers.Dense(10, activation="softmax"),
        ],
        name="small_cnn",
    )
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps=255, alpha=0.05)
    model.compile(keras.optimizers.AdamW(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def load_data() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return images and digits, for training, validation and test."""
    digits = load_digits()
    images = (digits.images / 16).astype("float32")[..., np.newaxis]
    order = np.random.default_rng(0).permutation(len(images))
    return [(images[part], digits.target[part]) for part in np.split(order, [1078, 1437])]


def main() -> tuple[str, keras.Model]:
    """Train, test, and return the id of the run and the model."""
    keras.utils.set_random_seed(0)
    train_data, validation_data, test_data = load_data()

    # Nothing is sent and nobody logs in before the training begins.
    callback = MantikCallback(
        experiment_name="keras-digits",
        run_name="small-cnn",
        tags={"data": "sklearn.datasets.load_digits"},
        description="A network of two convolutions for handwritten digits of 8 x 8 pixels.",
        log_freq=5,  # metrics of every fifth batch, beside those of the epochs
        log_model="best",  # the model with the weights of the epoch that has the least val_loss
        log_evaluation=True,  # a table of predictions, a confusion matrix, and a picture of samples
    )
    model = build_model()
    model.fit(
        *train_data,
        batch_size=64,
        epochs=15,
        validation_data=validation_data,
        verbose=2,
        callbacks=[
            callback,
            Mistakes(key="mistakes", every=5, rows=10),
            keras.callbacks.EarlyStopping(monitor="val_loss", patience=4, restore_best_weights=True),
        ],
    )
    model.evaluate(*test_data, verbose=0, callbacks=[callback])
    return callback.run_id, model


if __name__ == "__main__":
    main()
