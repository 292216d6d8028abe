"""In a notebook an error is shown, and kept: nothing but the end of the cell tells that the fit is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.integrations.keras.trainings import said
from tests.integrations.trainings import ended

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.testing import Platform
    from tests.integrations.keras.trainings import KerasTrainings


def test_cells(torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path) -> None:
    """A cell that fails or is interrupted has the run's status at its end, and the next cell goes on with the run."""
    code = """
        from IPython.core.interactiveshell import InteractiveShell

        model, callback, seen = net(), MantikCallback(), []
        shell = InteractiveShell.instance(user_ns=globals())
        for action in ("fail", "send(signal.SIGINT)", "print"):
            shell.run_cell(f"fit(model, [callback, At(1, {action})], epochs=2)")
            seen.append((mlflow.MlflowClient().get_run(callback.run_id).info.status, mlflow.active_run() is None))
        say(seen=seen)
    """
    training = torch_trainings.run(code, mantik_platform.environment(), tmp_path)
    assert said(training)["seen"] == [["FAILED", True], ["KILLED", True], ["FINISHED", True]]
    ended(mantik_platform, training.run_id, "FINISHED")
