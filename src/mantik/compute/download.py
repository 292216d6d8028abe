"""Fetches files of a job's working folder: all of what was asked for, or nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mantik.compute.service import quoted
from mantik.exceptions import ConfigurationError, UnexpectedAnswerError

if TYPE_CHECKING:
    from mantik.compute.service import Service

__all__ = ["download"]

_CHUNK_BYTES = 1024 * 1024


def download(service: Service, files: str, path: str | None, target: Path) -> Path:
    """Fetch a file, or a folder with everything in it.

    Everything is fetched beside the target first and moved there at the end, so that an interrupted download leaves
    nothing that looks whole.

    Args:
        service: The compute backend.
        files: Where the files of the job are there, e.g. ``jobs/17/files``.
        path: Path in the working folder; None for all of it.
        target: What the file or folder becomes here.

    Returns:
        The target.

    Raises:
        ConfigurationError: There is no such file, or the target is there already or cannot be written.
        MantikError: The service does not answer, or refuses.
    """
    wanted = _inside(path)
    _refuse_to_overwrite(target)
    is_folder = wanted is None or _is_folder(service, files, wanted)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".mantik-", dir=target.parent) as aside:
            fetched = Path(aside) / "fetched"
            if is_folder:
                _fetch_folder(service, files, wanted or PurePosixPath(), fetched)
            else:
                _fetch_file(service, f"{files}/{wanted}", fetched)
            # Somebody may have made it meanwhile.
            _refuse_to_overwrite(target)
            fetched.rename(target)
    except OSError as error:
        raise ConfigurationError(f"{target} cannot be written ({error.strerror}).") from None
    return target


def _refuse_to_overwrite(target: Path) -> None:
    # A link that leads nowhere does not exist to Path.exists(), and would be replaced.
    if os.path.lexists(target):
        raise ConfigurationError(f"{target} is there already; nothing was downloaded. Move it, or name another folder.")


def _inside(path: str | None) -> PurePosixPath | None:
    wanted = PurePosixPath(path or ".")
    if wanted.is_absolute() or ".." in wanted.parts or "\0" in str(wanted):
        raise ConfigurationError(
            f"{path!r} is not in the job's working folder, expected a path such as model/weights.pt"
        )
    return wanted if wanted.parts else None


def _is_folder(service: Service, files: str, wanted: PurePosixPath) -> bool:
    beside = _listing(service, files, wanted.parent)
    if wanted.name in beside:
        return beside[wanted.name]
    known = ", ".join(sorted(beside)[:10]) or "nothing"
    where = "the job's working folder" if wanted.parent == PurePosixPath() else str(wanted.parent)
    raise ConfigurationError(f"There is no {wanted.name!r} in {where}, but: {known}")


def _fetch_folder(service: Service, files: str, folder: PurePosixPath, target: Path) -> None:
    waiting = [(folder, target)]
    while waiting:
        there, here = waiting.pop()
        here.mkdir()
        for name, is_folder in _listing(service, files, there).items():
            if is_folder:
                waiting.append((there / name, here / name))
            else:
                _fetch_file(service, f"{files}/{there / name}", here / name)


def _listing(service: Service, files: str, folder: PurePosixPath) -> dict[str, bool]:
    """Return what is in a folder: names, and whether they are folders themselves."""
    content = service.get(files, path="" if folder == PurePosixPath() else str(folder))
    entries: Any = content.get("files")
    listing = {}
    for entry in entries if isinstance(entries, list) else ():
        path = entry.get("path") if isinstance(entry, dict) else None
        # Only the last part of what the service says becomes part of a path here.
        name = str(path).rstrip("/").rpartition("/")[2]
        if not isinstance(path, str) or name in {"", ".", ".."} or "\0" in name:
            raise UnexpectedAnswerError(f"The compute backend named a file {path!r}, which is no file of a job.")
        listing[name] = bool(entry.get("is_dir"))
    return listing


def _fetch_file(service: Service, path: str, target: Path) -> None:
    with service.stream(quoted(path)) as answer, target.open("xb") as file:
        for chunk in answer.iter_content(_CHUNK_BYTES):
            file.write(chunk)
