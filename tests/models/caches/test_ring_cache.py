"""Sliding windows with a cache: any chunks, rollback, constant memory."""

from __future__ import annotations

import pytest
import torch
from shaken_networks import build_shaken

from insight.models import (
    Alibi,
    BidirectionalMask,
    Decoder,
    DecoderConfig,
    FullCache,
    GroupedQueryAttention,
    LayerPattern,
    Position,
    RelativeBias,
    RingCache,
    Rope,
)
from insight.models.caches import CacheShape
from insight.runtime.errors import ConfigError

WINDOW = 5


def network(position: Position = Rope(), window: int = WINDOW) -> Decoder:
    local = GroupedQueryAttention(4, 2, position=position, window=window)
    attention = LayerPattern((local, GroupedQueryAttention(4, 2, position=position)))
    config = DecoderConfig(hidden_size=32, num_layers=3, attention=attention, max_sequence_length=64)
    model: Decoder = build_shaken(config, 30, noise=0.1).eval()
    return model


def ids(length: int = 24, batch: int = 2) -> torch.Tensor:
    return torch.randint(0, 30, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("position", [Rope(), Alibi(), RelativeBias(8, 12)], ids=["rope", "alibi", "bias"])
@pytest.mark.parametrize(
    "chunks", [[24], [1] * 24, [7, 17], [3, 1, 1, 12, 7], [23, 1], [2] * 12, [4, 4, 1, 15]]
)
def test_chunks_of_any_size_equal_one_pass(chunks: list[int], position: Position) -> None:
    model = network(position)
    cache = model.make_cache(2)
    with torch.no_grad():
        parts = [model(part, cache=cache) for part in ids().split(chunks, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(ids()), rtol=1e-10, atol=1e-10)


def test_only_windows_get_rings_and_these_stay_small() -> None:
    cache = network().make_cache(2, max_length=1000)
    rings, full = cache.layers[0], cache.layers[1]
    assert isinstance(rings, RingCache)
    assert rings.keys.shape[2] == WINDOW
    assert isinstance(full, FullCache)
    assert full.keys.shape[2] == 1000


def test_a_window_as_long_as_the_cache_needs_no_ring() -> None:
    assert isinstance(network().make_cache(1, max_length=WINDOW).layers[0], FullCache)


def test_a_forgotten_key_would_be_noticed() -> None:
    model = network()
    cache = model.make_cache(2)
    with torch.no_grad():
        model(ids()[:, :12], cache=cache)
        ring = cache.layers[0]
        assert isinstance(ring, RingCache)
        ring.values[:, :, (12 - WINDOW + 1) % WINDOW] = 0  # the oldest that the next query sees
        wrong = model(ids()[:, 12:13], cache=cache)
        assert not torch.allclose(wrong, model(ids()[:, :13])[:, 12:])


@pytest.mark.parametrize("num_drafted", [1, 3])
@pytest.mark.parametrize("one_by_one", [True, False])
def test_rolled_back_tokens_were_never_there(num_drafted: int, one_by_one: bool) -> None:
    model = network()
    cache = model.make_cache(2, max_rollback=3)
    draft = torch.flip(ids(), dims=[1])[:, :num_drafted]
    with torch.no_grad():
        outputs = []
        for position in range(24):
            for part in draft.split(1, dim=1) if one_by_one else [draft]:
                model(part, cache=cache)
            cache.truncate(position)
            outputs.append(model(ids()[:, position : position + 1], cache=cache))
        torch.testing.assert_close(torch.cat(outputs, dim=1), model(ids()), rtol=1e-10, atol=1e-10)


def test_rollback_beyond_what_was_kept_is_refused() -> None:
    model = network()
    cache = model.make_cache(2, max_rollback=1)
    with torch.no_grad():
        model(ids()[:, :12], cache=cache)
        with pytest.raises(ConfigError, match="max_rollback"):
            cache.truncate(9)
        assert cache.length == 12
        cache.truncate(11)
        assert cache.length == 11


def test_a_short_ring_can_be_rolled_back_to_nothing() -> None:
    model = network()
    cache = model.make_cache(2)
    with torch.no_grad():
        model(ids()[:, :WINDOW], cache=cache)
        cache.truncate(0)
        torch.testing.assert_close(model(ids(), cache=cache), model(ids()))


def test_beams_can_be_reordered() -> None:
    model = network()
    cache = model.make_cache(2)
    rows = torch.tensor([1, 1, 0])
    with torch.no_grad():
        model(ids()[:, :12], cache=cache)
        cache.reorder(rows)
        again = model(ids()[rows, 12:], cache=cache)
        torch.testing.assert_close(again, model(ids()[rows])[:, 12:])


def test_both_directions_over_a_ring_are_refused() -> None:
    cache = RingCache(CacheShape(1, 9, torch.float32, torch.device("cpu")), 1, 4, window=3)
    with pytest.raises(ConfigError, match="BidirectionalMask"):
        cache.append(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4), BidirectionalMask())


def test_a_prefix_over_a_ring_is_refused() -> None:
    model = network()
    with pytest.raises(ConfigError, match="PrefixMask"):
        model(ids(), cache=model.make_cache(2), prefix_lengths=torch.tensor([2, 3]))
