"""The thread around a shipper: when it wakes, waits, hurries and ends."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import pytest

from mantik.delivery.creation import WaitingError
from mantik.delivery.journal import JournalWriter, Position, read
from mantik.delivery.rest import UnavailableError
from mantik.delivery.worker import Worker
from mantik.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mantik.delivery.shipper import Shipper


class Belt:
    """A shipper that takes records from a journal and keeps what it took; it fails as often as it is told to.

    Attributes:
        taken: Payloads that have arrived.
        attempts: When it was asked to ship.
        failure: What happens to every attempt; None if it succeeds.
        gate: Cleared, an attempt does not end.
        last: What stands behind this position cannot be taken yet; None takes everything.
    """

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self.position = Position(0, 0)
        self.taken: list[bytes] = []
        self.attempts: list[float] = []
        self.failure: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.last: Position | None = None

    def ship(self) -> bool:
        """Take everything that waits."""
        self.attempts.append(time.monotonic())
        assert self.gate.wait(30)
        if self.failure is not None:
            raise self.failure
        before = self.position
        for item in read(self.journal, before, tail="open"):
            if self.last is not None and item.end > self.last:
                if self.position == before:
                    raise UnavailableError("not yet")
                break
            self.taken.append(getattr(item, "payload", b""))
            self.position = item.end
        return self.position != before


class Rig:
    """A worker with all that it needs, and what it did."""

    def __init__(self, folder: Path, *, ships: bool = True) -> None:
        self.writer = JournalWriter(folder)
        self.belt = Belt(folder)
        self.delivered: list[Position] = []
        self.safe = 0
        self.beats = 0
        make = cast("Callable[[], Shipper]", lambda: self.belt)
        self.worker = Worker(
            "worker-under-test",
            self.writer,
            make if ships else None,
            delivered=self.delivered.append,
            keep_safe=self._keep_safe,
            beat=self._show_life,
        )

    def _keep_safe(self) -> None:
        self.safe += 1

    def _show_life(self) -> None:
        self.beats += 1

    def write(self, payload: bytes = b"x") -> Position:
        """Record something."""
        end = self.writer.append(payload)
        self.worker.wake(end)
        return end

    @property
    def threads(self) -> list[threading.Thread]:
        """The worker's threads that live."""
        return [thread for thread in threading.enumerate() if thread.name == "worker-under-test"]


@contextmanager
def rig_in(folder: Path, *, ships: bool = True) -> Iterator[Rig]:
    """Set a worker up, and end its thread."""
    rig = Rig(folder, ships=ships)
    try:
        yield rig
    finally:
        rig.belt.gate.set()
        rig.worker.stop()
        wait_until(lambda: not rig.threads, deadline=30, what="the thread ended")
        rig.writer.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """Return a worker that ships."""
    with rig_in(tmp_path / "journal") as rig:
        yield rig


def test_nothing_is_started_before_there_is_something(rig: Rig) -> None:
    """Without a record or a run there is no thread, no work, no problem, and nothing to wait for."""
    assert not rig.threads
    assert not rig.worker.has_work
    assert rig.worker.problem is None
    assert rig.worker.flush(0)


def test_a_record_is_shipped_by_itself(rig: Rig) -> None:
    """One wake is enough, and what was delivered is told with its position."""
    end = rig.write(b"one")
    wait_until(lambda: rig.belt.taken == [b"one"], deadline=30, what="delivery")
    wait_until(lambda: not rig.worker.has_work, deadline=30, what="the position")
    assert rig.delivered[-1] == end
    assert len(rig.threads) == 1


def test_many_records_are_few_attempts(rig: Rig) -> None:
    """Records that come in a stretch are gathered, and none of them is forgotten."""
    for number in range(2000):
        rig.write(b"%d" % number)
    assert rig.worker.flush(30)
    assert rig.belt.taken == [b"%d" % number for number in range(2000)]
    assert len(rig.belt.attempts) < 50


def test_a_flush_hurries_and_waits_for_what_was_written_before(rig: Rig) -> None:
    """It returns with everything delivered, again and again, and by many threads at once."""
    for number in range(50):
        rig.write(b"%d" % number)
        assert rig.worker.flush(30)
        assert len(rig.belt.taken) == number + 1
    threads = [threading.Thread(target=lambda: (rig.write(), rig.worker.flush(30))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert rig.worker.flush(30)
    assert len(rig.belt.taken) == 58


def test_a_flush_ends_with_its_time(rig: Rig) -> None:
    """What is not delivered in time waits on, and the caller goes on."""
    rig.belt.gate.clear()
    rig.write()
    assert not rig.worker.flush(0.2)
    assert not rig.worker.flush(0)
    assert rig.worker.has_work
    rig.belt.gate.set()
    assert rig.worker.flush(30)


def test_a_flush_is_an_attempt_at_once_though_a_pause_is_on(rig: Rig) -> None:
    """Whoever waits for delivery does not wait for the end of a long pause."""
    rig.belt.failure = UnavailableError("HTTP 503", 1000.0)
    rig.write()
    wait_until(lambda: rig.worker.problem == "HTTP 503", deadline=30, what="the problem was noticed")
    rig.belt.failure = None
    # Without the nudge it would be 15 s at least.
    assert rig.worker.flush(10)
    assert rig.worker.problem is None


def test_a_flush_can_give_up_on_a_server_that_is_down(rig: Rig) -> None:
    """Known trouble with the server ends such a flush before its time; without that word it waits on."""
    rig.belt.failure = UnavailableError("HTTP 503")
    rig.write()
    wait_until(lambda: rig.worker.problem is not None, deadline=30, what="the problem was noticed")
    started = time.monotonic()
    assert not rig.worker.flush(60, give_up_when_down=True)
    assert time.monotonic() - started < 30
    rig.belt.failure = None
    assert rig.worker.flush(30)


def test_waiting_for_something_else_is_no_server_that_is_down(rig: Rig) -> None:
    """Where one thing has to be delivered before another, a flush does not give up, nor do pauses grow."""
    rig.belt.failure = WaitingError("the run is not there yet")
    rig.write()
    wait_until(lambda: len(rig.belt.attempts) >= 2, deadline=30, what="attempts")
    assert rig.worker.problem == "the run is not there yet"
    timer = threading.Timer(0.3, lambda: setattr(rig.belt, "failure", None))
    timer.start()
    assert rig.worker.flush(30, give_up_when_down=True)
    timer.join()


def test_an_outage_is_said_once_and_ends_by_itself(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """However many attempts fail in a minute, one line says so; when the server is back everything arrives."""
    rig.belt.failure = UnavailableError("HTTP 503")
    with caplog.at_level(logging.WARNING):
        rig.write(b"one")
        wait_until(lambda: len(rig.belt.attempts) >= 3, deadline=30, what="three attempts")
        rig.write(b"two")
    assert [record.message.count("(HTTP 503). Training goes on") for record in caplog.records] == [1]
    rig.belt.failure = None
    wait_until(lambda: rig.belt.taken == [b"one", b"two"], deadline=30, what="delivery")
    wait_until(lambda: rig.worker.problem is None, deadline=30, what="the problem was forgotten")


@pytest.mark.parametrize(
    ("error", "words"),
    [(OSError(5, "Input/output error"), "Input/output error"), (KeyError("run"), "KeyError('run')")],
)
def test_no_error_ends_the_thread(rig: Rig, error: Exception, words: str) -> None:
    """Whatever goes wrong in the thread is shown as the problem, and delivery goes on when it is over."""
    rig.belt.failure = error
    rig.write()
    wait_until(lambda: words in (rig.worker.problem or ""), deadline=30, what="the problem was shown")
    assert len(rig.threads) == 1
    rig.belt.failure = None
    assert rig.worker.flush(30)


def test_an_idle_worker_has_no_problem_and_shows_that_it_lives(rig: Rig) -> None:
    """Started for a run that logs nothing, it beats, forces what there is to the disk, and ships nothing."""
    rig.worker.start()
    rig.worker.start()
    wait_until(lambda: rig.beats >= 1 and rig.safe >= 2, deadline=30, what="signs of life")
    assert rig.worker.problem is None
    assert rig.belt.attempts == []
    assert len(rig.threads) == 1
    rig.write()
    assert rig.worker.flush(30)


def test_a_worker_in_offline_mode_ships_nothing(tmp_path: Path) -> None:
    """It keeps the journal safe and shows that it lives; a flush says at once that nothing is delivered."""
    with rig_in(tmp_path / "journal", ships=False) as rig:
        rig.write()
        started = time.monotonic()
        assert not rig.worker.flush(60)
        assert time.monotonic() - started < 30
        wait_until(lambda: rig.beats >= 1 and rig.safe >= 2, deadline=30, what="signs of life")
        assert rig.belt.attempts == []
        assert rig.delivered == []
        assert rig.worker.has_work
        assert rig.worker.problem is None


def test_stopping_ends_the_thread_and_every_flush(rig: Rig) -> None:
    """After a stop the thread is gone, whatever pause it was in, and nobody waits for it any more."""
    rig.belt.failure = UnavailableError("HTTP 503", 1000.0)
    rig.write()
    wait_until(lambda: rig.worker.problem is not None, deadline=30, what="the problem was noticed")
    answers: list[bool] = []
    waiting = threading.Thread(target=lambda: answers.append(rig.worker.flush(600)))
    waiting.start()
    rig.worker.stop()
    wait_until(lambda: not rig.threads, deadline=20, what="the thread ended")
    waiting.join(20)
    assert answers == [False]
    assert not rig.worker.flush(600)
    rig.write()
    assert not rig.worker.flush(600)
    assert not rig.threads


def test_an_older_position_does_not_hide_a_newer_record(rig: Rig) -> None:
    """A call that a signal handler interrupted between append and wake tells its own position last."""
    rig.belt.gate.clear()
    first = rig.writer.append(b"interrupted")
    second = rig.writer.append(b"of the handler")
    rig.worker.wake(second)
    rig.worker.wake(first)
    rig.belt.last = first
    rig.belt.gate.set()
    wait_until(lambda: first in rig.delivered, deadline=30, what="the first record")
    assert not rig.worker.flush(0.1)
    assert rig.worker.has_work
    rig.belt.last = None
    assert rig.worker.flush(30)
    assert rig.delivered[-1] == second


NO_THREAD = """
import sys, threading
from pathlib import Path
from mantik.delivery.journal import JournalWriter
from mantik.delivery.worker import Worker

writer = JournalWriter(Path(sys.argv[1]))
worker = Worker("w", writer, lambda: None, delivered=print, keep_safe=print, beat=print)
# More memory than there is for the thread's stack: it cannot be started.
threading.stack_size(1 << 46)
worker.wake(writer.append(b"one"))
print(worker.flush(600), worker.has_work)
"""


def test_a_thread_that_cannot_be_started_harms_nobody(tmp_path: Path) -> None:
    """Where the system gives no thread the record stays on disk, the call returns, and a flush does not wait."""
    command = [sys.executable, "-c", NO_THREAD, str(tmp_path / "journal")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (answer.stdout, answer.returncode) == ("False True\n", 0), answer.stderr
    assert [getattr(item, "payload", None) for item in read(tmp_path / "journal", tail="closed")] == [b"one"]


def test_a_signal_handler_may_wake_and_flush_whatever_it_interrupts(rig: Rig) -> None:
    """Signals that come in the middle of wakes and flushes deadlock nothing, and no record is forgotten."""
    handled = 0

    def handler(*_: object) -> None:
        nonlocal handled
        handled += 1
        rig.write(b"handler")
        rig.worker.flush(0.01)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0017)
    try:
        for number in range(3000):
            rig.write(b"%d" % number)
            if number % 100 == 0:
                rig.worker.flush(0.02)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert handled > 10
    assert rig.worker.flush(30)
    assert rig.belt.taken.count(b"handler") == handled
    assert [payload for payload in rig.belt.taken if payload != b"handler"] == [b"%d" % n for n in range(3000)]


def test_a_forked_child_has_no_thread_and_the_parent_goes_on(rig: Rig) -> None:
    """The child of a process with a worker ends without it, and the parent's records arrive."""
    rig.write(b"before")
    child = os.fork()
    if child == 0:
        os._exit(0 if not [t for t in rig.threads if t.is_alive()] else 1)
    assert os.waitpid(child, 0)[1] == 0
    rig.write(b"after")
    assert rig.worker.flush(30)
    assert rig.belt.taken == [b"before", b"after"]
