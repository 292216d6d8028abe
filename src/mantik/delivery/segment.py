"""One file of a journal: its name, and what can be read from it whatever happened to its bytes.

Reading never fails because of what a segment holds. Each byte behind the format tag belongs to exactly one
:class:`Entry` or one :class:`Damage`, in the order of the file, except for a last line that may still be being written.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mantik.delivery import framing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["NEWER_FORMAT", "TORN_TAIL", "Damage", "Entry", "Position", "numbers_in", "path_of", "read_segment"]

TORN_TAIL = "torn tail"
NEWER_FORMAT = "newer format"
_UNSOUND = "length, checksum or line end is wrong"
_UNTAGGED = "no format tag: a foreign file or a damaged one"

_NAME = re.compile(r"([0-9]{8,12})\.segment")
_CHUNK_BYTES = 256 * 1024
_LINE_BYTES = framing.HEADER_BYTES + framing.MAX_PAYLOAD_BYTES
_PIECE_BYTES = 8 * 1024 * 1024
"""More than a segment of the default size, so that a foreign segment is one piece, and little enough for memory."""


class Position(NamedTuple):
    """A place in a journal. Positions are ordered as the records are.

    Attributes:
        segment: Number of the segment; 0 stands before the first one.
        offset: Bytes from the segment's beginning.
    """

    segment: int
    offset: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One sound record.

    Attributes:
        start: Where its line begins.
        end: Where to go on reading behind it.
        payload: What was appended, byte for byte.
    """

    start: Position
    end: Position
    payload: bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """A stretch of bytes that is no record.

    Attributes:
        start: Where the stretch begins.
        end: Where to go on reading behind it.
        reason: What is wrong, for people; ``"torn tail"`` for a last line that was never completed.
        raw: The bytes themselves.
    """

    start: Position
    end: Position
    reason: str
    raw: bytes


def path_of(directory: Path, number: int) -> Path:
    """Give the path of the segment with this number."""
    return directory / f"{number:08d}.segment"


def numbers_in(directory: Path) -> list[int]:
    """List the numbers of a journal's segments, ascending; none if there is no such directory.

    Raises:
        OSError: The directory cannot be listed.
    """
    try:
        with os.scandir(directory) as entries:
            names = [_NAME.fullmatch(entry.name) for entry in entries if entry.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return sorted({int(name[1]) for name in names if name is not None})


def read_segment(directory: Path, start: Position, *, growing: bool) -> Iterator[Entry | Damage]:
    """Read a segment from ``start`` to its end.

    Adjacent stretches that are wrong for the same reason come as one, in pieces of about 8 MiB. Memory is bounded by
    twice the longest line, and no line is taken to be longer than a record can be.

    Args:
        directory: The journal's directory.
        start: Where to begin: the beginning of the segment, or the end of an entry or a damage.
        growing: The writer may still be writing: an incomplete last line is not there yet, instead of torn.

    Raises:
        OSError: The segment cannot be opened or read. One that is gone has been delivered, and is empty.
    """
    try:
        descriptor = os.open(path_of(directory, start.segment), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        pieces: list[Damage] = []
        for item in _lines(descriptor, start, growing=growing):
            if pieces and not _continues(pieces, item):
                yield _joined(pieces)
                pieces = []
            if isinstance(item, Damage):
                pieces.append(item)
            else:
                yield item
        if pieces:
            yield _joined(pieces)
    finally:
        os.close(descriptor)


def _continues(pieces: list[Damage], item: Entry | Damage) -> bool:
    return (
        isinstance(item, Damage)
        and item.reason == pieces[0].reason
        and item.end.offset - pieces[0].start.offset <= _PIECE_BYTES
    )


def _joined(pieces: list[Damage]) -> Damage:
    return Damage(pieces[0].start, pieces[-1].end, pieces[0].reason, b"".join(piece.raw for piece in pieces))


def _lines(descriptor: int, start: Position, *, growing: bool) -> Iterator[Entry | Damage]:
    """Look at the format tag, then read the lines behind it."""
    segment, offset = start
    head = os.pread(descriptor, 64, 0)
    number = framing.format_of(head)
    if number is not None and number > framing.FORMAT:
        # Lines of a newer format may look like ours and mean something else: none of them is interpreted.
        yield from _unread(descriptor, start, f"{NEWER_FORMAT}: mantik-journal {number}")
        return
    if offset == 0:
        if len(head) < len(framing.TAG) and framing.TAG.startswith(head):
            if head and not growing:
                yield Damage(start, Position(segment, len(head)), TORN_TAIL, head)
            return
        if number == framing.FORMAT:
            offset = len(framing.TAG)
        elif head.startswith(framing.TAG[:-1]):
            # Only the tag's newline is damaged; the first record stands where it always does.
            offset = len(framing.TAG)
            yield Damage(start, Position(segment, offset), _UNTAGGED, head[:offset])
    # A damaged tag does not condemn the records behind it: their own checksums do, in a file that is foreign.
    yield from _records(descriptor, Position(segment, offset), growing=growing, tagged=number == framing.FORMAT)


def _unread(descriptor: int, start: Position, reason: str) -> Iterator[Damage]:
    segment, offset = start
    while raw := os.pread(descriptor, _CHUNK_BYTES, offset):
        yield Damage(Position(segment, offset), Position(segment, offset + len(raw)), reason, raw)
        offset += len(raw)


def _records(descriptor: int, start: Position, *, growing: bool, tagged: bool) -> Iterator[Entry | Damage]:
    """Cut the bytes from ``start`` on into entries and damage, line by line."""
    segment, base = start
    window = b""
    at = 0
    # Behind a record without its newline the next one begins at once, or behind the byte that replaced the newline.
    # A reader that was stopped at such a place and begins there again must know that as well.
    candidates: tuple[int, ...] = (0, 1)
    ended = False
    while True:
        newline = window.find(b"\n", at)
        while newline < 0 and not ended and len(window) - at <= _LINE_BYTES:
            # Reading as much again as is there keeps a long line from being copied once per chunk.
            chunk = os.pread(descriptor, max(_CHUNK_BYTES, len(window) - at), base + len(window))
            ended = not chunk
            searched = len(window) - at
            base, window, at = base + at, window[at:] + chunk, 0
            newline = window.find(b"\n", searched)
        stop = newline if newline >= 0 else len(window)
        if newline < 0 and ended and (growing or at == stop):
            return
        for begin in candidates:
            payload = framing.payload_at(window, at + begin, stop)
            if payload is not None:
                break
        else:
            begin, payload = 0, None
        if payload is None:
            end = stop + (newline >= 0)
            reason = _UNTAGGED if not tagged else TORN_TAIL if newline < 0 and ended else _UNSOUND
            yield Damage(Position(segment, base + at), Position(segment, base + end), reason, window[at:end])
            # Within a line that is too long to be one, no record begins.
            candidates = (0,) if newline >= 0 else ()
        else:
            if begin:
                raw = window[at : at + begin]
                reason = _UNSOUND if tagged else _UNTAGGED
                yield Damage(Position(segment, base + at), Position(segment, base + at + begin), reason, raw)
            at += begin
            end = at + framing.HEADER_BYTES + len(payload)
            complete = end == newline
            end += complete
            yield Entry(Position(segment, base + at), Position(segment, base + end), payload)
            candidates = (0,) if complete else (0, 1)
        at = end
