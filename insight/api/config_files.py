"""The YAML files of ``--config``: finding, reading and merging them, and the shipped files."""

from __future__ import annotations

import importlib.resources
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from insight.runtime.errors import ConfigError, nearest
from insight.runtime.files import missing_path_remedy

CONFIG_OPTIONS = ("--config", "-c")
DEFAULT_CLASSES = {
    "model": "insight.training.LanguageModelingModule",
    "data": "insight.data.LanguageModelingDataModule",
}
"""The classes of the groups that may name one of the user's own."""
CLASS_KEYS = frozenset({"class_path", "init_args", "dict_kwargs"})
"""The keys of a mapping that names a class."""
_SUFFIXES = (".yaml", ".yml", ".json")
_CORPUS = "corpus:"
_JOB_FILES = "cluster/"  # what schedulers read
_NOT_PLAINLY_TEXT = re.compile(r"[-+.]*\d|[-+]?\.(inf|nan)$|(null|~|true|false|yes|no|on|off|y|n|)$", re.I)
_MOST_NODES, _DEEPEST = 100_000, 64
_TEXT_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "timestamp"))
_NULL, _MERGE, _MAPPING = (f"tag:yaml.org,2002:{name}" for name in ("null", "merge", "map"))


def option_values(arguments: list[str], *names: str) -> list[str]:
    """Every value that ``arguments`` give for an option, before any parsing."""
    values = []
    for index, argument in enumerate(arguments):
        option, equals, attached = argument.partition("=")
        if option in names:
            values += [attached] if equals else arguments[index + 1 : index + 2]
    return values


def option_value(arguments: list[str], *names: str) -> str | None:
    """The last of :func:`option_values`, or ``None``."""
    values = option_values(arguments, *names)
    return values[-1] if values else None


def early_option(arguments: list[str], group: str, name: str) -> str | None:
    """The value of ``--group.name`` on the command line or in its files, before anything is parsed."""
    given = option_value(arguments, f"--{group}.{name}")
    for path in reversed(config_paths(arguments) if given is None else []):
        options = read_config(path).get(group)
        if isinstance(options, dict) and options.get(name) is not None:
            return str(options[name])
    return given


def config_paths(arguments: list[str]) -> list[Path]:
    """The files of every ``--config``; see :func:`config_path`."""
    return [config_path(value) for value in option_values(arguments, *CONFIG_OPTIONS)]


def config_path(value: str) -> Path:
    """The file that ``value`` of ``--config`` names; a shipped one unless a file has this name."""
    path = Path(value).expanduser()
    try:
        exists = path.exists()
    except (OSError, ValueError) as error:  # the name is too long, or holds a null character
        raise ConfigError("cannot be a file", "name a file", option="--config", value=value) from error
    if not exists:
        shipped = shipped_configs()
        if value not in shipped:
            raise ConfigError("no such file", _remedy(path, shipped), option="--config", value=value)
        path = shipped[value]
    if path.is_dir():
        raise ConfigError("is a folder", "name a file in it", option="--config", value=value)
    return path


def read_config(path: Path) -> dict[str, Any]:
    """The content of a YAML file, which must be UTF-8 and a mapping.

    Keys and numbers stay text as they were written, so that ``name: 007``, ``time_limit: 12:00:00`` and
    ``no: [...]`` mean the same as their quoted forms. The option decides whether a text is a number.
    """

    def wrong(problem: str, remedy: str) -> ConfigError:
        return ConfigError(problem, remedy, option="--config", value=path)

    try:
        content = parse_yaml(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise wrong(f"is not UTF-8 at byte {error.start}", "save it as UTF-8") from error
    except OSError as error:
        raise wrong(f"cannot be read ({error.strerror})", "check its permissions") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error or "damaged").split())
        raise wrong(f"is not valid YAML{place}: {problem}", "mend that line") from error
    if content is None:
        raise wrong("is empty", "begin with a copy of configs/quickstart.yaml")
    if not isinstance(content, dict):
        kind = "list" if isinstance(content, list) else "single value"
        raise wrong(f"holds a {kind}", "write option: value lines")
    return content


def parse_yaml(text: str) -> Any:
    """YAML as mappings, lists, texts and ``None``; numbers stay as they are written.

    Raises:
        yaml.YAMLError: The text is not YAML, gives a key twice, or holds a value that no option can have.
    """
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return None if node is None else _Reader().plain(node, 0)


class _Reader:
    """Converts YAML's nodes into plain values, and refuses content that would grow without limit."""

    def __init__(self) -> None:
        self._num_nodes = 0

    def plain(self, node: yaml.Node, depth: int) -> Any:
        self._num_nodes += 1
        if depth > _DEEPEST or self._num_nodes > _MOST_NODES:
            raise _wrong("is nested without end", node)
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(item, depth + 1) for item in node.value]
        if isinstance(node, yaml.MappingNode) and node.tag == _MAPPING:
            return self._mapping(node, depth)
        if isinstance(node, yaml.MappingNode) or node.tag not in (_NULL, *_TEXT_TAGS):
            raise _wrong(f"{node.tag} cannot be here", node)
        return None if node.tag == _NULL else str(node.value)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _wrong("a key must be text", key)
            if key.value in own and key.tag != _MERGE:
                raise _wrong(f"{key.value!r} is given twice", key)
            content = self.plain(value, depth + 1)
            if key.tag != _MERGE:
                own[key.value] = content
                continue
            for mapping in content if isinstance(content, list) else [content]:
                if isinstance(mapping, dict):
                    merged |= {name: item for name, item in mapping.items() if name not in merged}
        return merged | own


def _wrong(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def given_config(arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The merged files of a command line, and a line about each setting that was left out.

    Where a later file or the command line replaces the training text, corpora for validation and test from an
    earlier file no longer fit. They are left out, so that a part of the user's text is set aside instead, and
    so are the prompts, which begin like their sentences.
    """
    contents = [read_config(path) for path in config_paths(arguments)]
    config: dict[str, Any] = {}
    for content in contents:
        # A later file that names no class gives options to the class of the earlier ones.
        config = with_default_classes(merge(config, content))
    data = config.get("data")
    options = data.get("init_args") if isinstance(data, dict) else None
    trained = _last_to_give(contents, arguments, "data.train_files")
    if not isinstance(options, dict) or trained < 0:
        return config, []
    given = option_value(arguments, "--data.train_files", "--data.init_args.train_files")
    train_files = options.get("train_files") if given is None else collection(given) or given
    if not train_files or any(name.startswith(_CORPUS) for name in texts(train_files)):
        return config, []
    left_out = []
    for name in ("validation_files", "test_files"):
        files = list(texts(options.get(name)))
        is_earlier = _last_to_give(contents, arguments, f"data.{name}") < trained
        if files and is_earlier and all(file.startswith(_CORPUS) for file in files):
            options[name] = None
            instead = "; a part of it is set aside instead" if name == "validation_files" else ""
            left_out.append(
                f"data.{name}={', '.join(files)} is left out: it is no part of your own text{instead}"
            )
    trainer = config.get("trainer")
    callbacks = trainer.get("callbacks") if isinstance(trainer, dict) else None
    if left_out and _last_to_give(contents, arguments, "trainer.callbacks") < trained:
        for callback in callbacks if isinstance(callbacks, list) else []:
            inside = callback.get("init_args") if isinstance(callback, dict) else None
            if class_name(callback) == "SampleText" and isinstance(inside, dict):
                inside.pop("prompts", None)
    return config, left_out


def _last_to_give(contents: list[dict[str, Any]], arguments: list[str], option: str) -> int:
    """The number of the last file that gives an option; the next number for the command line, -1 for none."""
    group, _, name = option.partition(".")
    if any(option_keys(given) == [group, name] for given, _ in split_options(arguments)):
        return len(contents)
    places = enumerate(holder(content, [group, name]) for content in contents)
    return max((index for index, place in places if isinstance(place, dict) and name in place), default=-1)


def texts(value: Any) -> Iterator[str]:
    """Every text inside lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts(inner)


def with_default_classes(config: dict[str, Any]) -> dict[str, Any]:
    """``config`` with explicit ``class_path`` and ``init_args`` in the groups that may omit them."""
    result = dict(config)
    for group, path in DEFAULT_CLASSES.items():
        content = result.get(group)
        if not isinstance(content, dict):
            continue
        if "class_path" not in content and "init_args" not in content:
            content = {"init_args": content}
        result[group] = {"class_path": path, **content}
    return result


def merge(base: Any, change: Any) -> Any:
    """``base`` with the options in ``change``; a class that ``change`` names starts from its own defaults."""
    if not isinstance(base, dict):
        return change
    named = class_name(change)
    if named is not None and named != class_name(base):
        return change
    if isinstance(change, str):
        return base if named is not None and "class_path" in base else change
    if not isinstance(change, dict):
        return change
    if "class_path" in base and not CLASS_KEYS & change.keys():
        return {**base, "init_args": merge(base.get("init_args") or {}, change)}
    return {**base, **{key: merge(base.get(key), value) for key, value in change.items()}}


def class_name(value: Any) -> str | None:
    """The last part of the class path that ``value`` is or holds, or ``None``."""
    path = value.get("class_path") if isinstance(value, dict) else value
    return path.rpartition(".")[2] if isinstance(path, str) else None


def split_options(arguments: list[str]) -> list[tuple[str, str | None]]:
    """The options of a command line with their values, which are ``None`` for flags and other words."""
    pairs: list[tuple[str, str | None]] = []
    index = 0
    while index < len(arguments):
        name, equals, attached = arguments[index].partition("=")
        index += 1
        if not name.startswith("-"):
            pairs.append((arguments[index - 1], None))
        elif equals:
            pairs.append((name, attached))
        elif index < len(arguments) and not arguments[index].startswith("--"):
            pairs.append((name, arguments[index]))
            index += 1
        else:
            pairs.append((name, None))
    return pairs


def as_options(options: Mapping[str, Any] | None) -> list[str]:
    """Overrides by dotted name as options of a command line."""
    return [
        f"--{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in (options or {}).items()
    ]


def as_arguments(config: dict[str, Any], arguments: list[str]) -> list[str]:
    """The command line for the parser: one merged configuration instead of ``--config``, and other options.

    A list that the command line replaces is replaced in ``config``.
    """
    options = []
    for name, value in split_options(arguments):
        if name in CONFIG_OPTIONS:
            continue
        given, keys = collection(value), option_keys(name)
        place = holder(config, keys)
        if isinstance(given, list) and isinstance(place, dict) and isinstance(place.get(keys[-1]), list):
            place[keys[-1]] = given
            continue
        if given is not None:
            value = json.dumps(given, ensure_ascii=False)
        options.append(name if value is None else f"{name}={value}")
    return [*([f"--config={json.dumps(config, ensure_ascii=False)}"] if config else []), *options]


def yaml_text(config: Any) -> str:
    """A configuration as YAML that every reader understands alike: text like a number is quoted."""
    return yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1, YAML 1.2 or another reader would not read as text."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "'" if _NOT_PLAINLY_TEXT.match(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def shipped_configs() -> dict[str, Path]:
    """The configs that ship with the package by name, without suffix: ``attention/rope``."""
    package = Path(str(importlib.resources.files("insight")))
    # A wheel contains them; an editable install uses those of the repository.
    for folder in (package / "configs", package.parent / "configs"):
        if folder.is_dir():
            found = (path for path in sorted(folder.rglob("*")) if path.suffix in _SUFFIXES)
            named = {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}
            return {name: path for name, path in named.items() if not name.startswith(_JOB_FILES)}
    return {}


def collection(value: str | None) -> Any:
    """The list or mapping that the value of an option spells out, or ``None``."""
    if value is None or not value.lstrip().startswith(("[", "{")):
        return None
    try:
        parsed = parse_yaml(value)
    except yaml.YAMLError:  # a glob such as [a-z]*.txt
        return None
    return parsed if isinstance(parsed, (list, dict)) else None


def option_keys(option: str) -> list[str]:
    """The names in a dotted option, without dashes and ``init_args``."""
    return [key for key in option.lstrip("-").split(".") if key not in ("", "init_args")]


def holder(config: dict[str, Any], keys: list[str]) -> Any:
    """The mapping that holds the option under ``keys``, or a list on the way to it; else ``None``."""
    place: Any = config
    for key in keys[:-1]:
        place = place.get("init_args", place) if isinstance(place, dict) else None
        place = place.get(key) if isinstance(place, dict) else None
        if isinstance(place, list):
            return place
    return place.get("init_args", place) if isinstance(place, dict) else None


def _remedy(path: Path, shipped: dict[str, Path]) -> str:
    if (path.is_symlink() or path.parent.is_dir()) and (remedy := missing_path_remedy(path)):
        return remedy
    match = nearest(path.stem, shipped) or nearest(f"{path.parent.name}/{path.stem}", shipped)
    return f"did you mean {match!r}?" if match else f"shipped ones: {', '.join(shipped)}"
