"""Packs a project: the same bytes for the same files, whenever and wherever it is packed, with little memory.

Files are stored as they are, as the contract has it (section 4.7): what a compressed member unfolds to depends on
whoever unpacks it, and the bytes would depend on the compression library's version.
"""

from __future__ import annotations

import stat
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from mantik.delivery.ledger import size_in_words
from mantik.exceptions import ProjectError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mantik.compute.mistakes import Mistakes
    from mantik.compute.tree import Member, Tree

__all__ = ["ARCHIVE_LIMIT", "Archive", "pack"]

ARCHIVE_LIMIT = 100 * 1024 * 1024
"""What a service takes that does not name a limit of its own (contract, section 4.3)."""

_FIRST_MOMENT = (1980, 1, 1, 0, 0, 0)
"""The earliest time that an archive can hold."""

_UNIX = 3
_CHUNK_BYTES = 1024 * 1024
_LARGE_BYTES = 2**31 - 1
_MEMBER_BYTES = 30 + 46
_END_BYTES = 22


@dataclass(frozen=True, slots=True)
class Archive:
    """A project as it is going to be packed.

    Attributes:
        tree: The files.
        extra: Further members by name, which are no files of the project.
    """

    tree: Tree
    extra: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the archive, but for the few more that files of gigabytes need."""
        names = [member.name for member in self.tree.members] + list(self.extra)
        overhead = sum(_MEMBER_BYTES + 2 * len(name.encode()) for name in names) + _END_BYTES
        return self.tree.size + sum(map(len, self.extra.values())) + overhead

    def check(self, limit: int, mistakes: Mistakes) -> None:
        """Say what is wrong if it is larger than the service takes.

        Args:
            limit: Bytes that the service takes.
            mistakes: Where to say it.
        """
        if self.size > limit:
            mistakes.add(
                "",
                f"the project is too large: {size_in_words(self.size)}, and the service takes {size_in_words(limit)}. "
                f"Leave out what the job does not need (Exclude, .mantikignore), or put it on the cluster. Largest: "
                f"{', '.join(map(str, self.tree.largest))}",
            )


def pack(archive: Archive, target: BinaryIO) -> None:
    """Write the archive.

    Args:
        archive: What is packed.
        target: A file that can be read again afterwards.

    Raises:
        ProjectError: A file cannot be read any more.
    """
    members = {member.name: member for member in archive.tree.members}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as packed:
        for name in sorted({*members, *archive.extra}):
            if name in archive.extra:
                packed.writestr(_entry(name, is_executable=False), archive.extra[name])
            else:
                _add(packed, members[name])


def _add(packed: zipfile.ZipFile, member: Member) -> None:
    entry = _entry(member.name, is_executable=member.is_executable)
    with packed.open(entry, "w", force_zip64=member.size >= _LARGE_BYTES) as written:
        for chunk in _chunks(member):
            written.write(chunk)


def _chunks(member: Member) -> Iterator[bytes]:
    """Read a file up to the size that it had: one that is written to at the moment does not grow in the archive."""
    left = member.size
    try:
        with member.path.open("rb") as file:
            while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
                left -= len(chunk)
                yield chunk
    except OSError as error:
        problem = f"{member.name}: it cannot be read any more ({error.strerror})"
        raise ProjectError(f"The project cannot be packed: {problem}", (problem,)) from None


def _entry(name: str, *, is_executable: bool) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _FIRST_MOMENT)
    entry.create_system = _UNIX
    entry.external_attr = (stat.S_IFREG | (0o755 if is_executable else 0o644)) << 16
    return entry
