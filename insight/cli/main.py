"""The ``insight`` command: finds the subcommand, imports only its module, turns errors into one line."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from insight.cli.arguments import take_option
from insight.cli.commands import COMMANDS, OTHER_NAMES, overview
from insight.runtime.errors import ConfigError, nearest
from insight.runtime.failures import debugging, report_failure
from insight.runtime.imports import allowing, working_folder_on_path
from insight.runtime.messages import write_what_the_console_can
from insight.runtime.processes import act_alone, one_command


def run() -> NoReturn:
    """Entry point of the installed script."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: The command line without the program's name.

    Returns:
        The exit code: 0 success, 1 failure, 2 a mistake of the user, 130 interrupted, 143 terminated.
    """
    write_what_the_console_can()
    rest, debug = _take_debug(list(arguments))
    with debugging(debug), one_command(), contextlib.ExitStack() as stack:
        try:
            rest, packages = _take_packages(rest)
            stack.enter_context(working_folder_on_path())
            stack.enter_context(allowing(packages))
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
        kind = "option" if name.startswith("-") else "command"
        match = nearest(name, COMMANDS)
        remedy = OTHER_NAMES.get(name) or (f"did you mean {match!r}?" if match else "see `insight --help`")
        raise ConfigError(f"unknown {kind} {name!r}", remedy)
    act_alone(name != "fit")
    module = importlib.import_module(f"insight.cli.{COMMANDS[name].module}")
    exit_code: int = module.run(name, rest)
    return exit_code


def _take_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """Take ``--debug`` from anywhere before ``--``; the words after ``--`` belong to the command."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    own = [argument for argument in arguments[:end] if argument != "--debug"]
    return own + arguments[end:], len(own) < end


def _take_packages(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Every ``--allow_package NAME``, which may stand anywhere before ``--``, and the other words."""
    rest, packages = take_option(arguments, "--allow_package")
    for name in packages:
        if not name.isidentifier():
            remedy = "give the first part of the class path, for example --allow_package my_package"
            problem = "is not the name of a package"
            raise ConfigError(problem, remedy, option="--allow_package", value=name)
    return rest, packages
