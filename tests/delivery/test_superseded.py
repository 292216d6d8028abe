"""Copies for which something newer waits: room is made, and nothing is given up that could still be needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mantik.delivery.budget import Budget
from mantik.delivery.ledger import Counts
from mantik.delivery.records import Artifact
from mantik.delivery.segment import Position
from mantik.delivery.staged import WaitingFile
from mantik.delivery.staging import Staging
from mantik.delivery.superseded import Superseded

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = b"weights of an epoch"
URI = "mlflow-artifacts:/0/run-1/artifacts/last.ckpt"


class Folder:
    """The copies of a folder, and what is recorded of them."""

    def __init__(self, path: Path) -> None:
        self._source = path / "last.ckpt"
        self._source.write_bytes(CONTENT)
        self._records = 0
        self.staging = Staging(path / "staged")
        # Room for three.
        self.budget = Budget(path, 3 * len(CONTENT))
        self.superseded = Superseded(self.staging, self.budget)

    def log(self) -> WaitingFile:
        """Stage the file once more, and return it as it waits."""
        self.budget.take(len(CONTENT))
        self._records += 1
        return WaitingFile(Artifact(URI, *self.staging.take(self._source)), Position(1, 100 * self._records))

    def copies(self) -> list[str]:
        """Return the names of the copies that are on disk."""
        names = sorted(path.name for path in self.staging.path("").iterdir())
        return [name for name in names if not name.endswith(".gone")]

    def keep_safe(self) -> None:
        """Force all to the disk, and make room."""
        held = self.superseded.held()
        self.staging.sync()
        self.superseded.release(held)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Return a folder without copies."""
    return Folder(tmp_path)


def names(*files: WaitingFile) -> list[str]:
    """Return the names of copies."""
    return [file.artifact.staged for file in files]


def test_a_copy_that_no_crash_would_leave_is_deleted_at_once(folder: Folder) -> None:
    """Of many in the same second the newest one is left."""
    latest = folder.log()
    for _ in range(10):
        older, latest = latest, folder.log()
        folder.superseded.replace(older, latest.artifact.staged)
        assert folder.copies() == names(latest)


def test_a_copy_that_is_safe_is_kept_until_a_newer_one_is(folder: Folder) -> None:
    """However many come in between, the node may die at any moment and one of them is there."""
    safe = folder.log()
    folder.keep_safe()
    latest = safe
    for _ in range(5):
        older, latest = latest, folder.log()
        folder.superseded.replace(older, latest.artifact.staged)
        assert folder.copies() == names(safe, latest)
    folder.keep_safe()
    assert folder.copies() == names(latest)


def test_a_copy_is_given_up_for_one_that_is_safe_though_not_the_newest(folder: Folder) -> None:
    """What comes while the disk is at work waits for the next time, and holds up nothing."""
    first = folder.log()
    folder.keep_safe()
    second = folder.log()
    folder.superseded.replace(first, second.artifact.staged)
    held = folder.superseded.held()
    folder.staging.sync()
    third = folder.log()
    folder.superseded.replace(second, third.artifact.staged)
    assert folder.copies() == names(first, second, third)
    folder.superseded.release(held)
    assert folder.copies() == names(second, third)
    folder.keep_safe()
    assert folder.copies() == names(third)


def test_a_copy_is_not_given_up_for_one_that_was_given_up_meanwhile(folder: Folder) -> None:
    """Where the newer one was deleted while the disk was at work, the one after it has to be safe first."""
    first = folder.log()
    folder.keep_safe()
    second = folder.log()
    folder.superseded.replace(first, second.artifact.staged)
    held = folder.superseded.held()
    third = folder.log()
    folder.superseded.replace(second, third.artifact.staged)
    folder.superseded.release(held)
    assert folder.copies() == names(first, third)
    folder.keep_safe()
    assert folder.copies() == names(third)


def test_what_is_removed_is_deleted_with_all_that_was_held_for_it(folder: Folder) -> None:
    """Nobody wants any of it, safe or not."""
    first = folder.log()
    folder.keep_safe()
    second = folder.log()
    folder.superseded.replace(first, second.artifact.staged)
    folder.superseded.remove([second])
    assert folder.copies() == []
    assert folder.superseded.held() == {}


def test_what_cannot_be_marked_is_kept_and_tried_again(folder: Folder) -> None:
    """On a disk that is full to the last the copy stays, to be uploaded for nothing, until there is room for a mark."""
    first, second = folder.log(), folder.log()
    (mark,) = (folder.staging.path(f"{name}.gone") for name in names(first))
    mark.symlink_to("/nowhere/at/all")
    folder.superseded.replace(first, second.artifact.staged)
    assert folder.copies() == names(first, second)
    assert folder.superseded.counts(None) == {}
    mark.unlink()
    folder.keep_safe()
    assert folder.copies() == names(second)


def test_counts_are_of_what_was_not_passed_over_yet(folder: Folder) -> None:
    """A copy that was uploaded before anybody could delete it is none of them."""
    first, second, third = folder.log(), folder.log(), folder.log()
    folder.superseded.replace(first, second.artifact.staged)
    folder.superseded.replace(second, third.artifact.staged)
    folder.staging.drop(third.artifact.staged)
    folder.superseded.remove([third])
    one = Counts(artifacts=1, size=len(CONTENT))
    assert folder.superseded.counts(None) == {"run-1": Counts(artifacts=2, size=2 * len(CONTENT))}
    assert folder.superseded.counts(first.position) == {"run-1": one}
    assert folder.superseded.counts(second.position) == {}
    folder.superseded.forget(first.position)
    assert folder.superseded.counts(None) == {"run-1": one}
