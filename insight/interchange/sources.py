"""How a command line names a model of another library: a kind, a colon and a path. Imports no torch."""

from __future__ import annotations

READABLE = "hf:FOLDER"
"""The sources that can be read, for messages."""
_KINDS = ("hf",)


def split_source(text: str) -> tuple[str | None, str]:
    """The kind and the path of ``hf:FOLDER``; the kind is ``None`` for a run, checkpoint or other path."""
    kind, colon, path = text.partition(":")
    return (kind, path) if colon and kind in _KINDS else (None, text)


def is_foreign(text: str | None) -> bool:
    """Whether a value of ``--init_from`` names a model of another library."""
    return text is not None and split_source(text)[0] is not None
