"""Parse and build a configuration: classes start from their own defaults, and all mistakes are found."""

from __future__ import annotations

import argparse
import ast
import copy
import dataclasses
import importlib
import inspect
import operator
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jsonargparse
from jsonargparse import Namespace, _paths, _typehints

from insight.api.config_files import as_arguments, class_name, holder, option_keys, split_options
from insight.api.source_schema import insight_schema, listed
from insight.runtime.errors import ConfigError, InsightError, SeveralMistakesError, nearest

_MOST_MISTAKES = 30
# The parts of jsonargparse's messages.
_KEY = re.compile(r'Parser key "(?P<key>[^"]+)":\s*(?P<rest>.*)')
_CLASS = re.compile(r"Problem with given class_path '(?P<path>[^']+)':")
_GIVEN = re.compile(r"Given value: (?:NestedArg\(key='[^']*', val=(?P<nested>.*)\)|(?P<value>.*))")
_EXPECTED = re.compile(r"Expected an? (?P<type>.+?)(?:\. Got value: (?P<value>.*))?")
_NOISE = re.compile(
    r"Does not validate against any|Subtypes: |Errors:|Given value|Subclass types expect one of"
    r"|a class path \(str\)|a dict with|Expected a path but|Expected a <class 'NoneType'>|$"
)
_TYPE_NAMES = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}


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

_sort_types: Any = _typehints.sort_subtypes_for_union


def _try_int_before_float(types: Any, *others: Any) -> list[Any]:
    """Order the types of a union as jsonargparse does, but try whole numbers before others.

    ``typing`` keeps whichever order of the two it met first, and one batch is not all of them (1.0).
    """
    found = list(_sort_types(types, *others))
    if int in found and float in found[: found.index(int)]:
        first, second = found.index(float), found.index(int)
        found[first], found[second] = int, float
    return found


_typehints.sort_subtypes_for_union = _try_int_before_float

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


class Parser(jsonargparse.ArgumentParser):
    """Works the defaults of a class out once, and not at each of the places that ask for them.

    A class whose options are classes asks each of them, and each of these asks its own, several times on
    every level: without this, the network of an encoder-decoder alone takes seconds.
    """

    _known: tuple[list[Any], Namespace] | None = None

    def get_defaults(self, *args: Any, **kwargs: Any) -> Namespace:
        """The defaults of all options, as a copy that the caller may change."""
        given = [action.default for action in self._actions]
        known = self._known
        if known is None or len(known[0]) != len(given) or any(map(operator.is_not, known[0], given)):
            known = self._known = (given, super().get_defaults(*args, **kwargs))
        return known[1].clone()


def parse(
    parser: jsonargparse.ArgumentParser, config: dict[str, Any], arguments: list[str]
) -> tuple[Namespace | None, list[InsightError]]:
    """Parse a configuration and a command line; wrong parts are left out to find further mistakes.

    Returns the parsed configuration (``None`` if nothing could be parsed) and the mistakes.
    """
    mistakes: list[InsightError] = []
    config, arguments = copy.deepcopy(config), list(arguments)
    while len(mistakes) < _MOST_MISTAKES:
        try:
            return parser.parse_args(as_arguments(copy.deepcopy(config), arguments)), mistakes
        except argparse.ArgumentError as error:
            mistake = _condensed(str(error))
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            # jsonargparse fails in unforeseen ways on some content of files.
            known = _user_mistake(error)
            problem = f"this configuration cannot be understood ({' '.join(str(error).split())[:200]})"
            unknown = ConfigError(problem, "compare it with configs/quickstart.yaml")
            mistake = known if isinstance(known, ConfigError) else unknown
        mistakes.append(mistake)
        config, arguments, changed = without(config, arguments, mistake.option)
        if not changed:
            break
    return None, mistakes


def instantiate(
    parser: jsonargparse.ArgumentParser,
    config: Namespace,
    given: Callable[[InsightError], bool] = lambda mistake: True,
) -> tuple[Namespace | None, list[InsightError]]:
    """Build the objects of a configuration; a value that a class refuses is replaced by its default.

    A default that replaces a refused value may not fit the other values, which is no mistake of the user:
    ``given`` tells whether a mistake concerns a value that the user gave. All other errors are raised.

    Returns the built objects (``None`` if they cannot be built even then) and the mistakes.
    """
    mistakes: list[InsightError] = []
    config = config.clone()
    while len(mistakes) < _MOST_MISTAKES:
        try:
            return parser.instantiate(config), mistakes
        except (ValueError, TypeError, argparse.ArgumentError) as error:
            mistake = _user_mistake(error)
            if mistake is None:
                raise
        if str(mistake) in map(str, mistakes) or (mistakes and not given(mistake)):
            break
        mistakes.append(mistake)
        if not _reset(config, *named_value(mistake)):
            break
    return None, mistakes


def raise_all(mistakes: list[InsightError]) -> None:
    """Raise one mistake as it is, and several as one error without repetitions."""
    mistakes = list({str(mistake): mistake for mistake in mistakes}.values())
    if mistakes:
        raise SeveralMistakesError(mistakes) if len(mistakes) > 1 else mistakes[0]


def without(
    config: dict[str, Any], arguments: list[str], option: str
) -> tuple[dict[str, Any], list[str], bool]:
    """A configuration and a command line without an option, and whether this changed anything."""
    keys = option_keys(option)
    if not keys:
        return config, arguments, False
    options = split_options(arguments)
    kept = [pair for pair in options if option_keys(pair[0])[: len(keys)] != keys]
    changed = len(kept) < len(options)
    place = holder(config, keys)
    if isinstance(place, list) and place:
        place.clear()
        changed = True
    elif isinstance(place, dict) and keys[-1] in place:
        del place[keys[-1]]
        changed = True
    return config, [name if value is None else f"{name}={value}" for name, value in kept], changed


def named_value(mistake: InsightError) -> tuple[str, str]:
    """The option that a mistake concerns, without its groups, and its value."""
    return mistake.option.rpartition(".")[2], str(mistake.value)


def _reset(config: Namespace, name: str, value: str) -> bool:
    """Replace a refused value by its default; returns whether it was found."""
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
    parameter = _parameters(owner).get(name)
    return inspect.Parameter.empty if parameter is None else parameter.default


def _parameters(path: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of the class with this path; none if it cannot be imported."""
    module, _, name = path.rpartition(".")
    try:
        return inspect.signature(getattr(importlib.import_module(module), name)).parameters
    except (ImportError, AttributeError, ValueError):
        return {}


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """One complaint inside a message of jsonargparse, with its place in the configuration."""

    depth: int
    option: str
    owner: str  # path of the innermost class
    text: str


def _condensed(message: str) -> ConfigError:
    """The innermost complaint of jsonargparse's multi-line ``message``."""
    leaves, given = _leaves(message)
    if not leaves:
        key = _KEY.search(message)
        return ConfigError("does not fit", "see --help", option=key["key"] if key else "option", value=given)
    deepest = max(leaf.depth for leaf in leaves)
    leaves = [leaf for leaf in leaves if leaf.depth == deepest]
    for leaf in leaves:
        for pattern, explain in _EXPLAINED.items():
            match = pattern.fullmatch(leaf.text)
            if match:
                return explain(leaf, match)
    option, text = leaves[0].option, _one_line(leaves[0].text)
    expected = [_EXPECTED.fullmatch(leaf.text) for leaf in leaves]
    if not all(expected):
        return ConfigError(f"{option}: {text}" if option else text, "see --help")
    types = []
    for match in filter(None, expected):
        given = match["value"] or given
        name = match["type"].removeprefix("<class '").removesuffix("'>").rpartition(".")[2]
        types.append(_TYPE_NAMES.get(name, name))
    remedy = f"give {' or '.join(dict.fromkeys(types))}"
    return ConfigError("has the wrong type", remedy, option=option, value=given)


def _leaves(message: str) -> tuple[list[_Leaf], str]:
    """All complaints of a message, and the value that it is about.

    Nested complaints are indented under ``Parser key "..."`` and ``Problem with given class_path '...'``.
    """
    stack: list[tuple[int, str, str]] = []
    leaves: list[_Leaf] = []
    given = ""
    for line in message.splitlines():
        body = line.lstrip(" -")
        indent = len(line) - len(body)
        value = _GIVEN.fullmatch(body)
        if value:
            given = given or (value["nested"] or value["value"]).strip("'\"")
        if _NOISE.match(body):
            continue
        while stack and stack[-1][0] >= indent:
            stack.pop()
        key, given_class = _KEY.fullmatch(body), _CLASS.fullmatch(body)
        if key:
            stack.append((indent, key["key"], ""))
            body = key["rest"]
        elif given_class:
            stack.append((indent, "", given_class["path"]))
            continue
        if body and not _NOISE.match(body):
            option = ".".join(name for _, name, _ in stack if name)
            owner = next((path for _, _, path in reversed(stack) if path), "")
            leaves.append(_Leaf(len(stack), option, owner, body))
    return leaves, given


def _unknown_option(leaf: _Leaf, match: re.Match[str]) -> ConfigError:
    name = match["name"].removeprefix("init_args.")
    option = ".".join(filter(None, (leaf.option, match["group"], name)))
    owner, known = leaf.owner.rpartition(".")[2], list(_parameters(leaf.owner))
    near = nearest(name, known)
    remedy = f"did you mean {near!r}?" if near else f"it has {listed(known)}" if known else "see --help"
    problem = f"{owner} has no option {name!r}" if owner else "there is no such option"
    error = ConfigError(f"{option}: {problem}", remedy)
    error.option = option
    return error


def _unknown_class(leaf: _Leaf, match: re.Match[str]) -> ConfigError:
    name, key = match["a"] or match["b"] or match["c"], leaf.option.rpartition(".")[2]
    told = (insight_schema().parameters("Trainer") or {}).get(key) if not leaf.owner else None
    annotation = ast.unparse(told.annotation) if told and told.annotation else ""
    if key in (parameters := _parameters(leaf.owner)):
        annotation = str(parameters[key].annotation)
    known = [choice for word in re.findall(r"\w+", annotation) for choice in insight_schema().choices(word)]
    near = nearest(name.rpartition(".")[2], known)
    other = f"choose one of {listed(known)}" if known else "see --help"
    remedy = f"did you mean {near!r}?" if near else other
    problem = "there is no such class to choose here"
    return ConfigError(problem, remedy, option=leaf.option, value=name)


def _required(leaf: _Leaf, match: re.Match[str]) -> ConfigError:
    option = ".".join(filter(None, (leaf.option, match["n"].split(",")[0].strip(" '\""))))
    return ConfigError(f"{option} is missing", f"give --{option} or set it in a file for --config")


def _unrecognized(leaf: _Leaf, match: re.Match[str]) -> ConfigError:
    option = match["arguments"].split()[0].partition("=")[0]
    return ConfigError(f"unknown option {option!r}", "see --help")


_EXPLAINED = {
    re.compile(r"(?:Group '(?P<group>[^']+)' does not accept o|O)ption '(?P<name>[^']+)'.*"): _unknown_option,
    re.compile(
        r"Expected a dot import path string: (?P<a>.+)"
        r"|Import path (?P<b>\S+) does not correspond to a subclass of .+"
        r"|No module named '(?P<c>.+)'"
    ): _unknown_class,
    re.compile(
        r"(?:the following arguments are required|Option is required but not provided): (?P<n>.+)"
    ): _required,
    re.compile(r"unrecognized arguments: (?P<arguments>.+)"): _unrecognized,
}


def _user_mistake(error: BaseException) -> InsightError | None:
    """The complaint of a configuration class, taken out of the exceptions in which jsonargparse wrapped it.

    A ``ValueError`` or ``TypeError`` of the user's own class becomes a :class:`ConfigError` that names the
    class; any other error is ``None``.
    """
    chain = [error]
    while (link := chain[-1].__cause__ or chain[-1].__context__) is not None and link not in chain:
        chain.append(link)
    for link in chain:
        if isinstance(link, InsightError):
            return link
    if not isinstance(chain[-1], (ValueError, TypeError)):
        return None
    text, owner = _one_line(str(chain[-1])), ""
    for frame, _ in traceback.walk_tb(chain[-1].__traceback__):
        if frame.f_code.co_name in ("__post_init__", "__init__") and "self" in frame.f_locals:
            owner = type(frame.f_locals["self"]).__name__
    return ConfigError(f"{owner}: {text}" if owner else text, "see --help")


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:299]}…"
