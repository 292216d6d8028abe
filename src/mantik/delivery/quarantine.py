"""Where records go that no server takes, each with its reason: nothing is skipped in silence."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Quarantine", "Refusal"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """One thing that was not delivered, and will not be.

    Attributes:
        reason: Why, in the server's words or the reader's.
        run_id: The run that it was meant for; empty where that cannot be told.
        what: What it was, in a few words.
        content: The thing itself, as JSON holds it.
        at: When it was put here, in seconds since 1970.
    """

    reason: str
    run_id: str
    what: str
    content: Any
    at: float


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The quarantine of one journal: a file with one JSON object per line, for the user alone.

    Attributes:
        path: The file; it exists once there is something in it.
    """

    path: Path

    def add(self, reason: str, run_id: str, what: str, content: object) -> Refusal:
        """Put something here.

        Raises:
            OSError: It cannot be written. What it came from must not be given up then.
        """
        refusal = Refusal(reason, run_id, what, content, time.time())
        line = json.dumps(asdict(refusal)).encode() + b"\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
        return refusal

    def refusals(self) -> Iterator[Refusal]:
        """Read what is here; a line that cannot be read is left out."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except OSError:
            return
        yield from filter(None, map(_refusal_in, text.splitlines()))


def _refusal_in(line: str) -> Refusal | None:
    try:
        return Refusal(**json.loads(line))
    except (ValueError, TypeError):
        return None
