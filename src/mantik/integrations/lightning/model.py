"""A trained module as an MLflow model that can be loaded and served, with a signature from the first batch."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any

import mlflow
import torch

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

__all__ = ["ModelRecorder"]

_logger = logging.getLogger(__name__)

_ROWS = 8
"""How many samples of the first batch are kept for the signature."""


class ModelRecorder:
    """Remembers the first call of a module, and logs the module as a model."""

    def __init__(self) -> None:
        self._inputs: Any = None
        self._output: Any = None
        self._handle: Any = None

    def begin(self, module: torch.nn.Module) -> None:
        """Look at the first call of the module from now on."""
        if self._handle is None and self._inputs is None:
            self._handle = module.register_forward_hook(self._remember, with_kwargs=True)

    def log(self, module: torch.nn.Module, step: int) -> None:
        """Log the module as the model ``model`` of the active run.

        Args:
            module: The module.
            step: The last step: MLflow shows the metrics of it with the model.
        """
        self._stop()
        from mlflow.pytorch import log_model

        known = inspect.signature(log_model).parameters
        # Its name is a path up to MLflow 2.
        options: dict[str, Any] = {"name" if "name" in known else "artifact_path": "model"}
        if "step" in known:
            options["step"] = step
        if "serialization_format" in known:
            # By default newer ones trace the module: many cannot be traced, and what is loaded is not of their class.
            options["serialization_format"] = "pickle"
        log_model(module, signature=self._signature(), **options)

    def __getstate__(self) -> dict[str, Any]:
        """Keep nothing: another process has its own first batch."""
        return {"_inputs": None, "_output": None, "_handle": None}

    def _remember(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
        del module
        if not kwargs and len(args) == 1:
            self._inputs = _plain(args[0])
        elif kwargs and not args:
            self._inputs = _plain(kwargs)
        self._output = _plain(output)
        self._stop()

    def _stop(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _signature(self) -> ModelSignature | None:
        if self._inputs is None:
            _logger.warning(
                "The model is logged without a signature: its first call had no input that MLflow describes."
            )
            return None
        return mlflow.models.infer_signature(self._inputs, self._output)


def _plain(value: Any) -> Any:  # noqa: ANN401  # whatever a module takes and returns
    """Return some rows of tensors as arrays, in what they came in; None for what MLflow cannot describe."""
    if isinstance(value, torch.Tensor):
        return value[:_ROWS].detach().cpu().numpy() if value.ndim else None
    if isinstance(value, dict) and value and all(isinstance(one, torch.Tensor) for one in value.values()):
        return {str(name): _plain(one) for name, one in value.items()}
    return None
