"""How to do it again: the command and the configuration in full."""

from __future__ import annotations

import shlex

from insight.reporting.run_record import RunRecord
from insight.reporting.sections.section import Section
from insight.runtime.formats import safe_text

_COMMAND_CHARACTERS = 8_000
_CONFIG_CHARACTERS = 100_000


def build_reproduction(run: RunRecord) -> Section | None:
    """The exact command, quoted for a shell, and ``config.yaml``."""
    command = run.info.get("command")
    if isinstance(command, list):
        command = shlex.join(str(part) for part in command)
    if not command and not run.config:
        return None
    return Section(
        identifier="reproduction",
        title="How to do it again",
        template="reproduction.html.j2",
        content={
            "command": safe_text(str(command or ""), _COMMAND_CHARACTERS),
            "config": safe_text(run.config, _CONFIG_CHARACTERS),
            "num_lines": run.config.count("\n") + 1,
        },
    )
