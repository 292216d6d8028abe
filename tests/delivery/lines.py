"""What a journal's file holds, written and read by hand."""

from __future__ import annotations

from mantik.delivery import framing
from mantik.delivery.journal import Damage, Entry


def segment_of(payloads: list[bytes]) -> bytes:
    """Give the bytes of a sound segment."""
    return framing.TAG + b"".join(map(framing.encode, payloads))


def payloads_in(items: list[Entry | Damage]) -> list[bytes]:
    """Give what was read, without the damage."""
    return [item.payload for item in items if isinstance(item, Entry)]
