"""Which names the files of a project may have, so that they mean the same on every machine and stay in their folder."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from mantik.server.compute.zip_directory import ArchiveError

_MOST_BYTES_OF_A_PATH: Final = 1024
_MOST_BYTES_OF_A_NAME: Final = 255
_SHOWN: Final = 120
_DRIVE: Final = re.compile(r"[A-Za-z]:")
# Control characters, surrogates, and the separators of lines and paragraphs.
_UNPRINTABLE: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


class ProjectTree:
    """The paths of a project, each checked against the rules and against all others.

    A path is relative, with slashes, without ``.`` and ``..``. No two differ only by case or by the Unicode form of a
    letter, because some file systems would make one file of them; none is both a file and a folder.
    """

    def __init__(self, most: int) -> None:
        """Take how many files and folders there may be, those that are only mentioned in a path among them."""
        self._most = most
        self._spellings: dict[str, str] = {}
        self._folders: set[str] = set()
        self._files: set[str] = set()

    def add(self, path: str, *, is_folder: bool) -> None:
        """Add a file or a folder, and the folders that it is in.

        Raises:
            ArchiveError: The path is none that a project may have, or there is another like it.
        """
        check_path(path)
        if path in self._files and not is_folder:
            raise ArchiveError(f"The archive has {_shown(path)} twice.")
        self._enter(path, self._folders if is_folder else self._files)
        parent = path.rpartition("/")[0]
        while parent and parent not in self._folders:
            self._enter(parent, self._folders)
            parent = parent.rpartition("/")[0]

    def _enter(self, path: str, kind: set[str]) -> None:
        kind.add(path)
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
        spelling = self._spellings.setdefault(key, path)
        if spelling != path:
            raise ArchiveError(
                f"{_shown(path)} and {_shown(spelling)} in the archive differ only by case or by the form of a letter. "
                "Rename one of them."
            )
        if path in self._files and path in self._folders:
            raise ArchiveError(f"{_shown(path)} in the archive is a file and a folder.")
        if len(self._spellings) > self._most:
            raise ArchiveError(f"The archive has more than {self._most} files and folders.")


def check_path(path: str) -> None:
    """Check the path of a file in a project.

    Raises:
        ArchiveError: It leads elsewhere, or is none that every file system can have.
    """
    parts = path.split("/")
    if path.startswith("/") or _DRIVE.match(path):
        raise ArchiveError(f"{_shown(path)} is an absolute path. Expected one in the project.")
    if ".." in parts:
        raise ArchiveError(f"{_shown(path)} leads out of the project.")
    if "\\" in path:
        raise ArchiveError(f"{_shown(path)} contains a backslash. Expected slashes.")
    if any(unicodedata.category(character) in _UNPRINTABLE for character in path):
        raise ArchiveError(f"{_shown(path)} contains a control character.")
    if "" in parts or "." in parts:
        raise ArchiveError(f"{_shown(path)} is no path of a file: it has an empty part or a lone dot.")
    longest = max(len(part.encode()) for part in parts)
    if longest > _MOST_BYTES_OF_A_NAME or len(path.encode()) > _MOST_BYTES_OF_A_PATH:
        raise ArchiveError(
            f"{_shown(path)} is too long. Expected names of at most {_MOST_BYTES_OF_A_NAME} bytes and paths of at most "
            f"{_MOST_BYTES_OF_A_PATH}."
        )


def _shown(path: str) -> str:
    return repr(path if len(path) <= _SHOWN else f"{path[:_SHOWN]}...")
