"""Hyperparameters of a resumed training that differ from those that its run began with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mantik.training.params import as_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Change", "changes", "drift_text", "drift_yaml"]

_LENGTHS_HELD = (250, 500, 6000)
"""Characters of a param's value that MLflow keeps: before 1.28, until 2.7, and since."""

_MOST_SHOWN = 200
"""Characters of a value in the short list."""


@dataclass(frozen=True, slots=True)
class Change:
    """A param that a run began with another value of."""

    key: str
    before: str
    now: str


def changes(known: Mapping[str, str], new: Mapping[str, str]) -> list[Change]:
    """Return what differs of the params that both have, in the order of the new ones.

    A value that a server has shortened to a length that MLflow keeps is the same as one that begins with it.
    """
    found = []
    for key, now in new.items():
        before = known.get(key, now)
        shortened = len(before) in _LENGTHS_HELD and now.startswith(before)
        if before != now and not shortened:
            found.append(Change(key, before, now))
    return found


def drift_text(changes: Sequence[Change], limit: int = 5000) -> str:
    """Return changes with one line each, such as ``lr: 0.1 -> 0.01``.

    Long values are shown from where they begin to differ, and lines beyond the limit are counted.

    Args:
        changes: What has changed.
        limit: The most characters. A tag of MLflow takes 8000, and 5000 in 2.14.
    """
    lines = [f"{change.key}: {' -> '.join(_excerpts(change.before, change.now))}" for change in changes]
    text = "\n".join(lines)
    if len(text) <= limit:
        return text
    kept: list[str] = []
    room = limit - len(f"... and {len(lines)} more")
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    return "\n".join([*kept, f"... and {len(lines) - len(kept)} more"])[:limit]


def drift_yaml(changes: Sequence[Change]) -> str:
    """Return changes as YAML: by key, what was before and what is now, both whole."""
    return as_yaml({change.key: {"before": change.before, "now": change.now} for change in changes})


def _excerpts(before: str, now: str) -> tuple[str, str]:
    """Return two values on one line each, shortened to the part where they begin to differ."""
    pairs = enumerate(zip(before, now, strict=False))
    same = next((index for index, (old, new) in pairs if old != new), min(len(before), len(now)))
    start = max(0, same - _MOST_SHOWN // 4) if max(len(before), len(now)) > _MOST_SHOWN else 0

    def excerpt(text: str) -> str:
        shown = text[start : start + _MOST_SHOWN].replace("\r", "\\r").replace("\n", "\\n")
        return f"{'...' * (start > 0)}{shown}{'...' * (len(text) > start + _MOST_SHOWN)}"

    return excerpt(before), excerpt(now)
