"""``insight fit`` trains from one YAML file; ``insight demo`` does so with the shipped quickstart."""

from __future__ import annotations

from insight.api.config_files import shipped_configs
from insight.cli.config_help import print_help
from insight.runtime.messages import say

_DEMO_HELP = """\
usage: insight demo [options of insight fit]

{summary}

It is `insight fit --config quickstart`, and takes the same options, for example:
  --run.time_budget 60    train for a minute
  --run.root FOLDER       put the run folder elsewhere than in runs/
  --help                  show this; `insight fit --help` shows every option
"""


def run(name: str, arguments: list[str]) -> int:
    """Run one of the two commands."""
    if print_help(name, arguments, _DEMO_HELP if name == "demo" else None):
        return 0
    if name == "demo":
        config = shipped_configs()["quickstart"]
        say("this is: insight fit --config quickstart")
        arguments = ["--config", str(config), *arguments]
    from insight.api.fit import fit_arguments
    from insight.runtime.launching.launch import preemptible

    with preemptible():
        fit_arguments(arguments)
    return 0
