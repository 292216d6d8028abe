"""The token cache: what lets a hundred processes share one login.

Promises: a reader sees a whole entry or none; files are 0600 in a directory of 0700; entries of another platform,
    another user or another
account are never used. Does not promise: to be there. A home that cannot be read or written costs a login, never an
error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from mantik.auth.token import Token
from mantik.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TokenCache"]

_FORMAT = 1
_LOCK_TIMEOUT_SECONDS = 45.0
"""Longer than a refresh and a login that both time out; after that the other process is taken for dead."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TokenCache:
    """The cached login of one user at one platform.

    Attributes:
        home: ``MANTIK_HOME``.
        token_url: URL of the platform's token endpoint.
        username: The platform user.
    """

    home: Path
    token_url: str
    username: str

    @property
    def path(self) -> Path:
        """The entry's file: named by a digest, because user names and URLs are no file names."""
        digest = hashlib.sha256(f"{self.token_url}\n{self.username}".encode()).hexdigest()[:32]
        return self.home / "tokens" / f"{digest}.json"

    def load(self) -> Token | None:
        """Read the entry; anything but a sound entry of this very login is none."""
        try:
            with os.fdopen(os.open(self.path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), encoding="utf-8") as file:
                owner = os.fstat(file.fileno()).st_uid
                content = json.load(file)
        except (OSError, ValueError):
            return None
        if hasattr(os, "geteuid") and owner != os.geteuid():
            return None
        return self._token_in(content)

    def store(self, token: Token) -> None:
        """Write the entry: into a new file first, then in its place, so that no reader ever sees half of it."""
        content = {
            "format": _FORMAT,
            "token_url": self.token_url,
            "username": self.username,
            "access_token": token.access.reveal(),
            "refresh_token": token.refresh.reveal() if token.refresh is not None else None,
            "expires_at": token.expires_at,
            "lifetime": token.lifetime,
        }
        try:
            write_private(self.path, json.dumps(content))
        except OSError as error:
            _logger.debug("The token cache %s cannot be written (%s); going on without.", self.path, error.strerror)

    def remove(self) -> bool:
        """Delete the entry; tell whether there was one."""
        try:
            self.path.unlink()
        except OSError:
            return False
        return True

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time renew this login, as far as the file system can lock.

        A lock that cannot be made or does not come free in 45 s is done without: a second refresh is harmless, a
        hanging training is not.
        """
        lock = filelock.FileLock(self.path.with_suffix(".lock"), timeout=_LOCK_TIMEOUT_SECONDS, mode=0o600)
        with contextlib.ExitStack() as held:
            try:
                make_private(self.path.parent)
                held.enter_context(lock)
            except (OSError, NotImplementedError) as error:
                _logger.debug("The token cache %s cannot be locked (%s); going on without a lock.", self.path, error)
            yield

    def _token_in(self, content: object) -> Token | None:
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            return None
        if content.get("token_url") != self.token_url or content.get("username") != self.username:
            return None
        access, refresh = content.get("access_token"), content.get("refresh_token")
        expires_at, lifetime = content.get("expires_at"), content.get("lifetime")
        if not isinstance(access, str) or not access or not isinstance(refresh, str | None):
            return None
        if not isinstance(expires_at, int | float) or not isinstance(lifetime, int | float):
            return None
        return Token(Secret(access), Secret(refresh) if refresh else None, float(expires_at), float(lifetime))


def make_private(directory: Path) -> None:
    """Create a directory for the user alone (0700), its parent too, and tighten it where others could enter.

    Raises:
        OSError: It cannot be made.
    """
    for folder in (directory.parent, directory):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_mode & 0o077:
        directory.chmod(0o700)


def write_private(path: Path, text: str) -> None:
    """Write a file for the user alone (0600), replacing it as a whole.

    Raises:
        OSError: It cannot be written; what was there before is untouched.
    """
    make_private(path.parent)
    # mkstemp creates with 0600, whatever the umask.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    finally:
        # Gone already where all went well.
        Path(name).unlink(missing_ok=True)
