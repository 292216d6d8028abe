"""Where media lie among the artifacts of a run, and how a file gets there."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mantik.exceptions import InvalidValueError
from mantik.training.names import mapped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient

__all__ = ["copy_file", "file_name", "new_artifact", "place"]

_LONGEST_BYTES = 120
"""Of a key in a path. MLflow's name of an image adds about 90, and file systems take 255."""

_HEX_DIGITS = 8
_UNACCEPTABLE = re.compile(r"[^/\w.\- ]")
"""All that is no letter, digit or one of `_-. /`. MLflow's tables have no colon."""


def file_name(key: str) -> str:
    """Return the path for which a key stands, as of `mantik.training.names.mapped`; short enough for any file system.

    Args:
        key: What the training calls the images, the table or the sound. Slashes make folders.

    Raises:
        InvalidValueError: The key is no text.
    """
    if not isinstance(key, str):
        raise InvalidValueError(f"The key is {key!r}, which is no text. Give the name under which to log.", repr(key))
    name = mapped(key)
    if _UNACCEPTABLE.search(name) is None and len(name.encode()) <= _LONGEST_BYTES:
        return name
    text = _UNACCEPTABLE.sub("_", name).encode()[: _LONGEST_BYTES - 1 - _HEX_DIGITS].decode(errors="ignore")
    digits = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:_HEX_DIGITS]
    return f"{text.rstrip('/')}-{digits}"


def place(folder: str, key: str, step: int | None, suffix: str, number: int | None = None) -> str:
    """Return where something lies: ``<folder>/<key>[/step-<8 digits>][-<number>]<suffix>``.

    Args:
        folder: The folder of its kind.
        key: What the training calls it.
        step: The training step; None: no step in the path.
        suffix: What the file's name ends with, with the dot.
        number: Which of several it is, from 0; None where it is the only one.
    """
    path = f"{folder}/{file_name(key)}"
    if step is not None:
        path += f"/step-{step:08d}"
    if number is not None:
        path += f"-{number:02d}"
    return path + suffix


@contextlib.contextmanager
def new_artifact(client: MlflowClient, run_id: str, path: str) -> Iterator[Path]:
    """Yield a path for a file, which is logged as an artifact at the end of the block, unless that raised.

    Raises:
        OSError: The folder for temporary files cannot be written.
    """
    target = PurePosixPath(path)
    with tempfile.TemporaryDirectory(prefix="mantik-") as folder:
        file = Path(folder) / target.name
        yield file
        client.log_artifact(run_id, str(file), str(target.parent))


def copy_file(client: MlflowClient, run_id: str, source: Path, path: str) -> None:
    """Log a file of the training's own, by another name.

    Raises:
        OSError: The folder for temporary files cannot be written.
    """
    with new_artifact(client, run_id, path) as file:
        # It may be large, and is copied into the spool anyway.
        file.symlink_to(source.resolve())
