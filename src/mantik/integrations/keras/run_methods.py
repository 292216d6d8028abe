"""The methods of a `MantikCallback` that are no hooks of Keras: which run it is, and what a user records by hand."""

from __future__ import annotations

import html
import logging
from typing import TYPE_CHECKING, Any

from mantik.exceptions import InvalidValueError
from mantik.integrations.keras.ranks import rank
from mantik.training.values import flat_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from typing_extensions import Self

    from mantik.integrations.keras.session import Session

__all__ = ["RunMethods"]

_logger = logging.getLogger(__name__)


class RunMethods:
    """What a `MantikCallback` offers beside its hooks."""

    _session: Session
    _prefix: str
    _strict: bool
    _refused: set[str]

    @property
    def run_id(self) -> str | None:
        """Id of the run, which is begun for it; None on other ranks than zero."""
        return self._session.writer.run_id if rank() == 0 else None

    @property
    def experiment_id(self) -> str | None:
        """Id of the run's experiment; otherwise as `run_id`."""
        return None if self.run_id is None else self._session.run.experiment_id

    @property
    def link(self) -> str:
        """Address of the run's page on the platform; empty before there is one."""
        return self._session.run.link

    def __enter__(self) -> Self:
        """Open the run, and keep it open until the block ends."""
        if rank() == 0:
            self._session.hold()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run as the block ends: ``FINISHED``, ``FAILED``, or after Ctrl-C ``KILLED``."""
        if rank() == 0:
            self._session.release(error)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record one point of each metric, such as what ``train_on_batch(..., return_dict=True)`` returns.

        Args:
            metrics: Numbers, tensors or arrays of one element, by name; nested mappings are joined with ``/``. What is
                no number is left out, with a warning.
            step: Their step. Default: the last epoch.

        Raises:
            InvalidValueError: A value is no number, and tracking is strict. Nothing of this call is recorded then.
        """
        if rank() == 0:
            self._record(metrics, self._session.axis.last_epoch if step is None else int(step))

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record hyper-parameters of one's own: nested ones are joined with ``/``.

        What the run has already with another value is recorded as drift, and is no error.

        Args:
            params: A mapping, namespace or dataclass.

        Raises:
            InvalidValueError: They have no names.
        """
        if rank() == 0:
            self._session.writer.log_params(params)

    def __repr__(self) -> str:
        """Show which run it is, as far as that is known."""
        run = self._session.run
        return f"{type(self).__name__}(run_id={run.run_id!r}, experiment_id={run.experiment_id!r})"

    def _repr_html_(self) -> str:
        text = html.escape(repr(self))
        return f'<a href="{html.escape(self.link)}" target="_blank" rel="noopener">{text}</a>' if self.link else text

    def _record(self, metrics: Mapping[str, Any], step: int) -> None:
        numbers = self._numbers(metrics)
        if numbers:
            self._session.log_metrics(numbers, step)

    def _numbers(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Return metrics as numbers by name; without those that are none, unless tracking is strict."""
        try:
            return flat_metrics(metrics, self._prefix)
        except InvalidValueError:
            if self._strict:
                raise
        numbers: dict[str, float] = {}
        for name, value in metrics.items():
            numbers |= self._number(name, value)
        return numbers

    def _number(self, name: str, value: object) -> dict[str, float]:
        """Return one metric; none, with a warning once, where it is no number."""
        try:
            return flat_metrics({name: value}, self._prefix)
        except InvalidValueError as error:
            if name not in self._refused:
                self._refused.add(name)
                _logger.warning("%s It is left out.", error)
            return {}
