"""Which files of a project are not sent: ``.gitignore`` patterns from two places, and what no job needs.

The patterns of the contract mean the same in ``.gitignore``: ``*.sif`` is any file of that name at any depth, ``data/``
any folder of that name. Those that had no effect there (``sub``, ``sub/deep/``, ``sub/*.png``) have one here.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pathspec import GitIgnoreSpec

from mantik.compute.mistakes import shown

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pathspec import RegexPattern

    from mantik.compute.mistakes import Mistakes

__all__ = ["DEFAULTS", "IGNORE_FILE", "Exclusion", "mistakes_in"]

IGNORE_FILE = ".mantikignore"

DEFAULTS = (
    ".git",
    ".hg/",
    ".svn/",
    ".env",
    ".env.*",
    ".envrc",
    ".mantik/",
    "mlruns/",
    "mlartifacts/",
    "mlflow.db",
    "__pycache__/",
    ".ipynb_checkpoints/",
    ".mypy_cache/",
    ".pytest_cache/",
    ".ruff_cache/",
    ".tox/",
    ".nox/",
    ".DS_Store",
)
"""What no job needs, and what must not leave the machine unasked. Virtual environments are recognised by what is in
them."""

_MARKS_OF_ENVIRONMENTS = ("pyvenv.cfg", "conda-meta")
_FOLDER_MARK = "ps_d"
"""Name of the group with which pathspec tells that a pattern has matched a folder."""

_WILDCARD = re.compile(r"[*?\[]")
_MOST_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Exclusion:
    """What holds for one project.

    Attributes:
        own: The project's patterns.
        defaults: ``DEFAULTS``.
    """

    own: tuple[_Pattern, ...]
    defaults: tuple[_Pattern, ...]

    @classmethod
    def of(cls, project: Path, exclude: Iterable[str], mistakes: Mistakes) -> Exclusion:
        """Put together the defaults, the project's ``.mantikignore``, and ``Exclude`` of the backend configuration.

        Args:
            project: The project's folder.
            exclude: The patterns of ``Exclude``, which have been checked.
            mistakes: Where to say what is wrong with ``.mantikignore``.
        """
        patterns = [(pattern, IGNORE_FILE) for pattern in _ignored_by(project, mistakes)]
        patterns += [(_escaped(pattern), "Exclude") for pattern in exclude]
        return cls(_compiled(patterns), _compiled((pattern, "by default") for pattern in DEFAULTS))

    def reason(self, name: str, *, folder: Path | None = None) -> str | None:
        """Say why something is not sent; None if it is.

        Args:
            name: Its path in the project, with slashes.
            folder: The folder, if it is one.
        """
        path = f"{name}/" if folder is not None else name
        own = _last_match(self.own, path)
        if own is not None and own.excludes:
            return own.source
        # What is left out by default may be secret: !*/ and the like do not mean it.
        if own is not None and not _WILDCARD.search(own.text):
            return None
        if _last_match(self.defaults, path) is not None:
            return "by default"
        return "a Python environment" if folder is not None and is_environment(folder) else None


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One pattern: as it is written, where, and as pathspec matches it."""

    text: str
    source: str
    compiled: RegexPattern

    @property
    def excludes(self) -> bool:
        """Whether it leaves out what it matches, instead of taking it back in."""
        return bool(self.compiled.include)

    def matches(self, path: str) -> bool:
        """Tell whether it is about this very file or folder."""
        if "/" not in self.text.rstrip("/"):
            # Without a slash in front of its end it is about names, at any depth.
            path = path[path.rfind("/", 0, -1) + 1 :]
        found = self.compiled.match_file(path)
        if found is None:
            return False
        # What it matches through a folder above has been decided there, as git does. pathspec marks the folder's slash.
        through = found.match.groupdict().get(_FOLDER_MARK)
        return through is None or found.match.end(_FOLDER_MARK) == len(path)


def _last_match(patterns: tuple[_Pattern, ...], path: str) -> _Pattern | None:
    return next((pattern for pattern in reversed(patterns) if pattern.matches(path)), None)


def is_environment(folder: Path) -> bool:
    """Tell whether a folder is a virtual or a conda environment."""
    # os.path says no where it cannot be told, which pathlib raises.
    return any(os.path.exists(folder / mark) for mark in _MARKS_OF_ENVIRONMENTS)  # noqa: PTH110


def mistakes_in(patterns: Iterable[str], place: str, mistakes: Mistakes) -> None:
    """Say which patterns of a list cannot be used.

    Args:
        patterns: The patterns.
        place: Path of the list in its file.
        mistakes: Where to say it.
    """
    for number, pattern in enumerate(patterns):
        if "\n" in pattern or not _has_effect(_escaped(pattern)):
            mistakes.add(f"{place}[{number}]", f"{shown(pattern)} is no pattern, expected e.g. '*.sif' or data/")


def _compiled(patterns: Iterable[tuple[str, str]]) -> tuple[_Pattern, ...]:
    compiled = []
    for text, source in patterns:
        # To git, data/** is what is in the folder; to pathspec it is the folder as well.
        line = f"{text}/*" if text.endswith("/**") else f"{text}*/" if text.endswith("/**/") else text
        compiled += [_Pattern(text, source, pattern) for pattern in GitIgnoreSpec.from_lines([line]).patterns]
    return tuple(compiled)


def _ignored_by(project: Path, mistakes: Mistakes) -> list[str]:
    path = project / IGNORE_FILE
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = file.read(_MOST_BYTES).splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        mistakes.add(IGNORE_FILE, f"cannot be read ({getattr(error, 'strerror', None) or 'it is no text in UTF-8'})")
        return []
    patterns = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        if _has_effect(line):
            patterns.append(line)
        else:
            mistakes.add(
                f"{IGNORE_FILE}, line {number}", f"{shown(line)} is no pattern, expected e.g. '*.sif' or data/"
            )
    return patterns


def _escaped(pattern: str) -> str:
    """Keep a list's item from being a comment, which only a line of a file can be."""
    return f"\\{pattern}" if pattern.startswith("#") else pattern


def _has_effect(pattern: str) -> bool:
    try:
        (parsed,) = GitIgnoreSpec.from_lines([pattern]).patterns
    except (ValueError, re.error):
        return False
    return parsed.include is not None
