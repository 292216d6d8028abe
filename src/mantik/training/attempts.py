"""Which run the earlier attempt of a requeued job tracked.

A batch system that requeues a job starts its script from the beginning, under the same job id. What a run of the first
attempt was is kept in one small file a job, in mantik's home, where every node of a cluster sees it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from mantik.auth.cache import make_private, write_private
from mantik.training.identity import RunIdentity

if TYPE_CHECKING:
    from mantik.settings import Job

__all__ = ["Attempts"]

_FORMAT = 1
_KEPT_SECONDS = 90 * 24 * 3600.0
_LOCK_SECONDS = 5.0


class Attempts:
    """The runs of one job, over all its attempts. Any process may use it.

    Promises: a run is given to one process of an attempt alone, in the order in which the first attempt began them, and
    only to the same script in the same part of the job. Does not promise anything where the folder cannot be written:
    then an attempt begins a run of its own.

    Args:
        home: mantik's home.
        job: The job.
    """

    def __init__(self, home: Path, job: Job) -> None:
        self._folder = home / "attempts"
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", f"slurm-{job.cluster}-{job.job_id}")
        self._path = self._folder / f"{name[:200]}.json"
        self._job = job

    def take(self, uri: str) -> RunIdentity | None:
        """Return the run that an earlier attempt tracked and that nobody has taken up yet; None without one.

        Args:
            uri: The tracking URI.
        """
        if self._job.restart == 0:
            return None
        with contextlib.suppress(OSError, Timeout), self._locked():
            runs = self._read()
            for run in runs:
                if run["script"] == self._script(uri) and run["attempt"] < self._job.restart:
                    run["attempt"] = self._job.restart
                    self._write(runs)
                    return RunIdentity(run["run_id"], run["experiment_id"], uri)
        return None

    def note(self, run: RunIdentity) -> None:
        """Remember that this attempt tracks a run.

        Args:
            run: The run.
        """
        with contextlib.suppress(OSError, Timeout), self._locked():
            runs = self._read()
            if any(known["run_id"] == run.run_id for known in runs):
                return
            self._forget_old()
            ids = {"run_id": run.run_id, "experiment_id": run.experiment_id}
            self._write([*runs, {**ids, "script": self._script(run.tracking_uri), "attempt": self._job.restart}])

    def _script(self, uri: str) -> str:
        content = [uri, self._job.part, str(Path.cwd()), *sys.argv]
        return hashlib.sha256("\0".join(content).encode(errors="surrogateescape")).hexdigest()[:16]

    def _locked(self) -> FileLock:
        make_private(self._folder)
        return FileLock(self._path.with_suffix(".lock"), timeout=_LOCK_SECONDS)

    def _read(self) -> list[dict[str, Any]]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        match content:
            case {"format": 1, "runs": list() as runs}:
                return [run for run in runs if _is_run(run)]
        return []

    def _write(self, runs: list[dict[str, Any]]) -> None:
        write_private(self._path, json.dumps({"format": _FORMAT, "runs": runs}, indent=2) + "\n")

    def _forget_old(self) -> None:
        for path in self._folder.iterdir():
            if time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                path.unlink(missing_ok=True)


def _is_run(item: object) -> bool:
    match item:
        case {"run_id": str(), "experiment_id": str(), "script": str(), "attempt": int()}:
            return True
    return False
