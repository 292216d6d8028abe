"""Files that training logs again, or removes, while the platform is away: the disk holds what is wanted and no more."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import mlflow
import pytest

from mantik.delivery.contents import waiting_in
from mantik.delivery.export import export
from mantik.delivery.outbox import Outbox
from mantik.delivery.receipt import receipt_of
from mantik.settings import Settings
from mantik.testing import Delay, FaultProxy, Refuse, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import Platform

FILES = re.compile("/api/2.0/mlflow-artifacts/artifacts")
SIZE = 100_000


class Training:
    """What a training logs to a run, and what of it is on disk."""

    def __init__(self, outbox: Outbox, run_id: str, folder: Path) -> None:
        self.outbox = outbox
        self.run_id = run_id
        self.root = f"mlflow-artifacts:/0/{run_id}/artifacts"
        self._source = folder / "source"

    def log(self, path: str, epoch: int) -> bytes:
        """Log a checkpoint, and return its content."""
        content = b"%06d" % epoch * (SIZE // 6)
        self._source.write_bytes(content)
        self.outbox.record_artifact(f"{self.root}/{path}", self._source)
        return content

    def remove(self, path: str) -> None:
        """Remove a checkpoint."""
        self.outbox.record_removal(f"{self.root}/{path}")

    def copies(self) -> int:
        """Return how many copies are on disk."""
        return sum(1 for path in self.outbox.outgoing.staging.path("").iterdir() if path.stat().st_size)

    def waiting(self) -> tuple[int, int, int]:
        """Return how many files, bytes of files and other records wait, as the receipt says."""
        (run,) = receipt_of(self.outbox).runs
        return run.waiting.artifacts, run.waiting.size, run.waiting.others


@pytest.fixture
def training(tracked: FaultProxy, tmp_path: Path) -> Iterator[Training]:
    """Return a training with an outbox of its own, which has room for four copies."""
    with mlflow.start_run() as run:
        pass
    settings = replace(Settings.from_environment().for_claim(), spool_limit=4 * SIZE)
    outbox = Outbox(settings, tracked.url)
    outbox.introduce(run.info.run_id, "first", "0")
    yield Training(outbox, run.info.run_id, tmp_path)
    outbox.close(0)


def test_the_newest_of_many_copies_waits_and_arrives(
    training: Training, tracked: FaultProxy, mantik_platform: Platform
) -> None:
    """In an outage one copy of a file that is logged again and again is left on disk, and its content arrives."""
    with tracked.fault(Refuse(), FILES):
        for epoch in range(50):
            newest = training.log("last.ckpt", epoch)
            assert training.copies() <= 2
        wait_until(lambda: training.copies() == 1, deadline=30, what="the newest copy is safe")
        assert training.outbox.losses.counts.total == 0
        assert training.waiting() == (1, len(newest), 0)
        (counts,) = waiting_in(training.outbox.outgoing, live=True).by_entity.values()
        assert (counts.artifacts, counts.size) == (1, len(newest))
    assert training.outbox.flush(60)
    assert mantik_platform.read_back.download(training.run_id, "last.ckpt") == newest
    (run,) = receipt_of(training.outbox).runs
    assert (run.sent.artifacts, run.waiting.total, run.refused) == (1, 0, 0)
    assert list(training.outbox.outgoing.staging.path("").iterdir()) == []
    assert training.outbox.close(30)


def test_checkpoints_that_come_and_go_leave_nothing_behind(
    training: Training, tracked: FaultProxy, mantik_platform: Platform
) -> None:
    """A new name each epoch and the removal of the one before: the disk holds one, and so does the platform."""
    assert training.log("epoch=0.ckpt", 0)
    assert training.outbox.flush(60)
    with tracked.fault(Refuse(), FILES):
        for epoch in range(1, 50):
            newest = training.log(f"epoch={epoch}.ckpt", epoch)
            training.remove(f"epoch={epoch - 1}.ckpt")
            assert training.copies() == 1
        assert training.outbox.losses.counts.total == 0
        assert training.waiting() == (1, len(newest), 49)
    assert training.outbox.flush(60)
    assert mantik_platform.read_back.artifacts(training.run_id) == ["epoch=49.ckpt"]
    assert mantik_platform.read_back.download(training.run_id, "epoch=49.ckpt") == newest
    (run,) = receipt_of(training.outbox).runs
    assert (run.sent.artifacts, run.sent.others, run.waiting.total, run.refused) == (2, 49, 0, 0)


def test_a_removal_makes_room_where_there_is_none_left(training: Training, tracked: FaultProxy) -> None:
    """At the limit of the spool a removal is recorded all the same, and the next file has its room."""
    with tracked.fault(Refuse(), FILES):
        epoch = 0
        while not training.outbox.losses.counts.artifacts:
            training.log(f"{epoch}.ckpt", epoch)
            epoch += 1
        kept = training.copies()
        training.remove("0.ckpt")
        training.log("more.ckpt", epoch)
        assert training.copies() == kept
        lost = training.outbox.losses.counts
        assert (lost.artifacts, lost.others) == (1, 0)


def test_a_file_for_which_there_is_no_room_leaves_the_older_one(
    training: Training, tracked: FaultProxy, mantik_platform: Platform
) -> None:
    """A copy is given up when the newer one is recorded, and not before: what cannot be recorded replaces nothing."""
    with tracked.fault(Refuse(), FILES):
        older = training.log("last.ckpt", 0)
        while not training.outbox.losses.counts.artifacts:
            training.log(f"{training.copies()}.ckpt", 1)
        training.log("last.ckpt", 2)
        assert training.outbox.losses.counts.artifacts == 2
    assert training.outbox.flush(60)
    assert mantik_platform.read_back.download(training.run_id, "last.ckpt") == older


def test_a_copy_that_is_being_uploaded_may_be_replaced_and_removed(
    training: Training, tracked: FaultProxy, mantik_platform: Platform
) -> None:
    """The upload that is under way ends as it began; what was logged after it is what stays."""
    with tracked.fault(Delay(120), FILES, method="PUT") as slow:
        training.log("last.ckpt", 0)
        wait_until(lambda: slow.hits, deadline=30, what="the upload's beginning")
        training.log("gone.ckpt", 1)
        newest = training.log("last.ckpt", 2)
        training.remove("gone.ckpt")
        # The one that is on its way is safe, and the newest one is not yet.
        assert training.waiting()[0] == training.copies() == 2
    assert training.outbox.flush(60)
    assert mantik_platform.read_back.artifacts(training.run_id) == ["last.ckpt"]
    assert mantik_platform.read_back.download(training.run_id, "last.ckpt") == newest
    assert receipt_of(training.outbox).is_complete


def test_threads_that_log_one_file_while_it_is_uploaded_refuse_nothing(
    training: Training, mantik_platform: Platform, tmp_path: Path
) -> None:
    """Whatever the uploader has in its hands, nothing is taken for lost and the last content is what stays."""
    held = mantik_platform.read_back

    def log(number: int) -> None:
        for epoch in range(60):
            source = tmp_path / f"{number}-{epoch}"
            source.write_text(f"{number} {epoch}")
            training.outbox.record_artifact(f"{training.root}/last.txt", source)
            if epoch % 7 == 0:
                training.remove("last.txt")

    threads = [threading.Thread(target=log, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: "last.txt" in held.artifacts(training.run_id), deadline=60, what="an upload in the middle")
    for thread in threads:
        thread.join(60)
    newest = training.log("last.txt", 99)
    assert training.outbox.flush(60)
    assert held.download(training.run_id, "last.txt") == newest
    assert receipt_of(training.outbox).is_complete
    assert list(training.outbox.outgoing.staging.path("").iterdir()) == []


def test_an_export_has_what_the_platform_would_have(training: Training, tracked: FaultProxy, tmp_path: Path) -> None:
    """The newest content of a file, nothing that was removed, and nothing that counts as missing."""
    tracked.fault(Refuse(), FILES)
    for epoch in range(3):
        newest = training.log("last.ckpt", epoch)
    training.log("folder/gone.ckpt", 1)
    training.remove("folder")
    done = export(training.outbox.outgoing, tmp_path / "copy", live=True)
    assert (done.records, done.artifacts, done.gone, done.refused) == (5, 1, 0, 0)
    (copy,) = (path for path in (tmp_path / "copy" / "artifacts").rglob("*") if path.is_file())
    assert copy.name == "last.ckpt"
    assert copy.read_bytes() == newest
    *_, last = (tmp_path / "copy" / "records.jsonl").read_text().splitlines()
    assert last == f'{{"record": "removal", "uri": "{training.root}/folder", "delivered": false}}'
