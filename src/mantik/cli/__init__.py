"""The command line: ``mantik login``, ``logout``, ``status``, ``init``, ``sync``, ``spool``, ``runs``, ``server``."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    from mantik.cli.commands import mantik

    mantik(prog_name="mantik")
