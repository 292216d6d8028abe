"""What is imported, and what is said where something is not installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integrations.keras.trainings import BACKENDS
from tests.scripts import clean_environment, run_script

if TYPE_CHECKING:
    from pathlib import Path

ABSENT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import mantik
from mantik.exceptions import MissingExtraError

try:
    mantik.MantikCallback
except ModuleNotFoundError as error:
    print("raised", isinstance(error, MissingExtraError), error, "|", repr(error.__cause__))
"""


def run(code: str, folder: Path, backend: str | None) -> str:
    """Run a script with Keras's choice of its backend, or with one."""
    settings = {} if backend is None else {"KERAS_BACKEND": backend}
    environment = clean_environment(settings, folder)
    if backend is None:
        environment.pop("KERAS_BACKEND", None)
    return run_script(code, environment, folder)


@pytest.mark.thorough  # what trainings import is seen in test_backends.py
@pytest.mark.parametrize("backend", ["numpy", *BACKENDS])
def test_no_backend_is_imported(tmp_path: Path, backend: str) -> None:
    """Of torch, JAX and TensorFlow the callback imports none that Keras itself has not imported."""
    code = """
    import keras, sys
    before = set(sys.modules)
    from mantik.integrations.keras import MantikCallback, MantikEvaluation
    MantikCallback(log_freq="batch", log_model="best", log_evaluation=True, save_freq="epoch"), MantikEvaluation()
    print(sorted({"torch", "jax", "tensorflow"} & (set(sys.modules) - before)))
    """
    assert run(code, tmp_path, backend).splitlines()[-1] == "[]"


def test_without_keras(tmp_path: Path) -> None:
    """Without Keras mantik works, and the error at the use of the callback has the command that installs it."""
    output = run(ABSENT.format(package="keras"), tmp_path, "torch")
    assert "raised True MantikCallback needs the package 'keras', which is not installed." in output
    assert "pip install 'mantik[keras]' | ModuleNotFoundError" in output


def test_without_a_backend(tmp_path: Path) -> None:
    """Where Keras is there and its backend is not, Keras is not called absent: the error is its own."""
    output = run(ABSENT.format(package="tensorflow"), tmp_path, None)
    assert "raised False No module named 'tensorflow'" in output
