"""A call of Keras, as far as the frame in which it runs tells: callbacks are told little of the ``fit`` they are in."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras  # type: ignore[import-untyped]

from mantik.integrations.keras.structure import leaves

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

    from mantik.integrations.keras.kinds import Callback, Data, Model

__all__ = ["Call", "calling_list", "is_under_way"]


@dataclass(frozen=True, slots=True)
class Call:
    """A call of ``fit``, ``evaluate`` or ``predict``. Holds the data; nobody keeps it longer than a moment.

    Attributes:
        values: Its arguments and variables by name; empty in a loop of the user's own and in a Keras that does
            otherwise.
        callbacks: The callbacks in it.
        callback_list: Keras's list of them; None where somebody calls a callback by hand.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    callbacks: tuple[Callback, ...] = ()
    callback_list: Callback | None = None

    @classmethod
    def of(cls, model: Model, kind: str) -> Call:
        """Find the call of a model's method that is under way.

        Args:
            model: The model.
            kind: The name of the method.
        """
        listed = calling_list()
        callbacks = tuple(listed.callbacks) if listed is not None else ()
        for frame in _frames():
            # Of a method that overrides Keras's and calls it, the inner one comes first.
            if frame.f_code.co_name == kind and frame.f_locals.get("self") is model:
                return cls(dict(frame.f_locals), callbacks, listed)
        return cls({}, callbacks, listed)

    @property
    def x(self) -> Data:
        """The data; None where it is not known."""
        return self.values.get("x")

    @property
    def y(self) -> Data:
        """The targets; None where they are within the data."""
        return self.values.get("y")

    @property
    def validation(self) -> tuple[Data, Data] | None:
        """Data and targets of the validation; None without one."""
        data = self.values.get("validation_data")
        if data is None:
            return None
        if isinstance(data, (tuple, list)):
            # With weights of the samples as the third.
            return data[0], data[1] if len(data) > 1 else None
        return data, None

    @property
    def initial_epoch(self) -> int:
        """The epoch with which it begins, as far as its arguments say."""
        return int(self.values.get("initial_epoch") or 0)

    @property
    def first_batches(self) -> list[Data]:
        """The batches that Keras has taken from a generator to learn their shapes, and will yet train on."""
        return list(getattr(self._adapter, "_first_batches", None) or [])

    @property
    def batch_size(self) -> int | None:
        """Samples in a batch; None where that is not known."""
        for size in (
            getattr(self._adapter, "batch_size", None),
            self.values.get("batch_size"),
            getattr(self.x, "batch_size", None),
        ):
            if isinstance(size, int) and size > 0:
                return size
        batches = self.first_batches
        return _rows(batches[0]) if batches else None

    @property
    def rows(self) -> int | None:
        """Samples in the data; None where that is not known."""
        dataset = getattr(self.x, "dataset", None)
        if dataset is not None:
            return len(dataset) if hasattr(dataset, "__len__") else None
        return _rows(self.x)

    def callbacks_of(self, kind: type) -> list[Callback]:
        """Return the callbacks of a kind."""
        return [callback for callback in self.callbacks if isinstance(callback, kind)]

    @property
    def _adapter(self) -> object | None:
        return getattr(self.values.get("epoch_iterator"), "data_adapter", None)


def calling_list() -> Callback | None:
    """Return the ``CallbackList`` that calls; None where somebody calls a callback by hand."""
    for owner in _hook_owners():
        if isinstance(owner, keras.callbacks.CallbackList):
            return owner
    return None


def is_under_way(callback_list: Callback) -> bool:
    """Tell whether a ``CallbackList`` is calling, further up on the stack."""
    return any(owner is callback_list for owner in _hook_owners())


def _hook_owners() -> Iterator[object]:
    """Yield the callbacks, and lists of them, one of whose hooks is under way."""
    for frame in _frames():
        # Others are not looked into: that would keep what their variables hold for as long as they run.
        if frame.f_code.co_name.startswith(("on_", "_on_")):
            yield frame.f_locals.get("self")


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # what inspect.currentframe returns, and never None
    while frame is not None:
        yield frame
        frame = frame.f_back


def _rows(data: Data) -> int | None:
    for leaf in leaves(data):
        shape = getattr(leaf, "shape", None)
        if isinstance(shape, tuple) and shape and isinstance(shape[0], int):
            return shape[0]
    return None
