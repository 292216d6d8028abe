"""Names for what Keras has no types for. To a checker all of them are anything; to a reader they say what is meant."""

from __future__ import annotations

from typing import Any, TypeAlias

__all__ = ["Array", "Callback", "Data", "Model"]

Model: TypeAlias = Any
"""A model of Keras."""

Callback: TypeAlias = Any
"""A callback of Keras, or its list of callbacks."""

Data: TypeAlias = Any
"""What Keras takes as data: an array or tensor, a structure of such, a dataset, a loader, a generator; or None."""

Array: TypeAlias = Any
"""An array of numpy, or a structure of such; or None."""
