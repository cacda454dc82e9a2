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
from typing import Any, Literal, NoReturn

from insight.runtime.errors import ConfigError, DataError, nearest

_ARGUMENT = re.compile(r"argument (?P<name>[^:]+): (?P<problem>.*)", re.DOTALL)


class CommandParser(argparse.ArgumentParser):
    """``argparse`` whose errors are :class:`ConfigError`, and which never guesses abbreviated options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse leftover words here, where the options that the user could have meant are known."""
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
            raise ConfigError(f"{match['name'].split('/')[0]}: {problem}", self._see_help())
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
    helps = _explanations(documented)
    for name, settings in options.items():
        text, default = re.split(r"(?<!e\.g)\. ", helps[name], maxsplit=1)[0], settings.get("default")
        parser.add_argument(
            f"--{name}", help=text if default is None else f"{text} (default: {default})", **settings
        )


def add_parameters(
    parser: argparse.ArgumentParser,
    target: Callable[..., Any],
    names: Collection[str] | None = None,
    positional: Collection[str] = (),
) -> None:
    """Add an option for each parameter of a function or settings class, with its default and its help.

    A parameter without default is required. A ``Sequence[str]`` option may be repeated, other sequences take
    several values, and a ``Literal`` offers its choices.

    Args:
        parser: The parser to add to.
        target: A function or class whose docstring explains its parameters in Google style.
        names: The parameters that become options; ``None`` = all.
        positional: The parameters that become arguments without a name.
    """
    helps = _explanations(target)
    for name, parameter in inspect.signature(target).parameters.items():
        if (names is not None and name not in names) or parameter.kind is parameter.VAR_KEYWORD:
            continue
        options = _conversion(eval(parameter.annotation, sys.modules[target.__module__].__dict__))
        text, default = helps[name], parameter.default
        if default is parameter.empty:
            options["required"] = True
        elif default not in (None, ()):
            shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
            text += f" (default: {shown})"
        options["help"] = text
        if name in positional:
            required, many = options.pop("required", False), options.pop("action", None) or "nargs" in options
            options["nargs"] = ("+" if required else "*") if many else (None if required else "?")
            parser.add_argument(name, **{**options, "metavar": name.upper()})
        else:
            spellings = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
            parser.add_argument(*spellings, **options)


def chosen(options: argparse.Namespace, target: Callable[..., Any]) -> dict[str, Any]:
    """The arguments for ``target`` that the user gave; the others keep their defaults."""
    names = inspect.signature(target).parameters
    return {name: value for name, value in vars(options).items() if name in names and value is not None}


def take_flag(arguments: list[str], name: str) -> tuple[list[str], bool]:
    """A command line without a flag, and whether it was there; ``true`` or ``false`` may follow it."""
    rest: list[str] = []
    is_on = False
    index = 0
    while index < len(arguments):
        option, equals, value = arguments[index].partition("=")
        index += 1
        if option != name:
            rest.append(arguments[index - 1])
            continue
        if not equals and index < len(arguments) and arguments[index].lower() in ("true", "false"):
            value, index = arguments[index], index + 1
        is_on = value.lower() != "false"
    return rest, is_on


def take_option(arguments: list[str], name: str) -> tuple[list[str], str | None]:
    """A command line without an option, and the last value that it had.

    Raises:
        ConfigError: The value is missing.
    """
    rest: list[str] = []
    found: str | None = None
    places = iter(arguments)
    for argument in places:
        option, equals, value = argument.partition("=")
        if option != name:
            rest.append(argument)
            continue
        found = value if equals else next(places, "")
        if not found:
            raise ConfigError(f"{name}: a value is missing", "see --help")
    return rest, found


def text_argument(value: str) -> str:
    """An argument that is text and no path, read as UTF-8 where the locale knows fewer letters."""
    try:
        return os.fsencode(value).decode("utf-8")
    except UnicodeError:
        return value


def read_standard_input() -> str:
    """All of standard input as text.

    Raises:
        DataError: The input is not UTF-8.
    """
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"standard input is not UTF-8 at byte {error.start}", "convert it, e.g. with iconv -t UTF-8"
        ) from error


def _names(action: argparse.Action) -> set[str]:
    """The names that argparse's messages may use for ``action``."""
    names = {"/".join(action.option_strings), action.dest}
    if isinstance(action.metavar, str):
        names.add(action.metavar)
    return names


def _explanations(documented: Any) -> dict[str, str]:
    """The texts of the arguments in a docstring, escaped for argparse."""
    _, _, section = (inspect.getdoc(documented) or "").partition("Args:\n")
    helps: dict[str, str] = {}
    for line in section.split("\n\n")[0].splitlines():
        match = re.match(r"    (\w+): (.*)", line)
        name = match[1] if match else next(reversed(helps))
        helps[name] = match[2] if match else f"{helps[name]} {line.strip()}"
    texts = {name: text.replace("``", "").replace("%", "%%").rstrip(".") for name, text in helps.items()}
    return {
        name: text if text[1:2].isupper() else text[:1].lower() + text[1:] for name, text in texts.items()
    }


def _conversion(annotation: Any) -> dict[str, Any]:
    """How argparse reads a value of this type."""
    kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return {"metavar": "PATH"} if Path in kinds else _conversion(kinds[0])
    if typing.get_origin(annotation) is Literal:
        return {"choices": kinds}
    if kinds:  # a sequence; the second argument of a tuple is an ellipsis
        item = _conversion(kinds[0])
        return {**item, "action": "append"} if kinds[0] is str else {**item, "nargs": "+"}
    if annotation in (int, float):
        return {"type": annotation, "metavar": "N" if annotation is int else "X"}
    return {"metavar": "TEXT"}
