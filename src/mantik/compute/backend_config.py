"""The backend configuration of a job: YAML or JSON of the platform contract, section 4.6."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mantik.compute.document import read_mapping
from mantik.compute.environment import ENVIRONMENT_KEYS, Environment
from mantik.compute.exclude import mistakes_in
from mantik.compute.mistakes import Mistakes, shown
from mantik.compute.resources import RESOURCES_KEYS, Resources
from mantik.compute.section import Section

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CONFIG_KEYS", "UNUSED_KEYS", "BackendConfig"]

UNUSED_KEYS = ("UnicoreApiUrl", "Firecrest", "SSH")
"""Where jobs of earlier platforms went: accepted, and without effect."""

CONFIG_KEYS = ("Resources", "Environment", "Exclude", *UNUSED_KEYS)
"""All keys of the file."""


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """What a job asks for, what it runs in, and what of the project is not sent.

    Attributes:
        resources: ``Resources``.
        environment: ``Environment``.
        exclude: ``Exclude``: patterns of ``.gitignore``.
        unused: Keys that are there and have no effect on this platform.
    """

    resources: Resources
    environment: Environment = field(default_factory=Environment)
    exclude: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    @classmethod
    def from_file(cls, path: str | Path) -> BackendConfig:
        """Read a file: JSON if its name ends in ``.json``, else YAML.

        Args:
            path: The file.

        Raises:
            ProjectError: It cannot be read or used; names all mistakes with their path in the file.
        """
        path, mistakes = Path(path), Mistakes()
        subject = f"The backend configuration {path} cannot be used"
        content = read_mapping(path, "", mistakes)
        mistakes.raise_if_any(subject)
        config = cls.read(content or {}, mistakes)
        mistakes.raise_if_any(subject)
        return config

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any]) -> BackendConfig:
        """Read what such a file would hold.

        Args:
            content: Keys and values.

        Raises:
            ProjectError: It cannot be used; names all mistakes with their path.
        """
        mistakes = Mistakes()
        config = cls.read(content, mistakes)
        mistakes.raise_if_any("The backend configuration cannot be used")
        return config

    @classmethod
    def read(cls, content: Mapping[Any, Any], mistakes: Mistakes) -> BackendConfig:
        """Read the content of a file.

        Args:
            content: Keys and values.
            mistakes: Where to say what is wrong; then the result is not to be used.
        """
        image = content.get("SingularityImage")
        if image is not None:
            mistakes.add("SingularityImage", _in_words_of_today(image))
            content = {key: value for key, value in content.items() if key != "SingularityImage"}
        section = Section(content, "", CONFIG_KEYS, mistakes, hint=_home_of)
        _, resources = section.mapping("Resources", expected="e.g. {Queue: batch, Runtime: 12h}")
        if content.get("Resources") is None:
            section.refuse("Resources", "is missing, expected at least {Queue: ...}")
        _, environment = section.mapping("Environment", expected="e.g. {Python: /home/ada/venv}")
        exclude = section.texts("Exclude", expected="a list of patterns, e.g. ['*.sif', data/]")
        mistakes_in(exclude, "Exclude", mistakes)
        return cls(
            resources=Resources.read(resources, "Resources", mistakes) if resources is not None else Resources(""),
            environment=Environment.read(environment or {}, "Environment", mistakes),
            exclude=exclude,
            unused=tuple(key for key in UNUSED_KEYS if content.get(key) is not None),
        )

    def to_mapping(self) -> dict[str, object]:
        """Return what a file would hold: each key in one spelling, values with their units, nothing unused."""
        written: dict[str, object] = {"Resources": self.resources.to_mapping()}
        environment = self.environment.to_mapping()
        if environment:
            written["Environment"] = environment
        if self.exclude:
            written["Exclude"] = list(self.exclude)
        return written

    def to_json(self) -> str:
        """Return the same as JSON; ``from_mapping`` of it is this configuration, but for what is unused."""
        return json.dumps(self.to_mapping(), indent=2)


def _home_of(key: str) -> str | None:
    for name, keys in (("Resources", RESOURCES_KEYS), ("Environment", ENVIRONMENT_KEYS)):
        if key in keys:
            return f"it belongs below {name}"
    return None


def _in_words_of_today(image: object) -> str:
    path = image if isinstance(image, str) and image.isprintable() else shown(image)
    lines = (
        "is how mantik 0.1.0 named the image. Write now:",
        "Environment:",
        "  Apptainer:",
        f"    Path: {path}",
        "    Type: local",
        "  Variables: {...}   # what stood directly below Environment",
    )
    return "\n      ".join(lines)
