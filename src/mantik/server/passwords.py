"""Rules for user names and passwords, and the hash that is stored instead of a password."""

from __future__ import annotations

import base64
import secrets
import unicodedata
from typing import Final

import argon2
from argon2.exceptions import VerificationError

NAME_RULE: Final = "A user name has 1 to 128 printable characters and contains no white space and no colon."
PASSWORD_RULE: Final = "A password has 8 to 256 characters and does not contain the user name."  # noqa: S105 - a rule

_MAX_NAME: Final = 128
_MIN_PASSWORD: Final = 8
_MAX_PASSWORD: Final = 256
# A name of one or two letters is part of too many good passwords.
_MIN_FORBIDDEN_NAME: Final = 3


def normal_form(text: str) -> str:
    """Return one spelling for texts that look the same, whichever keyboard they were typed on (Unicode NFC)."""
    return unicodedata.normalize("NFC", text)


def is_good_name(name: str) -> bool:
    """Tell whether ``name`` may be a user's name: see `NAME_RULE`."""
    # isprintable() is true for the plain space only, of all white space and control characters.
    return 1 <= len(name) <= _MAX_NAME and name.isprintable() and not any(c.isspace() or c == ":" for c in name)


def is_good_password(password: str, name: str) -> bool:
    """Tell whether ``password`` may be the password of the user ``name``: see `PASSWORD_RULE`."""
    if not _MIN_PASSWORD <= len(password) <= _MAX_PASSWORD:
        return False
    return len(name) < _MIN_FORBIDDEN_NAME or name.casefold() not in password.casefold()


class PasswordHasher:
    """argon2id with the parameters that RFC 9106 recommends where memory is limited: 64 MiB, 3 passes, 4 lanes."""

    def __init__(self) -> None:
        self._argon2 = argon2.PasswordHasher()
        self._nobody = self._hash_of_nobody()

    def hash(self, password: str) -> str:
        """Return the text to store for ``password``."""
        return self._argon2.hash(_to_bytes(password))

    def verify(self, password: str, stored: str | None) -> bool:
        """Tell whether ``password`` belongs to the ``stored`` hash.

        Without a hash (there is no such user) the same work is done before the answer is no, so that the time taken
        does not tell which user names exist.
        """
        try:
            return self._argon2.verify(stored or self._nobody, _to_bytes(password)) and stored is not None
        except VerificationError:
            return False

    def _hash_of_nobody(self) -> str:
        """Spell a hash that costs what a real one costs and that no password has."""
        h = self._argon2
        salt, digest = (_unpadded(secrets.token_bytes(n)) for n in (h.salt_len, h.hash_len))
        return f"$argon2id$v=19$m={h.memory_cost},t={h.time_cost},p={h.parallelism}${salt}${digest}"


def _unpadded(raw: bytes) -> str:
    return base64.b64encode(raw).rstrip(b"=").decode()


def _to_bytes(password: str) -> bytes:
    # JSON can carry lone surrogates, which UTF-8 proper cannot: such a password is wrong, not an error.
    return normal_form(password).encode("utf-8", "surrogatepass")
