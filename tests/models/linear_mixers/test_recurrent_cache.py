"""The recurrent cache, alone and beside others: chunks of any size, ragged rows, rollback, memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from linear_networks import ALL, DELTA, HYBRIDS, MIXERS, decoder, ids
from torch.utils.flop_counter import FlopCounterMode

from insight.models import Attention, DecoderCache, GroupedQueryAttention, RecurrentCache, Retention
from insight.runtime.errors import ConfigError

LENGTHS = [9, 3, 14]


def every(mixers: dict[str, Attention]) -> Any:
    return pytest.mark.parametrize("attention", mixers.values(), ids=mixers.keys())


def num_bytes(cache: DecoderCache) -> int:
    tensors = [value for layer in cache.layers for value in vars(layer).values()]
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, torch.Tensor))


@every(ALL)
@pytest.mark.parametrize("max_rollback", [0, 4])
@pytest.mark.parametrize("chunks", [[1] * 30, [7, 23], [30], [3, 1, 1, 12, 2, 11], [29, 1]])
def test_cached_chunks_equal_one_pass(attention: Attention, max_rollback: int, chunks: list[int]) -> None:
    network = decoder(attention)
    cache = network.make_cache(2, max_rollback=max_rollback)
    with torch.no_grad():
        parts = [network(part, cache=cache) for part in ids().split(chunks, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), network(ids()), rtol=1e-9, atol=1e-10)
    assert cache.length == 30


@every(MIXERS)
@pytest.mark.parametrize("chunks", [[150], [64, 86], [70, 1, 65, 14]])
def test_chunks_longer_than_those_of_the_mixer(attention: Attention, chunks: list[int]) -> None:
    network, tokens = decoder(attention), ids(length=150)
    cache = network.make_cache(2)
    with torch.no_grad():
        parts = [network(part, cache=cache) for part in tokens.split(chunks, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), network(tokens), rtol=1e-9, atol=1e-10)


@every(ALL)
@pytest.mark.parametrize("max_rollback", [0, 4])
def test_each_row_decodes_at_its_own_position(attention: Attention, max_rollback: int) -> None:
    network, lengths, tokens = decoder(attention), torch.tensor(LENGTHS), ids(3)
    cache = network.make_cache(3, max_rollback=max_rollback)
    with torch.no_grad():
        prompts = network(tokens[:, :14], cache=cache, lengths=lengths)
        steps = [
            network(tokens[torch.arange(3), lengths + step].unsqueeze(1), cache=cache) for step in range(6)
        ]
        for row, length in enumerate(LENGTHS):
            alone = network(tokens[row : row + 1, : length + 6])[0]
            together = torch.cat([prompts[row, :length], torch.cat(steps, dim=1)[row]])
            torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-10)


@every(ALL)
@pytest.mark.parametrize("max_rollback", [0, 3])
def test_rows_take_different_numbers_of_tokens_each_time(attention: Attention, max_rollback: int) -> None:
    network, tokens = decoder(attention), ids(3)
    cache = network.make_cache(3, max_rollback=max_rollback)
    counts = torch.tensor([[2, 2, 2], [5, 0, 8], [2, 7, 1], [1, 1, 0], [6, 3, 8]])
    seen = torch.zeros(3, dtype=torch.int64)
    outputs: list[list[torch.Tensor]] = [[], [], []]
    with torch.no_grad():
        for number, count in enumerate(counts):
            size = 2 if number == 0 else 8
            chunk = torch.stack([tokens[row, seen[row] : seen[row] + size] for row in range(3)])
            hidden = network(chunk, cache=cache, lengths=count if number else None)  # rows begin alike
            for row in range(3):
                outputs[row].append(hidden[row, : count[row]])
            seen += count
        for row in range(3):
            alone = network(tokens[row : row + 1, : seen[row]])[0]
            torch.testing.assert_close(torch.cat(outputs[row]), alone, rtol=1e-9, atol=1e-10)


@every(MIXERS)
def test_padding_leaves_the_state_bit_for_bit(attention: Attention) -> None:
    network = decoder(attention).float()
    cache = network.make_cache(3, max_rollback=2)
    with torch.no_grad():
        network(ids(3)[:, :5], cache=cache)
        before = [[value.clone() for value in (layer.states, layer.inputs)] for layer in recurrent(cache)]
        network(ids(3)[:, 5:15], cache=cache, lengths=torch.tensor([0, 3, 0]))
    for layer, (states, inputs) in zip(recurrent(cache), before, strict=True):
        for now, then in ((layer.states, states), (layer.inputs, inputs)):
            assert torch.equal(now[[0, 2]], then[[0, 2]])
            assert not now.numel() or not torch.equal(now[1], then[1])


def recurrent(cache: DecoderCache) -> list[RecurrentCache]:
    return [layer for layer in cache.layers if isinstance(layer, RecurrentCache)]


@every(ALL)
@pytest.mark.parametrize("num_taken_back", [1, 3, 5])
def test_what_is_taken_back_was_never_there(attention: Attention, num_taken_back: int) -> None:
    network, tokens = decoder(attention), ids()
    cache = network.make_cache(2, max_rollback=5)
    with torch.no_grad():
        network(tokens[:, :6], cache=cache)
        for drafts in (torch.flip(tokens, dims=[1])[:, :5], (tokens[:, 9:14] + 1) % 30):
            kept = 5 - num_taken_back
            start = cache.length
            drafts = torch.cat([tokens[:, start : start + kept], drafts[:, kept:]], dim=1)
            network(drafts, cache=cache)
            cache.truncate(start + kept)
        rest = network(tokens[:, cache.length :], cache=cache)
        torch.testing.assert_close(rest, network(tokens)[:, -rest.shape[1] :], rtol=1e-9, atol=1e-10)


def test_a_state_that_is_not_taken_back_is_noticed() -> None:
    network, tokens = decoder(DELTA), ids()
    cache = network.make_cache(2, max_rollback=5)
    with torch.no_grad():
        network(tokens[:, :6], cache=cache)
        newest = [layer.states[:, 6 % 6].clone() for layer in recurrent(cache)]
        network((tokens[:, 6:11] + 1) % 30, cache=cache)
        for layer, state in zip(recurrent(cache), newest, strict=True):
            assert torch.equal(layer.states[:, 0], state)  # where the first six tokens left it
            layer.states[:, 0] = layer.states[:, 5]  # the fault: what rollback finds is the drafted state
        cache.truncate(6)
        rest = network(tokens[:, 6:], cache=cache)
        assert not torch.allclose(rest, network(tokens)[:, 6:], rtol=1e-3, atol=1e-3)


@every(ALL)
def test_rows_roll_back_by_different_numbers(attention: Attention) -> None:
    network, tokens, lengths = decoder(attention), ids(3), torch.tensor(LENGTHS)
    cache = network.make_cache(3, max_rollback=5)
    with torch.no_grad():
        network(tokens[:, :14], cache=cache, lengths=lengths)
        network(torch.flip(tokens, dims=[1])[:, :2], cache=cache)
        back = lengths - torch.tensor([0, 3, 1])
        cache.truncate(back)
        hidden = network(tokens[torch.arange(3), back].unsqueeze(1), cache=cache)
        for row, length in enumerate(back.tolist()):
            alone = network(tokens[row : row + 1, : length + 1])[0, -1:]
            torch.testing.assert_close(hidden[row], alone, rtol=1e-9, atol=1e-10)
    assert cache.length == 14


@pytest.mark.parametrize("attention", [DELTA, HYBRIDS["three to one"], Retention(4)])
def test_further_back_than_was_kept_is_refused(attention: Attention) -> None:
    network = decoder(attention)
    cache = network.make_cache(2, max_rollback=2)
    with torch.no_grad():
        network(ids()[:, :9], cache=cache)
        with pytest.raises(ConfigError, match="larger max_rollback"):
            cache.truncate(6)
        assert cache.length == 9  # and nothing has changed
        cache.truncate(8)
        cache.truncate(7)
        with pytest.raises(ConfigError, match="larger max_rollback"):
            cache.truncate(torch.tensor([6, 7]))
        rest = network(ids()[:, 7:], cache=cache)
        torch.testing.assert_close(rest, network(ids())[:, 7:], rtol=1e-9, atol=1e-10)


@every(ALL)
def test_rows_follow_their_beams(attention: Attention) -> None:
    network, tokens, lengths = decoder(attention), ids(3), torch.tensor(LENGTHS)
    rows = torch.tensor([2, 0, 0, 1])
    cache = network.make_cache(3, max_rollback=2)
    with torch.no_grad():
        network(tokens[:, :14], cache=cache, lengths=lengths)
        cache.reorder(rows)
        next_ids = tokens[rows, lengths[rows]].unsqueeze(1)
        hidden = network(next_ids, cache=cache)
        for row, source in enumerate(rows.tolist()):
            alone = network(tokens[source : source + 1, : LENGTHS[source] + 1])[0, -1:]
            torch.testing.assert_close(hidden[row], alone, rtol=1e-9, atol=1e-10)


@every(MIXERS)
def test_memory_is_the_same_at_any_length(attention: Attention) -> None:
    network = decoder(attention)
    sizes = {num_bytes(network.make_cache(2, max_length=length)) for length in (50, 5000)}
    cache = network.make_cache(2)
    with torch.no_grad():
        for part in ids().split(10, dim=1):
            network(part, cache=cache)
            sizes.add(num_bytes(cache))
    assert len(sizes) == 1
    full = decoder(GroupedQueryAttention(4))
    assert num_bytes(full.make_cache(2, max_length=5000)) > 50 * num_bytes(full.make_cache(2, max_length=50))


@every(MIXERS)
def test_a_step_costs_the_same_at_any_position(attention: Attention) -> None:
    def flops(network: Any, position: int) -> int:
        cache = network.make_cache(1, max_length=1001)
        with torch.no_grad():
            network(ids(1, position), cache=cache)
            with FlopCounterMode(display=False) as counter:
                network(ids(1, 1), cache=cache)
        return counter.get_total_flops()

    assert flops(decoder(attention), 10) == flops(decoder(attention), 1000)
    full = decoder(GroupedQueryAttention(4, kernel="reference"))
    assert flops(full, 10) < flops(full, 1000)


def test_the_state_stays_wide() -> None:
    network = decoder(DELTA).bfloat16()
    (layer, _) = recurrent(network.make_cache(2))
    assert layer.states.dtype == torch.float32
    assert layer.inputs.dtype == torch.bfloat16
    narrow = recurrent(decoder(DELTA).float().make_cache(2, dtype=torch.bfloat16))[0]
    assert (narrow.states.dtype, narrow.inputs.dtype) == (torch.float32, torch.bfloat16)
    with torch.no_grad():
        cache = network.make_cache(2)
        parts = torch.cat([network(part, cache=cache) for part in ids().split(1, dim=1)], dim=1)
        exact = decoder(DELTA)(ids())
    assert (parts.double() - exact).norm() / exact.norm() < 0.05


def test_capacity_is_kept_to() -> None:
    network = decoder(DELTA)
    cache = network.make_cache(2, max_length=8)
    with torch.no_grad():
        network(ids()[:, :6], cache=cache)
        with pytest.raises(ConfigError, match="6 cached tokens and 3 new ones exceed max_length=8"):
            network(ids()[:, :3], cache=cache)
        assert cache.length == 6
