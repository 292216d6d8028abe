"""Takes refused records back into delivery, because what was wrong has been put right on the platform."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mantik.auth.cache import make_private
from mantik.delivery.ids import provisional_ids_in
from mantik.delivery.journal import JournalWriter, Position
from mantik.delivery.records import Artifact, Call, Create, Removal, RunUpdate, decode, encode
from mantik.delivery.segment import numbers_in, path_of
from mantik.delivery.spool import REQUEUED, Outgoing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mantik.delivery.ids import Identities
    from mantik.delivery.owner import Owner
    from mantik.delivery.quarantine import Refusal
    from mantik.delivery.records import Record
    from mantik.delivery.spool import Lane

__all__ = ["Requeued", "requeue"]

_NOBODY = "requeued"
"""Stands for the boot of the machine in the new folder's owner: there is no process to wait for."""

_OPEN_STATUSES = frozenset({None, "RUNNING", "SCHEDULED"})


@dataclass(frozen=True, slots=True)
class Requeued:
    """What became of a folder's refused records.

    Attributes:
        taken: How many wait for delivery again.
        left: How many stay, because they cannot be read or their file is gone.
        folder: The new folder; None if nothing was taken.
    """

    taken: int
    left: int
    folder: Path | None


def requeue(outgoing: Outgoing, owner: Owner, identities: Identities) -> Requeued:
    """Write a folder's refused records into a new folder, for the next sync.

    Whoever calls it holds the folder's lock, and its process is gone. Promises: a record is in one of the two folders
    at any moment, also if this is interrupted; one that is in both is sent twice, and the platform has it once. Others
    see the new folder when it is whole.

    Args:
        outgoing: The folder.
        owner: Who wrote it.
        identities: What provisional ids stand for.

    Raises:
        OSError: The spool cannot be read or written. What was refused is where it was.
    """
    taken: list[Record] = []
    left: list[bytes] = []
    for line, refusal in outgoing.quarantine.lines():
        record = _record_of(refusal, outgoing) if refusal is not None else None
        if record is None:
            left.append(line)
        else:
            taken.append(record)
    folder = None
    if taken:
        folder = _publish(outgoing, owner, _with_creations(taken, identities))
        outgoing.quarantine.keep_only(left)
        for record in taken:
            if isinstance(record, Artifact):
                (outgoing.quarantine.folder / record.staged).unlink(missing_ok=True)
    if not left and outgoing.is_only_refused() and not any(lane.waiting() for lane in outgoing.lanes):
        outgoing.remove()
    return Requeued(len(taken), len(left), folder)


def _record_of(refusal: Refusal, outgoing: Outgoing) -> Record | None:
    if not isinstance(refusal.content, list):
        return None
    try:
        record = decode(json.dumps(refusal.content).encode())
    except (ValueError, RecursionError):
        return None
    if isinstance(record, Artifact) and not (outgoing.quarantine.folder / record.staged).is_file():
        return None
    return record


def _with_creations(records: Sequence[Record], identities: Identities) -> list[Record]:
    """Readmit what was refused itself, and put before the records what creates it: what fails with it needs it."""
    here = {record.local_id for record in records if isinstance(record, Create)}
    creations: dict[str, list[Record]] = {"run": [], "model": [], "experiment": []}
    seen: set[str] = set()
    for record in records:
        for local_id in provisional_ids_in(encode(record).decode()):
            identity = identities.get(local_id) if local_id not in seen else None
            seen.add(local_id)
            if identity is None or identity.refused is None:
                continue
            identities.readmit(local_id)
            if local_id not in here:
                creations[identity.kind].append(Create(identity.kind, local_id, None, identity.body))
    return [*creations["experiment"], *creations["run"], *creations["model"], *records]


def _publish(old: Outgoing, owner: Owner, records: Sequence[Record]) -> Path:
    """Make the new folder where nobody looks, and put it into the spool when it is safe."""
    spool = old.path.parent
    mine = replace(owner, host=socket.gethostname(), boot=_NOBODY)
    new = Outgoing.create(spool / REQUEUED, mine)
    with contextlib.ExitStack() as undo:
        # The folder of folders goes last, and stays while somebody else is at work in it.
        undo.callback(_remove_if_empty, new.path.parent)
        half = undo.enter_context(contextlib.ExitStack())
        half.callback(new.remove)
        moment = old.last_moment() / 1000
        later = [record for record in records if _follows_uploads(record)]
        at_once = [record for record in records if not _follows_uploads(record)]
        for lane, part in ((new.points, at_once), (new.uploads, later)):
            _write(lane, part, moment)
        for record in later:
            if isinstance(record, Artifact):
                _copy(old.quarantine.folder / record.staged, new.staging.path(record.staged))
        ended = {r.run_id for r in records if isinstance(r, RunUpdate) and r.status not in _OPEN_STATUSES}
        for record in records:
            if isinstance(record, Create) and record.kind == "run" and record.local_id not in ended:
                new.open_run(record.local_id)
        # Machines that cannot see whether the process lives go by its last sign of life.
        os.utime(new.path / "owner.json", (moment, moment))
        _sync_folder(new.path)
        target = new.path.rename(spool / new.path.name)
        half.pop_all()
    _sync_folder(spool)
    return target


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _follows_uploads(record: Record) -> bool:
    """Tell whether a record goes with the artifacts, as when it was recorded first."""
    return isinstance(record, Artifact | Removal) or (isinstance(record, Call) and record.name == "finalize")


def _write(lane: Lane, records: Sequence[Record], moment: float) -> None:
    writer = JournalWriter(lane.journal)
    try:
        for record in records:
            writer.append(encode(record))
        writer.sync()
    finally:
        writer.close()
    # A run that was left open is ended at the time of its process's last record, which is not now.
    last = path_of(lane.journal, numbers_in(lane.journal)[-1])
    os.utime(last, (moment, moment))
    lane.cursor.store(Position(0, 0))


def _copy(source: Path, target: Path) -> None:
    make_private(target.parent)
    try:
        os.link(source, target)
    except FileExistsError:
        # Two records speak of one file.
        return
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EACCES}:
            raise
        shutil.copyfile(source, target)
        target.chmod(0o600)
    descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
