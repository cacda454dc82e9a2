"""Everything that can be checked without training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from insight.api.check.findings import Findings
from insight.api.early_checks import check_early
from insight.runtime.messages import silence_libraries


@dataclass(frozen=True)
class Examination:
    """What a check has found.

    Args:
        numbers: Plain JSON values, one mapping a part; parts that could not be found out are missing.
        findings: The mistakes and the warnings.
    """

    numbers: dict[str, Any]
    findings: Findings


def examine_arguments(arguments: list[str]) -> Examination:
    """Check everything that can be checked without training, as the command line of ``insight check`` says.

    Raises:
        InsightError: The configuration cannot even be read.
    """
    silence_libraries()
    check_early("check", arguments)

    from insight.api.check.examine import examine, examine_rest
    from insight.api.configuration import InsightCLI

    findings = Findings()
    cli = InsightCLI("check", arguments)
    for mistake in cli.mistakes:
        findings.refuse(mistake)
    if findings.mistakes:
        examine_rest(cli, findings)
        return Examination({}, findings)
    return Examination(examine(cli, findings), findings)
