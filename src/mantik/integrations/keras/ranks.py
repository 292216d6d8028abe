"""Which of the processes of one training this is."""

from __future__ import annotations

import os
import sys
from typing import Any

import keras  # type: ignore[import-untyped]

__all__ = ["rank"]


def rank() -> int:
    """Return the rank of this process among those of its training; 0 where it trains alone.

    Asked is whoever connects the processes: torch's process group, or jax, which `keras.distribution` initialises; and
    before those do, the launcher (``RANK``). Tasks of Slurm that nothing connects are trainings of their own.
    """
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    if keras.backend.backend() == "jax":
        jax: Any = sys.modules["jax"]
        # With another backend, asking would make jax take the GPU.
        if jax.process_count() > 1:
            return int(jax.process_index())
    launched, number = os.environ.get("WORLD_SIZE", ""), os.environ.get("RANK", "")
    return int(number) if launched.isdecimal() and int(launched) > 1 and number.isdecimal() else 0
