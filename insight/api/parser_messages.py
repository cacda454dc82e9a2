"""jsonargparse's multi-line errors, condensed to one line: option, value, expected values, nearest match."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from jsonargparse import ArgumentParser

from insight.runtime.errors import ConfigError, InsightError, nearest

_KEY = re.compile(r'Parser key "(?P<key>[^"]+)":\s*(?P<rest>.*)')
_CLASS = re.compile(r"Problem with given class_path '(?P<path>[^']+)':")
_GIVEN = re.compile(r"Given value: (?P<value>.*)")
_NESTED = re.compile(r"NestedArg\(key='[^']*', val=(?P<value>.*)\)")
_EXPECTED = re.compile(r"Expected an? (?P<type>.+?)(?:\. Got value: (?P<value>.*))?")
_UNKNOWN_OPTION = re.compile(r"(?:Group '(?P<group>[^']+)' does not accept o|O)ption '(?P<name>[^']+)'.*")
_UNKNOWN_CLASS = re.compile(
    r"Expected a dot import path string: (?P<a>.+)"
    r"|Import path (?P<b>\S+) does not correspond to a subclass of .+"
    r"|No module named '(?P<c>.+)'"
)
_REQUIRED = re.compile(
    r"(?:the following arguments are required|Option is required but not provided): (?P<n>.+)"
)
_UNRECOGNIZED = re.compile(r"unrecognized arguments: (?P<arguments>.+)")
_NOISE = re.compile(
    r"Does not validate against any|Subtypes: |Errors:|Given value|Subclass types expect one of"
    r"|a class path \(str\)|a dict with|Expected a path but|Expected a <class 'NoneType'>|$"
)
_TYPE_NAMES = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """One complaint inside a message, with the parser keys and the class paths above it, outermost first."""

    keys: tuple[str, ...]
    classes: tuple[str, ...]
    text: str

    @property
    def option(self) -> str:
        return ".".join(self.keys)


def condense(message: str, parser: ArgumentParser) -> ConfigError:
    """The innermost complaint of jsonargparse's ``message`` as a :class:`ConfigError`.

    Nested complaints are indented under ``Parser key "..."`` and ``Problem with given class_path '...'``. The
    nearest match is searched among the options of ``parser``.
    """
    leaves, given = _leaves(message)
    if not leaves:
        return _without_leaf(message, given)
    deepest = max(len(leaf.keys) + len(leaf.classes) for leaf in leaves)
    leaves = [leaf for leaf in leaves if len(leaf.keys) + len(leaf.classes) == deepest]
    for leaf in leaves:
        error = (
            _unknown_option(leaf, parser)
            or _unknown_class(leaf, parser)
            or _required(leaf)
            or _unrecognized(leaf, parser)
        )
        if error:
            return error
    return _wrong_type(leaves, given) or ConfigError(
        f"{leaves[0].option}: {_one_line(leaves[0].text)}" if leaves[0].keys else _one_line(leaves[0].text),
        "see --help",
    )


def user_mistake(error: BaseException) -> InsightError | None:
    """The complaint of a configuration class, taken out of the exceptions in which jsonargparse wrapped it.

    Returns:
        An :class:`InsightError` of the chain; else a ``ValueError`` or ``TypeError`` of the user's own class
        as a :class:`ConfigError` that names the class; else ``None``.
    """
    chain = list(_chain(error))
    for link in chain:
        if isinstance(link, InsightError):
            return link
    deepest = chain[-1]
    if not isinstance(deepest, (ValueError, TypeError)):
        return None
    owner = _class_being_made(deepest)
    text = _one_line(str(deepest))
    return ConfigError(f"{owner}: {text}" if owner else text, "see --help")


def _leaves(message: str) -> tuple[list[_Leaf], str]:
    stack: list[tuple[int, str, str]] = []
    leaves: list[_Leaf] = []
    given = ""
    for line in message.splitlines():
        body = line.lstrip(" -")
        indent = len(line) - len(body)
        value = _GIVEN.fullmatch(body)
        if value:
            nested = _NESTED.fullmatch(value["value"])
            given = given or (nested["value"] if nested else value["value"]).strip("'\"")
        if _NOISE.match(body):
            continue
        while stack and stack[-1][0] >= indent:
            stack.pop()
        key, given_class = _KEY.fullmatch(body), _CLASS.fullmatch(body)
        if key:
            stack.append((indent, "key", key["key"]))
            body = key["rest"]
        elif given_class:
            stack.append((indent, "class", given_class["path"]))
            continue
        if body and not _NOISE.match(body):
            keys = tuple(name for _, kind, name in stack if kind == "key")
            classes = tuple(name for _, kind, name in stack if kind == "class")
            leaves.append(_Leaf(keys, classes, body))
    return leaves, given


def _without_leaf(message: str, given: str) -> ConfigError:
    key = _KEY.search(message)
    option = key["key"] if key else "option"
    return ConfigError(f"{option}={given}: this value does not fit", "see --help")


def _unknown_option(leaf: _Leaf, parser: ArgumentParser) -> ConfigError | None:
    match = _UNKNOWN_OPTION.fullmatch(leaf.text)
    if not match:
        return None
    prefix = ".".join(filter(None, (leaf.option, match["group"])))
    name = match["name"].removeprefix("init_args.")
    if leaf.classes:
        owner = leaf.classes[-1].rpartition(".")[2]
        known = _parameters(_load(leaf.classes[-1]))
        problem = f"{prefix}.{name}: {owner} has no option {name!r}"
    else:
        name = f"{prefix}.{name}" if prefix else name
        known = [action.dest for action in parser._actions]
        problem = f"{name}: there is no such option"
    near = nearest(name, known)
    remedy = f"it has {_listed(known)}" if known else "leave it out: this class has no options"
    return ConfigError(problem, f"did you mean {near!r}?" if near else remedy)


def _unknown_class(leaf: _Leaf, parser: ArgumentParser) -> ConfigError | None:
    match = _UNKNOWN_CLASS.fullmatch(leaf.text)
    if not match:
        return None
    name = match["a"] or match["b"] or match["c"]
    known = _choices(leaf, parser)
    near = nearest(name.rpartition(".")[2], known)
    remedy = f"did you mean {near!r}?" if near else f"choose one of {_listed(known)}"
    return ConfigError(f"{leaf.option}={name}: there is no such class to choose here", remedy)


def _required(leaf: _Leaf) -> ConfigError | None:
    match = _REQUIRED.fullmatch(leaf.text)
    if not match:
        return None
    option = ".".join((*leaf.keys, match["n"].split(",")[0].strip(" '\"")))
    return ConfigError(f"{option} is missing", f"give --{option} or set it in a file for --config")


def _unrecognized(leaf: _Leaf, parser: ArgumentParser) -> ConfigError | None:
    match = _UNRECOGNIZED.fullmatch(leaf.text)
    if not match:
        return None
    option = match["arguments"].split()[0].partition("=")[0]
    if not option.startswith("-"):
        return ConfigError(f"unexpected argument {option!r}", "options begin with --, see --help")
    near = nearest(option, parser._option_string_actions)
    if not near:  # jsonargparse removes the group's name from an option inside `model` or `data`
        near = nearest(option.lstrip("-").partition(".")[0], _default_parameters(parser))
    return ConfigError(f"unknown option {option!r}", f"did you mean {near!r}?" if near else "see --help")


def _wrong_type(leaves: list[_Leaf], given: str) -> ConfigError | None:
    expected: list[str] = []
    for leaf in leaves:
        match = _EXPECTED.fullmatch(leaf.text)
        if not match:
            return None
        given = match["value"] or given
        name = match["type"].removeprefix("<class '").removesuffix("'>").rpartition(".")[2]
        expected.append(_TYPE_NAMES.get(name, name))
    names = " or ".join(dict.fromkeys(expected))
    return ConfigError(f"{leaves[0].option}={_one_line(given)} has the wrong type", f"give {names}")


def _choices(leaf: _Leaf, parser: ArgumentParser) -> list[str]:
    """Names of the classes that are allowed at the option of ``leaf``."""
    annotation: Any = None
    if leaf.classes:
        owner = _load(leaf.classes[-1])
        try:
            # A dataclass is inspected itself, because the hint of an inherited field belongs to its base's
            # module.
            hinted = owner if dataclasses.is_dataclass(owner) else getattr(owner, "__init__", None)
            annotation = typing.get_type_hints(hinted).get(leaf.keys[-1]) if owner else None
        except NameError:  # the hint is imported under TYPE_CHECKING only
            annotation = None
    else:
        action = next((action for action in parser._actions if action.dest == leaf.option), None)
        annotation = getattr(action, "_typehint", None)
    names = {found.__name__ for kind in _classes_in(annotation) for found in _choosable(kind)}
    return sorted(names)


def _classes_in(annotation: Any) -> Iterator[type]:
    if typing.get_args(annotation):
        for part in typing.get_args(annotation):
            yield from _classes_in(part)
    elif isinstance(annotation, type) and annotation.__module__ != "builtins":
        yield annotation


def _choosable(kind: type) -> Iterator[type]:
    """The concrete subclasses of ``kind``, or ``kind`` itself if it has none."""
    subclasses: list[type] = kind.__subclasses__()
    if not subclasses and not inspect.isabstract(kind):
        yield kind
    for subclass in subclasses:
        if not (inspect.isabstract(subclass) or subclass.__name__.startswith("_")):
            yield subclass
        if subclass.__subclasses__():
            yield from _choosable(subclass)


def _load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None


def _parameters(owner: Any) -> list[str]:
    if owner is None:
        return []
    return [name for name in inspect.signature(owner).parameters if name != "self"]


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _class_being_made(error: BaseException) -> str:
    """Name of the class whose ``__post_init__`` or ``__init__`` raised ``error``, by its traceback."""
    owner = ""
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_name in ("__post_init__", "__init__") and "self" in frame.f_locals:
            owner = type(frame.f_locals["self"]).__name__
        trace = trace.tb_next
    return owner


def _default_parameters(parser: ArgumentParser) -> list[str]:
    """Parameters of the classes that are the defaults of the parser's groups."""
    defaults = vars(parser.get_defaults(skip_validation=True)).values()
    paths = [getattr(default, "class_path", None) for default in defaults]
    return [name for path in paths if isinstance(path, str) for name in _parameters(_load(path))]


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:8]) + (", …" if len(listed) > 8 else "")


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:299]}…"
