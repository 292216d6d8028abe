"""Spools as processes leave them behind, written without a process."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mantik.delivery.journal import JournalWriter
from mantik.delivery.owner import Owner
from mantik.delivery.records import encode
from mantik.delivery.spool import Outgoing
from tests.forked import run_mantik as mantik

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mantik.delivery.records import Record
    from mantik.delivery.spool import Lane
    from mantik.settings import Settings
    from mantik.testing import Platform

__all__ = ["append", "create_run", "dead", "leave", "mantik", "stage"]


def create_run(platform: Platform) -> str:
    """Create a run on the platform and return its id."""
    created = platform.read_back._call("POST", "runs/create", {"experiment_id": "0", "start_time": 1000})  # noqa: SLF001
    return str(created["run"]["info"]["run_id"])


def dead(owner: Owner) -> Owner:
    """Return an owner whose process is gone: its id belongs to another one by now."""
    return replace(owner, started=owner.started - 1)


def append(lane: Lane, payloads: Sequence[bytes]) -> None:
    """Write payloads into a journal."""
    writer = JournalWriter(lane.journal)
    for payload in payloads:
        writer.append(payload)
    writer.close()


def leave(settings: Settings, uri: str, records: Sequence[Record], uploads: Sequence[Record] = ()) -> Outgoing:
    """Leave a folder behind as a process does that is gone."""
    outgoing = Outgoing.create(settings.spool, dead(Owner.here(uri, settings.username, None)))
    append(outgoing.points, [encode(record) for record in records])
    if uploads:
        append(outgoing.uploads, [encode(record) for record in uploads])
    return outgoing


def stage(outgoing: Outgoing, folder: Path, content: str) -> str:
    """Stage a file and return its name among the staged ones."""
    source = folder / "source"
    source.write_text(content)
    name, _ = outgoing.staging.take(source)
    return name
