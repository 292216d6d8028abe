"""A picture of an estimator: drawn when it is saved, and not before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mantik.integrations.sklearn.pictures.sheet import write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.figure import Figure

__all__ = ["Picture"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that can be drawn, in any thread and whatever the user draws meanwhile.

    Attributes:
        name: Its file's name without ending: MLflow's where it has one, as ``confusion_matrix``.
        draw: Returns the figure, or None where it turns out that there is nothing to show.
    """

    name: str
    draw: Callable[[], Figure | None]

    def save(self, path: Path) -> bool:
        """Draw it and write it as PNG; 960 pixels wide.

        Args:
            path: The file.

        Returns:
            Whether there was something to show. There is no file otherwise.

        Raises:
            OSError: The file cannot be written.
        """
        figure = self.draw()
        if figure is None:
            return False
        write(figure, path)
        return True
