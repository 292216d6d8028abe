"""Files that wait for their upload: copies, because training deletes or rewrites its own right after the call."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
from typing import TYPE_CHECKING

from mantik.auth.cache import make_private
from mantik.delivery.disk import size_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Staging"]

_FICLONE = 0x40049409
"""Linux's request for a copy that shares its blocks with the original until one is written (ioctl_ficlone(2))."""


class Staging:
    """The staged files of one writer. Any thread may call.

    Promises: `take` leaves a whole copy or none; memory does not grow with the file. Does not promise that a file which
    somebody writes during the copy is copied as of one moment.

    Args:
        folder: Where the copies are (0700).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Re-entrant: a signal handler that logs a file may interrupt a call that holds it.
        self._lock = threading.RLock()
        self._number = 0
        self._unsafe: dict[Path, None] = {}

    def take(self, source: Path) -> tuple[str, int]:
        """Copy a file and return its name here and its size in bytes.

        Raises:
            OSError: The source cannot be read or the copy not be written; there is no copy then.
        """
        make_private(self._folder)
        with self._lock:
            self._number += 1
            name = f"{self._number:08d}"
        copy = self._folder / name
        with source.open("rb") as reading:
            descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with contextlib.ExitStack() as undo:
                undo.callback(copy.unlink, missing_ok=True)
                with os.fdopen(descriptor, "wb") as writing:
                    if not _clone(reading.fileno(), writing.fileno()):
                        shutil.copyfileobj(reading, writing, 4 * 1024 * 1024)
                    writing.flush()
                    size = os.fstat(writing.fileno()).st_size
                undo.pop_all()
        with self._lock:
            self._unsafe[copy] = None
        return name, size

    def path(self, name: str) -> Path:
        """Return where a staged file is."""
        return self._folder / name

    def size(self) -> int:
        """Return the bytes of all files that are here."""
        return size_of(self._folder)

    def sync(self) -> None:
        """Make everything that was taken before this call survive the death of the node.

        Raises:
            OSError: The device reports an error.
        """
        with self._lock:
            unsafe = list(self._unsafe)
        for path in unsafe:
            with contextlib.suppress(FileNotFoundError):
                # FileNotFoundError: uploaded and removed.
                _sync(path)
            with self._lock:
                # One by one: what a device refuses is tried again.
                self._unsafe.pop(path, None)

    def is_safe(self, name: str) -> bool:
        """Tell whether a file that was taken here survives the death of the node."""
        with self._lock:
            return self.path(name) not in self._unsafe

    def discard(self, name: str) -> bool:
        """Delete a staged file that is not to be uploaded any more; tell whether it was there.

        A mark stays in its place, so that whoever comes to upload it does not take it for lost.

        Raises:
            OSError: It cannot be deleted, or not be marked. Then it is there still.
        """
        copy = self.path(name)
        if not copy.exists():
            return False
        # First: whoever finds no file looks for the mark.
        os.close(os.open(self._mark(name), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        copy.unlink(missing_ok=True)
        return True

    def is_discarded(self, name: str) -> bool:
        """Tell whether a staged file is not to be uploaded any more."""
        return self._mark(name).exists()

    def is_missing(self, name: str) -> bool:
        """Tell whether a staged file is not here though nobody discarded it: it was uploaded or refused, or is lost."""
        return not self.path(name).exists() and not self.is_discarded(name)

    def drop(self, name: str) -> None:
        """Delete all that is here of a staged file, if there is something."""
        for path in (self.path(name), self._mark(name)):
            with contextlib.suppress(OSError):
                path.unlink()

    def _mark(self, name: str) -> Path:
        return self._folder / f"{name}.gone"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clone(source: int, target: int) -> bool:
    """Let the copy share the original's blocks, where the file system can (XFS, Btrfs, and others)."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True
