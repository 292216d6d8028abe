"""The metrics of batches are gathered for a moment: nothing but a kill loses any, and that only those of the moment."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import numpy as np

from mantik import MantikCallback
from mantik.integrations.keras.batches import Batches
from mantik.testing import wait_until
from tests.integrations.keras.networks import fit
from tests.integrations.keras.trainings import said, steps
from tests.integrations.trainings import ended

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.integrations.keras.batches import Batch
    from mantik.testing import Platform
    from tests.integrations.arrivals import Arrived
    from tests.integrations.keras.trainings import KerasTrainings

AT_BATCH = """
class AtBatch(keras.callbacks.Callback):
    '''Does something at the end of the fourth batch.'''

    def __init__(self, action):
        super().__init__()
        self.action, self.seen = action, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == 4:
            self.action()

"""


def test_what_was_added_is_recorded_a_moment_later() -> None:
    """Batches are recorded in their order though nothing more happens, and all of them when the training says so."""
    written: list[Batch] = []
    batches = Batches(written.extend, gathers=True)
    batches.begin()
    metrics = {"loss": 1.0}
    for batch in (0, 1):
        batches.add(batch, metrics)
        metrics["loss"] += 1
    wait_until(lambda: len(written) == 2, deadline=30, what="the first batches")
    for batch in (3, 2):
        # The threads of Keras are not always in order.
        batches.add(batch, metrics)
        metrics["loss"] += 1
    batches.end()
    assert [(batch, logs["loss"]) for batch, _, logs in written] == [(0, 1.0), (1, 2.0), (2, 4.0), (3, 3.0)]
    times = [timestamp for _, timestamp, _ in written]
    assert times == sorted(times)


def test_a_training_that_stands_still(
    torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path
) -> None:
    """Where a training hangs in the middle of an epoch, its last batches are on the platform all the same."""
    code = AT_BATCH + "fit(net(), [MantikCallback(log_freq='batch'), AtBatch(lambda: wait('there'))], epochs=3)"
    training = torch_trainings.start(code, mantik_platform.environment(), tmp_path)
    training.reach("there")
    wait_until(
        lambda: steps(mantik_platform, training.run_id, "batch/loss") == [0, 1, 2, 3], deadline=60, what="four batches"
    )
    os.kill(training.pid, signal.SIGKILL)
    training.end(exit_code=-9)


def test_an_end_in_the_middle_of_an_epoch(
    torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path
) -> None:
    """An error, an exit, Ctrl-C and SIGTERM in the middle of an epoch lose no batch."""
    ends = {
        "fail": (1, "FAILED"),
        "lambda: sys.exit(3)": (3, "FAILED"),
        "send(signal.SIGINT)": (-signal.SIGINT, "KILLED"),
        "send(signal.SIGTERM)": (-signal.SIGTERM, "KILLED"),
    }
    trainings = [
        torch_trainings.start(
            AT_BATCH + f"fit(net(), [MantikCallback(log_freq='batch'), AtBatch({action})], epochs=3)",
            mantik_platform.environment(),
            tmp_path / str(at),
        )
        for at, action in enumerate(ends)
    ]
    for training, (exit_code, status) in zip(trainings, ends.values(), strict=True):
        training.end(exit_code)
        ended(mantik_platform, training.run_id, status)
        assert steps(mantik_platform, training.run_id, "batch/loss") == [0, 1, 2, 3]


def test_sigterm_without_a_platform(torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path) -> None:
    """Where nothing is delivered, SIGTERM ends a process there and then, and still no batch is lost."""
    settings = {**mantik_platform.environment(), "MANTIK_MODE": "offline"}
    code = AT_BATCH + "fit(net(), [MantikCallback('cut-off', log_freq='batch'), AtBatch(send(signal.SIGTERM))])"
    torch_trainings.run(code, settings, tmp_path, exit_code=-signal.SIGTERM)
    torch_trainings.sync(mantik_platform.environment(), tmp_path)
    (run,) = mantik_platform.read_back.runs("cut-off")
    assert run.status == "KILLED"
    assert steps(mantik_platform, run.run_id, "batch/loss") == [0, 1, 2, 3]


def test_strict_tracking_waits_for_nothing(
    torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path
) -> None:
    """With strict tracking a batch is on disk before Keras goes on, so not even a kill loses one."""
    code = AT_BATCH + "fit(net(), [MantikCallback(log_freq='batch', strict=True), AtBatch(send(signal.SIGKILL))])"
    training = torch_trainings.run(code, mantik_platform.environment(), tmp_path, exit_code=-9)
    torch_trainings.sync(mantik_platform.environment(), tmp_path)
    assert steps(mantik_platform, training.run_id, "batch/loss") == [0, 1, 2, 3]


def test_handlers_of_the_users_own(torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path) -> None:
    """A handler of SIGTERM that was set in an earlier fit, and passes signals on, is called once and decides."""
    code = """
        before = {}

        def handler(number, frame):
            print("MINE", flush=True)
            if callable(before["handler"]):
                before["handler"](number, frame)

        def install():
            before["handler"] = signal.signal(signal.SIGTERM, handler)

        callback, model = MantikCallback(log_freq="batch"), net()
        fit(model, [callback, At(0, install)], epochs=1)
        fit(model, [callback, At(0, send(signal.SIGTERM))], epochs=2)
        say(mine=signal.getsignal(signal.SIGTERM) is handler)
    """
    training = torch_trainings.run(code, mantik_platform.environment(), tmp_path)
    assert training.output.count("MINE") == 1
    assert said(training) == {"mine": True}
    ended(mantik_platform, training.run_id, "FINISHED")
    assert steps(mantik_platform, training.run_id, "batch/loss") == list(range(15))


def test_a_signal_that_somebody_survives(
    torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path
) -> None:
    """A handler that was there before the fit is called, stays in place, and the next signal comes to it as well."""
    code = """
        seen = []
        signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
        twice = [At(epoch, send(signal.SIGTERM)) for epoch in range(2)]
        fit(net(), [MantikCallback(log_freq="batch"), *twice], epochs=3)
        say(seen=seen)
    """
    training = torch_trainings.run(code, mantik_platform.environment(), tmp_path)
    assert said(training)["seen"] == [signal.SIGTERM] * 2
    assert steps(mantik_platform, training.run_id, "batch/loss") == list(range(15))


def test_values_that_change_later(arrived: Arrived) -> None:
    """Hooks that are called by hand may get arrays that change: what they were at the batch is recorded."""
    callback, loss = MantikCallback(log_freq="batch"), np.zeros(())
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    for batch in range(3):
        callback.on_train_batch_begin(batch)
        callback.on_train_batch_end(batch, {"loss": loss})
        loss += 1
    callback.on_epoch_end(0)
    callback.on_train_end()
    assert arrived.points(callback.run_id, "batch/loss") == [(0, 0.0), (1, 1.0), (2, 2.0)]


def test_times_of_batches(arrived: Arrived) -> None:
    """A point has the time of its batch, and not that at which it was recorded."""
    callback = MantikCallback(log_freq="batch")
    fit([callback], batch_size=1)
    assert arrived.run(callback.run_id).status == "FINISHED"
    found = arrived.platform.read_back.metric_history(str(callback.run_id), "batch/loss")
    epoch = arrived.platform.read_back.metric_history(str(callback.run_id), "loss")[0]
    assert len({point.timestamp for point in found}) > 2
    assert all(point.timestamp <= epoch.timestamp for point in found if point.step < 20)
