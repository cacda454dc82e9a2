"""The check of a configuration, as the command and Python call it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from insight.api.config_files import as_options
from insight.api.early_checks import check_early
from insight.runtime.errors import ConfigError, InsightError
from insight.runtime.failures import report_failure, translate
from insight.runtime.messages import say, silence_libraries
from insight.runtime.processes import one_command

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


@dataclass(frozen=True)
class Examination:
    """The result of a check.

    Args:
        numbers: Plain JSON values, one mapping per part; parts that could not be determined are missing.
        findings: The mistakes and the warnings.
    """

    numbers: dict[str, Any]
    findings: Findings


def check(config: str | Path, options: Mapping[str, Any] | None = None) -> Examination:
    """Check everything that can be checked without training, as ``insight check`` does.

    Args:
        config: A YAML file, or the name of a shipped one (``"quickstart"``).
        options: Overrides by dotted name, e.g. ``{"trainer.max_steps": 100}``.

    Returns:
        The numbers, mistakes and warnings.

    Raises:
        InsightError: The configuration cannot be read at all.
    """
    return examine_arguments(["--config", str(config), *as_options(options)])


@one_command()
def examine_arguments(arguments: list[str]) -> Examination:
    """:func:`check` for the command line of ``insight check``."""
    silence_libraries()
    check_early("check", arguments)

    from insight.api.check.examine import examine, examine_rest
    from insight.api.configuration import InsightCLI

    findings = Findings()
    cli = InsightCLI("check", arguments)
    for mistake in cli.mistakes:
        findings.keep(mistake)
    if findings.mistakes:
        examine_rest(cli, findings)
        return Examination({}, findings)
    return Examination(examine(cli, findings), findings)
