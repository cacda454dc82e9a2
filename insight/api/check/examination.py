"""The check of a configuration, as the command and Python call it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insight.api.check.findings import Findings
from insight.api.config_files import as_options
from insight.api.early_checks import check_early
from insight.runtime.messages import silence_libraries
from insight.runtime.processes import one_command


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
