"""Staged files: copies that nobody's deleting, rewriting or dying harms."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from mantik.delivery.staging import Staging

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    """Return a folder of staged files."""
    return Staging(tmp_path / "staged")


def source_in(folder: Path, content: bytes = b"content", name: str = "source") -> Path:
    """Write a file of training's."""
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("content", [b"", b"x", b"0123456789" * 1_000_000])
def test_a_copy_does_not_depend_on_its_source(staging: Staging, tmp_path: Path, content: bytes) -> None:
    """The source may be rewritten, cut or deleted as soon as the call has returned."""
    source = source_in(tmp_path, content)
    name, size = staging.take(source)
    with source.open("rb+") as file:
        file.write(b"changed")
    source.unlink()
    assert size == len(content)
    assert staging.path(name).read_bytes() == content


def test_copies_are_for_the_user_alone(staging: Staging, tmp_path: Path) -> None:
    """Folder and copies are closed to others, however open the source and the umask are."""
    source = source_in(tmp_path)
    source.chmod(0o777)
    before = os.umask(0)
    try:
        name, _ = staging.take(source)
    finally:
        os.umask(before)
    assert staging.path(name).stat().st_mode & 0o777 == 0o600
    assert staging.path(name).parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["absent", "folder"])
def test_a_source_that_cannot_be_read_leaves_no_copy(staging: Staging, tmp_path: Path, kind: str) -> None:
    """The error is the caller's, and nothing is left behind."""
    if kind == "folder":
        (tmp_path / "source").mkdir()
    with pytest.raises(OSError, match="source"):
        staging.take(tmp_path / "source")
    assert list((tmp_path / "staged").iterdir()) == []


def test_a_source_that_fails_in_the_middle_leaves_no_copy(staging: Staging, tmp_path: Path) -> None:
    """A read error behind the first bytes undoes the copy."""
    # A process's memory is a file that can be opened, and not read at its beginning.
    source = tmp_path / "source"
    source.symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        staging.take(source)
    assert list((tmp_path / "staged").iterdir()) == []


FILL = """
import resource, signal, sys
from pathlib import Path
from mantik.delivery.staging import Staging

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
staging = Staging(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
for name in sys.argv[2:]:
    try:
        print(staging.take(Path(name))[1])
    except OSError as error:
        print(error.strerror)
"""


def test_a_full_disk_leaves_no_half_copy(staging: Staging, tmp_path: Path) -> None:
    """A copy for which there is no room is not there, and a later one that fits is."""
    large, small = source_in(tmp_path, b"x" * 5_000_000), source_in(tmp_path, b"y" * 100, "small")
    command = [sys.executable, "-c", FILL, str(tmp_path / "staged"), str(large), str(small)]
    answer = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)
    assert answer.stdout.splitlines() == [os.strerror(errno.EFBIG), "100"]
    assert [path.read_bytes() for path in (tmp_path / "staged").iterdir()] == [b"y" * 100]
    assert staging.path("00000002").read_bytes() == b"y" * 100


def test_what_is_discarded_is_told_from_what_is_missing(staging: Staging, tmp_path: Path) -> None:
    """A file that is not wanted any more leaves a mark without a byte, until nothing of it is needed."""
    wanted, unwanted, uploaded = (staging.take(source_in(tmp_path))[0] for _ in range(3))
    assert staging.discard(unwanted)
    staging.drop(uploaded)
    assert [staging.is_discarded(name) for name in (wanted, unwanted, uploaded)] == [False, True, False]
    assert [staging.is_missing(name) for name in (wanted, unwanted, uploaded)] == [False, False, True]
    assert staging.size() == len(b"content")
    assert not staging.discard(unwanted)
    assert not staging.discard(uploaded)
    staging.drop(unwanted)
    assert [path.name for path in (tmp_path / "staged").iterdir()] == [wanted]


def test_a_file_that_cannot_be_marked_stays(staging: Staging, tmp_path: Path) -> None:
    """Without a mark the one who comes to upload it would take it for lost."""
    name, _ = staging.take(source_in(tmp_path))
    staging.path(f"{name}.gone").symlink_to("/nowhere/at/all")
    with pytest.raises(OSError, match="No such file"):
        staging.discard(name)
    assert staging.path(name).read_bytes() == b"content"
    assert not staging.is_discarded(name)


def test_threads_never_share_a_name(staging: Staging, tmp_path: Path) -> None:
    """Whatever is taken at once by many threads is there once each, under a name of its own."""
    taken: list[tuple[str, bytes]] = []

    def take(number: int) -> None:
        for turn in range(20):
            content = b"%d %d" % (number, turn)
            source = source_in(tmp_path, content, f"source-{number}")
            taken.append((staging.take(source)[0], content))

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({name for name, _ in taken}) == 160
    assert all(staging.path(name).read_bytes() == content for name, content in taken)


def test_sync_forces_each_copy_once_and_survives_removals(
    staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies that were uploaded and removed meanwhile are passed over; what is safe is not forced again."""
    forced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: forced.append(os.fstat(descriptor).st_ino))
    source = source_in(tmp_path)
    names = [staging.take(source)[0] for _ in range(3)]
    kept = [staging.path(name).stat().st_ino for name in (names[0], names[2])]
    staging.drop(names[1])
    staging.drop(names[1])
    assert not staging.is_safe(names[0])
    staging.sync()
    assert forced == kept
    assert staging.is_safe(names[0])
    staging.sync()
    assert forced == kept


def test_a_failed_sync_is_repeated_for_what_it_did_not_reach(
    staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the device raises, and the next call forces everything that was not forced, as journals do."""
    forced: list[int] = []

    def refuse(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    source = source_in(tmp_path)
    names = [staging.take(source)[0] for _ in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="Input/output"):
            staging.sync()
    monkeypatch.setattr(os, "fsync", lambda descriptor: forced.append(os.fstat(descriptor).st_ino))
    staging.sync()
    assert forced == [staging.path(name).stat().st_ino for name in names]
