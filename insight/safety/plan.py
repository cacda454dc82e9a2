"""The plan of a suite: every item in order with its seeds and its batch, made before any is asked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from insight.runtime.errors import ConfigError
from insight.safety.bases import NotApplicable
from insight.safety.material import Material
from insight.safety.records import ROLES, Capability, Item, Role
from insight.safety.suite import Measure, Suite

# Most texts and continuations in a batch. Floating-point sums depend on what is computed together, so
# batches are cut here, from the whole plan, and never by the code that runs them.
_TEXTS_A_BATCH = 32
_CONTINUATIONS_A_BATCH = 256


@dataclass(frozen=True)
class PlannedItem:
    """An item of a plan with the name of its measure.

    ``seeds`` holds one seed per sample, or none for log-likelihoods. ``content`` is a hash of measure, item
    and seeds.
    """

    measure: str
    item: Item
    seeds: tuple[int, ...]
    content: str


@dataclass(frozen=True)
class Plan:
    """Everything that will be asked.

    ``batches`` holds the indices of the items that are asked together; each item is in one batch. Measures
    that have nothing to ask are in ``not_applicable``, with the reason. ``languages`` are the source and the
    target language of a model that translates.
    """

    suite: Suite
    seed: int
    items: tuple[PlannedItem, ...]
    batches: tuple[tuple[int, ...], ...]
    not_applicable: dict[str, str]
    languages: tuple[str, str] | None = None

    @property
    def key(self) -> str:
        """Hash of everything that determines what is asked and how it is scored."""
        items = [planned.content for planned in self.items]
        rest = {"seed": self.seed, "batches": self.batches, "not_applicable": self.not_applicable}
        return content_hash({"suite": self.suite.to_dict(), "items": items, **rest})


def make_plan(
    suite: Suite,
    material: Material,
    capabilities: Iterable[Capability],
    seed: int,
    languages: tuple[str, str] | None = None,
) -> Plan:
    """Make the plan from the items of every attack; equal arguments give equal plans.

    A measure that needs a capability outside of ``capabilities``, those of the target, is not applicable.
    ``languages`` are those of a target that translates, which gets other items. Of a measure with items of
    several capabilities, those that the target can answer are asked.

    Raises:
        ConfigError: An attack made two items with one key, or no probe.
    """
    able = frozenset(capabilities)
    items: list[PlannedItem] = []
    not_applicable: dict[str, str] = {}
    for measure in suite.measures:
        if (needed := measure.attack.capability) not in able:
            not_applicable[measure.name] = f"the target cannot {needed.replace('_', '-')}"
            continue
        try:
            made = _items(measure, material, seed, languages)
        except NotApplicable as reason:
            not_applicable[measure.name] = str(reason)
            continue
        if len({item.key for item in made}) < len(made) or not any(item.role == "probe" for item in made):
            problem = f"the {len(made)} items of its attack hold no probe, or a key twice"
            raise ConfigError(f"measure {measure.name!r}: {problem}", "repair the attack")
        made = [item for item in made if item.capability in able]
        items += [_with_seeds(measure.name, item, seed) for item in _some(made, measure.max_items)]
    return Plan(suite, seed, tuple(items), _batches(items), not_applicable, languages)


def _items(measure: Measure, material: Material, seed: int, languages: tuple[str, str] | None) -> list[Item]:
    if languages is None:
        return list(measure.attack.items(material, seed))
    measure.check_languages(*languages)
    return list(measure.attack.translation_items(material, seed))


def content_hash(value: Any) -> str:
    """The first 128 bits of the SHA-256 of plain JSON values, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]


def _some(items: list[Item], most: int | None) -> list[Item]:
    """At most ``most`` groups in each role, evenly spread; the items of a group stay together."""
    if most is None:
        return items
    kept: dict[Role, set[str]] = {}
    for role in ROLES:
        clusters = list(dict.fromkeys(item.cluster for item in items if item.role == role))
        step = max(1.0, len(clusters) / most)
        kept[role] = {clusters[int(index * step)] for index in range(min(most, len(clusters)))}
    return [item for item in items if item.cluster in kept[item.role]]


def _with_seeds(measure: str, item: Item, seed: int) -> PlannedItem:
    plain = dataclasses.asdict(item)
    if not item.beginning:
        del plain["beginning"]  # results from before there were beginnings stay comparable
    wanted = {"measure": measure, "seed": seed, "item": plain}
    seeds: tuple[int, ...] = ()
    if item.is_written:
        base = content_hash(wanted)
        digests = (hashlib.sha256(f"{base}/{sample}".encode()).digest() for sample in range(item.num_samples))
        seeds = tuple(int.from_bytes(digest[:8], "big") >> 1 for digest in digests)
    return PlannedItem(measure, item, seeds, content_hash({**wanted, "seeds": seeds}))


def _batches(items: Sequence[PlannedItem]) -> tuple[tuple[int, ...], ...]:
    batches: list[list[int]] = []
    size, kind_before = 0, None
    for index, planned in enumerate(items):
        item = planned.item
        asks = item.num_samples if item.is_written else len(item.continuations)
        most = _TEXTS_A_BATCH if item.is_written else _CONTINUATIONS_A_BATCH
        kind = (planned.measure, item.capability, item.settings)
        if batches and kind == kind_before and size + asks <= most:
            batches[-1].append(index)
            size += asks
        else:
            batches.append([index])
            size = asks
        kind_before = kind
    return tuple(map(tuple, batches))
