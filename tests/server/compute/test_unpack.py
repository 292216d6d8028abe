from __future__ import annotations

import os
import stat
import struct
import unicodedata
import zipfile
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mantik.server.compute.names import ProjectTree, check_path
from mantik.server.compute.unpack import Limits, unpack
from mantik.server.compute.zip_directory import ArchiveError

from .projects import FILES, archive, entry, pack

if TYPE_CHECKING:
    from pathlib import Path

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
LIMITS = Limits(64 * 1024 * 1024)
SMALL = {"a.txt": b"hello hello hello hello", "b/c.txt": b"x" * 500}


def unpacked(content: bytes, folder: Path, limits: Limits = LIMITS) -> dict[str, bytes]:
    """Unpack into a new folder and return the content of all files; nothing may appear beside the folder."""
    zipped = folder / "in" / "project.zip"
    zipped.parent.mkdir(parents=True, exist_ok=True)
    zipped.write_bytes(content)
    target = folder / "out" / "project"
    target.parent.mkdir(exist_ok=True)
    try:
        unpack(zipped, target, limits)
    finally:
        beside = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if target not in path.parents}
        assert beside <= {"in", "in/project.zip", "out", "out/project"}
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}


def refusal(content: bytes, folder: Path, limits: Limits = LIMITS) -> str:
    """Return why an archive is refused."""
    with pytest.raises(ArchiveError) as caught:
        unpacked(content, folder, limits)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_project_comes_out_as_it_went_in(tmp_path: Path, method: int) -> None:
    """Packed or not, with empty files and folders, and names of all the world."""
    files = {**FILES, "empty": "", "ünï/日本.txt": "x", "a b;$(c)`d`.sh": "#!/bin/sh\n", "big": "0123456789" * 30_000}
    entries = [*files.items(), ("folder/", ""), ("data/", "")]
    found = unpacked(pack(entries, method=method), tmp_path)
    assert found == {name: content.encode() for name, content in files.items()}
    assert (tmp_path / "out/project/folder").is_dir()


def test_modes_are_private_and_only_the_executable_bit_is_kept(tmp_path: Path) -> None:
    """No set-user-id, nothing for group and others, whatever the umask is."""
    modes = {"plain": 0o100666, "run.sh": 0o100755, "setuid": 0o106777, "none": 0o100000, "windows": 0}
    earlier = os.umask(0)
    try:
        unpacked(pack([(entry(name, mode), "x") for name, mode in modes.items()] + [(entry("d/e", 0), "")]), tmp_path)
    finally:
        os.umask(earlier)
    project = tmp_path / "out/project"
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in project.rglob("*")}
    assert found == dict.fromkeys(["plain", "none", "windows", "e"], 0o600) | dict.fromkeys(
        ["run.sh", "setuid", "d"], 0o700
    )
    assert stat.S_IMODE(project.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("../x", "leads out of the project"),
        ("a/../../x", "leads out of the project"),
        ("a/..", "leads out of the project"),
        ("..", "leads out of the project"),
        ("/etc/cron.d/x", "is an absolute path"),
        ("//x", "is an absolute path"),
        ("C:/x", "is an absolute path"),
        ("c:x", "is an absolute path"),
        ("a\\b", "contains a backslash"),
        ("..\\x", "contains a backslash"),
        ("a\nb", "contains a control character"),
        ("a\x1b[2Jb", "contains a control character"),
        ("a\u2028b", "contains a control character"),
        ("./a", "is no path of a file"),
        ("a//b", "is no path of a file"),
        ("a/./b", "is no path of a file"),
        ("", "is no path of a file"),
        ("x" * 256, "is too long"),
        ("ü" * 128, "is too long"),
        ("a/" * 600 + "b", "is too long"),
    ],
)
def test_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str, text: str) -> None:
    """The name is in the message, nothing is written."""
    message = refusal(pack([("good", "x"), (entry(name), "x")]), tmp_path)
    assert text in message
    assert repr(name)[:60] in message
    assert not (tmp_path / "out/project").exists()


def test_name_with_a_null_byte_is_refused(tmp_path: Path) -> None:
    """Where some readers cut a name off, none is accepted."""
    content = archive({"mantik_logX.txt": "x"}).replace(b"mantik_logX", b"mantik_log\0")
    assert "contains a control character" in refusal(content, tmp_path)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["a", "A"], "differ only by case"),
        (["d/a", "D/b"], "differ only by case"),
        (["straße", "STRASSE"], "differ only by case"),
        (["\u00e9", "e\u0301"], "by the form of a letter"),
        (["d\u00e9/a", "de\u0301/b"], "by the form of a letter"),
        (["a", "a"], "has 'a' twice"),
        (["a", "a/b"], "is a file and a folder"),
        (["a/b", "a"], "is a file and a folder"),
        (["a", "a/"], "is a file and a folder"),
        (["a/", "a"], "is a file and a folder"),
        (["a", "A/b"], "differ only by case"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_some_file_systems_take_for_one_are_refused(tmp_path: Path, names: list[str], text: str) -> None:
    """The archive means the same everywhere, or nothing."""
    assert text in refusal(pack([(name, "" if name.endswith("/") else "x") for name in names]), tmp_path)


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (stat.S_IFLNK | 0o777, "is a link"),
        (stat.S_IFIFO | 0o644, "is no ordinary file"),
        (stat.S_IFCHR | 0o644, "is no ordinary file"),
        (stat.S_IFBLK | 0o644, "is no ordinary file"),
        (stat.S_IFSOCK | 0o644, "is no ordinary file"),
        (stat.S_IFDIR | 0o755, "is no ordinary file"),
        (0o070644, "is no ordinary file"),
    ],
)
def test_only_files_and_folders_are_unpacked(tmp_path: Path, mode: int, text: str) -> None:
    """Links, pipes, devices and sockets are refused, whatever system the archive claims to come from."""
    for system in (3, 0, 19):
        info = entry("x", mode)
        info.create_system = system
        assert text in refusal(pack([(info, "/etc/passwd")]), tmp_path / str(system))
    assert "is no ordinary file" in refusal(pack([(entry("x/", stat.S_IFREG | 0o644), "")]), tmp_path / "folder")
    assert "a content of its own" in refusal(pack([(entry("x/", 0), "data")]), tmp_path / "content")


def test_bomb_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """By its declared size, by its ratio, and by the number of its entries."""
    zeros = pack([("zeros", bytes(40_000_000))])
    assert len(zeros) < 50_000
    assert "Expected at most 100 times its own size" in refusal(zeros, tmp_path)
    assert "The project has 40000000 bytes unpacked. Expected at most 1000" in refusal(zeros, tmp_path, Limits(1000))
    many = pack([(f"d/{number}", b"") for number in range(2001)])
    assert "has 2001 entries. Expected at most 2000" in refusal(many, tmp_path, Limits(1000, files=2000))
    assert not (tmp_path / "out/project").exists()


def test_hundred_thousand_files_are_refused_by_their_number(tmp_path: Path) -> None:
    """The directory of such an archive is not even read."""
    content = bytearray(archive(SMALL))
    for place in (8, 10):
        struct.pack_into("<H", content, len(content) - 22 + place, 65_000)
    assert "has 65000 entries. Expected at most 20000" in refusal(bytes(content), tmp_path)
    many = pack([(f"f{number}", b"") for number in range(100_000)], method=zipfile.ZIP_STORED)
    assert "has 100000 entries. Expected at most 20000" in refusal(many, tmp_path)


def test_folders_count_too(tmp_path: Path) -> None:
    """A few entries in deep folders are many folders."""
    content = pack([(f"{n}/" + "d/" * 100 + "f", b"") for n in range(30)])
    assert "has more than 2000 files and folders" in refusal(content, tmp_path, Limits(1000, files=2000))


def test_archive_in_an_archive_is_a_file(tmp_path: Path) -> None:
    """It is not opened."""
    bomb = pack([("zeros", bytes(10_000_000))])
    assert unpacked(archive({"inner.zip": bomb}), tmp_path) == {"inner.zip": bomb}


def patched(content: bytes, signature: bytes, place: int, form: str, value: int) -> bytes:
    """Change one field of the first record that has this signature."""
    changed = bytearray(content)
    struct.pack_into(form, changed, content.index(signature) + place, value)
    return bytes(changed)


def patched_second(content: bytes, place: int, form: str, value: int) -> bytes:
    """Change one field of the second entry of the directory."""
    at = content.index(DIRECTORY, content.index(DIRECTORY) + 1)
    return content[:at] + patched(content[at:], DIRECTORY, place, form, value)


DIRECTORY, LOCAL, END = b"PK\1\2", b"PK\3\4", b"PK\5\6"


def both(content: bytes, place: int, form: str, value: int) -> bytes:
    """Change a field in the directory and in the local header alike; ``place`` counts in the local header."""
    return patched(patched(content, DIRECTORY, place + 2, form, value), LOCAL, place, form, value)


def lies() -> dict[str, tuple[bytes, str]]:
    """Return damaged and lying archives, and what is said of them."""
    sound, stored = archive(SMALL), archive(SMALL, method=zipfile.ZIP_STORED)
    offset = struct.unpack_from("<L", sound, len(sound) - 6)[0]
    return {
        "nothing": (b"", "too short"),
        "no archive": (b"MZ" + b"x" * 100, "no zip archive"),
        "cut": (sound[:-1], "no zip archive"),
        "garbage behind": (sound + b"x", "something follows its end"),
        "another archive behind": (sound + archive({"other": "x"}), "its directory is not where it should be"),
        "garbage in front": (b"x" * 10 + sound, "its directory is not where it should be"),
        "comment": (patched(sound, END, 20, "<H", 4) + b"text", "something follows its end"),
        "empty": (pack([]), "is empty"),
        "directory elsewhere": (patched(sound, END, 16, "<L", offset - 1), "not where it should be"),
        "directory cut": (patched(patched(sound, END, 8, "<H", 3), END, 10, "<H", 3), "directory is incomplete"),
        "entry unlisted": (patched(patched(sound, END, 8, "<H", 1), END, 10, "<H", 1), "does not end where it should"),
        "no entries": (patched(patched(sound, END, 8, "<H", 0), END, 10, "<H", 0), "is empty"),
        "several disks": (patched(sound, END, 4, "<H", 1), "in several files"),
        "entry on another disk": (patched(sound, DIRECTORY, 34, "<H", 1), "in several files"),
        "encrypted": (both(sound, 6, "<H", 1), "is encrypted"),
        "strongly encrypted": (both(sound, 6, "<H", 1 << 6), "is encrypted"),
        "bzip2": (both(sound, 8, "<H", 12), "packed by method 12"),
        "lzma": (both(sound, 8, "<H", 14), "packed by method 14"),
        "method differs": (patched(sound, LOCAL, 8, "<H", 0), "says two different things"),
        "name differs": (sound.replace(b"a.txt", b"x.txt", 1), "says two different things"),
        "size differs": (patched(sound, LOCAL, 22, "<L", 5), "says two different things"),
        "checksum": (both(sound, 14, "<L", 7), "is damaged: its checksum"),
        "larger than declared": (both(sound, 22, "<L", 5), "is not of the size"),
        "smaller than declared": (both(sound, 22, "<L", 99), "is not of the size"),
        "stored sizes": (both(stored, 22, "<L", 5), "two different things of the size"),
        "packed shorter": (both(sound, 18, "<L", 5), "overlaps or follows the data"),
        "packed longer": (both(sound, 18, "<L", 50), "overlaps or follows the data"),
        "overlap": (patched_second(sound, 42, "<L", 0), "overlaps or follows"),
        "offset behind the file": (patched_second(sound, 42, "<L", 10**9), "overlaps or follows"),
        "not deflated": (damaged_data(sound), "its data cannot be unpacked"),
        "sizes missing": (patched(sound, DIRECTORY, 24, "<L", 0xFFFFFFFF), "sizes of 'a.txt' are missing"),
        "sixty-four": (patched(sound, END, 16, "<L", 0xFFFFFFFF), "its end"),
        "name not UTF-8": (patched(sound.replace(b"a.txt", b"\xff.txt"), END, 4, "<H", 0), "is not marked as UTF-8"),
    }


def damaged_data(content: bytes) -> bytes:
    """Put a block of an unknown type at the beginning of the first data."""
    at = content.index(b"a.txt") + len(b"a.txt")
    return content[:at] + b"\x07" + content[at + 1 :]


@pytest.mark.parametrize("name", sorted(lies()))
def test_archive_that_is_damaged_or_lies_is_refused(tmp_path: Path, name: str) -> None:
    """Each lie has its text."""
    content, text = lies()[name]
    assert text in refusal(content, tmp_path)


def test_data_behind_the_end_of_a_deflated_entry_is_refused(tmp_path: Path) -> None:
    """Nothing hides between the end of the data and the next entry."""
    packer = zlib.compressobj(wbits=-15)
    data = packer.compress(b"hello") + packer.flush()
    for hidden, text in ((data + b"hidden", "something follows its end"), (data[:-1], "its end is missing")):
        raw = pack([("a", hidden)], method=zipfile.ZIP_STORED)
        lying = both(both(both(raw, 8, "<H", 8), 22, "<L", 5), 14, "<L", zlib.crc32(b"hello"))
        assert text in refusal(lying, tmp_path / text)


def test_streamed_archives_are_understood(tmp_path: Path) -> None:
    """Sizes may follow the data, and may be written in 64 bits: that is how an archive is made without going back."""

    class Stream:
        def __init__(self) -> None:
            self.content = bytearray()

        def write(self, data: bytes) -> int:
            self.content += data
            return len(data)

        def flush(self) -> None:
            pass

    stream = Stream()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:  # type: ignore[arg-type]
        file.writestr("a", "hello")
        with file.open("b", "w", force_zip64=True) as member:
            member.write(b"world")
    assert unpacked(bytes(stream.content), tmp_path / "streamed") == {"a": b"hello", "b": b"world"}

    path = tmp_path / "large.zip"
    with zipfile.ZipFile(path, "w") as file, file.open("b", "w", force_zip64=True) as member:
        member.write(b"world")
    assert unpacked(path.read_bytes(), tmp_path / "large") == {"b": b"world"}


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40) | st.from_regex(
    r"\A(\.\.?|[aA]|b|/|\\|C:|\x00| |~|-|[\n])(/(\.\.?|[aA]|b|c|))*\Z"
)


@given(st.lists(names, min_size=1, max_size=6))
def test_paths_that_are_accepted_stay_in_the_folder(paths: list[str]) -> None:
    """What passes the check names something below, once, on file systems of every kind."""
    tree = ProjectTree(100)
    accepted: list[str] = []
    for path in paths:
        try:
            tree.add(path, is_folder=False)
        except ArchiveError:
            break
        accepted.append(path)
    for path in accepted:
        joined = os.path.normpath(f"/project/{path}")
        assert joined == f"/project/{path}"
        assert path.isprintable() or all(unicodedata.category(letter) not in {"Cc", "Cs"} for letter in path)
    folded = [unicodedata.normalize("NFD", path).casefold() for path in accepted]
    assert len(set(folded)) == len(folded)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(max_examples=60)
@given(st.dictionaries(names, st.binary(max_size=300), min_size=1, max_size=5), st.sampled_from(METHODS))
def test_archive_is_unpacked_as_it_is_or_refused(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], method: int
) -> None:
    """Whatever the names: all files are there with their content, or the archive is refused for one of them."""
    assume(all(len(name.encode()) < 1000 for name in files))
    content = pack([(entry(name), data) for name, data in files.items()], method=method)
    try:
        found = unpacked(content, tmp_path_factory.mktemp("names"))
    except ArchiveError:
        assert any(not is_good(name) for name in files) or len(files) > 1
    else:
        assert found == files


def is_good(name: str) -> bool:
    """Tell whether a file may have this name."""
    try:
        check_path(name)
    except ArchiveError:
        return False
    return True


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4))
def test_damaged_archive_is_refused_or_unharmed(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes]]
) -> None:
    """Bytes overwritten anywhere: no other error, nothing outside, and no content that no checksum vouches for."""
    content = bytearray(archive(SMALL))
    for place, data in changes:
        at = place % len(content)
        content[at : at + len(data)] = data
    folder = tmp_path_factory.mktemp("damaged")
    try:
        found = unpacked(bytes(content), folder)
    except ArchiveError:
        return
    assert set(found.values()) <= set(SMALL.values())
