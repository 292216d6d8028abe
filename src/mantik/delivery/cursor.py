"""The cursor: up to where a journal has been delivered."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mantik.auth.cache import make_private
from mantik.delivery import framing
from mantik.delivery.segment import Position, numbers_in, path_of

__all__ = ["Cursor"]

_BEGINNING = Position(0, 0)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in a file: everything before it has been delivered.

    Promises: a reader sees a whole position or none, and never one that was not stored. Does not promise to survive the
    death of the node, or to be the latest one after it: it is stored without ``fsync``, because an older position
    means only that records are delivered again. One process at a time stores.

    Attributes:
        path: The cursor's file (0600), best kept beside the journal's segments.
    """

    path: Path

    def load(self) -> Position:
        """Read the position; the beginning of the journal if the file is absent, unreadable or damaged."""
        try:
            line = self.path.read_bytes()
        except OSError:
            return _BEGINNING
        payload = framing.payload_at(line, 0, len(line))
        if payload is None:
            return _BEGINNING
        try:
            segment, offset = json.loads(payload)
        except (ValueError, TypeError):
            return _BEGINNING
        if not all(type(number) is int and number >= 0 for number in (segment, offset)):
            return _BEGINNING
        return Position(segment, offset)

    def store(self, position: Position) -> None:
        """Replace the position, as a whole.

        Raises:
            OSError: It cannot be written; the position of before is untouched.
        """
        make_private(self.path.parent)
        # mkstemp creates with 0600, whatever the umask.
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        new = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(framing.encode(json.dumps(position).encode()))
            new.replace(self.path)
        finally:
            # Gone already where all went well.
            new.unlink(missing_ok=True)

    @staticmethod
    def remove_delivered(directory: Path, position: Position) -> None:
        """Delete the segments that lie wholly before the position's segment.

        The position's own segment stays, though all of it may have been delivered: its number keeps the next writer
        from beginning again at 1, where nobody who holds this position would look.

        Raises:
            OSError: A segment cannot be deleted.
        """
        for number in numbers_in(directory):
            if number < position.segment:
                path_of(directory, number).unlink(missing_ok=True)
