"""The files of a job, opened so that nothing that its program leaves leads out of its folder."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CHUNK: Final = 256 * 1024
_READING: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file or a folder.

    Attributes:
        path: Its path in the folder that was listed first, with slashes.
        size: The number of its bytes; 0 for a folder.
        is_dir: Whether it is a folder.
    """

    path: str
    size: int
    is_dir: bool


def open_file(folder: Path, path: str) -> BinaryIO | None:
    """Open an ordinary file below ``folder``; ``None`` if there is none of that path.

    Links are followed where they stay in the folder. Pipes, devices and folders are no files.
    """
    found = _open(folder, path)
    if found is None:
        return None
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        return None
    return os.fdopen(found, "rb")


def list_folder(folder: Path, path: str, most: int) -> list[FileEntry] | None:
    """Return the files and folders in a folder below ``folder``, by name; ``None`` if there is none of that path.

    Links are listed as what they lead to, if that is in the folder; what is neither file nor folder is left out, and so
    is a name that is no UTF-8.

    Raises:
        ValueError: There are more than ``most``.
    """
    found = _open(folder, path)
    if found is None:
        return None
    try:
        if not stat.S_ISDIR(os.fstat(found).st_mode):
            return None
        with os.scandir(found) as entries:
            names = sorted(entry.name for entry in entries if _is_utf_8(entry.name))
    finally:
        os.close(found)
    if len(names) > most:
        raise ValueError(f"more than {most} files")
    prefix = f"{path}/" if path else ""
    listed = (_entry(folder, f"{prefix}{name}") for name in names)
    return [entry for entry in listed if entry is not None]


def pieces(file: BinaryIO, length: int) -> Iterator[bytes]:
    """Yield ``length`` bytes of an open file, or those that are there, and close it."""
    with file:
        while length > 0 and (chunk := file.read(min(_CHUNK, length))):
            length -= len(chunk)
            yield chunk


def _entry(folder: Path, path: str) -> FileEntry | None:
    found = _open(folder, path)
    if found is None:
        return None
    try:
        status = os.fstat(found)
    finally:
        os.close(found)
    if stat.S_ISDIR(status.st_mode):
        return FileEntry(path, 0, is_dir=True)
    return FileEntry(path, status.st_size, is_dir=False) if stat.S_ISREG(status.st_mode) else None


def _open(folder: Path, path: str) -> int | None:
    """Open what a path below ``folder`` names.

    The links are resolved first. Then the way that was found is gone step by step without following any: what is
    exchanged for a link in between is not followed either.
    """
    parts = path.split("/") if path else []
    if "\0" in path or any(part in {"", ".", ".."} for part in parts):
        return None
    # Not the folder itself: the program may have put a link in its place.
    root = folder.parent.resolve() / folder.name
    try:
        steps = root.joinpath(*parts).resolve().relative_to(root).parts
        return _walk(root, steps)
    except (OSError, ValueError, RuntimeError):
        # Not there, elsewhere, not readable, a ring of links, in the middle of a change, or no name of any file.
        return None


def _walk(root: Path, steps: tuple[str, ...]) -> int:
    with ExitStack() as opened:
        current = os.open(root, _READING | os.O_DIRECTORY)
        for step in steps:
            opened.callback(os.close, current)
            current = os.open(step, _READING, dir_fd=current)
        return current


def _is_utf_8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
