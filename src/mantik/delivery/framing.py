r"""The record line: how one payload stands in a journal, and how to tell a sound record from anything else.

A record is one line, ``<length:08x><crc32:08x> <payload>\n``. The length counts the payload's bytes, the CRC-32 covers
the eight characters of the length and the payload. A payload holds no newline, so the byte behind a newline is always
the beginning of a record, and that is where reading goes on behind damage.
"""

from __future__ import annotations

import re
from zlib import crc32

__all__ = ["FORMAT", "HEADER_BYTES", "MAX_PAYLOAD_BYTES", "TAG", "encode", "format_of", "payload_at"]

FORMAT = 1
TAG = b"mantik-journal %d\n" % FORMAT
"""The line that every segment begins with."""

HEADER_BYTES = 17
MAX_PAYLOAD_BYTES = 64 * 1024 * 1024
"""What a reader is ready to hold in memory: a damaged segment without any newline must not be read as one line."""

_HEADER = re.compile(rb"([0-9a-f]{8})([0-9a-f]{8}) ")
_TAG = re.compile(rb"mantik-journal ([0-9]{1,9})\n")


def encode(payload: bytes) -> bytes:
    """Frame a payload as one record line.

    Args:
        payload: Any bytes but newlines, at most ``MAX_PAYLOAD_BYTES``.

    Raises:
        ValueError: The payload holds a newline or is too long.
    """
    if b"\n" in payload:
        raise ValueError("A record's payload must not hold a newline: newlines are where records end.")
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"A record's payload of {len(payload)} bytes is longer than {MAX_PAYLOAD_BYTES}.")
    length = b"%08x" % len(payload)
    return b"%b%08x %b\n" % (length, crc32(payload, crc32(length)), payload)


def payload_at(data: bytes, start: int, stop: int) -> bytes | None:
    """Give the payload of the record whose header stands at ``start``, or None if no sound record stands there.

    The byte behind the payload, which should be a newline, is not looked at: a record whose newline alone was damaged
    is a sound one.

    Args:
        data: Bytes of a segment.
        start: Index of the header's first byte.
        stop: Index behind the last byte that may belong to the record; the record's newline stands there or before.
    """
    header = _HEADER.match(data, start, stop)
    if header is None:
        return None
    end = header.end() + int(header[1], 16)
    if end > stop:
        return None
    payload = data[header.end() : end]
    return payload if crc32(payload, crc32(header[1])) == int(header[2], 16) else None


def format_of(head: bytes) -> int | None:
    """Give the number in the format tag with which a segment begins, or None if it begins with none."""
    tag = _TAG.match(head)
    return int(tag[1]) if tag is not None else None
