"""Mistakes that can be found before torch and Lightning are imported: names, classes, types, files."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from insight.api.config_files import (
    CLASS_KEYS,
    CONFIG_OPTIONS,
    DEFAULT_CLASSES,
    class_name,
    collection,
    given_config,
    merge,
    option_keys,
    read_config,
    split_options,
    texts,
    with_default_classes,
)
from insight.api.run_config import value_mistake
from insight.api.source_schema import Parameter, insight_schema, listed
from insight.runtime.errors import ConfigError, InsightError, OutputError, nearest
from insight.runtime.files import ensure_writable
from insight.runtime.imports import OWN_PACKAGES, allowed_packages, import_class

_CHECKPOINT = {
    "checkpoint": "a run folder (its best checkpoint), a .ckpt file, or the folder of a quantized model"
}
COMMAND_OPTIONS: dict[str, dict[str, str]] = {
    "fit": {
        "resume": "a run folder (its newest checkpoint), a .ckpt file, auto for the newest run of run.name, "
        "or auto_or_new, which begins one where there is none (for job scripts)",
        "init_from": "a run folder or a .ckpt file whose weights a new run begins with, or hf:FOLDER, a "
        "model of Hugging Face, which then decides network and tokenizer too",
    },
    "check": {},
    "validate": _CHECKPOINT,
    "test": _CHECKPOINT,
    "predict": _CHECKPOINT,
}
"""The options that a command has beside the groups of a configuration and those of its output."""
GROUP_CLASSES = {
    "run": "RunConfig",
    **{group: path.rpartition(".")[2] for group, path in DEFAULT_CLASSES.items()},
    "trainer": "Trainer",
}
"""The classes whose options the groups of a configuration have."""
_MODEL_OF_DATA = {
    "LanguageModelingDataModule": "LanguageModelingModule",
    "TranslationDataModule": "TranslationModule",
}
_FILE_OPTIONS = ("train_files", "validation_files", "test_files", "predict_files")
_FLOAT = (
    r"[+-]?(\d[\d_]*\.?[\d_]*(e[+-]?\d+)?|\.\d[\d_]*(e[+-]?\d+)?|\.?inf(inity)?|0x[\da-f_]+)|\.?nan"
    r"|\d+(:\d+)+(\.\d*)?"
)
_NULL = re.compile(r"null|~|", re.I)
# The texts that a type takes, and what it is called.
_SCALARS = {
    "int": (re.compile(r"[+-]?(\d[\d_]*|0x[\da-f_]+|0o[0-7_]+|0b[01_]+)", re.I), "a whole number"),
    "float": (re.compile(_FLOAT, re.I), "a number"),
    "bool": (re.compile(r"true|false|yes|no|on|off|y|n", re.I), "true or false"),
    "str": (re.compile(r".*", re.S), "text"),
    "None": (_NULL, "null"),
}
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_LISTS = frozenset({"list", "tuple", "Sequence", "Iterable", "set", "frozenset"})
_MAPPINGS = frozenset({"dict", "Mapping"})


def early_mistakes(command: str, config: dict[str, Any], arguments: list[str]) -> list[InsightError]:
    """All mistakes in names, classes, types and files that the source of the classes reveals.

    ``config`` are the merged files of the command line in ``arguments``.
    """
    options = [(name, value) for name, value in split_options(arguments) if name not in CONFIG_OPTIONS]
    checker = _Checker(command, [name for name, _ in options])
    found = [*checker.check_flags(options), *checker.check(with_options(config, options))]
    for option, path in checker.own_classes.items():
        try:
            import_class(path, option)
        except ConfigError as error:
            found.append(error)
    return list({str(mistake): mistake for mistake in found}.values())


def own_packages(command: str, config: dict[str, Any], arguments: list[str] | None = None) -> set[str]:
    """The packages beside Insight and its libraries whose classes a configuration or command line names."""
    checker = _Checker(command)
    list(checker.check(with_options(config, split_options(arguments or []))))
    paths = {*checker.own_classes.values(), *_class_paths(config)}
    return {path.split(".")[0] for path in paths if "." in path} - set(OWN_PACKAGES)


def refuse_foreign_classes(command: str, path: Path) -> None:
    """Refuse a run's ``config.yaml`` that names classes of packages that the user has not allowed.

    The run may come from somebody else, and a package of that name may lie in the working folder.
    """
    refused = sorted(own_packages(command, read_config(path)) - set(allowed_packages()))
    if refused:
        problem = f"{path} names classes of the package {refused[0]!r}"
        raise ConfigError(problem, f"add --allow_package {refused[0]} if you trust this run")


def with_options(config: dict[str, Any], options: list[tuple[str, str | None]]) -> dict[str, Any]:
    """A configuration with the options of a command line merged in."""
    result = with_default_classes(copy.deepcopy(config))
    for name, value in options:
        keys = option_keys(name)
        is_value = value is not None and name.startswith("--") and not name.endswith(("+", ".help"))
        if not is_value or not keys or keys[0] not in ("seed", *GROUP_CLASSES):
            continue
        if keys[-1] == "class_path":  # naming the class is giving the option its value
            keys.pop()
        place = result
        for depth, key in enumerate(keys[:-1]):
            inner = place.get(key)
            if isinstance(inner, str):
                inner = {"class_path": inner}
            if not isinstance(inner, dict):
                inner = {"class_path": DEFAULT_CLASSES[key]} if depth == 0 and key in DEFAULT_CLASSES else {}
            place[key] = inner
            place = inner.setdefault("init_args", {}) if "class_path" in inner else inner
            if not isinstance(place, dict):
                break
        else:
            given = collection(value)
            place[keys[-1]] = merge(place.get(keys[-1]), value if given is None else given)
    return with_default_classes(result)


def given_values(config: dict[str, Any], arguments: list[str]) -> set[tuple[str, str]]:
    """The name and value of every option in the files and on the command line, without its groups."""
    found: set[tuple[str, str]] = set()

    def collect(name: str, value: Any) -> None:
        if isinstance(value, (dict, list)):
            for key, inner in value.items() if isinstance(value, dict) else ((name, item) for item in value):
                collect(key, inner)
        found.add((name, str(value)))
        try:
            number = yaml.safe_load(value) if isinstance(value, str) else None
        except (yaml.YAMLError, ValueError):
            return
        if isinstance(number, (int, float)):
            found.add((name, str(number)))
            if abs(number) < 1e300:
                found.add((name, str(float(number))))

    collect("", with_options(config, split_options(arguments)))
    return found


def check_early(command: str, arguments: list[str]) -> None:
    """Raise a single mistake before anything heavy is imported.

    Several mistakes are reported together with all others later, after torch and Lightning are imported.
    """
    mistakes = early_mistakes(command, given_config(arguments)[0], arguments)
    if len(mistakes) == 1:
        raise mistakes[0]


class _Checker:
    """Judges the configuration of ``command``; ``given`` are its options on the command line, with dashes."""

    def __init__(self, command: str, given: Sequence[str] = ()) -> None:
        self.schema = insight_schema()
        self.given = given
        self.own_classes: dict[str, str] = {}
        """The classes of other packages than Insight that were named, by option."""
        self._known = ("seed", *GROUP_CLASSES, *COMMAND_OPTIONS[command])
        self._writes = command in ("fit", "check")

    def check(self, config: dict[str, Any]) -> Iterator[InsightError]:
        for key, value in config.items():
            if key not in self._known:
                yield self._unknown(key, self._known, "")
            elif key == "seed":
                yield from self._value(value, ast.Name("int"), None, key)
            elif isinstance(value, dict) and key in DEFAULT_CLASSES:
                yield from self._described(value, class_name(value) or "", key)
            elif isinstance(value, dict) and key in GROUP_CLASSES:
                yield from self._options(value, GROUP_CLASSES[key], key)
            elif key in GROUP_CLASSES:
                is_class = isinstance(value, str) and not _NULL.fullmatch(value)
                if not (is_class and key in DEFAULT_CLASSES):
                    yield _no_mapping(key, value)
        yield from _missing_files(config.get("data"))
        yield from _mismatched_classes(config)
        if self._writes:
            yield from _unwritable_folders(config)

    def check_flags(self, options: list[tuple[str, str | None]]) -> Iterator[InsightError]:
        """Options that name no group and no option of the command, and words that are no options."""
        for name, _ in options:
            first = name.lstrip("-").removesuffix("+").partition(".")[0]
            if not name.startswith("-"):
                yield ConfigError(f"unexpected argument {name!r}", "options begin with --, see --help")
            elif first not in (*self._known, "config", "help", "print_config") and name != "-h":
                yield self._unknown(first, self._known, "")

    def _described(self, value: dict[str, Any], name: str, path: str) -> Iterator[InsightError]:
        """Check a mapping with ``class_path`` and ``init_args``, or with the options of the class alone."""
        if name not in self.schema:
            if isinstance(value.get("class_path"), str) and "." in value["class_path"]:
                self.own_classes[path] = value["class_path"]
            return
        if not CLASS_KEYS & value.keys():
            yield from self._options(value, name, path)
            return
        for key in (key for key in value if key not in CLASS_KEYS):
            yield ConfigError(f"{path}.{key}: stands beside class_path", f"write it below {path}.init_args")
        arguments = value.get("init_args")
        if arguments is not None and not isinstance(arguments, dict):
            yield _no_mapping(f"{path}.init_args", arguments)
        elif arguments:
            yield from self._options(arguments, name, path)

    def _options(self, values: dict[str, Any], owner: str, path: str) -> Iterator[InsightError]:
        parameters = self.schema.parameters(owner)
        if parameters is None:
            return
        for key, value in values.items():
            if key in parameters:
                yield from self._value(value, parameters[key].annotation, parameters[key], f"{path}.{key}")
            else:
                yield self._unknown(f"{path}.{key}", parameters, owner)

    def _unknown(self, path: str, known: Collection[str], owner: str) -> ConfigError:
        prefix, _, name = path.rpartition(".")
        dot = f"{prefix}." if prefix else ""
        match = nearest(name, known)
        is_option = any(f"{given}.".startswith(f"--{path}.") for given in self.given)
        dashes = "--" if is_option else ""
        inner = self._option_path(name, owner)
        if inner is None and (match is None or not prefix):  # the option may be another group's
            paths = {group: self._option_path(name, of_group) for group, of_group in GROUP_CLASSES.items()}
            inner = next((f"{group}.{path}" for group, path in paths.items() if path), None)
            dot = "" if inner else dot
        if match is None and inner is None and not prefix:
            groups = {
                group: self.schema.parameters(of_group) or () for group, of_group in GROUP_CLASSES.items()
            }
            options = {option: f"{group}.{option}" for group, inside in groups.items() for option in inside}
            inner = options.get(nearest(name, options) or "")
        if inner:
            remedy = f"did you mean '{dashes}{dot}{inner}'?"
        elif match:
            whole = prefix in ("", "trainer", "run")
            remedy = f"did you mean '{dashes}{dot}{match}'?" if whole else f"did you mean {match!r}?"
        else:
            remedy = f"it has {listed(known)}" if known else "leave it out: this class has no options"
        if dashes:
            problem = f"unknown option {dashes + path!r}"
        elif owner in ("", "Trainer", "RunConfig"):
            problem = f"{path}: there is no such option"
        else:
            problem = f"{path}: {owner} has no option {name!r}"
        error = ConfigError(problem, remedy)
        error.option = path
        return error

    def _option_path(self, name: str, owner: str, depth: int = 4) -> str | None:
        """The path of an option of this name in a class or its default parts, or ``None``."""
        parameters = (self.schema.parameters(owner) or {}) if depth else {}
        if name in parameters:
            return name
        inside = (
            (key, self._option_path(name, _default_class(parameter), depth - 1))
            for key, parameter in parameters.items()
        )
        return next((f"{key}.{path}" for key, path in inside if path), None)

    def _value(
        self, value: Any, annotation: ast.expr | None, parameter: Parameter | None, path: str
    ) -> Iterator[InsightError]:
        """The mistakes in a value; none if the source does not say which values are allowed."""
        if annotation is None:
            return
        members = list(_members(annotation))
        complaints: list[list[InsightError]] = []
        for member in members:
            complaints.append(list(self._member(value, member, parameter, path)))
            if not complaints[-1]:
                mistake = value_mistake(path, value)
                if mistake:
                    yield mistake
                return
        names_class = isinstance(value, dict) or (isinstance(value, str) and value)
        likely = [
            complaint
            for member, complaint in zip(members, complaints, strict=True)
            if names_class and isinstance(member, ast.Name) and self.schema.is_kind(member.id)
        ]
        likely = likely or [found for found in complaints if any(error.option != path for error in found)]
        if likely or len(complaints) == 1:
            yield from min(likely or complaints, key=len)
        else:
            meanings = list(dict.fromkeys(filter(None, map(_meaning, members))))
            yield _wrong_type(path, value, " or ".join(meanings) or "another value")

    def _member(
        self, value: Any, member: ast.expr, parameter: Parameter | None, path: str
    ) -> Iterator[InsightError]:
        name, is_list = _name(member), _name(member) in _LISTS
        if name in _SCALARS:
            pattern, meaning = _SCALARS[name]
            is_null = value is None and name == "None"
            if not (is_null or (isinstance(value, str) and pattern.fullmatch(value))):
                yield _wrong_type(path, value, meaning)
        elif name == "Literal":
            choices = [str(item) for item in _literals(member)]
            if not isinstance(value, str) or value not in choices:
                match = nearest(value, choices) if isinstance(value, str) else None
                remedy = f"did you mean {match!r}?" if match else f"choose one of {', '.join(choices)}"
                yield ConfigError("is not one of the choices", remedy, option=path, value=value)
        elif is_list or name in _MAPPINGS:
            if value is None or isinstance(value, dict if is_list else list):
                yield _wrong_type(path, value, _meaning(member))
            elif isinstance(member, ast.Subscript) and not isinstance(value, str):
                types = member.slice.elts if isinstance(member.slice, ast.Tuple) else [member.slice]
                is_long = len(types) == 2 and isinstance(types[1], ast.Constant) and types[1].value is ...
                if is_list and len(types) > 1 and not is_long:
                    return  # a tuple whose items have different types
                for key, item in enumerate(value) if is_list else value.items():
                    yield from self._value(item, types[0 if is_list else -1], None, f"{path}.{key}")
        elif isinstance(member, ast.Name) and self.schema.is_kind(member.id):
            yield from self._class(value, member.id, parameter, path)
        else:
            named = value.get("class_path") if isinstance(value, dict) else None
            if isinstance(named, str) and _DOTTED.fullmatch(named):
                self.own_classes[path] = named

    def _class(self, value: Any, kind: str, parameter: Parameter | None, path: str) -> Iterator[InsightError]:
        if value is None or isinstance(value, list):
            yield _wrong_type(path, value, f"the name of a class, {listed(self.schema.choices(kind))}")
            return
        named = value.get("class_path") if isinstance(value, dict) else value
        if named is None:
            name = _default_class(parameter)
            yield from self._described(value, name if name in self.schema else kind, path)
            return
        if not isinstance(named, str):
            yield ConfigError("names no class", "write its name", option=f"{path}.class_path", value=named)
            return
        name = named.rpartition(".")[2]
        package = named.rpartition(".")[0].split(".")[0] or "insight"
        if package != "insight":
            if package not in OWN_PACKAGES:
                self.own_classes[path] = named
            return
        choices = self.schema.choices(kind)
        if name not in choices:
            match = nearest(name, choices)
            remedy = f"did you mean {match!r}?" if match else f"choose one of {listed(choices)}"
            yield ConfigError("there is no such class to choose here", remedy, option=path, value=named)
        elif isinstance(value, dict):
            yield from self._described(value, name, path)


def _class_paths(value: Any) -> Iterator[str]:
    """Every value of ``class_path`` in a configuration."""
    if isinstance(value, dict):
        if isinstance(value.get("class_path"), str):
            yield value["class_path"]
        value = list(value.values())
    for inner in value if isinstance(value, list) else ():
        yield from _class_paths(inner)


def _missing_files(data: Any) -> Iterator[InsightError]:
    """Errors for named text files that do not exist; folders are searched later."""
    from insight.data.sources.files import expand_sources
    from insight.data.sources.parallel import expand_parallel

    name = class_name(data)
    options = data.get("init_args") if isinstance(data, dict) else None
    if name not in _MODEL_OF_DATA or not isinstance(options, dict):
        return
    for option in _FILE_OPTIONS:
        named: list[Any] = list(texts(options.get(option)))
        # Aligned files can only be judged together.
        together = name == "TranslationDataModule"
        for files in [options[option]] if together and named else named:
            if isinstance(files, str) and files.lower() in ("null", "~"):
                continue
            try:
                if together:
                    expand_parallel(files, "", "", option)
                else:
                    expand_sources(files, option)
            except InsightError as error:
                yield error.below("data")


def _mismatched_classes(config: dict[str, Any]) -> Iterator[InsightError]:
    """An error if data and model are for different tasks; a group that is left out has its default class."""
    model, data = (class_name(config.get(group)) or GROUP_CLASSES[group] for group in ("model", "data"))
    fitting = _MODEL_OF_DATA.get(data)
    if fitting is not None and model != fitting and model in _MODEL_OF_DATA.values():
        other = next(name for name, of_data in _MODEL_OF_DATA.items() if of_data == model)
        problem = f"makes no batches for model.class_path={model}"
        remedy = f"use model.class_path: {fitting}, or data.class_path: {other}"
        yield ConfigError(problem, remedy, option="data.class_path", value=data)


def _default_class(parameter: Parameter | None) -> str:
    """The class that constructs a default such as ``Rope(base=500)``."""
    default = (parameter.default if parameter else None) or ""
    return default.partition("(")[0].rpartition(".")[2] if "(" in default else ""


def _unwritable_folders(config: dict[str, Any]) -> Iterator[InsightError]:
    """Errors for the folders of the runs and of the cache that are named and cannot be written."""
    run, data = config.get("run"), config.get("data")
    arguments = data.get("init_args") if isinstance(data, dict) else None
    for group, option, options in (("run", "root", run), ("data", "cache_dir", arguments)):
        folder = options.get(option) if isinstance(options, dict) else None
        if isinstance(folder, str) and not _NULL.fullmatch(folder):
            try:
                ensure_writable(Path(folder).expanduser())
            except OutputError as error:
                problem = error.problem.partition(": ")[2]
                yield OutputError(problem, error.remedy, option=f"{group}.{option}", value=folder)


def _no_mapping(path: str, value: Any) -> ConfigError:
    return ConfigError("is no mapping", "write option: value lines below it", option=path, value=value)


def _wrong_type(path: str, value: Any, meaning: str) -> ConfigError:
    if meaning == "text" and isinstance(value, (dict, list)):
        meaning = "text, in quotes"
    return ConfigError("has the wrong type", f"give {meaning}", option=path, value=value)


def _members(annotation: ast.expr) -> Iterator[ast.expr]:
    """The alternatives of ``A | B``, ``Union[A, B]`` and ``Optional[A]``."""
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        yield from _members(annotation.left)
        yield from _members(annotation.right)
    elif isinstance(annotation, ast.Subscript) and _name(annotation) in ("Union", "Optional"):
        inner = annotation.slice
        for item in inner.elts if isinstance(inner, ast.Tuple) else [inner]:
            yield from _members(item)
        if _name(annotation) == "Optional":
            yield ast.Constant(None)
    elif isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        yield from _members(ast.parse(annotation.value, mode="eval").body)
    else:
        yield annotation


def _name(member: ast.expr) -> str:
    if isinstance(member, ast.Constant) and member.value is None:
        return "None"
    if isinstance(member, ast.Subscript):
        return _name(member.value)
    if isinstance(member, ast.Attribute):
        return member.attr
    return member.id if isinstance(member, ast.Name) else ""


def _meaning(member: ast.expr) -> str:
    name = _name(member)
    if name == "Literal":
        return " or ".join(str(item) for item in _literals(member))
    if name in _LISTS or name in _MAPPINGS:
        return "a list" if name in _LISTS else "a mapping"
    return _SCALARS[name][1] if name in _SCALARS else ""


def _literals(member: ast.expr) -> list[Any]:
    inner = member.slice if isinstance(member, ast.Subscript) else member
    items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    return [item.value for item in items if isinstance(item, ast.Constant)]
