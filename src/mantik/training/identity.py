"""Which run a checkpoint comes from: written into it and beside it, found without unpickling anything.

Inside of a checkpoint the identity is one string with a mark of its own. A checkpoint is a zip archive with one small
pickle and many large tensors: the pickle's strings are looked through, and nothing of it is executed or loaded.
"""

from __future__ import annotations

import json
import pickletools
import re
import zipfile
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO

__all__ = ["RunIdentity", "identity_in"]

_MARK = "mantik-run:"
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,255}")
_LARGEST_PICKLE = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """A run and where it is.

    Attributes:
        run_id: The run, provisional or the platform's.
        experiment_id: Its experiment.
        tracking_uri: The platform.
    """

    run_id: str
    experiment_id: str
    tracking_uri: str

    def to_text(self) -> str:
        """Return the text by which the identity is found again."""
        return _MARK + json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: object) -> RunIdentity | None:
        """Read an identity; None where the text is none."""
        if not isinstance(text, str) or not text.startswith(_MARK):
            return None
        try:
            content = json.loads(text.removeprefix(_MARK))
        except ValueError:
            return None
        match content:
            case {"run_id": str() as run_id, "experiment_id": str() as experiment_id, "tracking_uri": str() as uri}:
                return cls(run_id, experiment_id, uri) if _RUN_ID.fullmatch(run_id) else None
        return None


def identity_in(file: BinaryIO) -> RunIdentity | None:
    """Find the identity in a checkpoint that torch wrote; None where there is none, or it is no such checkpoint.

    Args:
        file: The checkpoint, seekable.

    Raises:
        OSError: It cannot be read.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if member.filename.endswith("data.pkl") and member.file_size < _LARGEST_PICKLE:
                    return _identity_among(archive.read(member))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError):
        # NotImplementedError, RuntimeError: zip archives that are compressed or encrypted as torch never does.
        pass
    return None


def _identity_among(content: bytes) -> RunIdentity | None:
    if _MARK.encode() not in content:
        return None
    try:
        for _, argument, _ in pickletools.genops(content):
            identity = RunIdentity.from_text(argument)
            if identity is not None:
                return identity
    except ValueError:
        # A pickle that is damaged: whoever loads it will say so.
        pass
    return None
