"""The ``insight`` command: finds the subcommand, imports only its module, turns errors into one line."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from insight.cli.commands import COMMANDS, overview
from insight.runtime.errors import ConfigError, nearest
from insight.runtime.failures import debugging, report_failure
from insight.runtime.processes import act_alone


def run() -> NoReturn:
    """Entry point of the installed script."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: The command line without the program's name.

    Returns:
        The exit code: 0 success, 1 failure, 2 the user's mistake, 130 interrupted, 143 terminated.
    """
    rest, debug = _take_debug(list(arguments))
    with debugging(debug):
        try:
            return _dispatch(rest)
        except BaseException as error:
            return report_failure(error)


def _dispatch(arguments: list[str]) -> int:
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in ("-h", "--help", "help"):
        print(overview(), end="")
        return 0
    if name in ("-V", "--version"):
        from insight.runtime.version import __version__

        print(f"insight {__version__}")
        return 0
    if name not in COMMANDS:
        match = nearest(name, COMMANDS)
        kind = "option" if name.startswith("-") else "command"
        raise ConfigError(
            f"unknown {kind} {name!r}", f"did you mean {match!r}?" if match else "see `insight --help`"
        )
    act_alone(name != "fit")
    module = importlib.import_module(f"insight.cli.{COMMANDS[name].module}")
    exit_code: int = module.run(name, rest)
    return exit_code


def _take_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """``--debug`` may stand anywhere before ``--``; behind it everything is text for the command."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    own = [argument for argument in arguments[:end] if argument != "--debug"]
    return own + arguments[end:], len(own) < end
