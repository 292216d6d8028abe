"""Users, ended sign-ins and failed attempts, in one SQLite file that every process of the platform shares."""

from __future__ import annotations

import sqlite3
import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

from mantik.exceptions import ConfigurationError
from mantik.server.database import Database

if TYPE_CHECKING:
    from pathlib import Path

# After this many seconds without a new failure the earlier ones no longer count.
FAILURES_FORGOTTEN_AFTER: Final = 600.0

_VERSION: Final = 1
_SCHEMA: Final = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS users (
    name TEXT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    generation INTEGER NOT NULL,
    created_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS ended_sign_ins (jti TEXT PRIMARY KEY, expires_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (
    client TEXT NOT NULL,
    name TEXT NOT NULL,
    count INTEGER NOT NULL,
    last_at REAL NOT NULL,
    PRIMARY KEY (client, name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS failures_by_age ON failures (last_at);
PRAGMA user_version = 1;
COMMIT;
"""
_USER_COLUMNS: Final = "name, id, password_hash, generation, created_at"


@dataclass(frozen=True, slots=True)
class User:
    """A person who may use the platform.

    Attributes:
        name: What the person types.
        id: A UUID that no other user ever has, not even a later one of the same name.
        password_hash: What is kept of the password.
        generation: Grows with each new password. A token of an earlier generation is not valid.
        created_at: When the user was added, ISO 8601 in UTC.
    """

    name: str
    id: str
    password_hash: str
    generation: int
    created_at: str


class Store:
    """The platform's own state.

    Every call is one transaction and is seen at once by the other processes. Any thread may call; each has its own
    connection. A store must not be carried over a fork.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, create it if need be.

        Raises:
            ConfigurationError: The file cannot be opened, is no database, or was written by a newer mantik.
        """
        self._database = Database(path, "platform's database", schema=_SCHEMA, version=_VERSION)

    def add_user(self, name: str, password_hash: str) -> User:
        """Add a user.

        Raises:
            ConfigurationError: There is a user of this name.
        """
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        user = User(name, str(uuid.uuid4()), password_hash, 1, now)
        try:
            self._database.execute(
                "INSERT INTO users (name, id, password_hash, generation, created_at) VALUES (?, ?, ?, ?, ?)",
                (user.name, user.id, user.password_hash, user.generation, user.created_at),
            )
        except sqlite3.IntegrityError as error:
            raise user_exists(name) from error
        return user

    def remove_user(self, name: str) -> None:
        """Remove a user, and with it every token of that user.

        Raises:
            ConfigurationError: There is no user of this name.
        """
        if self._database.execute("DELETE FROM users WHERE name = ?", (name,)).rowcount == 0:
            raise no_such_user(name)

    def change_password(self, name: str, password_hash: str) -> None:
        """Store a new password, which ends every token and sign-in of the user.

        Raises:
            ConfigurationError: There is no user of this name.
        """
        changed = self._database.execute(
            "UPDATE users SET password_hash = ?, generation = generation + 1 WHERE name = ?", (password_hash, name)
        )
        if changed.rowcount == 0:
            raise no_such_user(name)

    def users(self) -> list[User]:
        """Return all users, by name."""
        rows = self._database.execute(f"SELECT {_USER_COLUMNS} FROM users ORDER BY name")  # noqa: S608 - a constant
        return [User(*row) for row in rows]

    def user_named(self, name: str) -> User | None:
        """Return the user of this name."""
        return self._user("name", name)

    def user_with_id(self, user_id: str) -> User | None:
        """Return the user of this id."""
        return self._user("id", user_id)

    def _user(self, column: str, value: str) -> User | None:
        query = f"SELECT {_USER_COLUMNS} FROM users WHERE {column} = ?"  # noqa: S608 - two constants
        row = self._database.execute(query, (value,)).fetchone()
        return User(*row) if row else None

    def end_sign_in(self, jti: str, expires_at: float) -> None:
        """Remember that a browser's sign-in is over, until it would have expired by itself."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM ended_sign_ins WHERE expires_at < ?", (time.time(),))
            connection.execute("INSERT OR IGNORE INTO ended_sign_ins VALUES (?, ?)", (jti, expires_at))

    def is_ended(self, jti: str) -> bool:
        """Tell whether a browser's sign-in is over."""
        return self._database.execute("SELECT 1 FROM ended_sign_ins WHERE jti = ?", (jti,)).fetchone() is not None

    def failures(self, client: str, name: str) -> int:
        """Return how often this client failed to sign in with this name lately."""
        row = self._database.execute(
            "SELECT count FROM failures WHERE client = ? AND name = ? AND last_at >= ?",
            (client, name, time.time() - FAILURES_FORGOTTEN_AFTER),
        ).fetchone()
        return int(row[0]) if row else 0

    def add_failure(self, client: str, name: str) -> None:
        """Count one more failure."""
        now = time.time()
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM failures WHERE last_at < ?", (now - FAILURES_FORGOTTEN_AFTER,))
            connection.execute(
                "INSERT INTO failures VALUES (?, ?, 1, ?) "
                "ON CONFLICT (client, name) DO UPDATE SET count = count + 1, last_at = excluded.last_at",
                (client, name, now),
            )

    def forget_failures(self, client: str, name: str) -> None:
        """Start counting anew, after a success."""
        self._database.execute("DELETE FROM failures WHERE client = ? AND name = ?", (client, name))


def user_exists(name: str) -> ConfigurationError:
    """Return the error for a name that is taken."""
    return ConfigurationError(
        f"There is a user {name!r} already. To change the password: mantik server users passwd {name}"
    )


def no_such_user(name: str) -> ConfigurationError:
    """Return the error for a name that nobody has."""
    return ConfigurationError(f"There is no user {name!r}. To see the users: mantik server users list")
