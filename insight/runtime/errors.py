"""Typed errors: each says in one line what is wrong, where, and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class InsightError(Exception):
    """The base of every error that Insight raises on purpose.

    Args:
        problem: The fault, e.g. ``"must divide num_heads"``. Where ``option`` is given, the message begins
            with ``option=value: ``, so the problem must not repeat them.
        remedy: A way to mend it, e.g. ``"use 1, 2, 3 or 6"``.
        option: The option, field, argument or file that is at fault, e.g. ``"num_key_value_heads"``.
        value: The value of the option.

    Attributes:
        exit_code: The exit code of the process when this error ends a command.
    """

    exit_code = 1

    def __init__(self, problem: str, remedy: str = "", *, option: str = "", value: object = None) -> None:
        self.problem = f"{option}={_shown(value)}: {problem}" if option else problem
        self.remedy = remedy
        self.option = option
        self.value = value
        self._bare_problem = problem
        super().__init__(f"{self.problem}: {remedy}" if remedy else self.problem)

    def below(self, path: str) -> InsightError:
        """This error with ``path``, the group of its option, added: ``data.tokenizer.vocabulary_size``."""
        if not self.option:
            return self
        option = f"{path}.{self.option}"
        return type(self)(self._bare_problem, self.remedy, option=option, value=self.value)

    def otherwise(self, remedy: str) -> InsightError:
        """This error with another remedy."""
        return type(self)(self._bare_problem, remedy, option=self.option, value=self.value)


class UserError(InsightError):
    """The input is wrong; nothing has been written."""

    exit_code = 2


class SeveralMistakesError(UserError):
    """Several mistakes, in the order in which they are reported."""

    def __init__(self, errors: Sequence[InsightError]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = tuple(errors)


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
    """The processes of a run do not find one another, or would not do the same work."""


def _shown(value: object) -> str:
    """A value as a user would type it: short, on one line."""
    text = str(value) if value is not None else "null"
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that ``name`` was probably meant to be, or ``None``; differences in case count least."""
    names = [candidate for candidate in candidates if candidate != name]
    folded = {candidate.casefold(): candidate for candidate in reversed(names)}
    if name.casefold() in folded:
        return folded[name.casefold()]
    matches = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    matches = matches or difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return folded.get(matches[0], matches[0]) if matches else None


def did_you_mean(name: str, candidates: Iterable[str], otherwise: str) -> str:
    """The remedy for an unknown name: the candidate that was probably meant, or ``otherwise``."""
    match = nearest(name, candidates)
    return f"did you mean {match!r}?" if match else otherwise
