"""The cross cache: computed once a sequence, constant while decoding, following beams."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shaken_networks import build_shaken

from insight.models import (
    CrossCache,
    DecoderCache,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    EncoderStates,
    GroupedQueryAttention,
    NoPosition,
    RelativeBias,
)
from insight.runtime.errors import ConfigError

LAYERS = 2


def network(**options: Any) -> EncoderDecoder:
    attention = GroupedQueryAttention(2, 1, **options)
    config = EncoderDecoderConfig(
        EncoderConfig(hidden_size=24, num_layers=LAYERS, attention=GroupedQueryAttention(2)),
        DecoderConfig(hidden_size=16, num_layers=LAYERS, attention=attention, max_sequence_length=32),
        GroupedQueryAttention(4, 2, position=NoPosition()),
    )
    model: EncoderDecoder = build_shaken(config, 30, noise=0.2).eval()
    return model


def ids(length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 30, (3, length), generator=torch.Generator().manual_seed(seed))


def source_mask() -> torch.Tensor:
    return torch.arange(9) < torch.tensor([9, 4, 6])[:, None]


def count_projections(model: EncoderDecoder) -> list[int]:
    """Grows by one with every call of a map from memory to keys and values."""
    calls: list[int] = []
    for block in model.decoder.blocks:
        block.cross_attention.key_value.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr]
    return calls


def test_keys_and_values_are_computed_once_a_sequence() -> None:
    model = network()
    calls = count_projections(model)
    with torch.no_grad():
        memory = model.encode(ids(9))
        cache = model.make_cache(memory)
        for part in ids(12, 2).split(1, dim=1):
            model.decode(part, cache=cache)
    assert len(calls) == LAYERS


def test_without_a_cache_each_pass_computes_them() -> None:
    model = network()
    calls = count_projections(model)
    with torch.no_grad():
        memory = model.encode(ids(9))
        for length in (1, 2, 3):
            model.decode(ids(12, 2)[:, :length], memory)
    assert len(calls) == 3 * LAYERS


@pytest.mark.parametrize("chunks", [[12], [1] * 12, [5, 1, 6]])
@pytest.mark.parametrize("options", [{}, {"position": RelativeBias(8, 20)}, {"window": 4}])
def test_cached_chunks_equal_one_pass(chunks: list[int], options: dict[str, Any]) -> None:
    model = network(**options)
    with torch.no_grad():
        whole = model(ids(9), ids(12, 2), source_mask=source_mask())
        cache = model.make_cache(model.encode(ids(9), source_mask=source_mask()))
        parts = [model.decode(part, cache=cache) for part in ids(12, 2).split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-10, atol=1e-10)


def test_beams_take_their_memory_and_its_padding_along() -> None:
    model, rows = network(), torch.tensor([2, 2, 0, 1])
    with torch.no_grad():
        cache = model.make_cache(model.encode(ids(9), source_mask=source_mask()))
        model.decode(ids(5, 2), cache=cache)
        cache.reorder(rows)
        after = model.decode(ids(3, 4)[[0, 1, 2, 0]], cache=cache)
        targets = torch.cat([ids(5, 2)[rows], ids(3, 4)[[0, 1, 2, 0]]], dim=1)
        expected = model(ids(9)[rows], targets, source_mask=source_mask()[rows])
    torch.testing.assert_close(after, expected[:, 5:])


def test_taking_tokens_back_leaves_the_memory() -> None:
    model = network()
    with torch.no_grad():
        cache = model.make_cache(model.encode(ids(9)))
        before = [memory.keys.clone() for memory in cache.cross_caches]
        model.decode(ids(5, 2), cache=cache)
        model.decode(ids(3, 5), cache=cache)  # a draft that is rejected
        cache.truncate(5)
        again = model.decode(ids(8, 2)[:, 5:], cache=cache)
        expected = model(ids(9), torch.cat([ids(5, 2), ids(8, 2)[:, 5:]], dim=1))[:, 5:]
    torch.testing.assert_close(again, expected)
    assert all(torch.equal(memory.keys, old) for memory, old in zip(cache.cross_caches, before, strict=True))


def test_rows_go_on_at_positions_of_their_own() -> None:
    model, lengths = network(), torch.tensor([5, 2, 4])
    with torch.no_grad():
        cache = model.make_cache(model.encode(ids(9), source_mask=source_mask()))
        model.decode(ids(5, 2), cache=cache, lengths=lengths)
        step = model.decode(ids(1, 3), cache=cache)
        for row, length in enumerate(lengths.tolist()):
            alone = model(
                ids(9)[row : row + 1, : int(source_mask()[row].sum())],
                torch.cat([ids(5, 2)[row, :length], ids(1, 3)[row]])[None],
            )
            torch.testing.assert_close(step[row, 0], alone[0, -1])


def test_stored_dtype_may_be_smaller() -> None:
    model = network().float()
    with torch.no_grad():
        memory = model.encode(ids(9))
        cache = model.make_cache(memory, dtype=torch.bfloat16)
        hidden = model.decode(ids(5, 2), cache=cache)
        assert cache.cross_caches[0].keys.dtype == torch.bfloat16
        assert hidden.dtype == torch.float32
        torch.testing.assert_close(hidden, model.decode(ids(5, 2), memory), rtol=0.05, atol=0.05)


def test_it_does_not_grow() -> None:
    model = network()
    with torch.no_grad():
        cache = model.make_cache(model.encode(ids(9)))
        shapes = [memory.keys.shape for memory in cache.cross_caches]
        model.decode(ids(30, 2), cache=cache)
    assert [memory.keys.shape for memory in cache.cross_caches] == shapes == [(3, 2, 9, 4)] * LAYERS


def test_wrong_memories_are_named() -> None:
    model = network()
    with torch.no_grad():
        memory = model.encode(ids(9))
        cache = model.make_cache(memory)
        with pytest.raises(ConfigError, match="encoder_states with a cache"):
            model.decode(ids(3), memory, cache=cache)
        with pytest.raises(ConfigError, match="without encoder_states"):
            model.decode(ids(3))
        with pytest.raises(ConfigError, match="without encoder_states"):
            model.decoder.make_cache(3)
        with pytest.raises(ConfigError, match="without encoder_states"):
            model.decode(ids(3), cache=DecoderCache(cache.layers, 3, 32))
        with pytest.raises(ConfigError, match="encoder_states has 3 rows, the target 2"):
            model.decode(ids(3)[:2], memory)
        with pytest.raises(ConfigError, match="input_ids has 2 rows, the cache 3"):
            model.decode(ids(3)[:2], cache=cache)
        plain = DecoderConfig(hidden_size=16, num_layers=1).build(30)
        with pytest.raises(ConfigError, match="encoder_states for a decoder without cross-attention"):
            plain(ids(3), encoder_states=EncoderStates(torch.zeros(3, 4, 16)))


def test_a_cache_that_recomputed_would_be_noticed() -> None:
    model = network()
    calls = count_projections(model)

    class Forgetful(CrossCache):
        def keys_and_values(self, project: Any) -> tuple[torch.Tensor, torch.Tensor]:
            project(memory.states)
            return super().keys_and_values(project)

    with torch.no_grad():
        memory = model.encode(ids(9))
        cache = model.make_cache(memory)
        for index, block in enumerate(model.decoder.blocks):
            project = block.cross_attention.project_states  # type: ignore[union-attr]
            cache.cross_caches[index] = Forgetful(memory, project, torch.float64)  # type: ignore[arg-type]
        for part in ids(4, 2).split(1, dim=1):
            model.decode(part, cache=cache)
    assert len(calls) > LAYERS
