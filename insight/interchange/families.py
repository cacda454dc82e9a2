"""The list of families, and the choice of one that can express a network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from insight.interchange.config_fields import Fields
from insight.interchange.family import Family, canonical
from insight.interchange.gpt_family import GPT_FAMILIES
from insight.interchange.llama_family import LLAMA_FAMILIES
from insight.models import DecoderConfig
from insight.runtime.errors import CheckpointError, ConfigError

FAMILIES: dict[str, Family] = {family.model_type: family for family in (*LLAMA_FAMILIES, *GPT_FAMILIES)}
"""All families by their ``model_type``, in the order of preference where several can say the same."""
# Parts that a network lacks and a family always has can be written as factors of one and biases of zero.
_NEUTRAL = ("weight", "bias", "qkv_bias", "output_bias", "head_bias", "expert_bias", "router_bias")


@dataclass(frozen=True)
class Expression:
    """A network in the words of a family.

    Args:
        family: The family.
        values: Its ``config.json``, without the entries about tokens.
        config: The network that the family builds of it, in the form of :func:`canonical`. It may have
            factors, biases or a head that the network of ours lacks.
    """

    family: Family
    values: dict[str, Any]
    config: DecoderConfig


@dataclass(frozen=True)
class _Difference:
    option: str
    ours: Any
    theirs: Any
    is_neutral: bool


def express(config: DecoderConfig, vocabulary_size: int) -> Expression:
    """The family that says exactly what a network is, with the fewest additions.

    Raises:
        ConfigError: No family can; the message names the option and the nearest family.
    """
    ours = canonical(config)
    found: list[tuple[int, Expression]] = []
    refused: list[tuple[list[_Difference], Family]] = []
    for family in FAMILIES.values():
        try:
            values = family.write(ours, vocabulary_size)
            theirs = canonical(family.read(Fields(values)))
        except (ConfigError, CheckpointError):  # it has no words for some part
            continue
        differences = _differences(ours, theirs)
        hard = [difference for difference in differences if not difference.is_neutral]
        if hard:
            refused.append((hard, family))
        else:
            found.append((len(differences), Expression(family, values, theirs)))
    if found:
        return min(found, key=lambda entry: entry[0])[1]
    if not refused:
        kind = type(config.attention).__name__
        problem = "no architecture of transformers that Insight writes has it"
        raise ConfigError(problem, _KEEP, option="model.network.attention", value=kind)
    # If two families differ in equally many options, the one that differs deeper inside is nearer.
    hard, nearest = min(refused, key=lambda entry: (len(entry[0]), -entry[0][0].option.count(".")))
    first, *others = hard
    more = f" (and {', '.join(each.option for each in others[:3])} differ)" if others else ""
    problem = f"no architecture of transformers that Insight writes can express this network{more}"
    remedy = f"the nearest is {nearest.architecture}, with {first.option}={first.theirs}; {_KEEP}"
    raise ConfigError(problem, remedy, option=f"model.network.{first.option}", value=first.ours)


_KEEP = "train with another network, or use the model in Insight"


def _differences(ours: DecoderConfig, theirs: DecoderConfig) -> list[_Difference]:
    """The differences of two networks in the form of :func:`canonical`, one an option."""
    found: dict[str, _Difference] = {}
    _compare(ours.to_dict(), theirs.to_dict(), (), found)
    return list(found.values())


def _compare(ours: Any, theirs: Any, path: tuple[str, ...], found: dict[str, _Difference]) -> None:
    kinds = [value.get("class_path") if isinstance(value, dict) else None for value in (ours, theirs)]
    if isinstance(ours, dict) and isinstance(theirs, dict) and kinds[0] == kinds[1]:
        for key in ours:
            _compare(ours[key], theirs.get(key), (*path, key), found)
        return
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for one, other in zip(ours, theirs, strict=True):
            _compare(one, other, path, found)
        return
    if type(ours) in (int, float) and type(theirs) in (int, float):
        if math.isclose(ours, theirs, rel_tol=1e-9):
            return
    elif ours == theirs:
        return
    option = ".".join(key for key in path if key not in ("init_args", "layers", "class_path"))
    last = path[-1]
    neutral = (
        (last in _NEUTRAL and ours is False and theirs is True)
        or (last == "tie_embeddings" and ours is True)
        or (last == "balance" and ours is None)  # its bias of zero changes no choice
    )
    found.setdefault(option, _Difference(option, _shown(ours), _shown(theirs), neutral))


def _shown(value: Any) -> Any:
    """A component by the name of its class."""
    return value["class_path"].rpartition(".")[2] if isinstance(value, dict) and value else value
