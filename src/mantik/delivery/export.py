"""A readable copy of a folder of the spool, for people who have no platform to send it to."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mantik.delivery.journal import Damage, Position, read
from mantik.delivery.ledger import entity_of
from mantik.delivery.records import Artifact, Batch, Removal, decode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.delivery.journal import Entry, Tail
    from mantik.delivery.records import Record
    from mantik.delivery.spool import Lane, Outgoing

__all__ = ["Exported", "export"]

_METRIC_FIELDS = ("key", "value", "timestamp", "step", "model_id", "dataset_name", "dataset_digest")
_NAME_BYTES = 250
_BELOW_ROOT = re.compile(r"/artifacts/(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Exported:
    """What a copy holds.

    Attributes:
        records: How many records.
        unreadable: How many stretches of the journals are no records.
        refused: How many refusals.
        artifacts: How many files.
        gone: How many artifacts whose files are not here: they were uploaded, or lost. Those that were logged again or
            removed before their upload do not count.
    """

    records: int
    unreadable: int
    refused: int
    artifacts: int
    gone: int


def export(outgoing: Outgoing, target: Path, *, live: bool) -> Exported:
    """Copy a folder in a readable form: ``records.jsonl``, ``quarantine.jsonl`` and the files of ``artifacts``.

    Args:
        outgoing: The folder, which is not changed.
        target: A folder that does not exist yet, or an empty one.
        live: Whether somebody may still be writing.

    Raises:
        FileExistsError: There is something at the target.
        OSError: The folder cannot be read, or the target not be written.
    """
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise FileExistsError(f"{target} is not empty")
    files = _Files(outgoing, target / "artifacts")
    records = unreadable = 0
    with (target / "records.jsonl").open("x", encoding="utf-8") as lines:
        for lane in outgoing.lanes:
            for line, record in _lines(lane, "open" if live else "closed"):
                lines.write(json.dumps(line) + "\n")
                records += record is not None
                unreadable += record is None
                if isinstance(record, Artifact):
                    files.take(record)
                elif isinstance(record, Removal):
                    files.remove(record)
    refused = 0
    with (target / "quarantine.jsonl").open("x", encoding="utf-8") as lines:
        for raw, refusal in outgoing.quarantine.lines():
            refused += 1
            line = {"unreadable": raw.decode(errors="replace")} if refusal is None else asdict(refusal)
            lines.write(json.dumps(_plain(line)) + "\n")
            artifact = _artifact_in(refusal.content) if refusal is not None else None
            if artifact is not None:
                files.take(artifact)
    return Exported(records, unreadable, refused, files.copy(), files.gone)


class _Files:
    """The files of artifacts that are here, as records bring and remove them.

    Args:
        outgoing: Where they are.
        target: Where they go.
    """

    def __init__(self, outgoing: Outgoing, target: Path) -> None:
        self._outgoing = outgoing
        self._target = target
        # A later file for the same artifact is the one that counts, as on the platform.
        self._found: dict[str, tuple[Artifact, Path]] = {}
        self.gone = 0

    def take(self, artifact: Artifact) -> None:
        """Take in an artifact, if its file is here."""
        staging = self._outgoing.staging
        if staging.is_discarded(artifact.staged):
            return
        for source in (staging.path(artifact.staged), self._outgoing.quarantine.folder / artifact.staged):
            if source.is_file() and not source.is_symlink():
                self._found[artifact.uri] = artifact, source
                return
        self.gone += 1

    def remove(self, removal: Removal) -> None:
        """Forget what a removal covers."""
        self._found = {uri: file for uri, file in self._found.items() if not removal.covers(uri)}

    def copy(self) -> int:
        """Copy what there is, and tell how many files that are."""
        for artifact, source in self._found.values():
            below = _BELOW_ROOT.search(artifact.uri)
            path = below[1] if below is not None else artifact.uri
            parts = (_name(part) for part in path.split("/") if part)
            place = self._target.joinpath(_name(entity_of(artifact) or "other"), *parts)
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copyfile(source, place)
        return len(self._found)


def _lines(lane: Lane, tail: Tail) -> Iterator[tuple[dict[str, Any], Record | None]]:
    delivered = lane.cursor.load()
    for entry in read(lane.journal, Position(0, 0), tail=tail):
        line, record = _line(entry)
        yield {**line, "delivered": entry.end <= delivered}, record


def _line(entry: Entry | Damage) -> tuple[dict[str, Any], Record | None]:
    if isinstance(entry, Damage):
        return {"record": "damage", "reason": entry.reason, "bytes": len(entry.raw)}, None
    try:
        record = decode(entry.payload)
    except ValueError as error:
        text = entry.payload.decode(errors="replace")
        return {"record": "unknown", "reason": str(error), "content": text}, None
    kind = type(record).__name__.lower()
    content: dict[str, Any] = asdict(record)
    if isinstance(record, Batch):
        content["metrics"] = [dict(zip(_METRIC_FIELDS, item, strict=False)) for item in record.metrics]
        for name in ("params", "tags"):
            content[name] = [{"key": key, "value": value} for key, value in content[name]]
    return {"record": kind, **_plain(content)}, record


def _plain(content: Any) -> Any:  # noqa: ANN401  # any JSON
    """Write NaN and infinities as texts: JSON has no numbers for them."""
    if isinstance(content, float) and not math.isfinite(content):
        return "NaN" if math.isnan(content) else "Infinity" if content > 0 else "-Infinity"
    if isinstance(content, list):
        return [_plain(item) for item in content]
    if isinstance(content, dict):
        return {name: _plain(item) for name, item in content.items()}
    return content


def _artifact_in(content: object) -> Artifact | None:
    try:
        record = decode(json.dumps(content).encode()) if isinstance(content, list) else None
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, Artifact) else None


def _name(part: str) -> str:
    """Return a part of a path as a name that leads nowhere else."""
    name = part.encode("utf-8", "backslashreplace").replace(b"\0", b"_")[:_NAME_BYTES].decode(errors="replace")
    return "_" if name in {".", ".."} else name
