from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from mantik.auth.cache import TokenCache
from mantik.auth.token import Token
from mantik.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://platform.example.org/api/mantik/tokens"
TOKEN = Token(Secret("an-access-token"), Secret("a-refresh-token"), expires_at=1_700_000_000.5, lifetime=3600.0)


@pytest.fixture
def cache(tmp_path: Path) -> TokenCache:
    """Return the cache of one login in an empty home."""
    return TokenCache(tmp_path / "home", URL, "ada")


def test_what_was_stored_is_loaded(cache: TokenCache) -> None:
    """An entry comes back whole, with or without a refresh token."""
    cache.store(TOKEN)
    assert cache.load() == TOKEN
    without = Token(Secret("other"), None, 1.0, 2.0)
    cache.store(without)
    assert cache.load() == without


def test_files_are_for_the_user_alone(cache: TokenCache) -> None:
    """Whatever the umask: directories 0700, files 0600, also the lock's, also where the directory was open before."""
    before = os.umask(0)
    try:
        cache.path.parent.mkdir(parents=True, mode=0o777)
        cache.path.parent.chmod(0o777)
        with cache.locked():
            cache.store(TOKEN)
    finally:
        os.umask(before)
    assert stat.S_IMODE(cache.path.parent.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in cache.path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert cache.path.name in modes


def test_a_home_that_does_not_exist_is_made_private(cache: TokenCache) -> None:
    """The home itself is created with 0700."""
    cache.store(TOKEN)
    assert stat.S_IMODE(cache.home.stat().st_mode) == 0o700


def test_storing_leaves_no_leftovers(cache: TokenCache) -> None:
    """After many writes there is the entry and nothing else."""
    for _ in range(5):
        cache.store(TOKEN)
    assert [path.name for path in cache.path.parent.iterdir()] == [cache.path.name]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"access_token": "a", "refresh_token": "r", "expires_at": "2022-05-24T09:40:19"}',
        b"x" * 100_000,
    ],
)
def test_a_corrupt_entry_is_none(cache: TokenCache, content: bytes) -> None:
    """Empty, cut, foreign or garbled files count as no entry, and are replaced by the next write."""
    cache.store(TOKEN)
    cache.path.write_bytes(content)
    assert cache.load() is None
    cache.store(TOKEN)
    assert cache.load() == TOKEN


@pytest.mark.parametrize(
    "change",
    [
        {"username": "grace"},
        {"token_url": "https://evil.example.com/api/mantik/tokens"},
        {"format": 2},
        {"access_token": ""},
        {"access_token": None},
        {"refresh_token": 7},
        {"expires_at": "soon"},
        {"lifetime": None},
    ],
)
def test_an_entry_of_another_login_is_none(cache: TokenCache, change: dict[str, object]) -> None:
    """An entry that names another user or platform, or lacks a field, is never used."""
    cache.store(TOKEN)
    content = json.loads(cache.path.read_text())
    cache.path.write_text(json.dumps({**content, **change}))
    assert cache.load() is None


def test_logins_do_not_share_entries(cache: TokenCache) -> None:
    """Another user or another platform has another file."""
    cache.store(TOKEN)
    assert TokenCache(cache.home, URL, "grace").load() is None
    assert TokenCache(cache.home, "https://other.example.org/api/mantik/tokens", "ada").load() is None


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_an_entry_that_belongs_to_another_account_is_none(cache: TokenCache) -> None:
    """A file that another account of the machine put there is not trusted."""
    cache.store(TOKEN)
    os.chown(cache.path, 12345, 12345)
    assert cache.load() is None


def test_a_link_is_not_followed(cache: TokenCache, tmp_path: Path) -> None:
    """A symbolic link in the entry's place counts as no entry."""
    cache.store(TOKEN)
    elsewhere = tmp_path / "elsewhere.json"
    cache.path.rename(elsewhere)
    cache.path.symlink_to(elsewhere)
    assert cache.load() is None


def test_a_home_that_cannot_be_used_costs_nothing_but_the_cache(tmp_path: Path) -> None:
    """With a file where the home should be, nothing is stored, nothing is raised, and the lock is done without."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    cache = TokenCache(blocked, URL, "ada")
    with cache.locked():
        cache.store(TOKEN)
    assert cache.load() is None
    assert not cache.remove()


def test_removing_tells_whether_there_was_one(cache: TokenCache) -> None:
    """The first removal finds the entry, the second does not."""
    cache.store(TOKEN)
    assert cache.remove()
    assert not cache.remove()
    assert cache.load() is None
