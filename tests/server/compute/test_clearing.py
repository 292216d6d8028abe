"""Folders of jobs that have been over for long: real folders, a real store, and ends that are written into it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from mantik.delivery.owner import Owner
from mantik.delivery.spool import Outgoing
from mantik.server.compute.clearing import Clearing
from mantik.server.compute.jobs import State

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.server.compute.jobs import Job

    from .conftest import Backend

pytestmark = pytest.mark.parametrize("backend", [{"keep_days": 7}], indirect=True)

DAYS = 7
CLEAR = """
import sys
from pathlib import Path
from mantik.server.compute.clearing import Clearing
from mantik.server.compute.config import ComputeConfig
from mantik.server.compute.jobs import JobStore
config = ComputeConfig(Path(sys.argv[1]), "local", keep_days=int(sys.argv[2]))
Clearing(config, JobStore(config.database)).clear()
"""


def clearing(backend: Backend) -> Clearing:
    """Return what clears this platform."""
    return Clearing(backend.compute, backend.jobs)


def over(backend: Backend, *, hours: float) -> Job:
    """Return a job that ended so long ago."""
    job = backend.submitted()
    backend.folders(job).log.write_text("printed\n")
    ended = datetime.now(timezone.utc) - timedelta(hours=hours)
    return backend.jobs.update(
        job.job_id, state=State.SUCCEEDED, ended_at=ended.isoformat(timespec="milliseconds"), exit_code=0
    )


def long_over(backend: Backend) -> Job:
    """Return a job that ended an hour more than seven days ago."""
    return over(backend, hours=DAYS * 24 + 1)


def names(folder: Path) -> set[str]:
    """Return what is in a folder."""
    return {path.name for path in folder.iterdir()}


def test_folders_of_jobs_that_have_been_over_for_long_are_removed(backend: Backend) -> None:
    """Those of younger ends, of jobs that are not over, and what is no job's stay; so do all jobs."""
    gone, young = [long_over(backend) for _ in range(2)], over(backend, hours=DAYS * 24 - 1)
    waiting, running = backend.submitted(), backend.submitted()
    backend.jobs.update(running.job_id, state=State.RUNNING)
    (backend.compute.jobs / "of-the-owner").mkdir()
    (backend.compute.jobs / "note").touch()
    clearing(backend).clear()
    kept = {job.job_id for job in (young, waiting, running)}
    assert names(backend.compute.jobs) == {*kept, "of-the-owner", "note"}
    assert names(backend.compute.removed) == set()
    listed = backend.ask("GET", "/jobs").json()
    assert {job["job_id"] for job in listed["jobs"]} == kept | {job.job_id for job in gone}


def test_who_asks_for_what_was_removed_is_told_so(backend: Backend) -> None:
    """410 with words for log, list and file; what the platform's owner removes is told as well."""
    job, by_hand, running = long_over(backend), over(backend, hours=1), backend.submitted()
    for each in (by_hand, running):
        shutil.rmtree(backend.folders(each).root)
    clearing(backend).clear()
    removed = "The log and the files of this job were removed"
    after = ((job, f"{removed}: they are kept for 7 days after its end"), (by_hand, f"{removed} from the platform"))
    for each, words in after:
        for path in ("/logs", "/files", "/files/train.py", "/files/missing"):
            answer = backend.ask("GET", f"/jobs/{each.job_id}{path}")
            assert (answer.status, answer.json()) == (410, {"detail": words})
        shown = backend.ask("GET", f"/jobs/{each.run_id}").json()
        assert (shown["state"], shown["exit_code"], shown["log_size"]) == ("SUCCEEDED", 0, 0)
    assert backend.ask("GET", f"/jobs/{running.job_id}/logs").status == 200


def test_records_that_were_not_delivered_are_kept(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """The folder stays until they are delivered or refused, which is said once."""
    waiting, refused = long_over(backend), long_over(backend)
    me = Owner.here("http://127.0.0.1:9", "alice", None)
    left, right = (Outgoing.create(backend.folders(job).home / "spool", me) for job in (waiting, refused))
    right.mark_kept("refused")
    cleaner = clearing(backend)
    for _ in range(2):
        cleaner.clear()
        assert names(backend.compute.jobs) == {waiting.job_id}
    assert [record.getMessage() for record in caplog.records] == [
        f"The folder of job {waiting.job_id} is kept: not all that it has logged was delivered."
    ]
    left.remove()
    cleaner.clear()
    assert names(backend.compute.jobs) == set()


def test_links_are_not_followed(backend: Backend, tmp_path: Path) -> None:
    """What the links of a job lead to stays as it is, and so does what a link in the place of its folder leads to."""
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "file").touch()
    job, moved = long_over(backend), long_over(backend)
    project = backend.folders(job).project
    (project / "folder").symlink_to(outside)
    (project / "file").symlink_to(outside / "deep" / "file")
    backend.folders(moved).root.rename(tmp_path / "moved")
    backend.folders(moved).root.symlink_to(tmp_path / "moved")
    clearing(backend).clear()
    assert (outside / "deep" / "file").exists()
    assert (tmp_path / "moved" / "project" / "train.py").exists()
    assert names(backend.compute.jobs) == {moved.job_id}


def test_what_a_killed_process_has_left_is_removed(backend: Backend) -> None:
    """It had moved the folder aside and removed a part; the next one ends it, also if all is to be kept now."""
    job = long_over(backend)
    aside = backend.compute.removed / job.job_id
    backend.folders(job).root.rename(aside)
    (aside / "mantik.log").unlink()
    Clearing(replace(backend.compute, keep_days=None), backend.jobs).clear()
    assert names(backend.compute.removed) == set()


def test_folder_that_cannot_be_removed_does_not_stop_the_others(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """It stays, which is said once."""
    stuck = long_over(backend)
    others = [long_over(backend) for _ in range(4)]
    (backend.compute.removed / stuck.job_id).touch()
    cleaner = clearing(backend)
    for _ in range(2):
        cleaner.clear()
    assert names(backend.compute.jobs) == {stuck.job_id}
    assert (backend.folders(stuck).project / "train.py").exists()
    assert not {job.job_id for job in others} & names(backend.compute.removed)
    (record,) = caplog.records
    assert f"{stuck.job_id} cannot be removed: " in record.getMessage()


def test_folders_that_are_read_only_are_removed(backend: Backend) -> None:
    """Programs that protect their files from change do not protect them from this; links among them are left alone."""
    project = backend.folders(long_over(backend)).project
    deep = project / "store" / "objects"
    deep.mkdir(parents=True)
    (deep / "data").touch()
    (deep / "elsewhere").symlink_to(backend.compute.incoming)
    for path, mode in ((deep / "data", 0o400), (deep, 0o500), (deep.parent, 0)):
        path.chmod(mode)
    before = backend.compute.incoming.stat().st_mode
    # Root may change everything, unless it gives up these rights.
    as_anybody = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    command = [*as_anybody, sys.executable, "-c", CLEAR, str(backend.compute.folder), str(DAYS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert names(backend.compute.jobs) == names(backend.compute.removed) == set()
    assert backend.compute.incoming.stat().st_mode == before


def test_nothing_is_removed_unasked(backend: Backend) -> None:
    """However long ago it ended."""
    job = over(backend, hours=24 * 365 * 10)
    Clearing(replace(backend.compute, keep_days=None), backend.jobs).clear()
    assert names(backend.compute.jobs) == {job.job_id}
