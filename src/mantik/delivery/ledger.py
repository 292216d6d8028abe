"""Counts of what was recorded, sent and refused, by run: what receipts are made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mantik.delivery.records import Artifact, Batch, Create, Removal, RunUpdate, Spans

if TYPE_CHECKING:
    from mantik.delivery.records import Record

__all__ = ["Counts", "RunFacts", "entity_of", "in_words", "size_in_words"]

# The second one is for servers with ids of their own kind: an experiment's location may hold such a folder too.
_OWNERS = (
    re.compile(r"/((?:m-)?(?:local-)?[0-9a-f]{32}|tr-[0-9a-f]+)/artifacts(?:/|$)"),
    re.compile(r"/([^/]+)/artifacts(?:/|$)"),
)
_KINDS = ("metrics", "params", "tags", "changes", "artifacts", "size", "others")


@dataclass(slots=True)
class Counts:
    """How much of each kind.

    Attributes:
        metrics: Points of metrics.
        params: Params.
        tags: Tags.
        changes: Beginnings of runs and models, and changes of status, end and name.
        artifacts: Files.
        size: Bytes of those files.
        others: Inputs, outputs, params and tags of models, traces, removals of artifacts.
    """

    metrics: int = 0
    params: int = 0
    tags: int = 0
    changes: int = 0
    artifacts: int = 0
    size: int = 0
    others: int = 0

    @property
    def total(self) -> int:
        """How many things, whatever their kind."""
        return self.metrics + self.params + self.tags + self.changes + self.artifacts + self.others

    def count(self, record: Record, sign: int = 1) -> None:
        """Add a record, or take one away."""
        if isinstance(record, Batch):
            self.metrics += sign * len(record.metrics)
            self.params += sign * len(record.params)
            self.tags += sign * len(record.tags)
        elif isinstance(record, Artifact):
            self.artifacts += sign
            self.size += sign * record.size
        elif isinstance(record, RunUpdate | Create):
            self.changes += sign
        else:
            self.others += sign

    def add(self, other: Counts, sign: int = 1) -> None:
        """Add or take away all of another one."""
        for kind in _KINDS:
            setattr(self, kind, getattr(self, kind) + sign * getattr(other, kind))

    def minus(self, other: Counts) -> Counts:
        """Return what is left when another one is taken away; never less than nothing."""
        return Counts(*(max(0, getattr(self, kind) - getattr(other, kind)) for kind in _KINDS))

    def __str__(self) -> str:
        """Name what there is, in the order in which people ask for it."""
        parts = [
            in_words(count, word)
            for count, word in ((self.metrics, "point"), (self.params, "param"), (self.tags, "tag"))
            if count
        ]
        if self.artifacts:
            parts.append(f"{in_words(self.artifacts, 'artifact')} ({size_in_words(self.size)})")
        if self.others:
            parts.append(in_words(self.others, "other record"))
        if self.changes:
            parts.append(in_words(self.changes, "status change"))
        return ", ".join(parts) or "nothing"


class RunFacts:
    """What a receipt says about a run, beside counts. Attributes are None where they were never learned."""

    __slots__ = ("experiment_id", "name", "recorded", "status")

    def __init__(self) -> None:
        self.name: str | None = None
        self.experiment_id: str | None = None
        self.status: str | None = None
        self.recorded = Counts()


def entity_of(record: Record) -> str:
    """Return the id of the run, model, experiment or trace that a record is about."""
    if isinstance(record, Batch | RunUpdate):
        return record.run_id
    if isinstance(record, Create):
        return record.local_id
    if isinstance(record, Artifact | Removal):
        owners = (found[1] for pattern in _OWNERS if (found := pattern.search(record.uri)) is not None)
        return next(owners, "")
    return record.experiment_id if isinstance(record, Spans) else record.about


def in_words(count: int, word: str) -> str:
    """Return a number with its word in the right form."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def size_in_words(size: int) -> str:
    """Return a number of bytes in the unit in which it is short."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:  # noqa: PLR2004
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"  # noqa: PLR2004
        amount /= 1000
    return f"{amount:.1f} TB"
