"""Where records go that no server takes, each with its reason: nothing is skipped in silence."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mantik.auth.cache import make_private

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
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
        yield from (refusal for _, refusal in self.lines() if refusal is not None)

    def lines(self) -> Iterator[tuple[bytes, Refusal | None]]:
        """Read the lines of the file, each with what it says; None where that cannot be read."""
        try:
            with self.path.open("rb") as lines:
                yield from ((line, _refusal_in(line)) for line in lines if line.strip())
        except OSError:
            return

    def count(self) -> int:
        """Return how much is here, readable or not: what cannot be read must not be thrown away either."""
        return sum(1 for _ in self.lines())

    def keep_only(self, lines: Sequence[bytes]) -> None:
        """Replace the file by some of its lines, as a whole.

        Raises:
            OSError: It cannot be written; all lines are there still.
        """
        if not lines:
            self.path.unlink(missing_ok=True)
            return
        new = self.folder / f".{self.path.name}.new"
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)


def _refusal_in(line: bytes) -> Refusal | None:
    try:
        refusal = Refusal(**json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
    texts = (refusal.reason, refusal.run_id, refusal.what)
    return refusal if all(isinstance(text, str) for text in texts) else None
