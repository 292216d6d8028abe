"""A value that must not be seen."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Secret"]


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A password or a token, masked wherever it is printed.

    Tracebacks that show local variables, debug logs and f-strings all go through ``repr`` or ``str``. The value itself
    comes out through :meth:`reveal` alone, which is called in the expression that needs it and never bound to a name.
    """

    _value: str

    def reveal(self) -> str:
        """Return the value itself."""
        return self._value

    def __bool__(self) -> bool:
        """Tell whether there is a value at all."""
        return bool(self._value)

    def __repr__(self) -> str:
        """Mask the value."""
        return "Secret(***)"

    def __str__(self) -> str:
        """Mask the value."""
        return "***"
