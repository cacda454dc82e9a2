"""Caches: what they return, what they refuse, and forgetting as if it had never been."""

from __future__ import annotations

import pytest
import torch

from insight.models import CausalMask, Decoder, DecoderConfig, FullCache, GroupedQueryAttention
from insight.models.caches import CacheShape
from insight.runtime.errors import ConfigError


def network() -> Decoder:
    torch.manual_seed(0)
    config = DecoderConfig(hidden_size=16, num_layers=2, attention=GroupedQueryAttention(2, 1))
    return config.build(30).double().eval()


def ids(length: int) -> torch.Tensor:
    return torch.randint(0, 30, (2, length), generator=torch.Generator().manual_seed(1))


def test_append_returns_everything_so_far_in_order() -> None:
    cache = FullCache(CacheShape(2, 10, torch.float32, torch.device("cpu")), 3, 4)
    key, value = torch.randn(2, 2, 3, 7, 4)
    for start, stop in ((0, 4), (4, 5), (5, 7)):
        keys, values, mask = cache.append(key[:, :, start:stop], value[:, :, start:stop], CausalMask())
        assert mask == CausalMask()
        assert torch.equal(keys, key[:, :, :stop])
        assert torch.equal(values, value[:, :, :stop])
    assert cache.length == 7


def test_truncated_tokens_were_never_there() -> None:
    model, cache = network(), network().make_cache(2)
    with torch.no_grad():
        model(ids(9)[:, :6], cache=cache)
        model(torch.flip(ids(5), dims=[1]), cache=cache)  # a draft that is rejected
        cache.truncate(6)
        again = model(ids(9)[:, 6:], cache=cache)
        torch.testing.assert_close(again, model(ids(9))[:, 6:])
    assert cache.length == 9


def test_what_was_forgotten_is_never_read_again() -> None:
    model, cache = network(), network().make_cache(2)
    with torch.no_grad():
        model(ids(9)[:, :6], cache=cache)
        for layer in cache.layers:
            assert isinstance(layer, FullCache)
            layer.keys[:, :, 6:] = layer.values[:, :, 6:] = float("nan")
        again = model(ids(9)[:, 6:], cache=cache)
    torch.testing.assert_close(again, model(ids(9))[:, 6:].detach())


def test_truncating_to_more_than_there_is_keeps_all() -> None:
    cache = network().make_cache(1)
    with torch.no_grad():
        network()(ids(3)[:1], cache=cache)
    cache.truncate(100)
    assert cache.length == 3


def test_overflow_is_refused_before_anything_is_stored() -> None:
    model = network()
    cache = model.make_cache(2, max_length=8)
    with torch.no_grad():
        model(ids(6), cache=cache)
        with pytest.raises(ConfigError, match="6 cached tokens and 3 new ones exceed max_length=8"):
            model(ids(3), cache=cache)
        assert all(layer.length == 6 for layer in cache.layers)
        model(ids(2), cache=cache)  # exactly full


def test_unused_capacity_does_not_matter() -> None:
    model = network()
    small, large = model.make_cache(2, max_length=8), model.make_cache(2, max_length=500)
    with torch.no_grad():
        assert torch.equal(model(ids(8), cache=small), model(ids(8), cache=large))


def test_stored_dtype_may_be_smaller() -> None:
    model = network().float()
    cache = model.make_cache(2, dtype=torch.bfloat16)
    with torch.no_grad():
        hidden = model(ids(8), cache=cache)
    layer = cache.layers[0]
    assert isinstance(layer, FullCache)
    assert layer.keys.dtype == torch.bfloat16
    assert hidden.dtype == torch.float32
    torch.testing.assert_close(hidden, model(ids(8)).detach(), rtol=0.05, atol=0.05)


def test_explicit_positions_continue_with_a_cache() -> None:
    model = network()
    cache = model.make_cache(2)
    positions = torch.arange(9).expand(2, -1) + 40
    with torch.no_grad():
        whole = model(ids(9), position_ids=positions)
        first = model(ids(9)[:, :5], position_ids=positions[:, :5], cache=cache)
        rest = model(ids(9)[:, 5:], position_ids=positions[:, 5:], cache=cache)
    torch.testing.assert_close(torch.cat([first, rest], dim=1), whole)


@pytest.mark.parametrize("sizes", [(0, 8), (2, 0), (2, -1)])
def test_sizes_are_checked(sizes: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"batch_size=0|max_length="):
        network().make_cache(*sizes)
