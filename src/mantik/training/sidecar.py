"""A small file beside checkpoints that says which run they come from and what of them is on the platform."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from typing import TYPE_CHECKING, Any, TypedDict, cast

from mantik.training.identity import RunIdentity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Entry", "Sidecar"]

_NAME = ".mantik-run.json"
_FORMAT = 1


class Entry(TypedDict, total=False):
    """What is known of one checkpoint.

    Attributes:
        run: Its run, as the text of a `RunIdentity`.
        artifact: The folder in which it lies on the platform, where it was uploaded.
        stamp: Its time of change in nanoseconds and its size in bytes when it was uploaded.
        keeper: The callback that keeps it.
        about: What is told of it on the platform.
    """

    run: str
    artifact: str
    stamp: list[int]
    keeper: str
    about: dict[str, Any]


class Sidecar:
    """The file of one folder of checkpoints. One process writes it.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._folder = folder

    def entries(self) -> dict[str, Entry]:
        """Return what is known, by the checkpoint's path in the folder; nothing of what is damaged or foreign."""
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        match content:
            case {"format": 1, "checkpoints": dict() as entries}:
                return {name: cast("Entry", entry) for name, entry in entries.items() if _is_entry(entry)}
        return {}

    def identity_of(self, name: str) -> RunIdentity | None:
        """Return the run of a checkpoint; None where that is not known."""
        return RunIdentity.from_text(self.entries().get(name, {}).get("run"))

    def write(self, entries: Mapping[str, Entry]) -> None:
        """Replace what is known; what no longer exists and was never uploaded is left out.

        Raises:
            OSError: The folder cannot be written.
        """
        kept = {name: entry for name, entry in entries.items() if "artifact" in entry or (self._folder / name).exists()}
        text = json.dumps({"format": _FORMAT, "checkpoints": kept}, indent=2) + "\n"
        # In one step for whoever looks, and for whoever is killed halfway.
        half = self._path.with_name(f"{_NAME}.{secrets.token_hex(4)}")
        try:
            half.write_text(text, encoding="utf-8")
            os.replace(half, self._path)  # noqa: PTH105  # the same by another name
        except OSError:
            with contextlib.suppress(OSError):
                half.unlink()
            raise


def _is_entry(item: object) -> bool:
    match item:
        case {"run": str(), "artifact": str(), "stamp": list(), "about": {"file": str(), "aliases": list()}}:
            return True
        case {"run": str(), **rest}:
            return "artifact" not in rest
    return False
