"""A first tracked training: recognise handwritten digits.

Before it runs, tell it where the platform is and who you are::

    export MLFLOW_TRACKING_URI=https://test.cloud.mantik.ai
    export MANTIK_USERNAME=...
    export MANTIK_PASSWORD=...

    python examples/quickstart.py
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib as mpl

mpl.use("Agg")  # draw into files, also where there is no screen

import matplotlib.pyplot as plt  # after the choice of the backend
import mlflow
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mantik


def main() -> str:
    """Train, track, and return the id of the run."""
    # Logs in. From here on each fit is recorded with its parameters, its data, scores and pictures, and so is how the
    # model does on other data. The model is logged further down, once, with an example of its input.
    mantik.autolog(log_models=False, silent=True)
    mlflow.set_experiment("quickstart")

    digits = load_digits()
    split = train_test_split(digits.data, digits.target, test_size=0.25, stratify=digits.target, random_state=0)
    train_images, test_images, train_labels, test_labels = split

    with mlflow.start_run(run_name="digits") as run:
        mlflow.log_param("image_size", "8x8")

        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=500))
        model.fit(train_images, train_labels)

        predictions = model.predict(test_images)
        probabilities = model.predict_proba(test_images)
        mlflow.log_metric("test_accuracy", accuracy_score(test_labels, predictions))
        mlflow.log_metric("test_log_loss", log_loss(test_labels, probabilities))
        # A metric with steps becomes a curve: how often the right digit is among the k most probable ones.
        for k in range(1, 6):
            mlflow.log_metric("test_top_k_accuracy", top_k_accuracy_score(test_labels, probabilities, k=k), step=k)

        wrong = np.flatnonzero(predictions != test_labels)
        with TemporaryDirectory() as folder:
            picture = Path(folder) / "mistakes.png"
            figure, axes = plt.subplots(2, 5, figsize=(8, 4), layout="constrained")
            for place, one in zip(axes.flat, wrong, strict=False):
                place.imshow(test_images[one].reshape(8, 8), cmap="gray_r")
                place.set_title(f"{test_labels[one]} taken for {predictions[one]}", fontsize="medium")
                place.axis("off")
            figure.savefig(picture, dpi=150)
            plt.close(figure)
            mlflow.log_artifact(str(picture))

        mlflow.sklearn.log_model(model, name="digits-model", input_example=test_images[:2])
        return run.info.run_id


if __name__ == "__main__":
    main()
