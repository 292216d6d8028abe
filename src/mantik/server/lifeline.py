"""Ends the server processes when the command that started them is gone, even by SIGKILL."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Final

_GRACE_SECONDS: Final = 10.0


def hold(descriptor: int) -> None:
    """Watch ``descriptor``, the reading end of a pipe that only the command can write to, in a thread.

    At its end of file the whole process group is asked to stop, and after a grace made to. So the process group must
    belong to the platform alone: the command starts it as a session of its own.
    """
    threading.Thread(target=_watch, args=(descriptor,), name="mantik-lifeline", daemon=True).start()


def _watch(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)
