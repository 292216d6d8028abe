"""Where records go that no server takes, each with its reason: nothing is skipped in silence."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mantik.auth.cache import make_private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Quarantine", "Refusal"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """One thing that was not delivered, and will not be unless somebody asks for it again.

    Attributes:
        reason: Why, in the server's words or the reader's.
        run_id: The run, model or experiment that it was meant for; empty where that cannot be told.
        what: What it was, in a few words.
        content: The record, as `mantik.delivery.records` has it; a text in base64 where no record could be read.
        at: When it was put here, in seconds since 1970.
    """

    reason: str
    run_id: str
    what: str
    content: Any
    at: float


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The quarantine of one journal, a folder for the user alone: a file with one JSON object per line.

    Attributes:
        folder: The folder; it exists once there is something in it.
    """

    folder: Path

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / "records.jsonl"

    def add(self, reason: str, run_id: str, what: str, content: object) -> Refusal:
        """Put something here.

        Raises:
            OSError: It cannot be written. What it came from must not be given up then.
        """
        make_private(self.folder)
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
            with self.path.open(encoding="utf-8", errors="replace") as lines:
                yield from filter(None, map(_refusal_in, lines))
        except OSError:
            return

    def count(self) -> int:
        """Return how much is here."""
        return sum(1 for _ in self.refusals())


def _refusal_in(line: str) -> Refusal | None:
    try:
        return Refusal(**json.loads(line))
    except (ValueError, TypeError):
        return None
