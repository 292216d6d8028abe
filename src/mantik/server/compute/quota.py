"""How much one user, and all of them together, may ask of the compute backend."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from mantik.server.compute.refusal import RefusedError, message

if TYPE_CHECKING:
    from mantik.server.compute.config import ComputeConfig
    from mantik.server.compute.jobs import JobStore

_UPLOADS_OF_A_USER: Final = 4
_RETRY_SECONDS: Final = 60
# MLflow's database and the outputs of running jobs are on the same disk, most often.
_RESERVED_BYTES: Final = 256 * 1024 * 1024


class Quota:
    """Counts what there is before more is taken."""

    def __init__(self, config: ComputeConfig, store: JobStore) -> None:
        self._config = config
        self._store = store
        self._uploads: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def check(self, user_id: str) -> None:
        """Make sure that a user may submit, before anything is read.

        Raises:
            RefusedError: The user has too many jobs that are not over, or the disk is full.
        """
        if self._store.unfinished_of(user_id) >= self._config.queue_limit:
            raise self.too_many_jobs()
        if shutil.disk_usage(self._config.folder).free < _RESERVED_BYTES:
            raise disk_full()

    def too_many_jobs(self) -> RefusedError:
        """Return the refusal of a user who has as many jobs as there may be."""
        limit = self._config.queue_limit
        text = f"You have {limit} jobs that have not ended, the most there may be. Wait for one, or cancel one."
        return message(429, text, retry_after=_RETRY_SECONDS)

    def uploads(self, user_id: str) -> asyncio.Semaphore:
        """Return what a user's uploads pass a few at a time, in this process; those of others pass beside them."""
        return self._uploads.setdefault(user_id, asyncio.Semaphore(_UPLOADS_OF_A_USER))


def disk_full() -> RefusedError:
    """Return the refusal of everybody."""
    return message(507, "The platform has no room for more jobs: its disk is full. Tell whoever runs it.")
