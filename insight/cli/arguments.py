"""The parser of the commands that need no torch: argparse with one-line errors and nearest matches."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from insight.runtime.errors import ConfigError, DataError, nearest

_ARGUMENT = re.compile(r"argument (?P<name>[^:]+): (?P<problem>.*)", re.DOTALL)


class CommandParser(argparse.ArgumentParser):
    """``argparse`` whose errors are :class:`ConfigError`, and which never guesses abbreviated options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what is left over here, where the options it could have meant are known."""
        parsed, extras = super().parse_known_args(args, namespace)
        if extras:
            raise self._unknown(extras)
        return parsed, extras

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        match = _ARGUMENT.fullmatch(message)
        if match and match["problem"].startswith("invalid choice"):
            raise self._invalid_choice(match["name"], match["problem"])
        if match:
            problem = match["problem"]
            for kind, meaning in (("int", "a whole number"), ("float", "a number")):
                problem = re.sub(rf"invalid {kind} value: '(.*)'", rf"'\1' is not {meaning}", problem)
            raise ConfigError(f"{match['name']}: {problem}", self._see_help())
        raise ConfigError(message, self._see_help())

    def _unknown(self, extras: Sequence[str]) -> ConfigError:
        option = next((extra for extra in extras if extra.startswith("-")), extras[0]).partition("=")[0]
        match = nearest(option, self._option_string_actions) if option.startswith("-") else None
        kind = "option" if option.startswith("-") else "argument"
        return ConfigError(
            f"unknown {kind} {option!r}", f"did you mean {match!r}?" if match else self._see_help()
        )

    def _invalid_choice(self, name: str, problem: str) -> ConfigError:
        value = problem.removeprefix("invalid choice: ").partition(" (choose from")[0].strip("'")
        choices = [
            str(choice)
            for action in self._actions
            if action.choices is not None and name in _names(action)
            for choice in action.choices
        ]
        match = nearest(value, choices)
        remedy = f"did you mean {match!r}?" if match else f"choose one of {', '.join(choices)}"
        return ConfigError(f"unknown {name} {value!r}", remedy)

    def _see_help(self) -> str:
        return f"see `{self.prog} --help`"


def add_options(parser: Any, documented: Any, options: Mapping[str, Mapping[str, Any]]) -> None:
    """Add options whose help is the first sentence about the argument of that name in a docstring.

    Args:
        parser: The parser, or a group of it.
        documented: A function or class with a docstring in Google style.
        options: The other settings of each option, as ``add_argument`` takes them.
    """
    _, _, section = (inspect.getdoc(documented) or "").partition("Args:\n")
    helps: dict[str, str] = {}
    for line in section.split("\n\n")[0].splitlines():
        match = re.match(r"    (\w+): (.*)", line)
        name = match[1] if match else next(reversed(helps))
        helps[name] = match[2] if match else f"{helps[name]} {line.strip()}"
    for name, settings in options.items():
        text = re.split(r"(?<!e\.g)\.(?: |$)", helps[name], maxsplit=1)[0]
        text = text.replace("``", "").replace("%", "%%")
        text = text if text[1:2].isupper() else text[:1].lower() + text[1:]
        default = settings.get("default")
        parser.add_argument(
            f"--{name}", help=text if default is None else f"{text} (default: {default})", **settings
        )


def read_standard_input() -> str:
    """All of standard input as text.

    Raises:
        DataError: It is not UTF-8.
    """
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"standard input is not UTF-8 at byte {error.start}", "convert it, e.g. with iconv -t UTF-8"
        ) from error


def _names(action: argparse.Action) -> set[str]:
    """The names that argparse's messages may call ``action`` by."""
    names = {"/".join(action.option_strings), action.dest}
    if isinstance(action.metavar, str):
        names.add(action.metavar)
    return names
