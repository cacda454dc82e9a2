"""Typed errors: what is wrong, where, and what to do about it, in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InsightError(Exception):
    """Base of every error that Insight raises on purpose.

    Args:
        problem: What is wrong, naming the option or file and its value, e.g.
            ``"num_heads=6, num_key_value_heads=4: num_key_value_heads must divide num_heads"``.
        remedy: What the user can do about it, e.g. ``"use 1, 2, 3 or 6"``.

    Attributes:
        exit_code: What the process returns when this error ends a command.
    """

    exit_code = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}: {remedy}" if remedy else problem)


class UserError(InsightError):
    """The input was wrong; nothing has been written."""

    exit_code = 2


class ConfigError(UserError, ValueError):
    """An option has a value that cannot work."""


class DataError(UserError):
    """A text source or the token store cannot be used."""


class TokenizerError(UserError):
    """A tokenizer cannot be built, read or applied."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, unsafe or of another model."""


class OutputError(UserError):
    """Something cannot be written: read-only, full, or it exists already."""


class LaunchError(UserError):
    """The processes of a run do not come together, or would not do the same."""


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that ``name`` was probably meant to be, or ``None``."""
    matches = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return matches[0] if matches else None
