"""Components: frozen dataclasses that validate themselves, travel as JSON and build what they describe."""

from __future__ import annotations

import dataclasses
import importlib
from abc import ABC
from typing import Any

from insight.runtime.errors import ConfigError, nearest
from insight.runtime.imports import allowed_packages as allowed_in_this_process
from insight.runtime.imports import import_class


@dataclasses.dataclass(frozen=True)
class Component(ABC):  # noqa: B024 (its kinds add the abstract ``build``, each with its own arguments)
    """Base of every configuration class.

    A subclass is a frozen dataclass. Its docstring explains each field, its ``__post_init__`` raises
    :class:`ConfigError` for wrong values, and its ``build`` takes the arguments that its kind needs. In YAML
    it is ``class_path`` (a short name is enough) and ``init_args``.
    """

    def to_dict(self) -> dict[str, Any]:
        """This component as plain JSON values: ``{"class_path": ..., "init_args": {...}}``."""
        init_args = {field.name: _to_plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return {"class_path": class_path(type(self)), "init_args": init_args}


def class_path(cls: type) -> str:
    """The public import path of ``cls``: ``insight.models.Rope``, not the file that holds it."""
    parts = cls.__module__.split(".")
    if parts[0] == "insight" and len(parts) > 2:
        package = ".".join(parts[:2])
        if getattr(importlib.import_module(package), cls.__name__, None) is cls:
            return f"{package}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def component_from_dict(data: dict[str, Any], allowed_packages: tuple[str, ...] = ("insight",)) -> Component:
    """Rebuild a component from the nested dictionary that :meth:`Component.to_dict` wrote.

    Class paths may point into ``allowed_packages`` (top-level names) and those of ``--allow_package`` only,
    so that a downloaded checkpoint cannot name arbitrary code.

    Raises:
        ConfigError: A class is outside these packages, unknown or no component, or its arguments do not fit.
    """
    path = str(data.get("class_path", "")) if isinstance(data, dict) else ""
    module_name, _, name = path.rpartition(".")
    package = module_name.split(".")[0]
    allowed = (*allowed_packages, *allowed_in_this_process())
    shown = f"class_path={path!r}"
    if package not in allowed:
        remedy = f"add --allow_package {package} if you trust the file" if package else "is it damaged?"
        raise ConfigError(f"{shown} is outside the allowed packages ({', '.join(allowed)})", remedy)
    if package == "insight":
        try:
            cls = getattr(importlib.import_module(module_name), name)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{shown} does not exist", "was it written by another version?") from error
    else:
        cls = import_class(path)
    if not (isinstance(cls, type) and issubclass(cls, Component)):
        raise ConfigError(f"{shown} is not a component", "only configuration classes can be named")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    arguments = data.get("init_args", {})
    if not isinstance(arguments, dict):
        problem = f"init_args of {name} is {arguments!r}, not a mapping of its fields"
        raise ConfigError(problem, "is it damaged?")
    values = {}
    for key, value in arguments.items():
        if key not in fields:
            match = nearest(str(key), fields)
            remedy = f"did you mean {match!r}?" if match else f"it has {', '.join(fields) or 'none'}"
            raise ConfigError(f"{name} has no field {key!r}", remedy)
        values[key] = _from_plain(value, allowed_packages)
        # JSON has no tuples, and a frozen dataclass that holds a list could be neither compared nor hashed.
        if isinstance(value, list) and str(fields[key].type).startswith("tuple"):
            values[key] = tuple(values[key])
    try:
        return cls(**values)
    except TypeError as error:  # a field is missing, or the class is the abstract base of its kind
        raise ConfigError(f"{name} cannot be made of {sorted(values)}: {error}", "is it damaged?") from error


def _to_plain(value: Any) -> Any:
    if isinstance(value, Component):
        return value.to_dict()
    if isinstance(value, (list, tuple)):
        return [_to_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _to_plain(item) for key, item in value.items()}
    return value


def _from_plain(value: Any, allowed_packages: tuple[str, ...]) -> Any:
    if isinstance(value, dict) and "class_path" in value:
        return component_from_dict(value, allowed_packages)
    if isinstance(value, list):
        return [_from_plain(item, allowed_packages) for item in value]
    return value
