"""What is imported, and trainings that nobody wants to be tracked, or not on a platform."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integrations.keras.trainings import said
from tests.scripts import clean_environment, run_script

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.testing import Platform
    from tests.integrations.keras.trainings import KerasTrainings

FIT = """
callback = MantikCallback(log_freq="batch", log_model="best", save_freq="epoch", log_evaluation=True)
fit(net(), [callback], epochs=2, validation_data=(X, Y))
say(run=callback.run_id, link=callback.link)
"""


@pytest.mark.thorough  # a process of its own for what test_backends.py and test_installation.py see
def test_imports(tmp_path: Path) -> None:
    """Without Keras it is said what to install; with it, no other backend than Keras's own is imported."""
    code = """
        import sys
        sys.modules["keras"] = None
        import mantik
        try:
            mantik.MantikCallback
        except ModuleNotFoundError as error:
            print(type(error).__name__, error)
        del sys.modules["keras"]
        mantik.MantikCallback(log_freq="batch", log_model=True)
        print(sorted({"jax", "torch", "tensorflow"} & set(sys.modules)))
    """
    output = run_script(code, {**clean_environment({}, tmp_path), "KERAS_BACKEND": "jax"}, tmp_path)
    missing, imported = output.splitlines()[-2:]
    assert missing == (
        "MissingExtraError MantikCallback needs the package 'keras', which is not installed. Install it with: pip "
        "install 'mantik[keras]'"
    )
    assert imported == "['jax']"


def test_disabled(torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path) -> None:
    """Where tracking is disabled the same script trains, says nothing and sends nothing."""
    before = [run.run_id for run in mantik_platform.read_back.runs("0")]
    training = torch_trainings.run(FIT, {**mantik_platform.environment(), "MANTIK_MODE": "disabled"}, tmp_path)
    assert "mantik: " not in training.output
    assert said(training)["link"] == ""
    assert [run.run_id for run in mantik_platform.read_back.runs("0")] == before


def test_a_store_of_ones_own(torch_trainings: KerasTrainings, tmp_path: Path) -> None:
    """Where MLflow tracks into a database of one's own, the same script tracks into that."""
    code = FIT + 'say(loss=mlflow.get_run(callback.run_id).data.metrics["loss"] > 0)\n'
    training = torch_trainings.run(code, {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/runs.db"}, tmp_path)
    facts = said(training)
    assert facts["loss"]
    assert "mantik: run " in training.output
    assert "without the platform" not in training.output
