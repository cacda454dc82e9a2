"""Attacks, evaluators and targets by name, built-in or from installed packages."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from insight.runtime.errors import ConfigError, did_you_mean
from insight.safety.bases import Attack, Evaluator
from insight.safety.targets import Target, in_one_line

Kind = TypeVar("Kind")


@dataclasses.dataclass(frozen=True)
class Registry(Generic[Kind]):
    """Components of one kind by name.

    A package adds components with entry points in the group ``insight.<kind>s``, for example in its
    ``pyproject.toml``::

        [project.entry-points."insight.attacks"]
        riddles = "my_package.riddles:Riddles"

    A plugin is imported only when its name is used, so a broken plugin does not affect other names.
    ``kind`` is ``attack``, ``evaluator`` or ``target``, and ``builtin`` maps names to modules of this package
    and their attributes. The objects are classes with this base, or functions from a text to a target.
    """

    kind: str
    builtin: Mapping[str, str]
    base: type | None = None

    def names(self) -> list[str]:
        """All names, built-in ones first."""
        return [*self.builtin, *sorted(set(self._plugins()) - set(self.builtin))]

    def load(self, name: str) -> Kind:
        """Load the object with a name. A plugin cannot replace a built-in name.

        Raises:
            ConfigError: The name is unknown, or its plugin is broken; the message names the plugin.
        """
        if name in self.builtin:
            module, _, attribute = self.builtin[name].partition(":")
            return cast(Kind, getattr(importlib.import_module(f"insight.safety.{module}"), attribute))
        plugin = self._plugins().get(name)
        if plugin is None:
            remedy = did_you_mean(name, self.names(), f"known: {', '.join(self.names())}")
            raise ConfigError(f"unknown {self.kind} {name!r}", remedy)
        package = plugin.dist.name if plugin.dist else "?"
        where = f"{self.kind} {name!r} of the package {package} ({plugin.value})"
        try:
            loaded = plugin.load()
        except Exception as error:  # the import of a plugin may raise anything
            remedy = "repair or uninstall that package; everything else works without it"
            raise ConfigError(f"{where} cannot be loaded: {in_one_line(error)}", remedy) from error
        if self.base is None:
            fits, rule = callable(loaded), "a function from a text to a target"
        else:
            fits = isinstance(loaded, type) and issubclass(loaded, self.base)
            rule = f"a subclass of insight.safety.{self.base.__name__}"
        if not fits:
            raise ConfigError(f"{where} is not {rule}", "repair or uninstall that package")
        return cast(Kind, loaded)

    def broken(self) -> dict[str, str]:
        """Plugins that fail to load, by name, with the reason; this loads all plugins."""
        found = {}
        for name in self._plugins():
            try:
                self.load(name)
            except ConfigError as error:
                found[name] = error.problem
            if name in self.builtin:
                found[name] = f"{self.kind} {name!r} is built in; the plugin is not used"
        return found

    def _plugins(self) -> dict[str, EntryPoint]:
        return {plugin.name: plugin for plugin in entry_points(group=f"insight.{self.kind}s")}


ATTACKS: Registry[type[Attack]] = Registry(
    "attack",
    {
        "memorisation": "memorisation:TrainingPrefixes",
        "canaries": "canaries:PlantedSecrets",
        "bias": "bias:StereotypePairs",
        "injection": "injection:OverrideInjection",
        "toxicity": "toxicity:ToxicityPrompts",
    },
    Attack,
)
EVALUATORS: Registry[type[Evaluator]] = Registry(
    "evaluator",
    {
        "verbatim": "memorisation:VerbatimContinuation",
        "exposure": "canaries:Exposure",
        "preference": "bias:StereotypePreference",
        "nonce": "injection:NonceWritten",
        "toxicity": "toxicity:ToxicContinuation",
    },
    Evaluator,
)
TARGETS: Registry[Callable[[str], Target]] = Registry("target", {"python": "targets:python_target"})
REGISTRIES: tuple[Registry[Any], ...] = (ATTACKS, EVALUATORS, TARGETS)


def make_component(registry: Registry[type[Kind]], name: str, options: Mapping[str, Any]) -> Kind:
    """Make an attack or evaluator with these options.

    Raises:
        ConfigError: The name or an option is unknown, or a value is out of range.
    """
    cls = registry.load(name)
    fields = [field.name for field in dataclasses.fields(cast(Any, cls))]
    for option in options:
        if option not in fields:
            remedy = did_you_mean(option, fields, f"it has {', '.join(fields) or 'no options'}")
            raise ConfigError(f"{registry.kind} {name!r} has no option {option!r}", remedy)
    try:
        return cls(**options)
    except ConfigError as error:
        named = ConfigError(f"{registry.kind} {name!r}: {error.problem}", error.remedy)
        named.option, named.value = error.option, error.value
        raise named from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{registry.kind} {name!r}: {error}", "see docs/safety.md") from error
