from __future__ import annotations

import pickle
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import TYPE_CHECKING

import pytest

from mantik.exceptions import ConfigurationError
from mantik.server.compute.jobs import Job, JobStore, State, TooManyJobsError, TransitionError, now
from tests.server.running import DEADLINE

if TYPE_CHECKING:
    from pathlib import Path

OVER = {State.SUCCEEDED, State.FAILED, State.CANCELLED, State.TIMED_OUT, State.LOST}
ALLOWED = {
    *product({State.QUEUED, State.STARTING, State.RUNNING}, OVER),
    *((state, state) for state in State),
    (State.QUEUED, State.STARTING),
    (State.QUEUED, State.RUNNING),
    (State.STARTING, State.QUEUED),
    (State.STARTING, State.RUNNING),
    (State.RUNNING, State.QUEUED),
}


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    """An empty store."""
    return JobStore(tmp_path / "compute.db")


def job(number: int, *, user_id: str = "alice", slots: int = 1) -> Job:
    """Describe a job."""
    return Job(
        job_id=f"job-{number}",
        run_id=f"run-{number}",
        experiment_id="1",
        user_id=user_id,
        username=user_id,
        run_name="name",
        entry_point="main",
        parameters={"alpha": "0.1", "ü": "'; DROP TABLE jobs"},
        backend_config={"Resources": {"Queue": "batch", "CPUs": 2}},
        submitted_at=now(),
        slots=slots,
    )


def test_job_comes_back_as_it_was_added(store: JobStore) -> None:
    """By its own id and by the run's, and by nothing else."""
    added = job(1)
    store.add(added)
    assert store.get("job-1") == store.by_run("run-1") == added
    assert [store.get("run-1"), store.by_run("job-1"), store.get("%"), store.get("")] == [None] * 4


def test_users_have_their_own_jobs_newest_first(store: JobStore) -> None:
    """A page of them, and how many there are in all."""
    for number in range(7):
        store.add(job(number, user_id="bob" if number == 3 else "alice"))
    page, total = store.of_user("alice", offset=1, limit=3)
    assert ([found.job_id for found in page], total) == (["job-5", "job-4", "job-2"], 6)
    assert store.of_user("carol") == ([], 0)


@pytest.mark.parametrize(("before", "after"), sorted(product(State, State)))
def test_states_follow_each_other(store: JobStore, before: State, after: State) -> None:
    """Nothing follows an end, and nothing is started twice without having been put back."""
    store.add(job(1))
    store.update("job-1", state=before)
    if (before, after) in ALLOWED:
        assert store.update("job-1", state=after, reason="so").state is after
    else:
        with pytest.raises(TransitionError, match=f"is {before.value} and cannot become {after.value}"):
            store.update("job-1", state=after, reason="so")
        unchanged = store.get("job-1")
        assert unchanged
        assert (unchanged.state, unchanged.reason) == (before, "")


def test_fields_change_but_not_the_identity(store: JobStore) -> None:
    """What an executor learns is stored; what a job is stays."""
    store.add(job(1))
    learned = {"executor": "slurm", "executor_id": "17", "nodes": "n[1-2]", "exit_code": 3, "signal": 9}
    changed = store.update("job-1", **learned, started_at="2026-01-01T00:00:00.000+00:00")
    assert {name: getattr(changed, name) for name in learned} == learned
    assert store.update("job-1") == changed == store.get("job-1")
    for name in ("run_id", "experiment_id", "user_id", "number", "state = 'LOST', reason"):
        with pytest.raises(TypeError, match="No fields of a job that can change"):
            store.update("job-1", **{name: "x"})
    with pytest.raises(KeyError):
        store.update("job-2", reason="x")
    with pytest.raises(ValueError, match="'BROKEN' is not a valid State"):
        store.update("job-1", state="BROKEN")


def test_oldest_job_is_claimed_first_and_not_overtaken(store: JobStore) -> None:
    """A job that needs more slots than are free is waited for."""
    for number, slots in enumerate((1, 4, 1)):
        store.add(job(number, slots=slots))
    claimed = store.claim_next(free_slots=4)
    assert claimed
    assert (claimed.job_id, claimed.state) == ("job-0", State.STARTING)
    assert store.claim_next(free_slots=3) is None
    assert [store.claim_next(free_slots=4), store.claim_next()] == [store.get("job-1"), store.get("job-2")]
    assert store.claim_next() is None


def test_each_job_is_claimed_by_one_of_many_processes(tmp_path: Path) -> None:
    """However many ask at once, nobody gets what another has."""
    path = tmp_path / "compute.db"
    store = JobStore(path)
    for number in range(60):
        store.add(job(number))
    code = (
        "import sys, pathlib; from mantik.server.compute.jobs import JobStore\n"
        "s = JobStore(pathlib.Path(sys.argv[1]))\n"
        "while (job := s.claim_next()) is not None: print(job.job_id)"
    )
    command = [sys.executable, "-c", code, str(path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    printed = [process.communicate(timeout=DEADLINE) for process in processes]
    assert [errors for _, errors in printed] == [""] * 4
    assert sorted(line for lines, _ in printed for line in lines.split()) == sorted(f"job-{n}" for n in range(60))


def test_cancelled_job_is_not_claimed(store: JobStore) -> None:
    """Who asked for its end is heard before it starts; asking again changes nothing."""
    for number in range(3):
        store.add(job(number))
    first = store.request_cancel("job-0")
    assert first.state is State.QUEUED
    assert first.cancel_requested_at
    assert store.request_cancel("job-0") == first
    store.update("job-1", state=State.RUNNING)
    store.request_cancel("job-1")
    assert [found.job_id for found in store.to_cancel()] == ["job-0", "job-1"]
    assert store.claim_next() == store.get("job-2")
    store.update("job-1", state=State.CANCELLED)
    assert [found.job_id for found in store.to_cancel()] == ["job-0"]
    with pytest.raises(KeyError):
        store.request_cancel("job-9")


def test_job_that_is_over_cannot_be_cancelled(store: JobStore) -> None:
    """It stays as it is."""
    store.add(job(1))
    over = store.update("job-1", state=State.SUCCEEDED)
    assert store.request_cancel("job-1") == over


def test_active_jobs_are_those_that_somebody_has(store: JobStore) -> None:
    """Claimed, running, or in the queue of a cluster."""
    for number in range(5):
        store.add(job(number))
    store.claim_next()
    store.update("job-1", state=State.RUNNING)
    store.update("job-2", executor_id="17")
    store.update("job-3", state=State.LOST)
    assert [found.job_id for found in store.active()] == ["job-0", "job-1", "job-2"]
    assert store.claim_next() == store.get("job-4")
    assert store.unfinished_of("alice") == 4


def test_is_over_holds_for_ends_and_for_strangers(store: JobStore) -> None:
    """A job that never was does nothing more either."""
    store.add(job(1))
    assert not store.is_over("job-1")
    store.update("job-1", state=State.TIMED_OUT)
    assert store.is_over("job-1")
    assert store.is_over("job-2")


def test_limit_of_unfinished_jobs_holds_for_callers_at_once(store: JobStore) -> None:
    """No two callers both take the last place."""

    def add(number: int) -> bool:
        try:
            store.add(job(number), at_most=5)
        except TooManyJobsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(add, range(40))) == 5
    store.add(job(40, user_id="bob"), at_most=1)


def test_id_is_used_once(store: JobStore) -> None:
    """Two jobs have neither the same id nor the same run."""
    store.add(job(1))
    with pytest.raises(sqlite3.IntegrityError):
        store.add(job(1))


def test_error_crosses_processes_whole(store: JobStore) -> None:
    """It is pickled with its parts."""
    error = pickle.loads(pickle.dumps(TransitionError(job(1), State.RUNNING)))  # noqa: S301 - our own
    assert (error.job.job_id, error.state) == ("job-1", State.RUNNING)


def test_file_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    """A file that a newer mantik wrote, and one that is no database, are errors that name the file."""
    path = tmp_path / "compute.db"
    JobStore(path)
    assert path.stat().st_mode & 0o777 == 0o600
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(ConfigurationError, match="newer version of mantik"):
        JobStore(path)
    other = tmp_path / "other.db"
    other.write_text("something else, longer than a header " * 20)
    with pytest.raises(ConfigurationError, match=r"other\.db cannot be opened"):
        JobStore(other)
