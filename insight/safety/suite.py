"""Suites of attacks with their evaluators: the shipped suites and those in a user's file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError, did_you_mean
from insight.runtime.numbers import require_number
from insight.safety.bases import Attack, Evaluator
from insight.safety.registry import ATTACKS, EVALUATORS, make_component


@dataclass(frozen=True)
class Measure(Component):
    """One attack and the evaluator of its responses.

    Args:
        name: Name of the measure in its figures: ``safety/<name>/...``.
        attack: The attack that makes the items.
        evaluator: The evaluator that scores the responses.
        max_items: Most probes and most controls, chosen evenly from those of the attack; all if unset.
    """

    name: str
    attack: Attack
    evaluator: Evaluator
    max_items: int | None = None

    def __post_init__(self) -> None:
        require_number(
            "max_items", self.max_items, 20, whole=True, optional=True, at_least=1, at_most=1_000_000
        )

    def check_languages(self, source: str, target: str) -> None:
        """Refuse to measure a model that translates between two languages.

        Raises:
            NotApplicable: The attack has no questions for it, or the evaluator cannot judge its answers.
        """
        self.attack.check_languages(source, target)
        self.evaluator.check_languages(source, target)


@dataclass(frozen=True)
class Suite(Component):
    """Measures to take of a target.

    Args:
        measures: At least one measure, each with a different name.
        name: Name of the suite.
    """

    measures: tuple[Measure, ...]
    name: str = "own"

    def __post_init__(self) -> None:
        if not self.measures:
            raise ConfigError(f"suite {self.name!r} is empty", "name at least one measure")
        names = [measure.name for measure in self.measures]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"suite {self.name!r} has two measures {name!r}", "rename one of them")


# Name, attack, evaluator and max_items of each measure; max_items is for `watch` only, which takes a
# fraction of the time and gives wider intervals. A figure counts the same things in both suites.
_MEASURES: tuple[tuple[str, str, str, int | None], ...] = (
    ("memorisation", "memorisation", "verbatim", 8),
    ("canaries", "canaries", "exposure", 2),
    ("bias", "bias", "preference", None),
    ("injection", "injection", "nonce", 6),
    ("toxicity", "toxicity", "toxicity", 4),
)
SUITES = ("base", "watch")
_KEYS = ("name", "attack", "evaluator", "max_items")


def find_suite(text: str, only: Sequence[str] = (), options: Mapping[str, Any] | None = None) -> Suite:
    """Find a suite by name or read it from a file.

    Args:
        text: ``base``, ``watch``, or a YAML or JSON file that lists measures::

                measures:
                  - attack: {name: memorisation, num_passages: 200}
                    evaluator: verbatim
                  - {name: mine, attack: riddles, evaluator: nonce, max_items: 20}

        only: Names of the measures to keep; all if empty.
        options: Options for every attack that has them, e.g. ``{"num_samples": 25}``.

    Raises:
        ConfigError: A name is unknown (the message has the nearest match), a value is out of range, or no
            measure is left.
    """
    if text in SUITES:
        listed = [dict(zip(_KEYS, measure, strict=True)) for measure in _MEASURES]
        if text == "base":
            listed = [{**entry, "max_items": None} for entry in listed]
    elif Path(text).suffix in (".yaml", ".yml", ".json"):
        listed = _read(Path(text))
    else:
        known = f"use one of {', '.join(SUITES)}, or a .yaml file"
        raise ConfigError(f"unknown suite {text!r}", did_you_mean(text, SUITES, known))
    return Suite(tuple(_measures(listed, only, options or {}, text)), Path(text).stem)


def _measures(
    listed: list[dict[str, Any]], only: Sequence[str], options: Mapping[str, Any], where: str
) -> Iterator[Measure]:
    names, unused = [_name_of(entry, where) for entry in listed], set(options)
    for name in only:
        if name not in names:
            remedy = did_you_mean(name, names, f"it has {', '.join(names)}")
            raise ConfigError(f"suite {where!r} has no measure {name!r}", remedy)
    for entry, name in zip(listed, names, strict=True):
        if only and name not in only:
            continue
        for key in entry:
            if key not in _KEYS:
                remedy = did_you_mean(str(key), _KEYS, f"it has {', '.join(_KEYS)}")
                raise ConfigError(f"suite {where!r}: a measure has no option {key!r}", remedy)
        attack, own = _named(entry.get("attack"), "attack", where)
        fields = getattr(ATTACKS.load(attack), "__dataclass_fields__", {})
        own |= {option: value for option, value in options.items() if option in fields}
        unused -= set(fields)
        evaluator, judged_by = _named(entry.get("evaluator"), "evaluator", where)
        parts = (make_component(ATTACKS, attack, own), make_component(EVALUATORS, evaluator, judged_by))
        yield Measure(name, *parts, entry.get("max_items"))
    for option in sorted(unused) if listed else ():
        raise ConfigError(f"no attack of the suite {where!r} has an option {option!r}", "leave it out")


def _name_of(entry: dict[str, Any], where: str) -> str:
    name = entry.get("name") or _named(entry.get("attack"), "attack", where)[0]
    if not isinstance(name, str) or not name.replace("_", "").replace("-", "").isalnum():
        raise ConfigError(f"suite {where!r}: a measure is called {name!r}", "use letters, digits, _ and -")
    return name


def _named(value: Any, kind: str, where: str) -> tuple[str, dict[str, Any]]:
    """The name and the options in ``value``, which is a name or a mapping with a name and options."""
    options = {"name": value} if isinstance(value, str) else value
    if not isinstance(options, dict) or not isinstance(options.get("name"), str):
        remedy = f"give its name, or {{name: ..., options}} for the {kind}"
        raise ConfigError(f"suite {where!r}: {kind} is {value!r}", remedy)
    return options["name"], {str(key): item for key, item in options.items() if key != "name"}


def _read(path: Path) -> list[dict[str, Any]]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).replace("\n", " ")[:160]
        raise ConfigError(f"suite {path}: cannot be read ({reason})", "give a YAML or JSON file") from error
    listed = content.get("measures") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise ConfigError(f"suite {path}: has no list of measures", "write: measures: [{attack: ..., ...}]")
    return listed
