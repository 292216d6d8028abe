"""The files of a project that are sent, and what is left out: found before anything is packed."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mantik.compute.mistakes import shown
from mantik.compute.names import alike, name_problem
from mantik.delivery.ledger import in_words, size_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mantik.compute.exclude import Exclusion
    from mantik.compute.mistakes import Mistakes

__all__ = ["MOST_FILES", "LeftOut", "Member", "Tree", "survey"]

MOST_FILES = 20_000
"""More are no project but a data set: services do not take them, and links among folders can make them endless."""

_LARGEST = 5
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Member:
    """A file that is sent.

    Attributes:
        name: Its path in the project, with slashes.
        path: Where it is read from.
        size: Its bytes.
        is_executable: Whether its owner may run it.
    """

    name: str
    path: Path
    size: int
    is_executable: bool = False

    def __str__(self) -> str:
        """Name it with its size."""
        return f"{self.name} ({size_in_words(self.size)})"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file or folder that is not sent.

    Attributes:
        name: Its path in the project; that of a folder ends with a slash.
        reason: ``by default``, ``a Python environment``, ``.mantikignore`` or ``Exclude``.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Tree:
    """What is sent of a project.

    Attributes:
        members: The files, sorted by their names.
        left_out: What is not sent.
    """

    members: tuple[Member, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(member.size for member in self.members)

    @property
    def largest(self) -> tuple[Member, ...]:
        """The five largest files, the largest first."""
        return tuple(sorted(self.members, key=lambda member: -member.size)[:_LARGEST])

    def has(self, name: str) -> bool:
        """Tell whether a file, or a folder with files, is among what is sent."""
        return any(member.name == name or member.name.startswith(f"{name}/") for member in self.members)

    def __str__(self) -> str:
        """Say how much it is, what is largest, and what is left out."""
        sentences = [f"{in_words(len(self.members), 'file')}, {size_in_words(self.size)}."]
        if len(self.members) > 1:
            sentences.append(f"Largest: {', '.join(map(str, self.largest))}.")
        for start, reasons in (
            ("Left out by default", ("by default", "a Python environment")),
            ("Left out by .mantikignore", (".mantikignore",)),
            ("Left out by Exclude", ("Exclude",)),
        ):
            names = [left.name for left in self.left_out if left.reason in reasons]
            if names:
                more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                sentences.append(f"{start}: {', '.join(names[:_SHOWN])}{more}.")
        return " ".join(sentences)


def survey(project: Path, exclusion: Exclusion, always: Iterable[str], mistakes: Mistakes) -> Tree:
    """Find what is sent of a project.

    Links are followed, and what they lead to is sent under the link's name. A link that leads out of the project, or
    nowhere, is a mistake, and so is what is neither file nor folder.

    Args:
        project: The project's folder.
        exclusion: What is not sent.
        always: Files that are sent even so, by their paths in the project.
        mistakes: Where to say what is wrong.
    """
    walk = _Walk(project.resolve(), exclusion, mistakes)
    walk.look_into_all()
    for name in always:
        walk.add(name)
    members = sorted(walk.members.values(), key=lambda member: member.name)
    for name, other in alike(member.name for member in members):
        mistakes.add(name, f"it is {other} but for case or the form of a letter; rename or exclude one of them")
    left = [left for left in walk.left_out if left.name not in walk.members]
    return Tree(tuple(members), tuple(sorted(left, key=lambda left: left.name)))


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder that is still to be looked into: where it really is, and as what it is sent."""

    path: Path
    prefix: str
    above: tuple[Path, ...]


class _Walk:
    def __init__(self, root: Path, exclusion: Exclusion, mistakes: Mistakes) -> None:
        self.members: dict[str, Member] = {}
        self.left_out: list[LeftOut] = []
        self._root = root
        self._exclusion = exclusion
        self._mistakes = mistakes
        self._waiting = [_Folder(root, "", (root,))]

    def look_into_all(self) -> None:
        """Find everything, but stop where it is no project any more."""
        folders = 0
        while self._waiting:
            folders += 1
            if len(self.members) + folders > MOST_FILES:
                self._mistakes.add(
                    "",
                    f"the project has more than {MOST_FILES:,} files; leave out what the job does not need (Exclude)",
                )
                return
            self._look_into(self._waiting.pop())

    def add(self, name: str) -> None:
        """Add a file that is sent whatever excludes it."""
        if name not in self.members and not self._mistakes.has(name):
            target = self._followed(self._root / PurePosixPath(name), name)
            if target is not None:
                self._add_file(target, name)

    def _look_into(self, folder: _Folder) -> None:
        try:
            with os.scandir(folder.path) as entries:
                found = sorted((entry.name, entry.is_symlink()) for entry in entries)
        except OSError as error:
            self._mistakes.add(folder.prefix or str(folder.path), f"the folder cannot be read ({error.strerror})")
            return
        for name, is_link in found:
            self._look_at(folder, name, is_link=is_link)

    def _look_at(self, folder: _Folder, own_name: str, *, is_link: bool) -> None:
        path, name = folder.path / own_name, f"{folder.prefix}{own_name}"
        is_folder = os.path.isdir(path)  # noqa: PTH112  # false where it cannot be told, which pathlib raises
        reason = self._exclusion.reason(name, folder=path if is_folder else None)
        if reason is not None:
            self.left_out.append(LeftOut(f"{name}/" if is_folder else name, reason))
            return
        problem = name_problem(name)
        if problem is not None:
            self._mistakes.add(shown(name), problem)
            return
        target = self._followed(path, name) if is_link else path
        if target is None:
            return
        if not is_folder:
            self._add_file(target, name)
        elif target in folder.above:
            self._mistakes.add(name, "it is a link to a folder that it is in itself; delete or exclude it")
        else:
            self._waiting.append(_Folder(target, f"{name}/", (*folder.above, target)))

    def _add_file(self, path: Path, name: str) -> None:
        try:
            found = path.stat()
        except OSError as error:
            self._mistakes.add(name, f"it cannot be read ({error.strerror})")
            return
        if not stat.S_ISREG(found.st_mode):
            self._mistakes.add(name, "it is neither a file nor a folder and cannot be sent; delete or exclude it")
        elif not os.access(path, os.R_OK):
            self._mistakes.add(name, "it cannot be read (no permission); exclude it if the job does not need it")
        else:
            self.members[name] = Member(name, path, found.st_size, bool(found.st_mode & 0o100))

    def _followed(self, path: Path, name: str) -> Path | None:
        """Return what a path leads to, through all links on its way, if that is in the project."""
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):
            self._mistakes.add(name, f"it is a link that leads nowhere{_target_of(path)}; delete or exclude it")
            return None
        if target.is_relative_to(self._root):
            return target
        self._mistakes.add(
            name,
            f"it is a link that leads out of the project{_target_of(path)}; put a copy in its place, or exclude it",
        )
        return None


def _target_of(path: Path) -> str:
    try:
        return f" (to {os.readlink(path)})"  # noqa: PTH115  # as it is written, not as a path
    except OSError:
        return ""
