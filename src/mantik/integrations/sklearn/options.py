"""What the user asked autologging of scikit-learn for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from mantik.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Options", "SerializationFormat"]

SerializationFormat: TypeAlias = Literal["auto", "cloudpickle", "pickle", "skops"]

_FORMATS = ("auto", "cloudpickle", "pickle", "skops")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `mantik.integrations.sklearn.autolog`, as documented there."""

    log_input_examples: bool = False
    log_model_signatures: bool = True
    log_models: bool = True
    log_datasets: bool = True
    exclusive: bool = False
    silent: bool = False
    max_tuning_runs: int | None = 5
    log_post_training_metrics: bool = True
    serialization_format: SerializationFormat = "auto"
    registered_model_name: str | None = None
    pos_label: Any = None
    extra_tags: Mapping[str, Any] | None = None
    log_plots: bool = True
    log_preprocessing: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ConfigurationError: A value is none of those possible.
        """
        most = self.max_tuning_runs
        if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 0):
            raise ConfigurationError(
                f"max_tuning_runs is {most!r}. It is the number of child runs of a search, 0 or more, or None for all."
            )
        if self.serialization_format not in _FORMATS:
            raise ConfigurationError(
                f"serialization_format is {self.serialization_format!r}, which is none of: "
                f"{', '.join(map(repr, _FORMATS))}."
            )
