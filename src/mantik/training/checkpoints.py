"""The checkpoints of one run on the platform: uploaded beside training, labelled, and pruned as they are locally."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import posixpath
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mantik.training.params import as_yaml
from mantik.training.sidecar import Entry, Sidecar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mantik.training.run import TrackedRun

__all__ = ["Checkpoint", "Shelf", "is_artifact_folder"]

_logger = logging.getLogger(__name__)

_UNSAFE = re.compile(r"[#%?\\:*\"<>|\x00-\x1f\x7f]")
"""What MLflow's artifact server refuses or decodes in a name, and what some file systems cannot hold."""

_SUFFIXES = (".ckpt", ".weights.h5", ".keras", ".h5")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint as its callback knows it.

    Attributes:
        path: The file, or the folder of a sharded one.
        aliases: ``best``, ``last``; empty for one of the others.
        score: Value of the metric that is monitored; None without one.
        details: What else is to be known of it: plain values.
    """

    path: Path
    aliases: tuple[str, ...] = ()
    score: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def is_artifact_folder(name: str) -> bool:
    """Tell whether a text names a folder that every artifact server holds."""
    parts = name.strip("/").split("/")
    return not any(part in {"", ".", ".."} or _UNSAFE.search(part) for part in parts)


class Shelf:
    """The checkpoints of one run. One thread of one process uses it.

    Args:
        run: The run.
        root: Artifact folder under which the checkpoints go.
    """

    def __init__(self, run: TrackedRun, root: str) -> None:
        self._run = run
        self._root = root.strip("/")
        self._names: dict[Path, str] = {}
        self._entries: dict[Path, dict[str, Entry]] = {}
        self._tagged: dict[str, str] = {}

    def note(self, folder: Path, checkpoints: Iterable[Checkpoint]) -> None:
        """Remember beside the checkpoints of a folder which run they are from."""
        identity = self._run.identity
        if identity is None:
            return
        entries, text = self._entries_of(folder), identity.to_text()
        names = [_name_in(folder, one.path) for one in checkpoints if one.path.exists()]
        new = [name for name in names if name is not None and entries.get(name, {}).get("run") != text]
        if new:
            entries.update({name: Entry(run=text) for name in new})
            self._keep(folder)

    def update(self, folder: Path, checkpoints: Iterable[Checkpoint], keeper: str = "") -> None:
        """Upload what is new or changed, delete what was dropped, and describe what there is.

        Args:
            folder: Folder of the checkpoints.
            checkpoints: All that the callback keeps. One that was uploaded before, is not among them and is gone from
                the disk is deleted on the platform, too.
            keeper: The callback, by a name that it has in later attempts, too: several may share a folder.
        """
        identity = self._run.identity
        if identity is None:
            return
        entries, text = self._entries_of(folder), identity.to_text()
        kept: set[str] = set()
        changed = False
        for checkpoint in checkpoints:
            name = _name_in(folder, checkpoint.path)
            if name is not None:
                kept.add(name)
                if self._put(entries, name, checkpoint, self._target(folder, name), text):
                    entries[name]["keeper"] = keeper
                    changed = True
        for name in [name for name in entries if name not in kept]:
            entry = entries[name]
            if "artifact" not in entry or entry.get("run") != text:
                continue
            if not (folder / name).exists():
                self._run.writer.remove_artifacts(entry["artifact"])
                del entries[name]
                changed = True
            elif entry.get("keeper") == keeper and entry["about"]["aliases"]:
                # A callback that keeps everything names the latest alone.
                self._describe(entry, {**entry["about"], "aliases": []})
                changed = True
        if changed:
            self._keep(folder)
            self._write_index(text)

    def _put(self, entries: dict[str, Entry], name: str, checkpoint: Checkpoint, target: str, run: str) -> bool:
        """Bring one checkpoint and what is known of it to the platform; tell whether anything was new."""
        entry = entries.get(name, Entry())
        if entry.get("run") != run:
            entry = Entry(run=run)
        stamp = _stamp(checkpoint.path)
        if stamp is not None and (entry.get("stamp") != stamp or entry.get("artifact") != target):
            if not self._upload(checkpoint.path, target):
                return False
            entry = Entry(run=run, artifact=target, stamp=stamp)
        if "artifact" not in entry:
            return False
        about = {
            "file": posixpath.join(target, _safe(checkpoint.path.name)),
            "aliases": list(checkpoint.aliases),
            "score": checkpoint.score,
            "original_filename": name,
            "saved": datetime.fromtimestamp(entry["stamp"][0] / 1e9, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC"),
            **checkpoint.details,
        }
        known = entry.get("about", {})
        about |= {key: known[key] for key in ("epoch", "global_step") if key in known}
        if about == known:
            return False
        entries[name] = entry
        self._describe(entry, about)
        return True

    def _describe(self, entry: Entry, about: dict[str, Any]) -> None:
        entry["about"] = about
        self._run.writer.log_text(as_yaml(about), posixpath.join(entry["artifact"], "metadata.yaml"))

    def _upload(self, path: Path, target: str) -> bool:
        try:
            if path.name == _safe(path.name):
                # The folder of a sharded checkpoint is a folder there, too.
                self._run.writer.log_file(path, posixpath.join(target, path.name) if path.is_dir() else target)
            else:
                with TemporaryDirectory() as folder:
                    link = Path(folder) / _safe(path.name)
                    link.symlink_to(path.absolute())
                    self._run.writer.log_file(link, posixpath.join(target, link.name) if path.is_dir() else target)
        except OSError as error:
            # Pruned or moved by somebody in this very moment.
            _logger.warning("The checkpoint %s cannot be read (%s): it is not uploaded.", path, error)
            return False
        return True

    def _write_index(self, run: str) -> None:
        """List all checkpoints that are on the platform, and tag the run with those that have an alias."""
        listed = [
            entry["about"]
            for folder in self._names
            for _, entry in sorted(self._entries_of(folder).items())
            if entry.get("run") == run and "about" in entry
        ]
        self._run.writer.log_text(as_yaml({"checkpoints": listed}), posixpath.join(self._root, "index.yaml"))
        tags: dict[str, str] = {}
        for about in listed:
            for alias in about["aliases"]:
                tags.setdefault(f"mantik.checkpoint.{alias}", str(about["file"])[:5000])
        # Of those that several callbacks call their last.
        if lasts := [about for about in listed if "last" in about["aliases"]]:
            latest = max(lasts, key=lambda about: int(about.get("global_step", 0)))
            tags["mantik.checkpoint.last"] = str(latest["file"])[:5000]
        new = {key: value for key, value in tags.items() if self._tagged.get(key) != value}
        if new:
            self._tagged.update(new)
            self._run.writer.set_tags(new)

    def _entries_of(self, folder: Path) -> dict[str, Entry]:
        # In memory, so that it is known even where the folder is not ours to write into.
        if folder not in self._entries:
            self._entries[folder] = Sidecar(folder).entries()
        return self._entries[folder]

    def _keep(self, folder: Path) -> None:
        with contextlib.suppress(OSError):
            # Without the file beside them the identity is in the checkpoints themselves.
            Sidecar(folder).write(self._entries[folder])

    def _target(self, folder: Path, name: str) -> str:
        """Return the artifact folder of a checkpoint, which holds the file and what is known of it."""
        stem = next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), name)
        return posixpath.join(self._root, self._folder_name(folder), *(_safe(part) for part in stem.split("/")))

    def _folder_name(self, folder: Path) -> str:
        """Return what tells the checkpoints of several folders apart: nothing for the folder that is the usual one."""
        if folder not in self._names:
            wanted = "" if folder.name == "checkpoints" else _safe(folder.name)
            name, number = wanted, 1
            while name in self._names.values():
                number += 1
                name = f"{wanted or 'checkpoints'}-{number}"
            self._names[folder] = name
        return self._names[folder]


def _name_in(folder: Path, path: Path) -> str | None:
    """Return a checkpoint's path in its folder, with slashes; None where it is elsewhere."""
    try:
        return path.absolute().relative_to(folder.absolute()).as_posix()
    except ValueError:
        return None


def _stamp(path: Path) -> list[int] | None:
    """Return what changes when a checkpoint is written again."""
    try:
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        facts = [file.stat() for file in files]
    except OSError:
        return None
    return [max((fact.st_mtime_ns for fact in facts), default=0), sum(fact.st_size for fact in facts)]


def _safe(name: str) -> str:
    """Return a name that every artifact server holds; different ones stay different."""
    if not _UNSAFE.search(name):
        return name
    path = Path(_UNSAFE.sub("_", name))
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{path.stem}-{digest}{path.suffix}"
