"""A run's status is the truth, although Keras calls no hook when a training fails."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from mantik.testing import wait_until
from tests.integrations.keras.trainings import run_of, said, steps
from tests.integrations.lightning.trainings import ended

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


def test_a_fit_that_is_tried_again_makes_good(
    torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path
) -> None:
    """After a fit that failed, another one in the same run makes it FINISHED, and its epochs follow on."""
    code = f"""{STATUS}
for actions in ([At(1, fail)], []):
    try:
        fit(model, [callback, *actions], epochs=3)
    except ValueError as error:
        kept = error
"""
    training = torch_trainings.run(code, mantik_platform.environment(), tmp_path)
    ended(mantik_platform, training.run_id, "FINISHED")
    assert steps(mantik_platform, training.run_id) == [0, 1, 2, 3, 4]


def test_early_stopping_is_no_failure(
    torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path
) -> None:
    """A fit that stops early is FINISHED, and says when it stopped and which epoch it went back to."""
    code = """
        stop = keras.callbacks.EarlyStopping("loss", patience=1, restore_best_weights=True)
        model = net(rate=1e3)
        fit(model, [MantikCallback(), stop], epochs=20)
        say(stopped=stop.stopped_epoch, best=stop.best_epoch)
    """
    training = torch_trainings.run(code, mantik_platform.environment(), tmp_path)
    run, facts = run_of(mantik_platform, training), said(training)
    assert run.status == "FINISHED"
    assert facts["stopped"] > facts["best"]
    assert (run.metrics["stopped_epoch"], run.metrics["restored_epoch"]) == (facts["stopped"], facts["best"])
    assert steps(mantik_platform, run.run_id) == list(range(facts["stopped"] + 1))


def test_a_block_is_one_run(torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path) -> None:
    """In a `with` block the run stays RUNNING over all that is done, and an error of the block is the run's."""
    code = f"""{STATUS}
seen = []
try:
    with callback:
        fit(model, [callback], epochs=2)
        seen.append(status(callback))
        try:
            fit(model, [callback, At(0, fail)], epochs=2)
        except ValueError:
            seen.append(status(callback))
        fit(model, [callback], epochs=1)
        model.evaluate(X, Y, verbose=0, callbacks=[callback])
        seen.append(status(callback))
        raise KeyError("outside of any fit")
except KeyError:
    seen.append(status(callback))
say(seen=seen)
"""
    training = torch_trainings.run(code, mantik_platform.environment(), tmp_path)
    assert said(training)["seen"] == ["RUNNING", "RUNNING", "RUNNING", "FAILED"]
    ended(mantik_platform, training.run_id, "FAILED")
    assert steps(mantik_platform, training.run_id) == [0, 1, 2, 3]


def test_a_fault_in_a_block_is_not_forgotten(
    torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path
) -> None:
    """A block that ends well after its last fit has failed is FAILED."""
    code = """
        with MantikCallback() as callback:
            try:
                fit(net(), [callback, At(0, fail)], epochs=2)
            except ValueError:
                pass
    """
    training = torch_trainings.run(code, mantik_platform.environment(), tmp_path)
    ended(mantik_platform, training.run_id, "FAILED")


def test_the_active_run_is_joined(torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path) -> None:
    """A fit in the user's own run is part of it, and does not end it, nor when it fails."""
    code = f"""{STATUS}
mantik.init_tracking()
with mlflow.start_run() as run:
    fit(model, [callback], epochs=1)
    try:
        fit(model, [callback, At(0, fail)], epochs=1)
    except ValueError:
        pass
    mlflow.log_param("mine", 1)
    say(same=callback.run_id == run.info.run_id, status=status(callback))
"""
    training = torch_trainings.run(code, mantik_platform.environment(), tmp_path)
    assert said(training) == {"same": True, "status": "RUNNING"}
    assert ended(mantik_platform, training.run_id, "FINISHED").params["mine"] == "1"
    assert len([run for run in mantik_platform.read_back.runs("0") if run.run_id == training.run_id]) == 1


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


def test_a_second_ctrl_c_handler_is_left_alone(
    torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path
) -> None:
    """A handler for Ctrl-C of the user's own is called and stays; a fit that it stops gracefully is FINISHED."""
    code = """
        model = net()
        def stop(number, frame):
            model.stop_training = True
        signal.signal(signal.SIGINT, stop)
        fit(model, [MantikCallback(), At(1, send(signal.SIGINT))], epochs=5)
        say(kept=signal.getsignal(signal.SIGINT) is stop)
    """
    training = torch_trainings.run(code, mantik_platform.environment(), tmp_path)
    assert said(training) == {"kept": True}
    ended(mantik_platform, training.run_id, "FINISHED")
    assert steps(mantik_platform, training.run_id) == [0, 1]


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
