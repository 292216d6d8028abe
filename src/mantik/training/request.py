"""Which run a training asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from mantik.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RESUME_WORDS", "Resume", "RunRequest"]

Resume: TypeAlias = Literal["auto", "allow", "must", "never"]

RESUME_WORDS = ("auto", "allow", "must", "never")
"""What `resume` may be."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """Which run a training wants: what the user gave to an adapter.

    Attributes:
        experiment_name: Experiment, created where there is none; exclusive with another experiment's id.
        experiment_id: Experiment that is there.
        run_name: Name of a new run.
        run_id: Run to go on with.
        tags: Tags of the run.
        description: Its description, in Markdown.
        tracking_uri: The platform; None is that of the environment.
        artifact_location: Where a new experiment keeps its artifacts; None leaves that to the platform.
        resume: ``auto`` goes on with the run of a checkpoint or of a requeued job, where there is one; ``allow``
            besides takes a new run where `run_id` does not exist; ``must`` accepts no new run; ``never`` begins anew.
        system_metrics: Record those of the machine; None is MLflow's setting.
        strict: What goes wrong with tracking is raised.
    """

    experiment_name: str | None = None
    experiment_id: str | None = None
    run_name: str | None = None
    run_id: str | None = None
    tags: Mapping[str, Any] | None = None
    description: str | None = None
    tracking_uri: str | None = None
    artifact_location: str | None = None
    resume: Resume = "auto"
    system_metrics: bool | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ConfigurationError: A value is none of those possible, or two contradict each other.
        """
        if self.resume not in RESUME_WORDS:
            raise ConfigurationError(
                f"resume is {self.resume!r}, which is none of: {', '.join(map(repr, RESUME_WORDS))}."
            )
        if self.resume == "never" and self.run_id is not None:
            raise ConfigurationError(
                f"run_id is {self.run_id!r} and resume is 'never': leave out run_id for a new run, or resume for this."
            )
