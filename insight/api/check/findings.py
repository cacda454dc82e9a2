"""All mistakes and warnings of a check, not only the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from insight.runtime.errors import ConfigError, InsightError
from insight.runtime.failures import report_failure, translate
from insight.runtime.messages import say

_Result = TypeVar("_Result")


class Findings:
    """Collects the errors with which a run would end, and warnings of effects that nobody intends."""

    def __init__(self) -> None:
        self.mistakes: list[InsightError] = []
        self.warnings: list[InsightError] = []

    def result(self, check: Callable[..., _Result], *arguments: Any) -> _Result | None:
        """The result of ``check``, or ``None`` if it raised an :class:`InsightError`, which is kept."""
        try:
            return check(*arguments)
        except Exception as error:
            known = translate(error)
            if known is None:
                raise
            self.keep(known)
            return None

    def accepts(self, check: Callable[..., None], *arguments: Any) -> bool:
        """Whether a check that returns nothing passed; its error is kept."""
        before = len(self.mistakes)
        self.result(check, *arguments)
        return len(self.mistakes) == before

    def refuse(self, problem: str, remedy: str, *, option: str = "", value: object = None) -> None:
        """Keep a mistake of the configuration."""
        self.keep(ConfigError(problem, remedy, option=option, value=value))

    def keep(self, mistake: InsightError) -> None:
        """Keep a mistake."""
        if str(mistake) not in map(str, self.mistakes):
            self.mistakes.append(mistake)

    def warn(self, problem: str, remedy: str) -> None:
        """Keep a warning."""
        self.warnings.append(ConfigError(problem, remedy))

    def say(self) -> int:
        """Print all on stderr, one line each, mistakes last; returns exit code 2 for mistakes, else 0."""
        for warning in self.warnings:
            say(f"warning: {warning}")
        for mistake in self.mistakes:
            report_failure(mistake)
        return ConfigError.exit_code if self.mistakes else 0

    def as_json(self) -> dict[str, list[dict[str, str]]]:
        """Plain JSON values."""
        return {
            name: [{"problem": error.problem, "remedy": error.remedy} for error in errors]
            for name, errors in (("mistakes", self.mistakes), ("warnings", self.warnings))
        }
