"""``insight demo``: the shipped quickstart, from text to report, without a checkout and without a network."""

from __future__ import annotations

from insight.cli.commands import COMMANDS
from insight.cli.config_files import shipped_configs
from insight.runtime.messages import say

_HELP = """\
usage: insight demo [options of insight fit]

{summary}

It is `insight fit --config quickstart`, and takes the same options, for example:
  --run.time_budget 60    train for a minute
  --run.root FOLDER       put the run folder elsewhere than in runs/
  --help                  show this; `insight fit --help` shows every option
"""


def run(name: str, arguments: list[str]) -> int:
    """Run the command."""
    if {"-h", "--help"} & set(arguments):
        print(_HELP.format(summary=COMMANDS[name].summary), end="")
        return 0
    config = shipped_configs()["quickstart"]
    say(f"this is: insight fit --config {config}")

    from insight.cli import fit

    return fit.run("fit", ["--config", str(config), *arguments])
