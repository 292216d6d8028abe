"""A run's status is the truth, although Keras calls no hook when a training fails."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from mantik.testing import wait_until
from tests.integrations.keras.trainings import said, steps
from tests.integrations.trainings import ended

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.testing import Platform
    from tests.integrations.keras.trainings import KerasTrainings

STATUS = """
def status(callback):
    return mlflow.MlflowClient().get_run(callback.run_id).info.status

model, callback = net(), MantikCallback()
"""


def test_a_process_that_ends_with_a_fit_ends_the_run(
    torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path
) -> None:
    """An error, Ctrl-C, SIGTERM and sys.exit in a fit are FAILED, KILLED, KILLED and FAILED; nothing is swallowed."""
    ends = {
        "fail": (1, "FAILED"),
        "send(signal.SIGINT)": (-signal.SIGINT, "KILLED"),
        "send(signal.SIGTERM)": (-signal.SIGTERM, "KILLED"),
        "lambda: sys.exit(3)": (3, "FAILED"),
    }
    trainings = [
        torch_trainings.start(
            f"fit(net(), [MantikCallback(), At(1, {action})], epochs=5)",
            mantik_platform.environment(),
            tmp_path / str(at),
        )
        for at, action in enumerate(ends)
    ]
    for training, (exit_code, status) in zip(trainings, ends.values(), strict=True):
        training.end(exit_code)
        ended(mantik_platform, training.run_id, status)
        assert steps(mantik_platform, training.run_id) == [0, 1]


def test_an_error_that_is_caught_ends_the_run_there(
    torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path
) -> None:
    """A script that catches what ended its fit has the true status at once, and keeps it when it ends well itself."""
    code = """
try:
    fit(model, [callback, At(1, ACTION)], epochs=5)
except ERROR:
    pass
say(status=status(callback), active=mlflow.active_run() is not None)
model.evaluate(X, Y, verbose=0, callbacks=[callback])
say(later=status(callback))
with mlflow.start_run():
    pass
"""
    ends = {("fail", "ValueError"): "FAILED", ("send(signal.SIGINT)", "KeyboardInterrupt"): "KILLED"}
    trainings = [
        torch_trainings.start(
            STATUS + code.replace("ACTION", action).replace("ERROR", error),
            mantik_platform.environment(),
            tmp_path / error,
        )
        for action, error in ends
    ]
    for training, status in zip(trainings, ends.values(), strict=True):
        training.end()
        assert said(training) == {"status": status, "active": False, "later": status}
        ended(mantik_platform, training.run_id, status)


def test_an_error_that_is_kept_ends_the_run_at_the_end(
    torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path
) -> None:
    """A run whose fit's error somebody keeps is FAILED at the latest when the process ends."""
    code = f"""{STATUS}
try:
    fit(model, [callback, At(1, fail)], epochs=5)
except ValueError as error:
    kept = error
say(status=status(callback))
"""
    training = torch_trainings.run(code, mantik_platform.environment(), tmp_path)
    assert said(training) == {"status": "RUNNING"}
    ended(mantik_platform, training.run_id, "FAILED")


def test_a_child_ends_nothing(torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path) -> None:
    """A process that is forked in the middle of a fit and ends there leaves the run to its parent."""
    code = f"""{STATUS}
def fork():
    child = os.fork()
    if child == 0:
        sys.exit(3)
    os.waitpid(child, 0)
    mantik.flush(60)
    say(status=status(callback))
fit(model, [callback, At(1, fork)], epochs=3)
"""
    training = torch_trainings.run(code, mantik_platform.environment(), tmp_path)
    assert said(training) == {"status": "RUNNING"}
    ended(mantik_platform, training.run_id, "FINISHED")
    assert steps(mantik_platform, training.run_id) == [0, 1, 2]


def test_ctrl_c_from_outside(torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path) -> None:
    """Ctrl-C in the middle of an epoch ends the run as KILLED, with everything before."""
    code = "fit(net(), [MantikCallback(log_freq='batch'), At(2, lambda: wait('there'))], epochs=50)"
    training = torch_trainings.start(code, mantik_platform.environment(), tmp_path)
    training.reach("there")
    os.kill(training.pid, signal.SIGINT)
    wait_until(lambda: "KeyboardInterrupt" in training.output, deadline=60, what="the interrupt")
    training.end(exit_code=-signal.SIGINT)
    ended(mantik_platform, training.run_id, "KILLED")
    assert steps(mantik_platform, training.run_id)[:2] == [0, 1]
    assert steps(mantik_platform, training.run_id, "batch/loss") == list(range(15))
