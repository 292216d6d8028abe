"""The outbox at its end: closed twice, written to afterwards, and in the middle of everything."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import mlflow
import pytest

from mantik.delivery.history import waiting_records
from mantik.delivery.outbox import Outbox
from mantik.delivery.records import Batch, Call, RunUpdate
from mantik.settings import Settings
from mantik.testing import FaultProxy, Refuse, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import Platform


@pytest.fixture
def run_id(tracked: FaultProxy) -> str:
    """Return a run on the platform that training has ended."""
    with mlflow.start_run() as run:
        return str(run.info.run_id)


@pytest.fixture
def outbox(run_id: str, tracked: FaultProxy) -> Iterator[Outbox]:
    """Return an outbox of the test's own."""
    outbox = Outbox(Settings.from_environment().for_claim(), tracked.url)
    yield outbox
    outbox.close(0)


def point(step: int) -> list[object]:
    """Return a point."""
    return ["loss", 1.0, 1000 + step, step]


def test_closing_twice_closes_once(outbox: Outbox, run_id: str) -> None:
    """The second close finds nothing to do, tells the same, and waits for nobody."""
    outbox.record_batch(run_id, [point(0)], (), ())
    assert outbox.close(30)
    assert not outbox.outgoing.path.exists()
    assert outbox.close(600)
    assert not outbox.outgoing.path.exists()


def test_closing_again_without_a_platform_does_not_wait(outbox: Outbox, run_id: str, tracked: FaultProxy) -> None:
    """What a first close could not deliver stays on disk, and a second one knows that nobody is at work on it."""
    tracked.fault(Refuse())
    outbox.record_batch(run_id, [point(0)], (), ())
    assert not outbox.close(0)
    names = ("mantik-shipper", "mantik-uploader")
    own = [thread for thread in threading.enumerate() if thread.name in names]
    assert not outbox.close(600)
    assert outbox.outgoing.points.waiting() > 0
    assert len([thread for thread in threading.enumerate() if thread.name in names]) <= len(own)


def test_what_is_written_after_the_end_is_counted_as_lost(outbox: Outbox, run_id: str, tmp_path: Path) -> None:
    """Every way to write after a close raises nothing, is counted, and leaves no folder that belongs to nobody."""
    outbox.record_batch(run_id, [point(0)], (), ())
    assert outbox.close(30)
    (tmp_path / "file").write_bytes(b"12345")
    outbox.record_batch(run_id, [point(1)], (["p", "1"],), (["t", "1"],))
    outbox.record_points(run_id, [point(2)], ['["loss",1.0,1,2]'])
    outbox.record_update(RunUpdate(run_id, "FINISHED", 1, None))
    outbox.record_call(Call("inputs", run_id, {}))
    outbox.record_call(Call("finalize", "m-1", {}), after_uploads=True)
    outbox.record_artifact(f"mlflow-artifacts:/0/{run_id}/artifacts/file", tmp_path / "file")
    outbox.record_removal(f"mlflow-artifacts:/0/{run_id}/artifacts/file")
    outbox.record_spans("0", "")
    counts = outbox.losses.counts
    assert (counts.metrics, counts.params, counts.tags, counts.changes, counts.artifacts) == (2, 1, 1, 1, 1)
    assert counts.others == 4
    assert not outbox.outgoing.path.exists()


def test_the_uploads_lane_does_not_hold_up_the_points(
    outbox: Outbox, run_id: str, tracked: FaultProxy, tmp_path: Path, mantik_platform: Platform
) -> None:
    """While no artifact gets through, points arrive; afterwards the artifacts do, and nothing is left."""
    (tmp_path / "file").write_bytes(b"12345")
    with tracked.fault(Refuse(), "/api/2.0/mlflow-artifacts"):
        for number in range(3):
            outbox.record_artifact(f"mlflow-artifacts:/0/{run_id}/artifacts/f{number}", tmp_path / "file")
            outbox.record_batch(run_id, [point(number)], (), ())
        held = mantik_platform.read_back
        wait_until(lambda: len(held.metric_history(run_id, "loss")) == 3, deadline=30, what="the points arrived")
        assert outbox.has_work
        assert held.artifacts(run_id) == []
    assert outbox.flush(60)
    assert sorted(held.artifacts(run_id)) == ["f0", "f1", "f2"]
    assert list((outbox.outgoing.path / "staged").iterdir()) == []
    assert outbox.staged.below(f"mlflow-artifacts:/0/{run_id}/artifacts") == []


def test_threads_that_write_while_it_closes_lose_nothing_in_silence(
    outbox: Outbox, run_id: str, mantik_platform: Platform
) -> None:
    """Each record of threads that go on during the close is on the platform, on disk, or counted as lost."""
    go_on = True
    written = [0] * 4

    def write(number: int) -> None:
        while go_on:
            step = number * 1_000_000 + written[number]
            outbox.record_batch(run_id, [point(step)], (), ())
            written[number] += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: min(written) > 50, deadline=30, what="records of every thread")
    outbox.close(0.2)
    wait_until(lambda: outbox.losses.counts.total > 0, deadline=30, what="a record after the end")
    go_on = False
    for thread in threads:
        thread.join(30)
    recorded = outbox.runs[run_id].recorded.metrics
    assert recorded + outbox.losses.counts.metrics == sum(written)
    # The disk first: what goes to the platform in between is in both.
    on_disk = [record for _, record in waiting_records(outbox.outgoing.points, tail="closed")]
    steps = {item[3] for record in on_disk if isinstance(record, Batch) for item in record.metrics}
    steps |= {point.step for point in mantik_platform.read_back.metric_history(run_id, "loss")}
    assert len(steps) == recorded


def test_a_signal_handler_may_record_whatever_it_interrupts(
    outbox: Outbox, run_id: str, mantik_platform: Platform
) -> None:
    """Records of a handler that interrupts calls at any moment arrive as the others do, and nothing deadlocks."""
    handled = 0

    def handler(*_: object) -> None:
        nonlocal handled
        handled += 1
        outbox.record_batch(run_id, [["handled", 1.0, 1, handled]], (), ())
        outbox.record_update(RunUpdate(run_id, "RUNNING", None, None))

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.0031)
    try:
        for step in range(3000):
            outbox.record_batch(run_id, [point(step)], (), ())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert handled > 5
    assert outbox.flush(60)
    held = mantik_platform.read_back
    assert len(held.metric_history(run_id, "loss")) == 3000
    assert len(held.metric_history(run_id, "handled")) == handled
    assert outbox.overlay.writes(run_id) is None
