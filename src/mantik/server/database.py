"""A SQLite file of the platform's own, which several processes share."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from typing import TYPE_CHECKING

from mantik.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_BUSY_SECONDS = 30.0


class Database:
    """Opens the file, creates it if need be, and gives each thread a connection of its own.

    Every statement outside a `transaction` is one by itself. It must not be carried over a fork.

    Args:
        path: The file; only its owner can read it.
        name: What messages call it, such as "platform's database".
        schema: What makes the tables, safe to run twice, and sets SQLite's ``user_version``.
        version: That version.

    Raises:
        ConfigurationError: The file cannot be opened, is no database, or was written by a newer mantik.
    """

    def __init__(self, path: Path, name: str, *, schema: str, version: int) -> None:
        self._path = path
        self._local = threading.local()
        try:
            # SQLite would create the file with the umask's mode; its -wal and -shm files take over this one.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            (found,) = self.execute("PRAGMA user_version").fetchone()
            if found < version:
                self._connection.executescript(schema)
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"The {name} {path} cannot be opened: {error}") from error
        if found > version:
            raise ConfigurationError(f"The {name} {path} was written by a newer version of mantik.")

    @property
    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
            # Readers do not wait for a writer, and tokens are checked on every request.
            connection.execute("PRAGMA journal_mode = WAL")
            self._local.connection = connection
        return connection

    def execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """Run one statement, in this thread's transaction if it is in one, and return its rows."""
        return self._connection.execute(statement, values)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Do several statements as one; an exception undoes them."""
        self.execute("BEGIN IMMEDIATE")
        with self._connection as connection:
            yield connection
