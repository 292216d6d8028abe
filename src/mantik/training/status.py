"""How a training ended, in MLflow's words."""

from __future__ import annotations

__all__ = ["is_signal", "status_of"]


def status_of(error: BaseException | None) -> str:
    """Return the status of a run whose training ended with an error, or without one.

    Args:
        error: What ended the training: Ctrl-C and signals are no failures of it, nor is ``sys.exit(0)``.
    """
    if error is None or (isinstance(error, SystemExit) and not error.code and not is_signal(error)):
        return "FINISHED"
    return "KILLED" if isinstance(error, KeyboardInterrupt) or is_signal(error) else "FAILED"


def is_signal(error: BaseException) -> bool:
    """Tell whether a training was ended by SIGTERM."""
    # Lightning's SIGTERMException is a SystemExit without a code; it is told by its name, because there is one class in
    # each of Lightning's two packages.
    return any(kind.__name__ == "SIGTERMException" for kind in type(error).__mro__)
