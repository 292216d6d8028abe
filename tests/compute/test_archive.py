from __future__ import annotations

import io
import os
import shutil
import socket
import tracemalloc
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from mantik.compute.archive import Archive, pack
from mantik.compute.exclude import Exclusion
from mantik.compute.mistakes import Mistakes
from mantik.compute.tree import LeftOut, Member, Tree, survey
from mantik.exceptions import ProjectError

if TYPE_CHECKING:
    from collections.abc import Mapping


def make(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Make files."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def look_at(folder: Path, *exclude: str) -> tuple[Tree, list[str]]:
    """Return what is sent of a project, and what is wrong with it."""
    mistakes = Mistakes()
    return survey(folder, Exclusion.of(folder, exclude, mistakes), [], mistakes), mistakes.found


def packed(folder: Path, extra: Mapping[str, bytes] | None = None) -> bytes:
    """Pack a project that is in order."""
    tree, mistakes = look_at(folder)
    assert mistakes == []
    target, archive = io.BytesIO(), Archive(tree, extra or {})
    pack(archive, target)
    assert archive.size == len(target.getvalue())
    return target.getvalue()


def unpacked(content: bytes) -> dict[str, bytes]:
    """Read an archive as Python's own module does, with its checks."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


parts = some.sampled_from(["a", "b", "c", "é ü", "x.py", "-rf", "$(x)", "日本"])
trees = some.dictionaries(
    some.lists(parts, min_size=1, max_size=3).map("/".join), some.binary(max_size=40), max_size=8
).filter(lambda files: not any(name.startswith(f"{other}/") for name in files for other in files))


@given(files=trees, order=some.randoms(use_true_random=False))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_the_same_files_give_the_same_bytes(files: dict[str, bytes], order: object, tmp_path: Path) -> None:
    """Whenever, wherever and in whatever order files are made, the archive has the same bytes, and all of the files."""
    names = list(files)
    order.shuffle(names)  # type: ignore[attr-defined]
    for folder in ("one", "two"):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
        (tmp_path / folder).mkdir()
    first = packed(make(tmp_path / "one", files))
    second = make(tmp_path / "two", {name: files[name] for name in names})
    for name in names:
        os.utime(second / name, (10**9, 10**9))
        (second / name).chmod(0o640)
    assert packed(second) == first
    assert unpacked(first) == files
    assert list(unpacked(first)) == sorted(files)


def test_files_keep_what_makes_them_programs(tmp_path: Path) -> None:
    """A program stays one; nothing else of modes, times and owners is sent, and nothing is compressed."""
    make(tmp_path, {"run.sh": b"#!/bin/sh\n", "a.txt": b"a"})
    (tmp_path / "run.sh").chmod(0o700)
    with zipfile.ZipFile(io.BytesIO(packed(tmp_path))) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    assert {name: entry.external_attr >> 16 for name, entry in entries.items()} == {
        "a.txt": 0o100644,
        "run.sh": 0o100755,
    }
    assert {(entry.date_time, entry.compress_type) for entry in entries.values()} == {((1980, 1, 1, 0, 0, 0), 0)}


def test_further_members_win(tmp_path: Path) -> None:
    """What is added to an archive is there once, also where the project has a file of that name."""
    content = packed(make(tmp_path, {"b": b"1", "a": b"2"}), {"aa": b"3"})
    assert unpacked(content) == {"a": b"2", "aa": b"3", "b": b"1"}
    tree, _ = look_at(tmp_path)
    target = io.BytesIO()
    pack(Archive(tree, {"b": b"new"}), target)
    assert unpacked(target.getvalue()) == {"a": b"2", "b": b"new"}


def test_a_large_project_takes_little_memory(tmp_path: Path) -> None:
    """An archive of 64 MiB is written with a few of them in memory."""
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(64 * 2**20)
    tree, _ = look_at(tmp_path)
    with (tmp_path / "out").open("wb") as target:
        tracemalloc.start()
        pack(Archive(tree), target)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 8 * 2**20


def test_an_archive_of_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file over 2 GiB is packed in the form that can hold it."""
    # Neither a checksum nor a file on disk is needed: nobody reads this archive.
    monkeypatch.setattr(zipfile, "crc32", lambda _content, _start=0: 0)
    tree = Tree((Member("huge.bin", Path("/dev/zero"), 2**31 + 1),))
    target = _Counting()
    pack(Archive(tree), target)
    assert 0 <= target.size - Archive(tree).size < 200


class _Counting(io.RawIOBase):
    """A file that keeps nothing but its size."""

    def __init__(self) -> None:
        self.size = self._position = 0

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, chunk: bytes) -> int:  # type: ignore[override]
        self._position += len(chunk)
        self.size = max(self.size, self._position)
        return len(chunk)

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = 0) -> int:
        self._position = position if whence == 0 else self.size + position
        return self._position


def test_a_file_that_grows_meanwhile_is_cut(tmp_path: Path) -> None:
    """A log that is written to while it is packed does not make the archive larger than was checked."""
    make(tmp_path, {"log": b"12345"})
    tree, _ = look_at(tmp_path)
    (tmp_path / "log").write_bytes(b"1234567890")
    target = io.BytesIO()
    pack(Archive(tree), target)
    assert unpacked(target.getvalue()) == {"log": b"12345"}


def test_a_file_that_goes_meanwhile_is_named(tmp_path: Path) -> None:
    """A file that is gone when it is packed is an error with its name."""
    make(tmp_path, {"sub/gone.txt": b"1"})
    tree, _ = look_at(tmp_path)
    (tmp_path / "sub" / "gone.txt").unlink()
    with pytest.raises(ProjectError, match=r"sub/gone\.txt: it cannot be read any more \(No such file or directory\)"):
        pack(Archive(tree), io.BytesIO())


def test_links_within_the_project_are_followed(tmp_path: Path) -> None:
    """A link is sent as what it leads to, a linked folder with everything in it."""
    make(tmp_path, {"real/data.csv": b"1"})
    (tmp_path / "link.csv").symlink_to("real/data.csv")
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    assert unpacked(packed(tmp_path)) == {"link.csv": b"1", "linked/data.csv": b"1", "real/data.csv": b"1"}


def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    """Links out of the project, to nowhere and in circles are named; all of them at once."""
    project = make(tmp_path / "project", {"train.py": b"", "sub/x": b""})
    make(tmp_path / "outside", {"secret": b""})
    links = {
        "absolute": "/etc",
        "chain": "out/secret",
        "circle": "circle",
        "nowhere": "nothing",
        "out": "../outside",
        "project2": "../project2",
        "sub/up": "..",
        "sub/self": ".",
    }
    (tmp_path / "project2").mkdir()
    for name, target in links.items():
        (project / name).symlink_to(target)
    tree, mistakes = look_at(project)
    assert sorted(mistakes) == [
        "absolute: it is a link that leads out of the project (to /etc); put a copy in its place, or exclude it",
        "chain: it is a link that leads out of the project (to out/secret); put a copy in its place, or exclude it",
        "circle: it is a link that leads nowhere (to circle); delete or exclude it",
        "nowhere: it is a link that leads nowhere (to nothing); delete or exclude it",
        "out: it is a link that leads out of the project (to ../outside); put a copy in its place, or exclude it",
        "project2: it is a link that leads out of the project (to ../project2); put a copy in its place, or exclude it",
        "sub/self: it is a link to a folder that it is in itself; delete or exclude it",
        "sub/up: it is a link to a folder that it is in itself; delete or exclude it",
    ]
    assert [member.name for member in tree.members] == ["sub/x", "train.py"]
    assert look_at(project, *links)[1] == []


def test_circles_through_two_links_end(tmp_path: Path) -> None:
    """Two folders that link to each other are refused, not followed for ever."""
    make(tmp_path, {"a/x": b"", "b/y": b""})
    (tmp_path / "a" / "to-b").symlink_to("../b")
    (tmp_path / "b" / "to-a").symlink_to("../a")
    assert sorted(look_at(tmp_path)[1]) == [
        "a/to-b/to-a: it is a link to a folder that it is in itself; delete or exclude it",
        "b/to-a/to-b: it is a link to a folder that it is in itself; delete or exclude it",
    ]


def test_folders_that_multiply_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links that make many folders of few are stopped at the largest number of files."""
    monkeypatch.setattr("mantik.compute.tree.MOST_FILES", 1000)
    folder = tmp_path / "0"
    folder.mkdir()
    for level in range(1, 20):
        above = tmp_path / str(level)
        above.mkdir()
        (above / "left").symlink_to(folder)
        (above / "right").symlink_to(folder)
        folder = above
    make(tmp_path, {"0/x": b""})
    _, mistakes = look_at(tmp_path)
    assert mistakes == ["the project has more than 1,000 files; leave out what the job does not need (Exclude)"]


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """Pipes, sockets and names that are no text are named."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    for name in (os.fsdecode(b"\xff.txt"), "a\nb.txt", "back\\slash.txt"):
        (tmp_path / name).touch()
    assert sorted(look_at(tmp_path)[1]) == [
        "'\\udcff.txt': its name holds control characters, or is no text in UTF-8; rename or exclude it",
        "'a\\nb.txt': its name holds control characters, or is no text in UTF-8; rename or exclude it",
        "'back\\\\slash.txt': its name holds a backslash, which separates folders elsewhere; rename or exclude it",
        "pipe: it is neither a file nor a folder and cannot be sent; delete or exclude it",
        "socket: it is neither a file nor a folder and cannot be sent; delete or exclude it",
    ]
    assert look_at(tmp_path, "pipe", "socket", "*.txt")[1] == []


def test_names_that_are_one_elsewhere_are_refused(tmp_path: Path) -> None:
    """Two names that differ by case or by the form of a letter would be one file on other machines."""
    names = ("Read.me", "read.me", "sub/a", "SUB/b", "e\u0301", "\u00e9", "x" * 200)
    make(tmp_path, dict.fromkeys(names, b""))
    assert look_at(tmp_path)[1] == [
        "read.me: it is Read.me but for case or the form of a letter; rename or exclude one of them",
        "sub: it is SUB but for case or the form of a letter; rename or exclude one of them",
        "\u00e9: it is e\u0301 but for case or the form of a letter; rename or exclude one of them",
    ]
    assert look_at(tmp_path, "read.me", "sub", "\u00e9")[1] == []


def test_paths_that_are_too_long_are_refused(tmp_path: Path) -> None:
    """A path of more than 1024 bytes cannot be unpacked everywhere."""
    make(tmp_path, {"/".join(["x" * 250] * 5): b""})
    (mistake,) = look_at(tmp_path)[1]
    assert mistake.endswith("its path is too long, expected 1024 bytes at most; rename or exclude it")


def test_an_archive_over_the_limit_names_the_largest_files(tmp_path: Path) -> None:
    """The limit is checked before anything is packed."""
    tree, _ = look_at(make(tmp_path, {f"{number}.bin": b"x" * number * 1000 for number in range(1, 8)}))
    mistakes = Mistakes()
    Archive(tree).check(28_000, mistakes)
    (mistake,) = mistakes.found
    assert mistake == (
        "the project is too large: 29 kB, and the service takes 28 kB. Leave out what the job does not need (Exclude, "
        ".mantikignore), or put it on the cluster. Largest: 7.bin (7.0 kB), 6.bin (6.0 kB), 5.bin (5.0 kB), 4.bin (4.0 "
        "kB), 3.bin (3.0 kB)"
    )
    enough = Mistakes()
    Archive(tree).check(Archive(tree).size, enough)
    assert enough.found == []


def test_the_summary_says_what_is_sent_and_what_is_not(tmp_path: Path) -> None:
    """Files, bytes, the largest five, and what is left out by what."""
    names = {f"cache/{number}/.DS_Store": b"" for number in range(9)}
    make(tmp_path, {"train.py": b"x" * 2000, "a.csv": b"x", "venv/pyvenv.cfg": b"", "big.sif": b"", **names})
    (tmp_path / ".mantikignore").write_text("*.csv\n", encoding="utf-8")
    tree, _ = look_at(tmp_path, "*.sif")
    assert str(tree) == (
        "2 files, 2.0 kB. Largest: train.py (2.0 kB), .mantikignore (6 B). Left out by default: cache/0/.DS_Store, "
        "cache/1/.DS_Store, cache/2/.DS_Store, cache/3/.DS_Store, cache/4/.DS_Store, cache/5/.DS_Store, "
        "cache/6/.DS_Store, cache/7/.DS_Store and 2 more. Left out by .mantikignore: a.csv. Left out by Exclude: "
        "big.sif."
    )
    assert LeftOut("venv/", "a Python environment") in tree.left_out


def test_a_folder_with_files_is_among_what_is_sent() -> None:
    """A path is there if it is a file, or a folder of one."""
    tree = Tree((Member("data/train.csv", None, 1),))  # type: ignore[arg-type]  # the path is of no matter here
    assert [tree.has(name) for name in ("data/train.csv", "data", "dat", "data/train")] == [True, True, False, False]
