"""The spool: one folder per writing process, each with a journal and who writes it.

A folder belongs to the process that made it for as long as that process lives; nobody else writes into it, and nobody
else ships from it. When the process is gone, whoever holds the folder's lock may ship the rest.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from mantik.auth.cache import make_private, write_private
from mantik.delivery.cursor import Cursor
from mantik.delivery.ids import Identities
from mantik.delivery.journal import last_write, waiting_bytes
from mantik.delivery.owner import Owner
from mantik.delivery.quarantine import Quarantine
from mantik.delivery.staging import Staging
from mantik.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "REQUEUED",
    "Kept",
    "Lane",
    "Outgoing",
    "foreign_in",
    "identities_of",
    "outgoing_in",
    "remove_halves",
    "require_readable",
]

Kept: TypeAlias = Literal["delivered", "refused"]

REQUEUED = ".requeued"
"""Folder of a spool in which folders are made ready that nobody must ship before they are whole."""

_FORMAT = 1
_NAME = re.compile(r".+-\d+-\d+-[0-9a-f]{8}")
_SILENT_SECONDS = 300.0
"""A writer on another machine that gave no sign for this long is taken for dead: five minutes tolerate a clock that is
off and a network file system that shows changes late."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One journal of a folder, with a thread of its own on each side: files must not hold up points.

    Attributes:
        journal: Folder of the journal.
        cursor: How far it was delivered.
        window_records: How many records are taken from it at a time.
    """

    journal: Path
    cursor: Cursor
    window_records: int

    def waiting(self) -> int:
        """Return how many bytes of records were not delivered.

        Raises:
            OSError: The journal cannot be listed.
        """
        return waiting_bytes(self.journal, self.cursor.load())


@dataclass(frozen=True)
class Outgoing:
    """One process's folder in the spool.

    Attributes:
        path: The folder.
    """

    path: Path

    @classmethod
    def create(cls, spool: Path, owner: Owner) -> Outgoing:
        """Make a folder for this process.

        Raises:
            OSError: The spool cannot be written.
        """
        # Two users cannot share a spool: what provisional ids stand for is for one of them to read.
        ids = spool / "ids"
        if ids.exists() and not os.access(ids, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"the spool of {_user_of(spool)}, for that user alone", str(spool))
        name = f"{_file_name(owner.host)}-{owner.pid}-{int(owner.created_at)}-{secrets.token_hex(4)}"
        outgoing = cls(spool / name)
        make_private(outgoing.path)
        write_private(outgoing.path / "owner.json", json.dumps({"format": _FORMAT, **asdict(owner)}))
        return outgoing

    @cached_property
    def points(self) -> Lane:
        """What training writes."""
        return Lane(self.path / "journal", Cursor(self.path / "delivered"), 5000)

    @cached_property
    def uploads(self) -> Lane:
        """Artifacts, and what has to come after them."""
        # Few at a time: whoever is interrupted uploads these again.
        return Lane(self.path / "uploads", Cursor(self.path / "uploaded"), 20)

    @property
    def lanes(self) -> tuple[Lane, Lane]:
        """Both journals, in the order in which they have to be delivered where nobody writes them any more."""
        return self.points, self.uploads

    @cached_property
    def staging(self) -> Staging:
        """Copies of the files that wait."""
        return Staging(self.path / "staged")

    @cached_property
    def quarantine(self) -> Quarantine:
        """What was refused."""
        return Quarantine(self.path / "quarantine")

    @property
    def lock(self) -> Path:
        """Held by whoever ships a dead process's journal."""
        return self.path / "sync.lock"

    def owner(self) -> Owner | None:
        """Read who writes here; None if it cannot be told."""
        content = self._owner_content()
        match content:
            case {
                "format": 1,
                "tracking_uri": str(),
                "username": str() | None,
                "api_url": str() | None,
                "host": str(),
                "pid": int(),
                "started": int(),
                "boot": str(),
                "created_at": int() | float(),
            }:
                del content["format"]
                try:
                    return Owner(**content)
                except TypeError:
                    return None
        return None

    def problem(self) -> str | None:
        """Say why nothing of this folder can be sent by this user with this version; None where it can."""
        try:
            foreign = hasattr(os, "geteuid") and self.path.stat().st_uid != os.geteuid()
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        if foreign:
            # Whoever could leave a folder here could otherwise choose where a password is sent.
            user = _user_of(self.path)
            return f"it belongs to {user}, and only that user can send it: run 'mantik sync' as {user}"
        if self.owner() is not None:
            return None
        content = self._owner_content()
        number = content.get("format") if isinstance(content, dict) else None
        if isinstance(number, int) and number > _FORMAT:
            return (
                f"its owner.json is of a newer mantik (format {number}; this one reads {_FORMAT}): nothing of it was "
                f"changed. Update mantik here ('pip install -U mantik') and sync again"
            )
        return (
            "its owner.json, which says for which platform and user it is, is missing or damaged: nothing of it is "
            "sent. 'mantik spool export' makes a readable copy of what is in it"
        )

    def _owner_content(self) -> Any:  # noqa: ANN401  # any JSON
        try:
            return json.loads((self.path / "owner.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None

    def beat(self) -> None:
        """Show that the writer lives, also to other machines.

        Raises:
            OSError: The folder cannot be written.
        """
        os.utime(self.path / "owner.json")

    def last_moment(self) -> int:
        """Return when the writer last recorded something, in milliseconds since 1970.

        The file system's word, not that of the records: those may carry any time that the user gave them.

        Raises:
            OSError: The folder cannot be read.
        """
        written = [moment for lane in self.lanes if (moment := last_write(lane.journal)) is not None]
        return int((max(written) if written else (self.path / "owner.json").stat().st_mtime) * 1000)

    def is_live(self, owner: Owner) -> bool:
        """Tell whether the writer may still be at work."""
        here = owner.lives_here()
        if here is not None:
            return here
        try:
            last = (self.path / "owner.json").stat().st_mtime
        except OSError:
            return False
        return time.time() - last < _SILENT_SECONDS

    def open_run(self, run_id: str) -> None:
        """Remember that the writer has a run open, until `close_run`.

        Raises:
            OSError: The folder cannot be written.
        """
        write_private(self.path / "open" / _file_name(run_id), "")

    def close_run(self, run_id: str) -> None:
        """Forget that the writer has a run open."""
        (self.path / "open" / _file_name(run_id)).unlink(missing_ok=True)

    def open_runs(self) -> list[str]:
        """Return the ids of the runs that the writer has open."""
        try:
            # A name with a dot in front is half of a note that somebody died over.
            return sorted(entry.name for entry in (self.path / "open").iterdir() if not entry.name.startswith("."))
        except OSError:
            return []

    def keep_refused(self, staged: str) -> None:
        """Put a staged file beside the reason for which it was refused, where no upload removes it."""
        make_private(self.quarantine.folder)
        with contextlib.suppress(FileNotFoundError):
            self.staging.path(staged).rename(self.quarantine.folder / staged)

    def drop_refused(self) -> None:
        """Delete what was refused."""
        shutil.rmtree(self.quarantine.folder, ignore_errors=True)

    @property
    def is_kept(self) -> bool:
        """Whether somebody has seen that what is here stays, and there is no need to mention it again."""
        return (self.path / "kept").exists()

    def mark_kept(self, why: Kept) -> None:
        """Remember that what is here stays: it was delivered and is to be kept, or something in it was refused."""
        write_private(self.path / "kept", why)

    def is_only_refused(self) -> bool:
        """Tell whether the folder is here for its refused records alone."""
        try:
            return (self.path / "kept").read_text(encoding="utf-8") == "refused"
        except (OSError, ValueError):
            return False

    def remove(self) -> None:
        """Delete the folder: everything in it was delivered."""
        # In one step for whoever looks, and for whoever is killed halfway: half a folder would be sent once more.
        gone = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        with contextlib.suppress(OSError):
            self.path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def identities_of(spool: Path) -> Identities:
    """Return what the provisional ids of a spool stand for."""
    return Identities(spool / "ids")


def require_readable(spool: Path) -> None:
    """Check that a spool can be looked into; one that is not there yet is an empty one.

    Raises:
        ConfigurationError: It cannot; the text says why, and what to do.
    """
    try:
        next(spool.iterdir(), None)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise ConfigurationError(
            f"The spool {spool} is no folder: a file is in its place or above it. Set MANTIK_SPOOL to a folder of "
            f"yours, or move the file away."
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"The spool {spool} belongs to {_user_of(spool)} and cannot be read ({error.strerror}). Set MANTIK_SPOOL "
            f"to a folder of yours."
        ) from None


def foreign_in(spool: Path) -> list[str]:
    """Return the names of what lies in a spool and is not mantik's: it is never touched."""
    try:
        others = [e for e in spool.iterdir() if e.name not in {"ids", REQUEUED} and not _is_outgoing(e)]
        return sorted(e.name for e in others if not _is_half(e))
    except OSError:
        return []


def outgoing_in(spool: Path) -> Iterator[Outgoing]:
    """Yield the folders of a spool, the oldest first; what is not mantik's is left out."""
    try:
        folders = [entry for entry in spool.iterdir() if _is_outgoing(entry)]
    except OSError:
        return
    for folder in sorted(folders, key=lambda path: (path.name.split("-")[-2:], path.name)):
        yield Outgoing(folder)


def remove_halves(spool: Path) -> None:
    """Delete what is left of folders that somebody was killed over while deleting them."""
    for entry in spool.glob(".*"):
        if _is_half(entry):
            shutil.rmtree(entry, ignore_errors=True)


def _is_half(entry: Path) -> bool:
    return entry.name.startswith(".") and _NAME.fullmatch(entry.stem[1:]) is not None


def _is_outgoing(entry: Path) -> bool:
    if _NAME.fullmatch(entry.name) is None:
        return False
    try:
        return entry.is_dir()
    except OSError:
        return False


def _user_of(path: Path) -> str:
    try:
        return f"the user {path.owner()}"
    except (OSError, KeyError, NotImplementedError):
        return "another user"


def _file_name(text: str) -> str:
    # Whole: the name of an open run's note is read back as its id.
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)[:200]
