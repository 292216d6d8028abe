"""What is still to be done when the script has come to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.scripts import clean_environment, run_script

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.testing import Platform

SCRIPT = """
import atexit
import os

import mlflow

os.mkfifo("pickling")
os.mkfifo("at-the-end")


@atexit.register
def go_on():
    # Called when temporary folders have been removed, should that be done before the model is written.
    open("at-the-end", "w").close()


import mantik
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression


class Slow(LogisticRegression):
    def __getstate__(self):
        open("pickling", "w").close()
        open("at-the-end").close()
        return super().__getstate__()


mantik.autolog()
mlflow.set_experiment("at-the-end")
Slow(max_iter=500).fit(*load_iris(return_X_y=True))
open("pickling").close()
"""


def test_a_script_that_ends_with_a_fit(mantik_platform: Platform, tmp_path: Path) -> None:
    """Model, metrics and pictures are there, though they were not when the script was at its end."""
    output = run_script(SCRIPT, clean_environment(mantik_platform.environment(), tmp_path), tmp_path)
    assert "is not" not in output
    held = mantik_platform.read_back
    (run,) = held.runs("at-the-end")
    assert run.status == "FINISHED"
    assert run.metrics["training_accuracy_score"] > 0.9
    assert {"estimator.html", "training_confusion_matrix.png"} <= {*held.artifacts(run.run_id)}
    assert {model.status for model in held.logged_models(run.experiment_id)} == {"LOGGED_MODEL_READY"}
