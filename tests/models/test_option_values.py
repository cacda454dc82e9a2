"""Values of options that cannot work are refused at once, by name, whatever the class."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

import pytest

import insight.models
from insight.models import (
    BalanceLoss,
    DecoderConfig,
    FeedForwardPattern,
    GroupedQueryAttention,
    LayerPattern,
    LongRopeScaling,
    Preset,
    SwiGLU,
)
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError

NEEDED: dict[type, dict[str, Any]] = {
    FeedForwardPattern: {"layers": (SwiGLU(),)},
    LayerPattern: {"layers": (GroupedQueryAttention(),)},
    LongRopeScaling: {"short_factors": (1.0,), "long_factors": (1.0,)},
}
WRONG_NUMBERS = [math.nan, math.inf, -math.inf, -3, -0.5, 10**9, 1e308, True, "12"]


def classes() -> Iterator[type[Component]]:
    for cls in vars(insight.models).values():
        if isinstance(cls, type) and issubclass(cls, Component) and not cls.__abstractmethods__:
            yield cls


def cases(kinds: tuple[str, ...]) -> list[tuple[type[Component], str]]:
    return [(cls, f.name) for cls in classes() for f in dataclasses.fields(cls) if f.type in kinds]


NUMBERS = cases(("int", "int | None", "float", "float | None"))
FLAGS = cases(("bool",))


def test_the_cases_are_there() -> None:
    assert len(NUMBERS) > 100
    assert (DecoderConfig, "hidden_size") in NUMBERS
    assert (BalanceLoss, "coefficient") in NUMBERS
    assert len(FLAGS) > 30


@pytest.mark.parametrize(("cls", "option"), NUMBERS, ids=[f"{c.__name__}.{o}" for c, o in NUMBERS])
def test_numbers(cls: type[Component], option: str) -> None:
    good = cls(**NEEDED.get(cls, {}))
    for value in WRONG_NUMBERS:
        if option == "base" and value == 10**9:
            continue  # long contexts have such bases
        with pytest.raises(ConfigError) as caught:
            dataclasses.replace(good, **{option: value})
        assert caught.value.option == option, value
        assert caught.value.value is value
        assert caught.value.remedy


@pytest.mark.parametrize(("cls", "option"), FLAGS, ids=[f"{c.__name__}.{o}" for c, o in FLAGS])
def test_flags(cls: type[Component], option: str) -> None:
    good = cls(**NEEDED.get(cls, {}))
    for value in ("no", 2, None, math.nan):
        with pytest.raises(ConfigError) as caught:
            dataclasses.replace(good, **{option: value})
        assert caught.value.option == option
        assert caught.value.remedy


@pytest.mark.parametrize("option", ["hidden_size", "num_layers", "max_sequence_length"])
def test_huge_sizes_answer_at_once(option: str) -> None:
    begin = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        DecoderConfig(**{option: 1_000_000_000}).build(50)  # type: ignore[arg-type]
    assert caught.value.option == option
    with pytest.raises(ConfigError) as caught:
        DecoderConfig().build(1_000_000_000)
    assert caught.value.option == "vocabulary_size"
    assert time.monotonic() - begin < 1


def test_published_sizes_are_allowed() -> None:
    presets: list[Preset] = list(insight.models.PRESETS.values())
    assert len(presets) >= 37  # that they could be made at all: the longest context has 10 million tokens
