"""How the process that starts others learns which run they have opened.

With a strategy that spawns or forks, training runs in child processes, and the logger of the parent hears nothing of
it. The child that opens the run leaves its ids in a small file whose name all copies of the logger know.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
import weakref
from pathlib import Path

__all__ = ["Rendezvous"]


class Rendezvous:
    """The place of one logger and all its copies, on one machine. Making one writes nothing."""

    def __init__(self) -> None:
        self._path = Path(tempfile.gettempdir()) / f"mantik-run-{secrets.token_hex(16)}.json"
        self._maker = os.getpid()
        weakref.finalize(self, _remove, self._path, self._maker)

    @property
    def is_away(self) -> bool:
        """Whether this is a child's copy."""
        return os.getpid() != self._maker

    def read(self) -> tuple[str, str, int, Path] | None:
        """Return run, experiment, attempt and local folder of all runs, as a child has left them; None without one."""
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        match content:
            case [str() as run_id, str() as experiment_id, int() as attempt, str() as root]:
                return run_id, experiment_id, attempt, Path(root)
        return None

    def write(self, run_id: str, experiment_id: str, attempt: int, root: Path) -> None:
        """Leave run, experiment, attempt and local folder of all runs, for whoever has the same logger."""
        half = self._path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            # Without the file the parent does not know the run; the run itself is none the worse.
            half.touch(mode=0o600)
            half.write_text(json.dumps([run_id, experiment_id, attempt, str(root)]), encoding="utf-8")
            half.replace(self._path)


def _remove(path: Path, maker: int) -> None:
    if os.getpid() == maker:
        path.unlink(missing_ok=True)
