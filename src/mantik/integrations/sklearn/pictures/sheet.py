"""A figure under its title, which nothing of matplotlib's global parameters changes.

`matplotlib.rc_context` would set them back while the user draws in another thread. So what is drawn is told itself how
to look, and what the parameters have told it before is undone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from mantik.integrations.sklearn.pictures.axes import dress, numbers
from mantik.integrations.sklearn.pictures.style import BODY, DPI, FAINT, HEIGHT, INK, LARGE, LINE, SMALL, WIDTH
from mantik.integrations.sklearn.pictures.wording import FAMILIES, joined, short

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Tick

__all__ = ["Sheet", "write"]

_EDGE = 0.12
"""Inches that are left free."""

_LEADING = 1.5
"""From line to line, in heights of text."""

_POINTS = 72
"""In an inch."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A figure under a title, and the axes in it.

    Attributes:
        figure: The figure.
        axes: Its axes, row by row.
        layout: What gives them their places.
        top: Where they end and the title begins, from the bottom, as a share of the height.
    """

    figure: Figure
    axes: list[Axes]
    layout: ConstrainedLayoutEngine
    top: float

    @classmethod
    def of(  # noqa: PLR0913  # a title and a grid
        cls,
        title: str,
        subject: str = "",
        note: str = "",
        *,
        rows: int = 1,
        columns: int = 1,
        height: float = HEIGHT,
        **ratios: Sequence[float],
    ) -> Sheet:
        """Return an empty one.

        Args:
            title: What is shown.
            subject: Of what: the estimator and the data.
            note: What else there is to say: a number that sums it up, what is left out.
            rows: Of axes.
            columns: Of axes.
            height: Of the whole, in inches.
            **ratios: ``width_ratios`` and ``height_ratios`` of the axes.
        """
        figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white", edgecolor="white", frameon=True)
        top = 1 - _write_headings(figure, title, subject, note) / height
        layout = ConstrainedLayoutEngine(
            h_pad=_EDGE / 2, w_pad=_EDGE / 2, hspace=0.05, wspace=0.05, rect=(0, 0, 1, top)
        )
        figure.set_layout_engine(layout)
        axes = figure.subplots(rows, columns, squeeze=False, **ratios)  # type: ignore[call-overload]  # two of its own
        return cls(figure, list(axes.flat), layout, top)

    def legend(
        self,
        handles: Sequence[Any],
        names: Sequence[str],
        *,
        title: str = "",
        within: Axes | None = None,
        loc: str = "upper right",
    ) -> None:
        """Say what lines and colours are.

        Args:
            handles: What there is, as matplotlib has it.
            names: What it is called.
            title: What it is together.
            within: Axes that it is drawn in; None: it is beside all of them.
            loc: Where, as matplotlib says it.
        """
        owner: Any = self.figure if within is None else within
        legend = owner.legend(
            list(handles),
            # matplotlib leaves out a name that begins with an underscore.
            ["."] * len(handles),
            loc=loc,
            bbox_to_anchor=(0, 0, 1, self.top) if within is None else None,
            title=title or None,
            fontsize=SMALL,
            title_fontsize=SMALL,
            alignment="left",
            labelcolor=INK,
            frameon=within is not None,
            facecolor="white",
            edgecolor=LINE,
            framealpha=0.9,
            fancybox=False,
            shadow=False,
            handlelength=1.8,
            handletextpad=0.7,
            borderpad=0.4,
            labelspacing=0.5,
            borderaxespad=0.5,
            markerscale=1,
            numpoints=1,
            scatterpoints=1,
        )
        legend.get_title().set_color(INK)
        legend.get_frame().set_linewidth(0.8)
        for text, name in zip(legend.get_texts(), names, strict=True):
            text.set_text(name)
            _fix_text(text)
        if within is None:
            # The layout does not count it, as it would not leave it below the title.
            _fix_text(legend.get_title())
            width = legend.get_window_extent(_renderer_of(self.figure)).width / (WIDTH * DPI)
            self.layout.set(rect=(0, 0, 1 - width, self.top))

    def color_scale(self, drawn: Any, label: str, limits: tuple[float, float], *, log: bool = False) -> None:  # noqa: ANN401
        """Say which number a colour is, beside all axes.

        Args:
            drawn: What has been drawn in colours.
            label: What the numbers are.
            limits: The least and the greatest of them.
            log: Whether their scale is logarithmic.
        """
        bar = self.figure.colorbar(drawn, ax=self.axes, fraction=0.05, pad=0.02, aspect=28, extend="neither")
        numbers(bar.ax.yaxis, limits, log=log, most=6)
        dress(bar.ax, "", label, grid="none")
        for spine in bar.ax.spines.values():
            spine.set_visible(False)
        bar.ax.xaxis.set_visible(False)
        bar.ax.yaxis.set_label_position("right")
        bar.ax.yaxis.set_tick_params(left=False, labelleft=False, right=True, labelright=True)


def write(figure: Figure, path: Path) -> None:
    """Write a figure as PNG in its own size, whatever matplotlib's parameters say of saved figures.

    Raises:
        OSError: The file cannot be written.
    """
    canvas = FigureCanvasAgg(figure)
    _fix(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    # There is white behind everything.
    Image.fromarray(pixels).convert("RGB").save(path, format="PNG", dpi=(DPI, DPI))


def _write_headings(figure: Figure, title: str, subject: str, note: str) -> float:
    """Write the lines above the axes, and return how many inches they take."""
    renderer = _renderer_of(figure)
    width, height = figure.get_size_inches()
    top = _EDGE

    def fits(text: str, size: float) -> bool:
        drawn = figure.text(0, 0, text, fontsize=size)
        _fix_text(drawn, bold=size == LARGE)
        try:
            return bool(drawn.get_window_extent(renderer).width <= (width - 2 * _EDGE) * DPI)
        finally:
            drawn.remove()

    def put(text: str, size: float, color: str) -> None:
        nonlocal top
        most = len(text)
        while not fits(text, size):
            most -= 4
            text = short(text, most)
        figure.text(_EDGE / width, 1 - top / height, text, fontsize=size, color=color, va="top", ha="left")
        top += size * _LEADING / _POINTS

    put(title, LARGE, INK)
    whole = joined(subject, note)
    for text in [whole] if fits(whole, BODY) else [subject, note]:
        if text:
            put(text, BODY, FAINT)
    return top


def _renderer_of(figure: Figure) -> Any:  # noqa: ANN401  # matplotlib does not say what it is
    """Return what measures texts."""
    return FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]


def _fix(figure: Figure) -> None:
    """Undo, of everything in a figure, what parameters have set that cannot be given where it is made."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            # A tick is made when it is first drawn, in the looks of the parameters, unless it is there already.
            for tick in axis.get_major_ticks(len(axis.get_majorticklocs())):
                _fix_tick(tick, is_of_x=axis is axes.xaxis)
    heading = figure.texts[:1]
    for artist in figure.findobj():
        _fix_stroke(artist)
        if isinstance(artist, Line2D):
            artist.set(solid_capstyle="projecting", dash_capstyle="butt")
        if isinstance(artist, Text):
            _fix_text(artist, bold=artist in heading)
            ground = artist.get_bbox_patch()
            if ground is not None:
                _fix_stroke(ground)


def _fix_stroke(artist: Artist) -> None:
    artist.set_sketch_params(None)
    artist.set_path_effects([])


def _fix_tick(tick: Tick, *, is_of_x: bool) -> None:
    """Put the texts of a tick beside it, where it is not slanted."""
    near, far = ("top", "bottom") if is_of_x else ("right", "left")
    for text, side in ((tick.label1, near), (tick.label2, far)):
        _fix_text(text)
        if text.get_rotation_mode() != "anchor":
            text.set(ha="center", va=side) if is_of_x else text.set(ha=side, va="center")


def _fix_text(text: Text, *, bold: bool = False) -> None:
    """Have a text drawn as it is: by matplotlib itself, and without taking ``$`` for mathematics."""
    text.set_usetex(False)
    text.set_parse_math(False)
    text.set_fontfamily(FAMILIES)
    text.set_fontweight("bold" if bold else "normal")
    text.set_fontstyle("normal")
    text.set_fontvariant("normal")
    text.set_fontstretch("normal")
