"""The journal: what a training writes stands in a local file before the call returns.

Promises: a record whose ``append`` has returned survives the death of the process, by SIGKILL too, and is read back
byte for byte, once and in order. A record whose ``append`` has raised OSError is not there. After ``sync`` records
survive the death of the node. Truncated or damaged files cost the records whose bytes are gone and no others.

Does not promise: that records survive the node without ``sync``; that two processes may write one journal; that a
process on another node sees records while the writer lives, because network file systems may show bytes out of order.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from typing import TYPE_CHECKING, Literal, TypeAlias

from mantik.auth.cache import make_private
from mantik.delivery import framing
from mantik.delivery.segment import TORN_TAIL, Damage, Entry, Position, numbers_in, path_of, read_segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["TORN_TAIL", "Damage", "Entry", "JournalWriter", "Position", "Tail", "last_write", "read", "waiting_bytes"]

Tail: TypeAlias = Literal["open", "closed", "live"]

_NOTHING_OPEN = -1
_FIRST_OFFSET = len(framing.TAG)
# macOS has no fdatasync.
_sync_data = getattr(os, "fdatasync", os.fsync)


class JournalWriter:
    """The one writer of a journal.

    Every opening starts a segment of its own; files that are there already are never touched. All methods may be
    called from any thread, and ``append`` from a signal handler that interrupts another ``append`` too. A forked child
    must not use its parent's writer; it opens another journal.

    Args:
        directory: The journal's directory; made if it is not there (0700).
        segment_bytes: A segment that has this many bytes is followed by a new one.

    Raises:
        OSError: The directory or the first segment cannot be made.
    """

    def __init__(self, directory: Path, *, segment_bytes: int = 4 * 1024 * 1024) -> None:
        make_private(directory)
        self._directory = directory
        # A segment holds one record at least.
        self._segment_bytes = max(segment_bytes, _FIRST_OFFSET + 1)
        # Re-entrant, so that a signal handler can put the run's status on disk whatever it interrupted.
        self._lock = threading.RLock()
        self._closed = False
        self._descriptor = _NOTHING_OPEN
        self._segment = max(numbers_in(directory), default=0)
        self._offset = 0
        self._room_until = 0
        self._appends = 0
        self._open_next()
        self._synced = Position(self._segment, 0)

    @property
    def position(self) -> Position:
        """The end of what was written: of the last record, or of the format tag before there is one."""
        with self._lock:
            return Position(self._segment, self._offset)

    def append(self, payload: bytes) -> Position:
        """Write one record and give the position of its end: a cursor that has reached it has delivered the record.

        The record is handed to the operating system in one write when this returns. Where a signal handler appended
        meanwhile, the position is the end of that later record.

        Args:
            payload: Any bytes but newlines, at most 64 MiB.

        Raises:
            OSError: The record could not be written, and is not there; a later append may succeed. Only where nothing
                but its newline is missing and the file system refuses to cut it off as well, it is there nevertheless.
            ValueError: The payload holds a newline or is too long, or the writer is closed.
        """
        line = framing.encode(payload)
        with self._lock:
            if self._offset >= self._room_until:
                self._open_next()
            self._appends = number = self._appends + 1
            try:
                written = os.write(self._descriptor, line)
            except OSError:
                self._take_back(0)
                raise
            if written != len(line):
                self._take_back(written)
                raise OSError(errno.ENOSPC, f"Only {written} of a record's {len(line)} bytes could be written")
            if number == self._appends:
                # Nobody came between.
                self._offset = end = self._offset + written
                return Position(self._segment, end)
            # A signal handler appended in the middle of this call, perhaps to a new segment: asked, not added up.
            # Where its record came behind this question, what it left here is newer.
            segment, end = self._segment, os.lseek(self._descriptor, 0, os.SEEK_CUR)
            if segment == self._segment and end > self._offset:
                self._offset = end
            return Position(segment, end)

    def sync(self) -> None:
        """Make everything that was appended before this call survive the death of the node.

        Does nothing if nothing was written since the last time. Other threads may append meanwhile.

        Raises:
            OSError: The device or the file server reports an error; what survives is unknown.
        """
        synced, end = self._synced, self.position
        if synced >= end:
            return
        for number in range(synced.segment, end.segment + 1):
            try:
                descriptor = os.open(path_of(self._directory, number), os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                # Delivered and removed.
                continue
            _sync_and_close(descriptor, _sync_data)
        if synced.offset == 0 or synced.segment != end.segment:
            # A new file is found after a crash only if its directory is safe too.
            _sync_and_close(os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC), os.fsync)
        self._synced = end

    def close(self) -> None:
        """Close the segment, without ``sync``. Closing again does nothing.

        Raises:
            OSError: A network file system reports here that earlier writes did not reach the server.
        """
        with self._lock:
            self._closed = True
            self._room_until = 0
            self._close_segment()

    def _open_next(self) -> None:
        """Go on in a new segment, or stay where appends try this again."""
        if self._closed:
            raise ValueError("The journal is closed.")
        self._room_until = 0
        # First, so that on NFS nobody sees a later segment before the end of this one.
        self._close_segment()
        number, descriptor = self._create()
        with contextlib.ExitStack() as undo:
            undo.callback(path_of(self._directory, number).unlink)
            undo.callback(os.close, descriptor)
            if os.write(descriptor, framing.TAG) != len(framing.TAG):
                raise OSError(errno.ENOSPC, "A new segment's format tag could not be written")
            keep = undo.pop_all()
        # A signal handler may have opened a segment since the first line. Going back behind it would break the order.
        if self._segment < number:
            stale, self._descriptor = self._descriptor, descriptor
            self._segment, self._offset, self._room_until = number, _FIRST_OFFSET, self._segment_bytes
            if stale != _NOTHING_OPEN:
                os.close(stale)
        else:
            keep.close()

    def _create(self) -> tuple[int, int]:
        """Create the next segment that nobody has; give its number and descriptor."""
        number = self._segment + 1
        while True:
            with contextlib.suppress(FileExistsError):
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                return number, os.open(path_of(self._directory, number), flags, 0o600)
            number += 1

    def _close_segment(self) -> None:
        descriptor, self._descriptor = self._descriptor, _NOTHING_OPEN
        if descriptor != _NOTHING_OPEN:
            os.close(descriptor)

    def _take_back(self, written: int) -> None:
        """Cut off the part of a record that was written; if that cannot be done safely, give the segment up."""
        try:
            # Any other size means that somebody else's record stands there, which must not be cut off.
            if os.fstat(self._descriptor).st_size == self._offset + written:
                os.ftruncate(self._descriptor, self._offset)
                return
        except OSError:
            pass
        self._room_until = 0


def read(
    directory: Path,
    start: Position | None = None,
    *,
    tail: Tail,
    limit_bytes: int | None = None,
) -> Iterator[Entry | Damage]:
    """Read a journal in order: every sound record as an ``Entry``, every other stretch as a ``Damage``.

    May be used while the writer's process appends; the segments are those that there are at the first step.

    Args:
        directory: The journal's directory. One that does not exist is an empty journal.
        start: Where to begin: ``end`` of an entry or a damage, or what a cursor gives. Default: the beginning.
        tail: What to make of an incomplete last line of the last segment. ``"open"``: the writer may still be writing
            it, and reading ends before it. ``"closed"``: the writer is gone, and the line is a ``Damage`` whose reason
            is ``"torn tail"``, or an ``Entry`` if nothing but its newline is missing. ``"live"``: a writer on another
            node may be at work, whose bytes a network file system may show out of order; reading ends before anything
            in the last segment that is no sound record.
        limit_bytes: Stop behind the item with which this many bytes are reached. Default: no limit.

    Yields:
        Entries and damages, in the order of the journal.

    Raises:
        OSError: The directory cannot be listed or a segment cannot be read.
    """
    start = start or Position(0, 0)
    left = limit_bytes
    numbers = [number for number in numbers_in(directory) if number >= start.segment]
    for number in numbers:
        begin = start if number == start.segment else Position(number, 0)
        last = number == numbers[-1]
        for item in read_segment(directory, begin, growing=tail != "closed" and last):
            if tail == "live" and last and not _is_whole(item):
                return
            yield item
            if left is not None:
                left -= item.end.offset - item.start.offset
                if left <= 0:
                    return


def _is_whole(item: Entry | Damage) -> bool:
    """Tell whether it is a record with its newline: whoever goes on behind one without would not find the next."""
    return (
        isinstance(item, Entry) and item.end.offset - item.start.offset == framing.HEADER_BYTES + len(item.payload) + 1
    )


def waiting_bytes(directory: Path, position: Position) -> int:
    """Tell how many bytes of records stand behind a position; damaged and torn ones count too.

    Looks at sizes only, so it is cheap enough for a status line.

    Raises:
        OSError: The directory cannot be listed.
    """
    waiting = 0
    for number in numbers_in(directory):
        if number < position.segment:
            continue
        begin = max(position.offset if number == position.segment else 0, _FIRST_OFFSET)
        try:
            waiting += max(path_of(directory, number).stat().st_size - begin, 0)
        except FileNotFoundError:
            # Delivered and removed meanwhile.
            continue
    return waiting


def last_write(directory: Path) -> float | None:
    """Tell when the journal was last written, in seconds since 1970; None if there is none.

    Raises:
        OSError: The directory cannot be listed.
    """
    numbers = numbers_in(directory)
    try:
        return path_of(directory, numbers[-1]).stat().st_mtime if numbers else None
    except FileNotFoundError:
        return None


def _sync_and_close(descriptor: int, sync: Callable[[int], None]) -> None:
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
