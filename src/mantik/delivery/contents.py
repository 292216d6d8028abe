"""What is in a folder of the spool, counted and grouped for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mantik.delivery.history import waiting_records
from mantik.delivery.ledger import Counts, entity_of, size_in_words
from mantik.delivery.records import Artifact

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mantik.delivery.quarantine import Refusal
    from mantik.delivery.spool import Outgoing

__all__ = ["Reason", "Waiting", "reasons_of", "waiting_in"]

_SHOWN = 3


@dataclass(slots=True)
class Waiting:
    """What of a folder, or of several, was not delivered yet.

    Attributes:
        by_entity: What waits of each run, model, experiment and trace, by its id.
        uncounted: Bytes of records that were too many to be counted.
    """

    by_entity: dict[str, Counts] = field(default_factory=dict)
    uncounted: int = 0

    @property
    def total(self) -> Counts:
        """All of it together, without what was not counted."""
        counts = Counts()
        for part in self.by_entity.values():
            counts.add(part)
        return counts

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self.by_entity) or self.uncounted > 0

    def __str__(self) -> str:
        """Name what there is."""
        parts = [str(self.total)] if self.by_entity else []
        if self.uncounted:
            parts.append(f"{size_in_words(self.uncounted)} of records")
        return " and ".join(parts) or "nothing"

    def add(self, other: Waiting) -> None:
        """Add all of another one."""
        self.uncounted += other.uncounted
        for entity, counts in other.by_entity.items():
            self.by_entity.setdefault(entity, Counts()).add(counts)


@dataclass(slots=True)
class Reason:
    """Refusals for one reason.

    Attributes:
        reason: Why, in the server's words or the reader's.
        count: How many.
        examples: What the first ones were.
    """

    reason: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


def waiting_in(outgoing: Outgoing, *, live: bool, most_bytes: int | None = None) -> Waiting:
    """Count what waits in a folder.

    Args:
        outgoing: The folder.
        live: Whether somebody may still be writing it.
        most_bytes: Do not read journals of which more than this waits; their bytes are named instead. Default: all.

    Raises:
        OSError: A journal cannot be read.
    """
    waiting = Waiting()
    for lane in outgoing.lanes:
        size = lane.waiting()
        if most_bytes is not None and size > most_bytes:
            waiting.uncounted += size
            continue
        found = False
        for _, record in waiting_records(lane, tail="open" if live else "closed"):
            found = True
            if isinstance(record, Artifact) and outgoing.staging.is_discarded(record.staged):
                continue
            waiting.by_entity.setdefault(entity_of(record), Counts()).count(record)
        if not found:
            # Damaged, or of a newer format: it is no less there.
            waiting.uncounted += size
    return waiting


def reasons_of(refusals: Iterable[Refusal]) -> list[Reason]:
    """Group refusals by their reasons, the most frequent first."""
    reasons: dict[str, Reason] = {}
    for refusal in refusals:
        reason = reasons.setdefault(refusal.reason, Reason(refusal.reason))
        reason.count += 1
        if len(reason.examples) < _SHOWN and refusal.what not in reason.examples:
            reason.examples.append(refusal.what)
    return sorted(reasons.values(), key=lambda reason: -reason.count)
