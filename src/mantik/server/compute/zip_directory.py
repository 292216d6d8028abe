"""The directory of a zip archive, read strictly: what two readers could understand in two ways is refused."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from mantik.exceptions import MantikError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

STORED: Final = 0
DEFLATED: Final = 8

_END: Final = struct.Struct("<4s4H2LH")
_END_64_LOCATOR: Final = struct.Struct("<4sLQL")
_END_64: Final = struct.Struct("<4sQ2H2L4Q")
_ENTRY: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")

_ENCRYPTED: Final = 1 | 1 << 6 | 1 << 13
_SIZES_FOLLOW: Final = 1 << 3
_UTF_8: Final = 1 << 11
_IN_EXTRA_16: Final = 0xFFFF
_IN_EXTRA: Final = 0xFFFFFFFF
_ZIP_64: Final = 1
# Sizes that follow the data take this many bytes: with and without a signature, with 4 and with 8 bytes each.
_DESCRIPTOR_SIZES: Final = frozenset({12, 16, 20, 24})
# More than any directory with names within the limits needs.
_MOST_BYTES_AN_ENTRY: Final = 2048
_SHOWN: Final = 120


class ArchiveError(MantikError):
    """An upload that is no archive of a project. The text says what is wrong, with which entry."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or folder of an archive, as the directory describes it.

    Attributes:
        name: The path in the archive, as it was written; a folder's ends with a slash.
        raw_name: Its bytes.
        flags: The general purpose flags.
        method: How it is packed: `STORED` or `DEFLATED`.
        crc: The CRC-32 of the unpacked data.
        packed: The number of bytes in the archive.
        size: The number of bytes unpacked.
        offset: Where its local header begins.
        mode: Type and permissions as `os.stat` gives them; 0 if the archive was made where there are none.
    """

    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    mode: int

    @property
    def shown(self) -> str:
        """The name, fit for a message."""
        return repr(self.name if len(self.name) <= _SHOWN else f"{self.name[:_SHOWN]}...")


def read_directory(file: BinaryIO, *, most_entries: int) -> list[Entry]:
    """Return the entries of an archive in the order of their data.

    Every byte of the file belongs to an entry, to the directory, or to its end: nothing is hidden between.

    Args:
        file: The archive, from its first byte on.
        most_entries: How many there may be. An archive that says it has more is not read any further.

    Raises:
        ArchiveError: It is no archive, is damaged, or holds something that a project cannot have.
    """
    length = file.seek(0, os.SEEK_END)
    count, size, offset = _read_end(file, length)
    if count > most_entries:
        raise ArchiveError(f"The archive has {count} entries. Expected at most {most_entries}.")
    if size > count * _MOST_BYTES_AN_ENTRY:
        raise ArchiveError("The archive's directory is longer than its entries can be.")
    file.seek(offset)
    entries = _parse(file.read(size), count)
    entries.sort(key=lambda entry: entry.offset)
    return entries


def find_data(file: BinaryIO, entries: Sequence[Entry], index: int, end: int) -> int:
    """Return where the data of an entry begins, after a check of what stands before and after it.

    Args:
        file: The archive.
        entries: All of its entries, as `read_directory` returned them.
        index: Which of them.
        end: Where the next one, or the directory, begins.

    Raises:
        ArchiveError: The local header contradicts the directory, or the data of two entries overlap or leave a gap.
    """
    entry = entries[index]
    if index == 0 and entry.offset != 0:
        raise ArchiveError("The archive has data in front of its first entry.")
    file.seek(entry.offset)
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
        raise ArchiveError(f"There is no entry where the archive's directory expects {entry.shown}.")
    _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(header)
    declared = {(entry.crc, entry.packed, entry.size)}
    if flags & _SIZES_FOLLOW:
        declared.add((0, 0, 0))
    same_sizes = _IN_EXTRA in {packed, size} or (crc, packed, size) in declared
    same_name = file.read(name_length) == entry.raw_name
    if (flags, method) != (entry.flags, entry.method) or not same_name or not same_sizes:
        raise ArchiveError(f"The archive says two different things of {entry.shown}.")
    data: int = entry.offset + _LOCAL.size + name_length + extra_length
    gap = end - (data + entry.packed)
    if gap not in (_DESCRIPTOR_SIZES if flags & _SIZES_FOLLOW else {0}):
        raise ArchiveError(f"Something overlaps or follows the data of {entry.shown}.")
    return data


def directory_offset(file: BinaryIO) -> int:
    """Return where the directory begins, which is where the data of the last entry ends.

    Raises:
        ArchiveError: It is no archive.
    """
    return _read_end(file, file.seek(0, os.SEEK_END)).offset


class _End(NamedTuple):
    """The number of entries, and size and offset of the directory."""

    entries: int
    size: int
    offset: int


def _read_end(file: BinaryIO, length: int) -> _End:
    end = length - _END.size
    if end < 0:
        raise ArchiveError("It is no zip archive: it is too short.")
    file.seek(end)
    signature, disk, first_disk, here, count, size, offset, comment = _END.unpack(file.read(_END.size))
    if signature != b"PK\5\6" or comment:
        raise ArchiveError("It is no zip archive, or something follows its end.")
    locator_at = end - _END_64_LOCATOR.size
    if _IN_EXTRA_16 in {here, count} or _IN_EXTRA in {size, offset}:
        disk, first_disk, here, count, size, offset, end = _read_end_64(file, locator_at)
    if disk or first_disk or here != count:
        raise ArchiveError("It is one part of an archive in several files.")
    if offset + size != end:
        raise ArchiveError("The archive is damaged: its directory is not where it should be.")
    if count == 0:
        raise ArchiveError("The archive is empty.")
    return _End(count, size, offset)


def _read_end_64(file: BinaryIO, locator_at: int) -> tuple[int, int, int, int, int, int, int]:
    end = locator_at - _END_64.size
    if end < 0:
        raise ArchiveError("The archive is damaged: its end is incomplete.")
    file.seek(end)
    signature, length, _, _, disk, first_disk, here, count, size, offset = _END_64.unpack(file.read(_END_64.size))
    locator, locator_disk, located_at, disks = _END_64_LOCATOR.unpack(file.read(_END_64_LOCATOR.size))
    # The length does not count itself and the signature.
    sound = signature == b"PK\6\6" and locator == b"PK\6\7" and length == _END_64.size - 12
    if not sound or located_at != end or locator_disk or disks != 1:
        raise ArchiveError("The archive is damaged: its end contradicts itself.")
    return disk, first_disk, here, count, size, offset, end


def _parse(directory: bytes, count: int) -> list[Entry]:
    entries: list[Entry] = []
    position = 0
    for _ in range(count):
        fixed = directory[position : position + _ENTRY.size]
        if len(fixed) < _ENTRY.size or not fixed.startswith(b"PK\1\2"):
            raise ArchiveError("The archive is damaged: its directory is incomplete.")
        parts = _ENTRY.unpack(fixed)
        name_at = position + _ENTRY.size
        extra_at = name_at + parts[10]
        comment_at = extra_at + parts[11]
        position = comment_at + parts[12]
        entries.append(_entry(parts, directory[name_at:extra_at], directory[extra_at:comment_at]))
    if position != len(directory):
        raise ArchiveError("The archive is damaged: its directory does not end where it should.")
    return entries


def _entry(parts: tuple[int, ...], raw_name: bytes, extra: bytes) -> Entry:
    _, _, _, flags, method, _, _, crc, packed, size, _, _, _, disk, _, attributes, offset = parts
    name = _decoded(raw_name, flags)
    if _IN_EXTRA in {packed, size, offset}:
        packed, size, offset = _from_extra(name, extra, packed, size, offset)
    entry = Entry(name, raw_name, flags, method, crc, packed, size, offset, attributes >> 16)
    if disk:
        raise ArchiveError("It is one part of an archive in several files.")
    if flags & _ENCRYPTED:
        raise ArchiveError(f"{entry.shown} is encrypted. Expected an archive without a password.")
    if method not in {STORED, DEFLATED}:
        raise ArchiveError(f"{entry.shown} is packed by method {method}. Expected no compression, or deflate.")
    return entry


def _decoded(raw_name: bytes, flags: int) -> str:
    try:
        return raw_name.decode("utf-8" if flags & _UTF_8 else "ascii")
    except UnicodeDecodeError as error:
        raise ArchiveError(
            f"The name {raw_name[:_SHOWN]!r} in the archive is not marked as UTF-8, or is none."
        ) from error


def _from_extra(name: str, extra: bytes, packed: int, size: int, offset: int) -> tuple[int, int, int]:
    """Return sizes and offset with what was too large for its field."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        field = extra[position + 4 : position + 4 + length]
        position += 4 + length
        if kind == _ZIP_64:
            large = [number for (number,) in struct.iter_unpack("<Q", field[: len(field) // 8 * 8])]
            fields = [large.pop(0) if value == _IN_EXTRA and large else value for value in (size, packed, offset)]
            return fields[1], fields[0], fields[2]
    raise ArchiveError(f"The archive is damaged: sizes of {name[:_SHOWN]!r} are missing.")
