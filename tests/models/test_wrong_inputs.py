"""Whatever a network is called with by mistake ends in one line that says what to change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from insight.models import (
    BidirectionalMask,
    Decoder,
    DecoderConfig,
    GroupedQueryAttention,
    LearnedPosition,
    NoPosition,
)
from insight.runtime.errors import ConfigError
from insight.runtime.hardware import compiler_path


def decoder(**options: Any) -> Decoder:
    torch.manual_seed(0)
    attention = GroupedQueryAttention(4, 2, position=NoPosition(), window=options.pop("window", None))
    config = DecoderConfig(
        hidden_size=32,
        num_layers=1,
        attention=attention,
        max_sequence_length=12,
        input_position=LearnedPosition(),
    )
    return config.build(30).eval()


IDS = torch.randint(0, 30, (2, 8), generator=torch.Generator().manual_seed(1))
Call = Callable[[Decoder], object]
WRONG: dict[str, tuple[Call, str]] = {
    "a float": (lambda n: n(IDS.float()), r"input_ids is torch\.float32 of shape \(2, 8\)"),
    "bools": (lambda n: n(IDS > 3), r"input_ids is torch\.bool"),
    "one row without a batch": (lambda n: n(IDS[0]), r"shape \(8,\), not \(batch, sequence\)"),
    "three dimensions": (lambda n: n(IDS[None]), r"shape \(1, 2, 8\)"),
    "no rows": (lambda n: n(IDS[:0]), r"shape \(0, 8\): there is no token"),
    "no columns": (lambda n: n(IDS[:, :0]), r"shape \(2, 0\): there is no token"),
    "an id too large": (lambda n: n(IDS + 30), r"token id 5\d: the vocabulary has 30 tokens, 0 to 29"),
    "an id below zero": (lambda n: n(IDS - 40), r"token id -\d+: the vocabulary has 30 tokens"),
    "too long for a learned table": (
        lambda n: n(IDS.repeat(1, 2)),
        r"position 15: learned positions end at 11 \(max_sequence_length=12\): shorten the text",
    ),
    "a position too large": (
        lambda n: n(IDS, position_ids=torch.arange(8).expand(2, -1) + 5),
        "position 12: learned positions end at 11",
    ),
    "a position below zero": (
        lambda n: n(IDS, position_ids=torch.arange(8).expand(2, -1) - 1),
        "position -1: learned positions begin at 0",
    ),
    "positions that are no whole numbers": (
        lambda n: n(IDS, position_ids=torch.zeros(2, 8)),
        r"position_ids is torch\.float32 and must hold whole numbers",
    ),
    "positions of another shape": (
        lambda n: n(IDS, position_ids=torch.arange(8)),
        r"position_ids has shape \(8,\), input_ids \(2, 8\)",
    ),
    "documents that are no whole numbers": (
        lambda n: n(IDS, document_ids=torch.zeros(2, 8)),
        r"document_ids is torch\.float32",
    ),
    "documents of another shape": (
        lambda n: n(IDS, document_ids=IDS[:1]),
        r"document_ids has shape \(1, 8\), input_ids \(2, 8\)",
    ),
    "lengths that are no whole numbers": (
        lambda n: n(IDS, lengths=torch.ones(2), cache=n.make_cache(2)),
        r"lengths is torch\.float32",
    ),
    "a sequence over the cache": (
        lambda n: n(IDS, cache=n.make_cache(2, max_length=7)),
        "0 cached tokens and 8 new ones exceed max_length=7 of the cache: make a longer cache",
    ),
    "rows that the cache has not": (
        lambda n: n(IDS, cache=n.make_cache(3)),
        "input_ids has 2 rows, the cache 3: make the cache with batch_size=2",
    ),
    "a cache of no rows": (lambda n: n.make_cache(0), "batch_size=0"),
    "a cache of no tokens": (lambda n: n.make_cache(1, max_length=0), "max_length=0"),
}


@pytest.mark.parametrize(("call", "said"), WRONG.values(), ids=WRONG.keys())
def test_one_line_that_says_what_to_change(call: Call, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        call(decoder())
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def test_what_is_right_is_not_refused() -> None:
    network = decoder()
    with torch.no_grad():
        network(IDS.int())
        network(IDS, position_ids=torch.arange(8, dtype=torch.int32).expand(2, -1) + 4)
        cache = network.make_cache(2, max_length=8)
        network(IDS, cache=cache)
        cache.truncate(3)
        cache.reorder(torch.tensor([0, 0, 1]))
        network(IDS[[0, 0, 1], :2], cache=cache)


def test_a_ring_knows_no_direction_but_back() -> None:
    layer: Any = decoder(window=3).make_cache(2).layers[0]
    key = torch.zeros(2, 2, 4, 8)
    with pytest.raises(ConfigError, match="BidirectionalMask with a cache"):
        layer.append(key, key, BidirectionalMask())


@pytest.mark.slow
@pytest.mark.skipif(compiler_path() is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_stops_at_an_unknown_id() -> None:
    """It cannot look at ids beforehand: its own kernel stops, and the process lives on."""
    network = decoder()
    compiled = torch.compile(network, dynamic=False)
    with torch.no_grad():
        expected = compiled(IDS)
        with pytest.raises(RuntimeError, match="index out of bounds"):
            compiled(IDS + 30)
        torch.testing.assert_close(compiled(IDS), expected)


def test_a_refused_call_leaves_the_cache_as_it_was() -> None:
    network = decoder()
    cache = network.make_cache(2)
    with torch.no_grad():
        network(IDS[:, :5], cache=cache)
        for wrong in (IDS[:, :3] + 30, IDS.repeat(1, 2), IDS[:1, :2]):
            with pytest.raises(ConfigError):
                network(wrong, cache=cache)
        assert cache.length == 5
        torch.testing.assert_close(network(IDS[:, 5:], cache=cache), network(IDS)[:, 5:])
