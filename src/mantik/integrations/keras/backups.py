"""Which run a training goes on with: told by a small file beside the backups and checkpoints that Keras writes."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import keras  # type: ignore[import-untyped]

from mantik.integrations.keras.checkpoints import files_of
from mantik.training.sidecar import Entry, Sidecar

if TYPE_CHECKING:
    from mantik.integrations.keras.call import Call
    from mantik.training.identity import RunIdentity

__all__ = ["mark_backups", "origin_of"]

_WHOLE = "."
"""The name by which the file says of a folder as a whole which run it belongs to."""


def origin_of(call: Call) -> tuple[RunIdentity | None, str]:
    """Return the run that a ``fit`` goes on with, and where it goes on from; None where it begins anew.

    That is the run of the backup from which ``BackupAndRestore`` restores, or, with an ``initial_epoch``, that of the
    newest checkpoint where a ``ModelCheckpoint`` keeps its own.
    """
    for callback in call.callbacks_of(keras.callbacks.BackupAndRestore):
        folder = _local(callback.backup_dir)
        if folder is not None and _holds_backup(folder):
            identity = Sidecar(folder).identity_of(_WHOLE)
            if identity is not None:
                return identity, folder.name
    if call.initial_epoch > 0:
        for callback in call.callbacks_of(keras.callbacks.ModelCheckpoint):
            for path in reversed(files_of(callback)):
                identity = Sidecar(path.parent).identity_of(path.name)
                if identity is not None:
                    return identity, path.name
    return None, ""


def mark_backups(call: Call, identity: RunIdentity) -> None:
    """Leave beside the backups of a ``fit``, before there are any, which run they are from."""
    for callback in call.callbacks_of(keras.callbacks.BackupAndRestore):
        folder = _local(callback.backup_dir)
        if folder is not None:
            with contextlib.suppress(OSError):
                # Where the folder cannot be written, there will be no backup either.
                folder.mkdir(parents=True, exist_ok=True)
                Sidecar(folder).write({_WHOLE: Entry(run=identity.to_text())})


def _local(folder: object) -> Path | None:
    text = str(folder)
    return None if "://" in text else Path(text)


def _holds_backup(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return any(not path.name.startswith(".mantik-run.json") for path in folder.iterdir())
    return False
