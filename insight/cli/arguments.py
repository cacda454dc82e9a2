"""The parser of the commands: argparse with one-line errors, nearest matches, options from signatures."""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NoReturn

from insight.api.source_schema import explanations
from insight.runtime.errors import ConfigError, DataError, nearest

_ARGUMENT = re.compile(r"argument (?P<name>[^:]+): (?P<problem>.*)", re.DOTALL)


class CommandParser(argparse.ArgumentParser):
    """``argparse`` whose errors are :class:`ConfigError`, and which never guesses abbreviated options."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **kwargs})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse leftover words here, where the options that the user could have meant are known."""
        parsed, extras = super().parse_known_args(args, namespace)
        if extras:
            raise self._unknown(extras)
        return parsed, extras

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        # An option has a second spelling with dashes, which would double every message.
        message = re.sub(r"(--\w+)/--[\w-]+", r"\1", message)
        match = _ARGUMENT.fullmatch(message)
        if not match:
            raise ConfigError(message, self._see_help())
        name, problem = match["name"], match["problem"]
        if problem.startswith("invalid choice"):
            raise self._invalid_choice(name, problem)
        for kind, meaning in (("int", "a whole number"), ("float", "a number")):
            problem = re.sub(rf"invalid {kind} value: '(.*)'", rf"'\1' is not {meaning}", problem)
        raise ConfigError(f"{name}: {problem}", self._see_help())

    def _unknown(self, extras: Sequence[str]) -> ConfigError:
        option = next((extra for extra in extras if extra.startswith("-")), extras[0]).partition("=")[0]
        if not option.startswith("-"):
            return ConfigError(f"unknown argument {option!r}", self._see_help())
        match = nearest(option, self._option_string_actions)
        remedy = f"did you mean {match!r}?" if match else self._see_help()
        return ConfigError(f"unknown option {option!r}", remedy)

    def _invalid_choice(self, name: str, problem: str) -> ConfigError:
        value = problem.removeprefix("invalid choice: ").partition(" (choose from")[0].strip("'")
        choices = [
            str(choice)
            for action in self._actions
            if action.choices is not None and name in (*action.option_strings, action.dest, action.metavar)
            for choice in action.choices
        ]
        match = nearest(value, choices)
        remedy = f"did you mean {match!r}?" if match else f"choose one of {', '.join(choices)}"
        return ConfigError(f"unknown {name} {value!r}", remedy)

    def _see_help(self) -> str:
        return f"see `{self.prog} --help`"


def add_action(
    actions: Any, name: str, summary: str, run: Callable[[argparse.Namespace], int | None], json: bool = True
) -> CommandParser:
    """The parser of one action of a command, in the subparsers ``actions``; ``run`` gets its options."""
    parser: CommandParser = actions.add_parser(name, help=summary)
    parser.set_defaults(run=run)
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def add_parameters(
    parser: argparse._ActionsContainer,
    target: Callable[..., Any],
    names: Collection[str] | None = None,
    positional: Collection[str] = (),
    spelled: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Add an option for each parameter of a function or settings class, with its default and its help.

    A parameter without default is required. A ``Sequence[str]`` option may be repeated, other sequences take
    several values, a ``bool`` is a flag, and a ``Literal`` offers its choices.

    Args:
        parser: The parser to add to, or a group of it.
        target: A function or class whose docstring explains its parameters in Google style.
        names: The parameters that become options; ``None`` = all.
        positional: The parameters that become arguments without a name.
        spelled: The names of options that differ from those of their parameters.
    """
    helps = explanations(inspect.getdoc(target) or "")
    for name, parameter in inspect.signature(target).parameters.items():
        if (names is not None and name not in names) or parameter.kind is parameter.VAR_KEYWORD:
            continue
        options = _conversion(eval(parameter.annotation, sys.modules[target.__module__].__dict__))
        text, default = helps[name].replace("``", "").replace("%", "%%").rstrip("."), parameter.default
        text = text if text[1:2].isupper() else text[:1].lower() + text[1:]
        if default is parameter.empty:
            options["required"] = True
        elif default not in (None, ()) and default is not False:
            shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
            text += f" (default: {shown})"
        if name in positional:
            required, many = options.pop("required", False), options.pop("action", None) or "nargs" in options
            options["nargs"] = ("+" if required else "*") if many else (None if required else "?")
            parser.add_argument(name, help=text, **{**options, "metavar": name.upper()})
        else:
            option = spelled.get(name, name)
            spellings = dict.fromkeys((f"--{option}", f"--{option.replace('_', '-')}"))
            parser.add_argument(*spellings, dest=name, help=text, **options)


def chosen(options: argparse.Namespace, target: Callable[..., Any]) -> dict[str, Any]:
    """The arguments for ``target`` that the user gave; the others keep their defaults."""
    names = inspect.signature(target).parameters
    return {name: value for name, value in vars(options).items() if name in names and value is not None}


def take_flag(arguments: list[str], name: str) -> tuple[list[str], bool]:
    """A command line without a flag, and whether it was there; ``true`` or ``false`` may follow it."""
    rest: list[str] = []
    is_on = False
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option == name:
            is_on = not (equals and value.lower() == "false")
        elif index and arguments[index - 1] == name and argument.lower() in ("true", "false"):
            is_on = argument.lower() == "true"
        else:
            rest.append(argument)
    return rest, is_on


def take_option(arguments: list[str], name: str) -> tuple[list[str], list[str]]:
    """A command line without an option, and its values before ``--``; a missing one is empty."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    rest: list[str] = []
    values: list[str] = []
    places = iter(arguments[:end])
    for argument in places:
        option, equals, value = argument.partition("=")
        if option == name:
            values.append(value if equals else next(places, ""))
        else:
            rest.append(argument)
    return rest + arguments[end:], values


def text_argument(value: str) -> str:
    """An argument that is text and no path, read as UTF-8 where the locale knows fewer letters."""
    try:
        return os.fsencode(value).decode("utf-8")
    except UnicodeError:
        return value


def read_standard_input() -> str:
    """All of standard input as text, which must be UTF-8."""
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"standard input is not UTF-8 at byte {error.start}", "convert it, e.g. with iconv -t UTF-8"
        ) from error


def _conversion(annotation: Any) -> dict[str, Any]:
    """How argparse reads a value of this type."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    kinds = [kind for kind in arguments if kind is not type(None)]
    if origin in (typing.Union, types.UnionType):
        several = next((kind for kind in kinds if typing.get_args(kind)), kinds[0])
        return {"metavar": "PATH"} if Path in kinds else _conversion(several)
    if origin is Literal:
        return {"choices": kinds}
    if origin is not None and issubclass(origin, Mapping):
        return {"metavar": "NAME=VALUE", "action": "append"}
    if kinds:  # a sequence; the second argument of a tuple is an ellipsis
        item = _conversion(kinds[0])
        return {**item, "action": "append"} if kinds[0] is str else {**item, "nargs": "+"}
    if annotation is bool:
        return {"action": "store_true", "default": None}
    if annotation in (int, float):
        return {"type": annotation, "metavar": "N" if annotation is int else "X"}
    return {"metavar": "TEXT"}
