"""Parse and build a configuration: classes start from their own defaults, and all mistakes are found."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import jsonargparse
from jsonargparse import Namespace, _paths, _typehints

from insight.api.config_files import as_arguments, class_name, split_options
from insight.api.parser_messages import condense, user_mistake
from insight.runtime.errors import ConfigError, InsightError, SeveralMistakesError

_MOST_MISTAKES = 30
_NAMED = re.compile(r"(?P<path>[A-Za-z_][\w.]*)=(?P<value>[^:]*): ")


def _start_from_own_defaults(parser_or_action: Any, prev_val: Any, value: Any) -> None:
    """Drop the options of the previously named class when another class is named.

    jsonargparse keeps those that the new class has under the same name, so that the default learning rate of
    one optimizer would become that of another.
    """
    if not prev_val or "init_args" not in prev_val:
        return
    if class_name(prev_val["class_path"]) == class_name(value["class_path"]):
        return
    arguments = prev_val["init_args"]
    for key in list(vars(arguments) if isinstance(arguments, Namespace) else arguments):
        del arguments[key]


# jsonargparse's own functions look it up under this name.
_typehints.discard_init_args_on_class_path_change = _start_from_own_defaults

_Path: Any = _paths.Path
_open_path = _Path.__init__


def _open_expressible_path(self: Any, *args: Any, **kwargs: Any) -> None:
    """Refuse text that the encoding of file names lacks like any other text that is no path.

    jsonargparse looks whether a value names a file before it reads it as text.
    """
    try:
        _open_path(self, *args, **kwargs)
    except UnicodeEncodeError as error:
        raise TypeError(f"no file can have this name here: {error}") from error


_Path.__init__ = _open_expressible_path


def parse(
    parser: jsonargparse.ArgumentParser, config: dict[str, Any], arguments: list[str]
) -> tuple[Namespace | None, list[InsightError]]:
    """Parse a configuration and a command line; wrong parts are left out to find further mistakes.

    Returns:
        The parsed configuration, or ``None`` if nothing could be parsed, and the mistakes.
    """
    mistakes: list[InsightError] = []
    config, arguments = copy.deepcopy(config), list(arguments)
    while len(mistakes) < _MOST_MISTAKES:
        try:
            return parser.parse_args(as_arguments(copy.deepcopy(config), arguments)), mistakes
        except argparse.ArgumentError as error:
            mistake = condense(str(error), parser)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            # jsonargparse fails in unforeseen ways on some content of files.
            known = user_mistake(error)
            mistake = (
                known
                if isinstance(known, ConfigError)
                else ConfigError(
                    f"this configuration cannot be understood ({' '.join(str(error).split())[:200]})",
                    "compare it with configs/quickstart.yaml",
                )
            )
        mistakes.append(mistake)
        config, arguments, changed = without(config, arguments, mistake.option)
        if not changed:
            break
    return None, mistakes


def instantiate(
    parser: jsonargparse.ArgumentParser, config: Namespace, given: Callable[[InsightError], bool]
) -> tuple[Namespace | None, list[InsightError]]:
    """Build the objects of a configuration; a value that a class refuses is replaced by its default.

    Args:
        parser: The parser of a command.
        config: The parsed configuration.
        given: Whether a mistake concerns a value that the user gave. A default that replaces a refused value
            may not fit the other values, which is no mistake of the user.

    Returns:
        The built objects, or ``None`` if they cannot be built even then, and the mistakes.

    Raises:
        Exception: An error that is no mistake of the user.
    """
    mistakes: list[InsightError] = []
    config = config.clone()
    while len(mistakes) < _MOST_MISTAKES:
        try:
            return parser.instantiate(config), mistakes
        except (ValueError, TypeError, argparse.ArgumentError) as error:
            mistake = user_mistake(error)
            if mistake is None:
                raise
        if str(mistake) in map(str, mistakes) or (mistakes and not given(mistake)):
            break
        mistakes.append(mistake)
        if not _reset(config, mistake):
            break
    return None, mistakes


def raise_all(mistakes: list[InsightError]) -> None:
    """Raise one mistake as it is, and several as one error without repetitions.

    Raises:
        InsightError: At least one mistake is given.
    """
    mistakes = list({str(mistake): mistake for mistake in mistakes}.values())
    if len(mistakes) == 1:
        raise mistakes[0]
    if mistakes:
        raise SeveralMistakesError(mistakes)


def without(
    config: dict[str, Any], arguments: list[str], option: str
) -> tuple[dict[str, Any], list[str], bool]:
    """A configuration and a command line without an option, and whether this changed anything."""
    keys = [key for key in option.removeprefix("--").split(".") if key not in ("", "init_args")]
    if not keys:
        return config, arguments, False
    kept: list[str] = []
    for name, value in split_options(arguments):
        own = [key for key in name.lstrip("-").split(".") if key != "init_args"]
        if own[: len(keys)] != keys:
            kept.append(name if value is None else f"{name}={value}")
    changed = len(kept) < len(split_options(arguments))
    place: Any = config
    for key in keys[:-1]:
        place = place.get("init_args", place) if isinstance(place, dict) else None
        place = place.get(key) if isinstance(place, dict) else None
        if isinstance(place, list):
            break
    if isinstance(place, dict):
        place = place.get("init_args", place)
        if isinstance(place, dict) and keys[-1] in place:
            del place[keys[-1]]
            changed = True
    elif isinstance(place, list) and place:
        place.clear()
        changed = True
    return config, kept, changed


def named_value(mistake: InsightError) -> tuple[str, str]:
    """The option that a mistake concerns, without its groups, and its value."""
    if mistake.option:
        return mistake.option.rpartition(".")[2], str(mistake.value)
    match = _NAMED.match(mistake.problem)
    return (match["path"].rpartition(".")[2], match["value"]) if match else ("", "")


def _reset(config: Namespace, mistake: InsightError) -> bool:
    """Replace the refused value by its default; returns whether it was found."""
    name, value = named_value(mistake)
    changed = False
    for owner, arguments in _described(config):
        if name and name in arguments and str(arguments[name]) == value:
            default = _default(owner, name)
            is_plain = default is not inspect.Parameter.empty and not dataclasses.is_dataclass(default)
            if is_plain and str(default) != value:
                arguments[name] = default
                changed = True
    return changed


def _described(value: Any, owner: str = "") -> Iterator[tuple[str, Namespace]]:
    """Every group of options inside a configuration, with its class if that is named."""
    if isinstance(value, Namespace):
        path = value.get("class_path")
        if isinstance(path, str) and isinstance(value.get("init_args"), Namespace):
            yield from _described(value["init_args"], path)
            return
        yield owner, value
        for name, inner in vars(value).items():
            default = _default(owner, name)
            kind = type(default) if dataclasses.is_dataclass(default) else None
            yield from _described(inner, f"{kind.__module__}.{kind.__name__}" if kind else "")
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _described(inner)


def _default(owner: str, name: str) -> Any:
    """The default of a class's parameter, or ``inspect.Parameter.empty``."""
    module, _, leaf = owner.rpartition(".")
    try:
        return inspect.signature(getattr(importlib.import_module(module), leaf)).parameters[name].default
    except (ImportError, AttributeError, ValueError, KeyError):
        return inspect.Parameter.empty
