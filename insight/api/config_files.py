"""The YAML files of ``--config``: found and checked before the parser sees them; those that ship inside."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any

import yaml

from insight.runtime.errors import ConfigError, nearest

_OPTIONS = ("--config", "-c")
_SUFFIXES = (".yaml", ".yml", ".json")
_JOB_FILES = "cluster/"  # what schedulers read


def resolve_config_options(arguments: list[str]) -> list[str]:
    """``arguments`` with every ``--config`` checked, and names of shipped configs replaced by their paths.

    ``--config quickstart`` means the shipped ``quickstart.yaml`` where there is no such file.

    Raises:
        ConfigError: A file is missing, a folder, not UTF-8, not YAML, empty, or not a mapping.
    """
    resolved = list(arguments)
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in _OPTIONS and equals:
            resolved[index] = f"{option}={_checked(value)}"
        elif option in _OPTIONS and index + 1 < len(arguments):
            resolved[index + 1] = str(_checked(arguments[index + 1]))
    return resolved


def option_values(arguments: list[str], *names: str) -> list[str]:
    """Every value that ``arguments`` give to an option, before any parsing."""
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
    """The value of ``--group.name`` on the command line or in its files, before anything is parsed.

    Raises:
        ConfigError: As :func:`resolve_config_options`.
    """
    given = option_value(arguments, f"--{group}.{name}")
    if given is not None:
        return given
    for path in reversed(option_values(resolve_config_options(arguments), *_OPTIONS)):
        options = read_config(Path(path)).get(group)
        if isinstance(options, dict) and name in options:
            return str(options[name])
    return None


def has_config(arguments: list[str]) -> bool:
    """Whether ``arguments`` name a configuration file."""
    return option_value(arguments, *_OPTIONS) is not None


def read_config(path: Path) -> dict[str, Any]:
    """The content of a YAML file, checked to be a mapping.

    Raises:
        ConfigError: As :func:`resolve_config_options`.
    """
    where = f"--config={path}"
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is not UTF-8 at byte {error.start}", "save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{where} cannot be read ({error.strerror})", "check its permissions") from error
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or "damaged").split())
        raise ConfigError(f"{where} is not valid YAML{place}: {problem}", "mend that line") from error
    if content is None:
        raise ConfigError(f"{where} is empty", "begin with a copy of configs/quickstart.yaml")
    if not isinstance(content, dict):
        raise ConfigError(f"{where} holds a {type(content).__name__}", "write option: value lines")
    return content


def shipped_configs() -> dict[str, Path]:
    """The configs that travel with the package by name, without suffix: ``attention/rope``."""
    package = Path(str(importlib.resources.files("insight")))
    # A wheel carries them inside; an editable install uses those of the repository.
    for folder in (package / "configs", package.parent / "configs"):
        if folder.is_dir():
            found = (path for path in sorted(folder.rglob("*")) if path.suffix in _SUFFIXES)
            named = {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}
            return {name: path for name, path in named.items() if not name.startswith(_JOB_FILES)}
    return {}


def _checked(value: str) -> Path:
    path = Path(value).expanduser()
    if not path.exists():
        shipped = shipped_configs()
        if value not in shipped:
            raise ConfigError(f"--config={value!r}: no such file", _remedy(path, shipped))
        path = shipped[value]
    if path.is_dir():
        raise ConfigError(f"--config={value!r} is a folder", "name a file in it")
    read_config(path)
    return path


def _remedy(path: Path, shipped: dict[str, Path]) -> str:
    here = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    match = nearest(path.name, here)
    if match:
        return f"did you mean {path.parent / match}?"
    match = nearest(path.stem, shipped) or nearest(f"{path.parent.name}/{path.stem}", shipped)
    return f"did you mean {match!r}?" if match else f"shipped ones: {', '.join(shipped)}"
