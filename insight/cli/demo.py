"""``insight demo``: the shipped quickstart, from text to report, without a checkout and without a network."""

from __future__ import annotations

from insight.cli.arguments import CommandParser
from insight.cli.commands import COMMANDS
from insight.cli.config_files import shipped_configs
from insight.runtime.messages import say


def run(name: str, arguments: list[str]) -> int:
    """Run the command."""
    parser = CommandParser(prog="insight demo", description=COMMANDS[name].summary)
    parser.add_argument(
        "--output", default="runs", metavar="FOLDER", help="where the run folder goes (default: runs)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="training time, imports included (default: as in the configuration)",
    )
    options = parser.parse_args(arguments)

    from insight.cli import fit

    config = shipped_configs()["quickstart"]
    say(f"insight fit --config {config}")
    overrides = [f"--run.root={options.output}"]
    if options.seconds is not None:
        overrides.append(f"--run.time_budget={options.seconds}")
    return fit.run("fit", ["--config", str(config), *overrides])
