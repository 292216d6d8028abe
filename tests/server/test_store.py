from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from mantik.exceptions import ConfigurationError
from mantik.server.store import Store

from .running import DEADLINE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "platform.db")


def test_user_of_the_same_name_is_another_user(store: Store) -> None:
    """An id is never used again."""
    first = store.add_user("alice", "-")
    store.remove_user("alice")
    second = store.add_user("alice", "-")
    assert first.id != second.id
    assert store.user_with_id(first.id) is None
    assert store.user_with_id(second.id) == second


def test_new_password_is_a_new_generation(store: Store) -> None:
    """The generation grows, the id stays."""
    user = store.add_user("alice", "old")
    store.change_password("alice", "new")
    changed = store.user_named("alice")
    assert changed
    assert (changed.id, changed.password_hash, changed.generation) == (user.id, "new", user.generation + 1)


def test_users_are_listed_by_name(store: Store) -> None:
    """The order does not depend on who came first."""
    for name in ("bob", "alice"):
        store.add_user(name, "-")
    assert [user.name for user in store.users()] == ["alice", "bob"]


def test_names_are_exact(store: Store) -> None:
    """Case matters, and there is no pattern in a name."""
    store.add_user("alice", "-")
    assert [store.user_named(name) for name in ("Alice", "alic", "%", "")] == [None] * 4


def test_ended_sign_ins_leave_when_they_would_have_expired(store: Store, tmp_path: Path) -> None:
    """The list of ended sign-ins does not grow for ever."""
    store.end_sign_in("old", time.time() - 1)
    store.end_sign_in("new", time.time() + 60)
    store.end_sign_in("new", time.time() + 60)
    assert store.is_ended("new")
    assert not store.is_ended("old")
    rows = sqlite3.connect(tmp_path / "platform.db").execute("SELECT jti FROM ended_sign_ins").fetchall()
    assert rows == [("new",)]


def test_processes_that_start_at_once_share_one_file(tmp_path: Path) -> None:
    """Several processes may make the file and write to it at the same time."""
    path = tmp_path / "platform.db"
    code = (
        "import sys, pathlib; from mantik.server.store import Store; s = Store(pathlib.Path(sys.argv[1]));"
        "[s.add_failure('here', 'alice') for _ in range(20)]"
    )
    command = [sys.executable, "-c", code, str(path)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    assert [process.communicate(timeout=DEADLINE)[1] for process in processes] == [""] * 6
    assert Store(path).failures("here", "alice") == 120


def test_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    """A file that a newer mantik wrote is an error."""
    path = tmp_path / "platform.db"
    Store(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(ConfigurationError, match="newer version of mantik"):
        Store(path)


def test_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    """Something else under the name is an error that names the file."""
    path = tmp_path / "platform.db"
    path.write_text("something else, longer than a header " * 20)
    with pytest.raises(ConfigurationError, match=r"platform\.db cannot be opened"):
        Store(path)
