"""Gradients and parameters of a model as metrics, every so many steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

from mantik.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["WATCH_WORDS", "Watch", "WatchWhat"]

WatchWhat: TypeAlias = Literal["gradients", "parameters", "all"]

WATCH_WORDS = ("gradients", "parameters", "all")
"""What can be watched."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A model that is watched.

    Attributes:
        model: The model.
        log: What of it.
        log_freq: Every how many optimizer steps.
    """

    model: torch.nn.Module
    log: WatchWhat
    log_freq: int

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ConfigurationError: The model is none, or a value is none of those possible.
        """
        if not isinstance(self.model, torch.nn.Module):
            raise ConfigurationError(f"watch() got {type(self.model).__name__}: give it a torch.nn.Module.")
        if self.log not in WATCH_WORDS:
            raise ConfigurationError(f"log is {self.log!r}, which is none of: {', '.join(map(repr, WATCH_WORDS))}.")
        if self.log_freq < 1:
            raise ConfigurationError(f"log_freq is {self.log_freq}: give it a number of steps, 1 or more.")

    def metrics(self) -> dict[str, float]:
        """Return what is to be logged now: norm, mean and deviation of each tensor, and the norm of all together.

        Non-finite values show as they are, so that a gradient that explodes is seen where it does.
        """
        found: dict[str, float] = {}
        named = list(self.model.named_parameters())
        if self.log in {"gradients", "all"}:
            gradients = [(name, one.grad) for name, one in named if one.grad is not None]
            found |= _facts("gradients", gradients)
        if self.log in {"parameters", "all"}:
            found |= _facts("parameters", named)
        return found


@torch.no_grad()
def _facts(kind: str, tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, float]:
    names: list[str] = []
    facts: list[torch.Tensor] = []
    for name, tensor in tensors:
        values = (tensor.coalesce().values() if tensor.is_sparse else tensor).detach().float()
        if values.numel() == 0:
            continue
        names.append(name)
        mean = values.mean()
        facts.append(torch.stack([values.norm(), mean, (values - mean).square().mean().sqrt()]))
    if not facts:
        return {}
    # One transfer from the device for all tensors.
    rows = torch.stack([fact.to(facts[0].device) for fact in facts]).cpu()
    found = {f"{kind}/norm": float(rows[:, 0].norm())}
    for name, row in zip(names, rows.tolist(), strict=True):
        found |= {f"{kind}/{name}/{fact}": value for fact, value in zip(("norm", "mean", "std"), row, strict=True)}
    return found
