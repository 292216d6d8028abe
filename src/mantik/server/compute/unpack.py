"""Unpacks the archive of a project that somebody sent: completely into one new folder, or with an error."""

from __future__ import annotations

import os
import stat
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from mantik.server.compute.config import MOST_FILES
from mantik.server.compute.names import ProjectTree
from mantik.server.compute.zip_directory import (
    STORED,
    ArchiveError,
    Entry,
    directory_offset,
    find_data,
    read_directory,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CHUNK: Final = 64 * 1024
# Tables and logs of ordinary projects shrink to a tenth, rarely to a thirtieth.
_MOST_RATIO: Final = 100
# Below this much a project may be as empty as it wants to.
_RATIO_FROM: Final = 16 * 1024 * 1024
_EXECUTABLE: Final = 0o111


@dataclass(frozen=True, slots=True)
class Limits:
    """What a project may have, unpacked.

    Attributes:
        size: The number of bytes of all files together.
        files: The number of files and folders.
    """

    size: int
    files: int = MOST_FILES


def unpack(archive: Path, target: Path, limits: Limits) -> None:
    """Make the folder ``target`` and unpack the zip archive into it.

    Names, types and declared sizes of all entries are checked before anything is written. Files are readable by their
    owner only, executable if they were, and nothing else of their modes is kept. Archives within are not opened.

    After an error ``target`` may be there and hold a part.

    Raises:
        ArchiveError: It is no archive, is damaged, is too large, or has an entry that no project may have.
        OSError: The files cannot be written, for example because the disk is full.
    """
    with archive.open("rb") as file:
        entries = read_directory(file, most_entries=limits.files)
        tree = ProjectTree(limits.files)
        for entry in entries:
            _check_type(entry)
            tree.add(entry.name.removesuffix("/"), is_folder=entry.name.endswith("/"))
        _check_sizes(entries, archive.stat().st_size, limits)
        ends = [*(entry.offset for entry in entries[1:]), directory_offset(file)]
        target.mkdir(mode=0o700)
        for index, (entry, end) in enumerate(zip(entries, ends, strict=True)):
            file.seek(find_data(file, entries, index, end))
            path = target / entry.name
            if entry.name.endswith("/"):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                _copy(entry, file, None)
            else:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _write(path, entry, file)


def _check_type(entry: Entry) -> None:
    kind = stat.S_IFMT(entry.mode)
    is_folder = entry.name.endswith("/")
    if kind not in {0, stat.S_IFDIR if is_folder else stat.S_IFREG}:
        what = "a link" if kind == stat.S_IFLNK else "no ordinary file"
        raise ArchiveError(f"{entry.shown} in the archive is {what}. Expected files and folders only.")
    if is_folder and entry.size:
        raise ArchiveError(f"{entry.shown} in the archive is a folder with a content of its own.")
    if entry.method == STORED and entry.size != entry.packed:
        raise ArchiveError(f"The archive says two different things of the size of {entry.shown}.")


def _check_sizes(entries: list[Entry], length: int, limits: Limits) -> None:
    total = sum(entry.size for entry in entries)
    if total > limits.size:
        raise ArchiveError(f"The project has {total} bytes unpacked. Expected at most {limits.size}.")
    if total > max(_RATIO_FROM, length * _MOST_RATIO):
        raise ArchiveError(
            f"The archive of {length} bytes unpacks to {total}. Expected at most {_MOST_RATIO} times its own size."
        )


def _write(path: Path, entry: Entry, archive: BinaryIO) -> None:
    mode = 0o700 if entry.mode & _EXECUTABLE else 0o600
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        _copy(entry, archive, file)


def _copy(entry: Entry, archive: BinaryIO, file: BinaryIO | None) -> None:
    size, crc = 0, 0
    for chunk in _content(entry, archive):
        size += len(chunk)
        if size > entry.size:
            break
        crc = zlib.crc32(chunk, crc)
        if file is not None:
            file.write(chunk)
    if size != entry.size:
        raise ArchiveError(f"{entry.shown} in the archive is not of the size that its directory says.")
    if crc != entry.crc:
        raise ArchiveError(f"{entry.shown} in the archive is damaged: its checksum is another one.")


def _content(entry: Entry, archive: BinaryIO) -> Iterator[bytes]:
    """Yield the unpacked data in pieces."""
    packed = _packed(entry, archive)
    if entry.method == STORED:
        yield from packed
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    damaged = f"{entry.shown} in the archive is damaged: its data cannot be unpacked"
    try:
        for chunk in packed:
            waiting = chunk
            while waiting:
                yield inflater.decompress(waiting, _CHUNK)
                waiting = inflater.unconsumed_tail
            if inflater.unused_data:
                raise ArchiveError(f"{damaged}: something follows its end.")
        # What zlib took in and could not give within the limit of the last call.
        while entry.packed and not inflater.eof:
            rest = inflater.decompress(b"", _CHUNK)
            if not rest:
                raise ArchiveError(f"{damaged}: its end is missing.")
            yield rest
    except zlib.error as error:
        raise ArchiveError(f"{damaged}: {error}.") from error


def _packed(entry: Entry, archive: BinaryIO) -> Iterator[bytes]:
    remaining = entry.packed
    while remaining > 0:
        chunk = archive.read(min(_CHUNK, remaining))
        if not chunk:
            raise ArchiveError(f"The archive is damaged: {entry.shown} is cut short.")
        remaining -= len(chunk)
        yield chunk
