"""Names and numbers as they are written into pictures: short, and with glyphs that there are."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from sklearn.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mantik.integrations.sklearn.data import Data

__all__ = [
    "FAMILIES",
    "LEAST_PLAIN",
    "MINUS",
    "MOST_PLAIN",
    "class_title",
    "data_title",
    "estimator_title",
    "feature_titles",
    "joined",
    "number",
    "setting",
    "short",
    "short_names",
]

_FALLBACKS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans JP",
    "Noto Sans SC",
    "Noto Sans KR",
    "Hiragino Sans",
    "PingFang SC",
    "Microsoft YaHei",
    "WenQuanYi Zen Hei",
    "IPAexGothic",
    "Arial Unicode MS",
    "Noto Sans Devanagari",
)
"""For what DejaVu Sans, which comes with matplotlib, has no glyphs; which of them there are depends on the machine."""

FAMILIES = ["DejaVu Sans", *sorted({font.name for font in fontManager.ttflist} & set(_FALLBACKS), key=_FALLBACKS.index)]
"""The fonts of all text. matplotlib would complain about one that is not installed."""

_REPLACEMENT = "\N{WHITE SQUARE}"
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
MINUS = "\N{MINUS SIGN}"
_MOST_READ = 2000
"""Characters of a name that are looked at."""

LEAST_PLAIN, MOST_PLAIN = 1e-3, 1e6
"""Numbers between them are written without an exponent."""


def short(name: object, most: int = 24) -> str:
    """Return a name on one line, cut in the middle where it is too long, with glyphs that the fonts have.

    Args:
        name: The name, or a class, which may be anything that has a text.
        most: Characters.
    """
    text = "".join(map(_legible, str(name)[:_MOST_READ]))
    text = " ".join(text.split()) or "(empty)"
    if len(text) <= most:
        return text
    front = most // 2
    return text[:front] + _ELLIPSIS + text[len(text) - (most - front - 1) :]


def short_names(names: Iterable[object], most: int = 24) -> list[str]:
    """Return names as `short` does; those that come out the same are told apart by their place, from 1 on."""
    given = list(names)
    texts = [short(name, most) for name in given]
    counts = Counter(texts)
    return [
        f"{short(name, most - 2 - len(str(at)))} #{at}" if counts[text] > 1 else text
        for at, (name, text) in enumerate(zip(given, texts, strict=True), start=1)
    ]


def number(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits; a whole one with all of them, up to a million."""
    value = float(value)
    if not math.isfinite(value):
        return "none" if math.isnan(value) else f"{MINUS if value < 0 else ''}\N{INFINITY}"
    size = abs(value)
    if size and not LEAST_PLAIN <= size < MOST_PLAIN:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        plain = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        text = f"{plain}e{int(exponent)}"
    elif value.is_integer():
        text = f"{int(value):,}"
    else:
        decimals = max(digits - 1 - math.floor(math.log10(size)), 0)
        text = f"{value:,.{decimals}f}"
    return text.replace("-", MINUS)


def setting(value: float) -> str:
    """Return a number that somebody has chosen: with three significant digits at most, and no zeros at its end."""
    text = number(value)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def class_title(name: object) -> str:
    """Return what a class is called where it could be taken for a number."""
    return str(name) if isinstance(name, str) else f"class {name}"


def joined(*parts: str) -> str:
    """Return the parts of a title that there are."""
    return " \N{MIDDLE DOT} ".join(part for part in parts if part)


def estimator_title(estimator: Any) -> str:  # noqa: ANN401  # whatever has been fitted
    """Return what an estimator is called in a title: with what it is inside of, and its step if that says more."""
    if estimator is None:
        return ""
    parts = []
    step = ""
    while True:
        name = type(estimator).__name__
        parts.append(name if step in {"", name.lower()} else f"{step}: {name}")
        if getattr(estimator, "best_estimator_", None) is not None:
            estimator, step = estimator.best_estimator_, ""
        elif isinstance(estimator, Pipeline) and estimator.steps and not isinstance(estimator.steps[-1][1], str):
            step, estimator = estimator.steps[-1]
        else:
            break
    # What it ends in says most.
    kept = [*(short(part, 22) for part in parts[:-1]), short(parts[-1], 40)]
    return " \N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK} ".join(kept[-3:])


def data_title(data: Data) -> str:
    """Return what data are called in a title, and how many rows there are."""
    name = "training data" if data.name == "training" else short(data.name, 24)
    if data.rows is None:
        return name
    some = f" ({data.kept:,} of them drawn)" if data.is_sampled and data.kept is not None else ""
    return f"{name}, {data.rows:,} row{'s' * (data.rows != 1)}{some}"


def feature_titles(names: Sequence[object] | None, count: int) -> list[str]:
    """Return names of features, by their numbers where there are none or as many as there should be."""
    if names is None or len(names) != count:
        return [f"feature {at}" for at in range(count)]
    return short_names(names, 28)


def _legible(character: str) -> str:
    category = unicodedata.category(character)
    if category in {"Cc", "Zl", "Zp", "Zs"}:
        return " "
    if category == "Cf" or "VARIATION SELECTOR" in unicodedata.name(character, ""):
        return ""
    return character if any(ord(character) in _glyphs(family) for family in FAMILIES) else _REPLACEMENT


@cache
def _glyphs(family: str) -> frozenset[int]:
    """Return the characters that a font has."""
    return frozenset(get_font(findfont(FontProperties(family=[family]))).get_charmap())
