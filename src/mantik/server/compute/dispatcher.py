"""Runs the queue: ``python -m mantik.server.compute.dispatcher``, one process beside the platform's web workers.

It claims jobs, has them started, watches them, and says at their end what became of them. All that it knows is in the
database of jobs and in the jobs' folders: it may be killed at any moment, and the next one goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import filelock

from mantik.delivery.rest import UnavailableError
from mantik.exceptions import ConfigurationError
from mantik.server import lifeline
from mantik.server.compute.clearing import Clearing
from mantik.server.compute.conclusion import Conclusions, UndeliveredError
from mantik.server.compute.config import ComputeConfig
from mantik.server.compute.errands import Errands
from mantik.server.compute.executors import CannotRunError, NoRoomError, Observation
from mantik.server.compute.executors.local import LocalExecutor
from mantik.server.compute.executors.slurm import SlurmExecutor
from mantik.server.compute.folders import JobFolders
from mantik.server.compute.job_tokens import JobTokens
from mantik.server.compute.jobs import JobStore, State
from mantik.server.compute.run_reports import RunReports
from mantik.server.compute.watch import Watch
from mantik.server.config import ServerConfig
from mantik.server.store import Store
from mantik.server.tokens import TokenIssuer, load_signing_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mantik.server.compute.executors import Executor
    from mantik.server.compute.jobs import Job

_logger = logging.getLogger(__name__)

_BUSY_PAUSE: Final = 0.2
_IDLE_PAUSE: Final = 0.5
_TROUBLE_PAUSE: Final = 2.0
_CANCEL_PAUSE: Final = 5.0
_BEGIN_PAUSE: Final = 5.0
_NO_ROOM_PAUSE: Final = 1.0
_LOCK_PAUSE: Final = 0.5
_CLAIMS_AT_ONCE: Final = 16
_THREADS: Final = 4
# How often it is tried to send what a job has left, over about a minute.
_DELIVERIES: Final = 8


class Dispatcher:
    """The loop. One thread at a time may run it.

    Args:
        config: How the compute backend is set up.
        store: All jobs.
        executor: Who runs them.
        tokens: What they log in with.
        reports: What tells their runs.
    """

    def __init__(
        self, config: ComputeConfig, store: JobStore, executor: Executor, tokens: JobTokens, reports: RunReports
    ) -> None:
        self._folder = config.folder
        self._url = config.url
        self._store = store
        self._executor = executor
        self._tokens = tokens
        self._reports = reports
        self._conclusions = Conclusions(config.folder, store, tokens, reports)
        self._clearing = Clearing(config, store)
        # To start a job may take minutes where commands are run on a login node: that must hold up nobody's end.
        self._starts = Errands("start", _THREADS)
        self._reporting = Errands("report", _THREADS)
        self._watches: dict[str, Watch] = {}
        self._claim_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Run the queue until told to stop. Jobs that run go on."""
        self._clearing.start(stop)
        while not stop.is_set():
            try:
                pause = _BUSY_PAUSE if self.step() else _IDLE_PAUSE
            except Exception:  # the guard of the loop: a database that is locked, a disk that is full
                _logger.exception("The queue is in trouble; it is tried again.")
                pause = _TROUBLE_PAUSE
            stop.wait(pause)

    def step(self) -> bool:
        """Look at everything once; tell whether there is anything to look at."""
        active = self._store.active()
        waiting = [job for job in self._store.to_cancel() if job.state is State.QUEUED and job.executor_id is None]
        known = {job.job_id for job in [*active, *waiting]}
        self._watches = {job_id: self._watches.get(job_id) or Watch() for job_id in known}
        for job in waiting:
            self._guarded(job, self._take_out)
        # Before any claim: what runs already has its share of the machine.
        for job in active:
            self._guarded(job, self._look_after)
        self._claim(active)
        return bool(known)

    def _guarded(self, job: Job, look: Callable[[Job, Watch], None]) -> None:
        try:
            look(job, self._watches[job.job_id])
        except Exception:  # one job's trouble is not the next one's
            _logger.exception("Job %s is in trouble; it is tried again.", job.job_id)

    def _take_out(self, job: Job, watch: Watch) -> None:
        """Conclude a job that was cancelled in the queue."""
        self._conclude(job, watch, Observation(State.CANCELLED, is_delivered=True))

    def _look_after(self, job: Job, watch: Watch) -> None:
        folders = self._folders(job)
        if not self._is_ours(job):
            self._leave(job)
            return
        if job.executor_id is None:
            self._start_again(job, watch)
            return
        if watch.end is not None:
            self._conclude(job, watch, watch.end)
            return
        if job.cancel_requested_at is not None and time.monotonic() >= watch.cancel_at:
            watch.cancel_at = time.monotonic() + _CANCEL_PAUSE
            self._executor.cancel(job, folders)
        seen = self._executor.look(job, folders)
        if seen.state.is_over:
            watch.end = seen
            self._conclude(job, watch, seen)
        else:
            self._note(job, watch, seen)

    def _is_ours(self, job: Job) -> bool:
        return job.executor in {"", self._executor.name}

    def _leave(self, job: Job) -> None:
        """Say why nothing happens to a job: the platform was told to use another executor since it was started."""
        reason = f"it belongs to the executor {job.executor!r}, which is not in use"
        if job.reason != reason:
            _logger.warning("Job %s is left alone: %s.", job.job_id, reason)
            self._store.update(job.job_id, reason=reason)

    def _start_again(self, job: Job, watch: Watch) -> None:
        """Start a job that was claimed, if the last dispatcher was killed before the start, or right after it."""
        if self._starts.is_busy(job.job_id):
            return
        # What was read before may be older than the end of a start.
        now = self._store.get(job.job_id)
        if now is not None and now.state is State.STARTING and now.executor_id is None:
            self._starts.do(job.job_id, partial(self._start, now, watch))

    def _note(self, job: Job, watch: Watch, seen: Observation) -> None:
        """Keep what is new of a job that goes on."""
        found = {"state": seen.state, "reason": seen.reason, "nodes": seen.nodes, "started_at": seen.started_at}
        new = {name: value for name, value in found.items() if value is not None and value != getattr(job, name)}
        if new:
            job = self._store.update(job.job_id, **new)
        generation = self._tokens.generation(job)
        if generation is None:
            # Nobody's program runs here; and its token opens nothing any more.
            self._store.request_cancel(job.job_id)
        elif generation != watch.generation:
            watch.generation = self._tokens.log_in(job, self._folders(job))
        if seen.state is State.RUNNING and not watch.is_begun and time.monotonic() >= watch.begin_at:
            watch.begin_at = time.monotonic() + _BEGIN_PAUSE
            self._report(job, partial(self._begin, job, watch, seen))

    def _claim(self, active: list[Job]) -> None:
        if time.monotonic() < self._claim_at:
            return
        slots = self._executor.slots
        taken = sum(job.slots for job in active if self._is_ours(job) and self._watches[job.job_id].end is None)
        for _ in range(_CLAIMS_AT_ONCE):
            # Where nobody is, the first one comes, however many it asks for: who asks for too many is told so.
            free = slots - taken if slots is not None and taken else None
            if free is not None and free <= 0:
                return
            job = self._store.claim_next(free_slots=free)
            if job is None:
                return
            taken += job.slots
            watch = self._watches[job.job_id] = Watch()
            self._starts.do(job.job_id, partial(self._start, job, watch))

    def _start(self, job: Job, watch: Watch) -> None:
        folders = self._folders(job)
        watch.generation = self._tokens.log_in(job, folders)
        if watch.generation is None:
            self._conclude(job, watch, _cannot_run("its user was removed"))
            return
        # Before the start: if this process is killed in between, this executor alone can tell whether it was started.
        self._store.update(job.job_id, executor=self._executor.name)
        try:
            executor_id = self._executor.start(job, folders)
        except NoRoomError:
            self._claim_at = time.monotonic() + _NO_ROOM_PAUSE
            self._store.update(job.job_id, state=State.QUEUED, executor="")
        except (CannotRunError, ConfigurationError, OSError) as error:
            self._conclude(job, watch, _cannot_run(str(error)))
        else:
            _logger.info("Job %s is started as %s.", job.job_id, executor_id)
            self._store.update(job.job_id, executor_id=executor_id)

    def _begin(self, job: Job, watch: Watch, seen: Observation) -> None:
        try:
            self._reports.begin(job, seen)
        except UnavailableError as error:
            _logger.debug("The run of job %s cannot be told of its beginning now: %s", job.job_id, error)
        else:
            watch.is_begun = True

    def _conclude(self, job: Job, watch: Watch, seen: Observation) -> None:
        if time.monotonic() >= watch.conclude_at:
            self._report(job, partial(self._try_to_conclude, job, watch, seen))

    def _try_to_conclude(self, job: Job, watch: Watch, seen: Observation) -> None:
        watch.next_conclusion()
        try:
            job = self._conclusions.conclude(job.job_id, seen, is_last_try=watch.undelivered >= _DELIVERIES - 1)
        except UndeliveredError as error:
            problem = str(error)
            watch.undelivered += 1
            watch.end = replace(seen, ended_runs=error.ended_runs)
        except UnavailableError as error:
            problem = f"the platform does not answer at {self._url} ({error})"
        else:
            _logger.info("Job %s is %s%s", job.job_id, job.state.value, f": {job.reason}" if job.reason else ".")
            return
        if watch.conclusions == 1:
            _logger.warning("The end of job %s is told later: %s", job.job_id, problem)
            self._store.update(job.job_id, reason=f"it has ended, which is told later: {problem}")

    def _report(self, job: Job, errand: Callable[[], None]) -> None:
        if not self._reporting.is_busy(job.job_id):
            self._reporting.do(job.job_id, errand)

    def _folders(self, job: Job) -> JobFolders:
        return JobFolders(self._folder, job.job_id)


def executor_for(config: ComputeConfig) -> Executor:
    """Return who runs the jobs.

    Raises:
        ConfigurationError: Nobody is to, or this machine cannot.
    """
    if config.executor == "local":
        return LocalExecutor(config.url, config.slots)
    if config.executor == "slurm":
        return SlurmExecutor(config.url)
    raise ConfigurationError(f"There is no executor {config.executor!r} to run jobs.")


def dispatcher_for(server: ServerConfig, config: ComputeConfig) -> Dispatcher:
    """Return the dispatcher of a platform, put together from its parts.

    Raises:
        ConfigurationError: The platform's files cannot be used, or jobs have no way to it.
    """
    if not config.url:
        raise ConfigurationError("Jobs have no way to the platform: its URL is not known.")
    tokens = JobTokens(
        Store(server.database), TokenIssuer(load_signing_key(server.signing_key), server.token_lifetime), config.url
    )
    return Dispatcher(config, JobStore(config.database), executor_for(config), tokens, RunReports(tokens, config.url))


def main() -> int:
    """Run the queue of the platform that the environment describes, until SIGTERM or the end of the lifeline."""
    logging.basicConfig(format="%(asctime)s dispatcher %(levelname)s: %(message)s", level=logging.INFO)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    server, config = ServerConfig.from_environment(os.environ), ComputeConfig.from_environment(os.environ)
    if server.lifeline is not None:
        lifeline.hold(server.lifeline)
    config.prepare()
    with _only_one(config, stop):
        if not stop.is_set():
            dispatcher_for(server, config).run(stop)
    return 0


@contextlib.contextmanager
def _only_one(config: ComputeConfig, stop: threading.Event) -> Iterator[None]:
    """Hold the queue for this process; wait for an earlier one, which may still be ending."""
    lock = filelock.FileLock(config.folder / "dispatcher.lock", timeout=0, mode=0o600)
    is_told = False
    with contextlib.ExitStack() as held:
        while not stop.is_set():
            try:
                held.enter_context(lock)
                break
            except filelock.Timeout:
                if not is_told:
                    _logger.info("Another dispatcher has the queue; waiting for its end.")
                is_told = True
                stop.wait(_LOCK_PAUSE)
        yield


def _cannot_run(reason: str) -> Observation:
    return Observation(State.FAILED, reason, is_delivered=True)


if __name__ == "__main__":
    sys.exit(main())
