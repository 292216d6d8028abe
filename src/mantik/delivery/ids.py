"""Ids that this machine made up because no server could be asked, and what became of them.

A provisional id is random, so nobody else ever makes the same one. What it stands for is kept in a small file of the
spool, one for each id, which later tells the server's id: for the process that made it, for other processes that were
given it (``MLFLOW_RUN_ID``), and for syncs.
"""

from __future__ import annotations

import errno
import json
import re
import secrets
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from mantik.auth.cache import write_private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "NO_ROOM",
    "Identities",
    "Identity",
    "Kind",
    "UnresolvedError",
    "is_provisional",
    "new_id",
    "operation_of",
    "provisional_ids_in",
]

Kind: TypeAlias = Literal["run", "model", "experiment"]

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a disk that is full. What frees it again must not depend on writing to it."""

_FORMAT = 1
_MANY = 1000
_PATTERN = re.compile(r"\b(?:m-)?local-[0-9a-f]{32}\b")
_KEPT_SECONDS = 90 * 24 * 3600.0
"""How long it is remembered which server id a provisional one became: scripts may still hold the old one."""


class UnresolvedError(LookupError):
    """A provisional id has no server id yet."""

    def __init__(self, local_id: str) -> None:
        """Keep the id beside the text."""
        super().__init__(f"{local_id} is not on the platform yet")
        self.local_id = local_id


@dataclass(frozen=True, slots=True)
class Identity:
    """What a provisional id stands for.

    Attributes:
        local_id: The provisional id.
        kind: What it names.
        root: Artifact URI under which training put things before the server had its say; empty for an experiment that
            was found by name alone.
        body: The request that creates it.
        server_id: The server's id, once there is one.
        server_root: The server's artifact URI, once there is one.
        refused: Why the server will not have it, if that is so.
        asked_at: When the server was last asked to create it, in seconds since 1970. Without `server_id` nobody knows
            whether it did: whoever asked may have been killed.
    """

    local_id: str
    kind: Kind
    root: str
    body: dict[str, Any] = field(default_factory=dict)
    server_id: str | None = None
    server_root: str | None = None
    refused: str | None = None
    asked_at: float | None = None


def new_id(kind: Kind) -> str:
    """Make up an id that MLflow takes for one of this kind."""
    return f"{'m-' if kind == 'model' else ''}local-{secrets.token_hex(16)}"


def operation_of(local_id: str) -> str:
    """Return the value of the tag by which the server finds what has a provisional id.

    It is not the id itself, which delivery replaces wherever it occurs.
    """
    return local_id.rpartition("-")[2]


def provisional_ids_in(text: str) -> list[str]:
    """Return what looks like a provisional id in a text, each once, in the order of the text."""
    return list(dict.fromkeys(_PATTERN.findall(text)))


def is_provisional(text: str) -> bool:
    """Tell whether an id was made up here or on another machine with mantik."""
    return _PATTERN.fullmatch(text) is not None


class Identities:
    """The provisional ids of a spool. Any thread and any process may use it.

    Args:
        folder: Folder of the files; None keeps all in memory alone.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._known: dict[str, Identity] = {}
        self._unsaved: set[str] = set()
        self._lock = threading.RLock()

    def note(self, identity: Identity) -> None:
        """Remember what an id stands for, on disk before this returns.

        Raises:
            OSError: It cannot be written.
        """
        with self._lock:
            if self._folder is None and len(self._known) >= _MANY:
                del self._known[next(iter(self._known))]
            # In memory even where the disk does not take it: the process that made it up goes on with it.
            self._known[identity.local_id] = identity
            if self._folder is not None:
                content = json.dumps({"format": _FORMAT, **asdict(identity)})
                write_private(self._folder / f"{identity.local_id}.json", content)

    def note_if_room(self, identity: Identity) -> None:
        """Remember what an id stands for; where the disk is full, in memory until `save`.

        For delivery, which makes room: should the process die before, the server is asked once more by the tag.

        Raises:
            OSError: It cannot be written for another reason.
        """
        try:
            self.note(identity)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self._unsaved.add(identity.local_id)

    def save(self) -> None:
        """Put on disk what there was no room for; where there still is none, that waits for the next call.

        Raises:
            OSError: It cannot be written for another reason.
        """
        while self._unsaved:
            local_id = self._unsaved.pop()
            self.note_if_room(self._known[local_id])
            if local_id in self._unsaved:
                return

    def settle(self, local_id: str, server_id: str, server_root: str | None) -> None:
        """Remember which id the server gave.

        Raises:
            OSError: It cannot be written.
        """
        identity = self.get(local_id)
        if identity is not None:
            self.note_if_room(replace(identity, server_id=server_id, server_root=server_root))

    def refuse(self, local_id: str, reason: str) -> None:
        """Remember that the server will not have it.

        Raises:
            OSError: It cannot be written.
        """
        identity = self.get(local_id)
        if identity is not None:
            # It answered: nobody has to wait for what it may still be doing.
            self.note_if_room(replace(identity, refused=reason, asked_at=None))

    def readmit(self, local_id: str) -> None:
        """Forget that the server refused it, to ask once more.

        Raises:
            OSError: It cannot be written.
        """
        identity = self.get(local_id)
        if identity is not None and identity.refused is not None:
            self.note(replace(identity, refused=None))

    def get(self, local_id: str) -> Identity | None:
        """Return what an id stands for; None if nobody in this spool knows."""
        known = self._known.get(local_id)
        if known is not None and (known.server_id is not None or self._folder is None):
            return known
        if self._folder is None or not is_provisional(local_id):
            return known
        try:
            content = json.loads((self._folder / f"{local_id}.json").read_text(encoding="utf-8"))
            if content.pop("format") != _FORMAT:
                return known
            identity = Identity(**content)
            if not _is_sound(identity, local_id):
                return known
        except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
            return known
        self._known[local_id] = identity
        return identity

    def server_id(self, any_id: str) -> str:
        """Return the server's id for a provisional one; any other id is returned as it is.

        Raises:
            UnresolvedError: There is none yet, or nobody in this spool knows the id.
        """
        if not is_provisional(any_id):
            return any_id
        identity = self.get(any_id)
        if identity is None or identity.server_id is None:
            raise UnresolvedError(any_id)
        return identity.server_id

    def refusal(self, any_id: str) -> str | None:
        """Return why the server will not have what an id stands for; None where it may."""
        identity = self.get(any_id) if is_provisional(any_id) else None
        return identity.refused if identity is not None else None

    def translate(self, text: str) -> str:
        """Put the server's ids and artifact URIs where a text has provisional ones.

        What looks like a provisional id and is known to nobody here stays: it is the user's own text.

        Raises:
            UnresolvedError: An id has no server id yet.
        """
        if "local-" not in text:
            return text
        identities = [identity for match in _PATTERN.findall(text) if (identity := self.get(match)) is not None]
        # URIs first: an experiment may keep its artifacts elsewhere than its id says.
        for identity in identities:
            if identity.kind != "experiment" and identity.root and identity.root in text:
                if identity.server_root is None:
                    raise UnresolvedError(identity.local_id)
                text = text.replace(identity.root, identity.server_root)
        for identity in identities:
            if identity.local_id in text:
                text = text.replace(identity.local_id, self.server_id(identity.local_id))
        return text

    def translate_all(self, content: Any) -> Any:  # noqa: ANN401  # any JSON
        """Translate every text in a JSON value.

        Raises:
            UnresolvedError: An id has no server id yet.
        """
        if isinstance(content, str):
            return self.translate(content)
        if isinstance(content, list):
            return [self.translate_all(item) for item in content]
        if isinstance(content, dict):
            return {name: self.translate_all(item) for name, item in content.items()}
        return content

    def known(self) -> list[str]:
        """Return all provisional ids of the spool."""
        return [path.stem for path in self._files()]

    def unsettled(self, kind: Kind) -> list[Identity]:
        """Return what has no server id yet, of one kind."""
        identities = [self.get(local_id) for local_id in dict.fromkeys([*self.known(), *self._known])]
        return [one for one in identities if one is not None and one.kind == kind and one.server_id is None]

    def forget_old(self) -> None:
        """Delete what became of ids that were settled long ago."""
        for path in self._files():
            try:
                if time.time() - path.stat().st_mtime < _KEPT_SECONDS:
                    continue
            except OSError:
                continue
            identity = self.get(path.stem)
            if identity is not None and identity.server_id is not None:
                path.unlink(missing_ok=True)

    def _files(self) -> Iterator[Path]:
        if self._folder is not None and self._folder.is_dir():
            yield from sorted(self._folder.glob("*.json"))


def _is_sound(identity: Identity, local_id: str) -> bool:
    """Tell whether a file holds what this version writes: anything else would fail where it is used."""
    texts = (identity.server_id, identity.server_root, identity.refused)
    return (
        identity.local_id == local_id
        and identity.kind in {"run", "model", "experiment"}
        and isinstance(identity.root, str)
        and isinstance(identity.body, dict)
        and all(text is None or isinstance(text, str) for text in texts)
    )
