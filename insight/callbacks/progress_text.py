"""What a progress line says, as a pure function of numbers and width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_FEWEST_BAR_COLUMNS = 8
_MOST_BAR_COLUMNS = 30
_SEPARATOR = " · "


@dataclass(frozen=True)
class Style:
    """How a line may look.

    Args:
        unicode: Whether the terminal shows box characters.
        color: Whether it may be coloured.
    """

    unicode: bool = True
    color: bool = False


def progress_line(title: str, share: float, facts: list[str], width: int, style: Style) -> str:
    """``title``, a bar and as many facts as fit, the first ones first.

    Args:
        title: What is being done.
        share: Done part of it, 0 to 1.
        facts: The most important first; the first is always kept, then as many as leave room for a bar.
        width: Columns that may be used (escape sequences do not count).
        style: How it may look.
    """
    separator = _SEPARATOR if style.unicode else " - "
    kept: list[str] = []
    for fact in facts:
        room = width - len(title) - len(separator.join([*kept, fact])) - 2
        if kept and room < _FEWEST_BAR_COLUMNS:
            break
        kept.append(fact)
    text = separator.join(kept)
    columns = min(_MOST_BAR_COLUMNS, width - len(title) - len(text) - 2)
    if columns < 3:
        return f"{title} {text}"[:width]
    return f"{title} {_bar(share, columns, style)} {text}"


def measured(metrics: Mapping[str, float], stage: str) -> list[str]:
    """What a validation or test found, as far as it was logged."""
    forms = (
        ("bits_per_byte", "{:.4f} bits per byte"),
        ("loss", "loss {:.4f}"),
        ("perplexity", "perplexity {:,.2f}"),
    )
    return [form.format(metrics[f"{stage}/{name}"]) for name, form in forms if f"{stage}/{name}" in metrics]


def duration(seconds: float) -> str:
    """``0:42``, ``12:07``, ``3:20:00``; for people, so a second or two of error does not matter."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _bar(share: float, columns: int, style: Style) -> str:
    share = min(1.0, max(0.0, share))
    if not style.unicode:
        filled = round(share * columns)
        return "#" * filled + "-" * (columns - filled)
    halves = round(share * columns * 2)
    done = "━" * (halves // 2) + "╸" * (halves % 2)
    rest = "─" * (columns - len(done))
    return f"\x1b[36m{done}\x1b[0m\x1b[2m{rest}\x1b[0m" if style.color else done + rest
