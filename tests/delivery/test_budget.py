"""The disk budget, and what is said of losses."""

from __future__ import annotations

import errno
import logging
import time
from typing import TYPE_CHECKING

import pytest

from mantik.delivery.budget import Budget, Losses
from mantik.delivery.disk import size_of
from mantik.delivery.records import Artifact, Batch, Call, RunUpdate

if TYPE_CHECKING:
    from pathlib import Path

POINT = Batch("run-1", [["a", 1.0, 1, 1]], [], [])


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


def spool_file(spool: Path, name: str, size: int) -> Path:
    """Put a file of mantik's into a spool."""
    path = spool / "ids" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Put the clock of budget and losses into the test's hands."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_without_a_limit_there_is_always_room(tmp_path: Path) -> None:
    """No limit asks nobody, not even the disk."""
    Budget(tmp_path / "none", None).take(10**18)


def test_the_limit_is_reached_and_not_exceeded(tmp_path: Path, clock: Clock) -> None:
    """What fits exactly is given, one byte more is refused as by a full disk, and smaller things still fit."""
    spool_file(tmp_path, "file", 400)
    budget = Budget(tmp_path, 1000)
    budget.take(500)
    with pytest.raises(OSError, match="MANTIK_SPOOL_LIMIT of 1,000 bytes") as caught:
        budget.take(101)
    assert caught.value.errno == errno.ENOSPC
    budget.take(100)
    with pytest.raises(OSError, match="reached"):
        budget.take(1)


def test_processes_share_the_limit_and_room_comes_back(tmp_path: Path, clock: Clock) -> None:
    """Within seconds a budget sees what others have put there, and what was delivered and removed."""
    mine, yours = Budget(tmp_path, 1000), Budget(tmp_path, 1000)
    mine.take(10)
    yours.take(10)
    theirs = spool_file(tmp_path, "theirs", 995)
    clock.now += 11
    for budget in (mine, yours):
        with pytest.raises(OSError, match="reached"):
            budget.take(10)
    theirs.unlink()
    clock.now += 11
    mine.take(1000)
    yours.take(1000)


def test_room_that_is_given_back_is_there_at_once(tmp_path: Path, clock: Clock) -> None:
    """What was taken and is not needed any more can be taken again before the next look at the disk."""
    budget = Budget(tmp_path, 1000)
    for _ in range(20):
        budget.take(400)
        budget.take(400)
        budget.give(800)
    budget.give(10**6)
    budget.take(1000)
    with pytest.raises(OSError, match="reached"):
        budget.take(1)


def test_sizes_are_those_of_all_files(tmp_path: Path) -> None:
    """Files of all folders count, links do not count what they point to, and nothing is an empty folder."""
    assert size_of(tmp_path / "none") == 0
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"x" * 10_000)
    (tmp_path / "file").write_bytes(b"x" * 5)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b" / "file")
    assert 10_005 <= size_of(tmp_path) < 11_000


def test_losses_are_counted_by_kind_and_said_once_a_minute(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Every loss is counted; of a hundred in a minute one line is said, the next minute one more with all of them."""
    losses = Losses(tmp_path)
    full = OSError(errno.ENOSPC, "No space left on device")
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            losses.note(POINT, full)
            clock.now += 0.5
        losses.note(Batch("run-1", [], [["p", "1"]], [["t", "1"], ["u", "2"]]), full)
        losses.note(RunUpdate("run-1", "FINISHED", 1, None), full)
        losses.note(Artifact("mlflow-artifacts:/0/run-1/artifacts/a", "lost", 2_500_000), full)
        assert len(caplog.records) == 1
        clock.now += 20
        losses.note(Call("inputs", "run-1", {}), full)
    assert len(caplog.records) == 2
    first, second = (record.message for record in caplog.records)
    assert str(tmp_path) in first
    assert "(No space left on device). Training goes on; lost so far: 1 point." in first
    assert "100 points, 1 param, 2 tags, 1 artifact (2.5 MB), 1 other record, 1 status change." in second
    assert losses.counts.total == 106


def test_an_error_without_a_number_is_said_in_its_own_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A record that is too long for any journal is lost with that as the reason."""
    with caplog.at_level(logging.WARNING):
        Losses(tmp_path).note(POINT, ValueError("A record's payload is too long"))
    assert "(A record's payload is too long)" in caplog.text
