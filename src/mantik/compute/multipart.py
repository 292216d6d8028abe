"""A form with an archive (``multipart/form-data``, RFC 7578), read piece by piece while it is sent."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Form"]

_CHUNK_BYTES = 64 * 1024


class Form:
    """The body of one request. What sends it reads it once, from the beginning to the end.

    Args:
        fields: Texts by the fields' names.
        name: Name of the archive's field, which is also its file name.
        file: The archive, from its present position on.
        size: How many bytes of it are sent.
        progress: Is told how many bytes of the body have been handed over so far.
    """

    def __init__(
        self,
        fields: Mapping[str, str],
        name: str,
        file: BinaryIO,
        size: int,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        boundary = uuid.uuid4().hex
        self.content_type = f"multipart/form-data; boundary={boundary}"
        head = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{text}\r\n'
            for field, text in fields.items()
        )
        disposition = f'Content-Disposition: form-data; name="{name}"; filename="{name}"'
        head += f"--{boundary}\r\n{disposition}\r\nContent-Type: application/zip\r\n\r\n"
        self._head = head.encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._file = file
        self._size = len(self._head) + size + len(self._tail)
        self._sent = 0
        self._progress = progress

    def __len__(self) -> int:
        """Return how many bytes the whole body has: its Content-Length."""
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body in pieces."""
        while chunk := self.read(_CHUNK_BYTES):
            yield chunk

    @property
    def is_sent(self) -> bool:
        """Whether the whole body has been handed over."""
        return self._sent == self._size

    def read(self, size: int = _CHUNK_BYTES) -> bytes:
        """Return the next piece, of at most so many bytes; nothing at the end.

        Raises:
            OSError: The file is shorter than it was.
        """
        into_tail = self._sent - (self._size - len(self._tail))
        if self._sent < len(self._head):
            chunk = self._head[self._sent : self._sent + size]
        elif into_tail >= 0:
            chunk = self._tail[into_tail : into_tail + size]
        else:
            chunk = self._file.read(min(size, -into_tail))
            if not chunk:
                raise OSError("the file is shorter than it was")
        self._sent += len(chunk)
        self._progress(self._sent)
        return chunk
