"""What takes time is done after a call has returned to the user: by one thread, one thing after the other."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sklearn import config_context, get_config

from mantik.delivery import aside
from mantik.integrations.sklearn.listening import is_a_call_running, silence
from mantik.integrations.sklearn.quiet import quiet_here
from mantik.training.boundary import extra, hushed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Afterwards", "Job"]

_MOST_WAITING = 64
"""Jobs. Whoever adds one more waits: each holds a copy of its data, of 64 MiB at most."""

_MOST_BYTES = 512 * 2**20
"""Of data that waiting jobs hold."""

_PATIENCE = 2.0
"""How many seconds a step of a job waits for calls of the user's: two threads of Python slow each other."""

_GLANCE = 0.005


@dataclass(slots=True)
class Job:
    """Things to do for one call.

    Attributes:
        run_id: The run that they belong to.
        steps: What to do, in this order: what there is not where it fails, as the beginning of a sentence, and the
            action. One that fails takes none of the others with it.
        touches: The identities of the estimators that are looked at; none of them may be changed before.
        size: Of the data that it holds, in bytes.
        silent: Warn of nothing.
        settings: scikit-learn's own, as they were for the call.
    """

    run_id: str
    steps: list[tuple[str, Callable[[], None]]]
    touches: frozenset[int] = frozenset()
    size: int = 0
    silent: bool = False
    settings: dict[str, Any] = field(default_factory=get_config)


class Afterwards:
    """Does jobs in a thread of its own. Any thread may call.

    What is waiting when the process is killed is not done: what had to be kept of the call, its params and its run, was
    written before.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._at_work: Job | None = None
        self._thread: threading.Thread | None = None
        self._ended: list[Callable[[str | None], None]] = []
        self._without_pause = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin_anew)

    def add(self, job: Job) -> None:
        """Have a job done; wait first where too many are waiting."""
        if threading.current_thread() is self._thread:
            self.do(job)
            return
        with self._hurry():
            self._changed.wait_for(self._has_room)
            self._waiting.append(job)
            if self._thread is None or not self._thread.is_alive():
                aside.join(self)
                self._thread = threading.Thread(target=self._work, name="mantik-sklearn", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def at_end(self, action: Callable[[str | None], None]) -> None:
        """Have something called when a run ends, with its id, and at the end of the process, with None."""
        aside.join(self)
        self._ended.append(action)

    def release(self, estimators: Iterable[int]) -> None:
        """Wait until no job looks at any of these estimators any more, so that they can be changed.

        Args:
            estimators: Their identities.
        """
        wanted = frozenset(estimators)
        if threading.current_thread() is self._thread:
            return
        with self._hurry():
            self._changed.wait_for(lambda: not any(wanted & job.touches for job in self._jobs()))

    def wait_for(self, run_id: str | None, timeout: float) -> bool:
        """Wait until a run has what it is to get, or all have; tell whether that is so."""
        if threading.current_thread() is self._thread:
            return True
        with self._hurry():
            return self._changed.wait_for(
                lambda: not any(run_id in {None, job.run_id} for job in self._jobs()), timeout
            )

    def run_ended(self, run_id: str) -> None:
        """Tell those who want to know that a run was ended."""
        for action in list(self._ended):
            action(run_id)

    def close(self, timeout: float) -> bool:
        """Do what is left at the end of the process; tell whether it is done."""
        for action in list(self._ended):
            action(None)
        return self.wait_for(None, timeout)

    @contextlib.contextmanager
    def _hurry(self) -> Iterator[None]:
        """Hold the lock, and have no pauses made while somebody waits."""
        with self._changed:
            self._without_pause += 1
            self._changed.notify_all()
            try:
                yield
            finally:
                self._without_pause -= 1

    def _jobs(self) -> list[Job]:
        return [*self._waiting, *([] if self._at_work is None else [self._at_work])]

    def _has_room(self) -> bool:
        jobs = self._jobs()
        return len(jobs) < _MOST_WAITING and (not jobs or sum(job.size for job in jobs) < _MOST_BYTES)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                self._at_work = job = self._waiting.popleft()
            self.do(job)
            with self._changed:
                self._at_work = None
                # Before it waits again: what the last job held is not kept until the next one.
                del job
                self._changed.notify_all()

    def do(self, job: Job) -> None:
        """Do a job here and now."""
        with silence(running=False), quiet_here(), hushed(hush=job.silent), config_context(**job.settings):
            for what, action in job.steps:
                self._let_the_user_go_first()
                with extra(what, strict=False):
                    action()

    def _let_the_user_go_first(self) -> None:
        patience = time.monotonic() + _PATIENCE
        while (
            threading.current_thread() is self._thread
            and is_a_call_running()
            and not self._without_pause
            and time.monotonic() < patience
        ):
            with self._changed:
                self._changed.wait(_GLANCE)

    def _begin_anew(self) -> None:
        """Begin empty in a forked child: what waits is its parent's to do."""
        self._changed = threading.Condition()
        self._waiting, self._at_work, self._thread, self._without_pause = deque(), None, None, 0
