"""Batches of rows with different lengths equal each row alone."""

from __future__ import annotations

import pytest
import torch
from shaken_networks import build_shaken

from insight.models import (
    Alibi,
    Decoder,
    DecoderConfig,
    GroupedQueryAttention,
    LearnedPosition,
    NoPosition,
    Position,
    RelativeBias,
    Rope,
)
from insight.runtime.errors import ConfigError

LENGTHS = [9, 3, 14]


def network(position: Position = Rope(), window: int | None = None) -> Decoder:
    attention = GroupedQueryAttention(4, 2, position=position, window=window)
    learned = LearnedPosition(std=0.5) if isinstance(position, NoPosition) else None
    config = DecoderConfig(
        hidden_size=32, num_layers=2, attention=attention, max_sequence_length=40, input_position=learned
    )
    model: Decoder = build_shaken(config, 30, noise=0.1).eval()
    return model


def ids() -> torch.Tensor:
    return torch.randint(0, 30, (3, 30), generator=torch.Generator().manual_seed(1))


POSITIONS = {"rope": Rope(), "alibi": Alibi(), "bias": RelativeBias(8, 12), "learned": NoPosition()}


@pytest.mark.parametrize("position", POSITIONS.values(), ids=POSITIONS.keys())
@pytest.mark.parametrize("window", [None, 4])
def test_each_row_decodes_at_its_own_position(position: Position, window: int | None) -> None:
    model, lengths = network(position, window), torch.tensor(LENGTHS)
    cache = model.make_cache(3)
    with torch.no_grad():
        prompts = model(ids()[:, :14], cache=cache, lengths=lengths)
        steps = []
        for step in range(6):
            next_ids = ids()[torch.arange(3), lengths + step].unsqueeze(1)
            steps.append(model(next_ids, cache=cache))
        for row, length in enumerate(LENGTHS):
            alone = model(ids()[row : row + 1, : length + 6])[0]
            torch.testing.assert_close(prompts[row, :length], alone[:length], rtol=1e-10, atol=1e-10)
            together = torch.cat(steps, dim=1)[row]
            torch.testing.assert_close(together, alone[length:], rtol=1e-10, atol=1e-10)
    assert cache.length == 20
    assert cache.lengths is not None
    assert cache.lengths.tolist() == [length + 6 for length in LENGTHS]


@pytest.mark.parametrize("window", [None, 4])
def test_rows_take_different_numbers_of_tokens_each_time(window: int | None) -> None:
    model, cache = network(window=window), network(window=window).make_cache(3)
    counts = torch.tensor([[5, 0, 8], [2, 7, 1], [1, 1, 0], [6, 3, 8]])
    seen = torch.zeros(3, dtype=torch.int64)
    outputs: list[list[torch.Tensor]] = [[], [], []]
    with torch.no_grad():
        model(ids()[:, :2], cache=cache)  # rows begin alike
        for row in range(3):
            outputs[row].append(model(ids()[row : row + 1, :2])[0])
        seen += 2
        for count in counts:
            chunk = torch.stack([ids()[row, seen[row] : seen[row] + 8] for row in range(3)])
            hidden = model(chunk, cache=cache, lengths=count)
            for row in range(3):
                outputs[row].append(hidden[row, : count[row]])
            seen += count
        for row in range(3):
            alone = model(ids()[row : row + 1, : seen[row]])[0]
            torch.testing.assert_close(torch.cat(outputs[row]), alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("window", [None, 4])
def test_rows_roll_back_by_different_numbers(window: int | None) -> None:
    model = network(window=window)
    cache = model.make_cache(3, max_rollback=5)
    lengths = torch.tensor(LENGTHS)
    with torch.no_grad():
        model(ids()[:, :14], cache=cache, lengths=lengths)
        model(torch.flip(ids(), dims=[1])[:, :5], cache=cache)  # drafts, of which some are right
        cache.truncate(lengths + torch.tensor([0, 0, 0]))
        next_ids = ids()[torch.arange(3), lengths].unsqueeze(1)
        hidden = model(next_ids, cache=cache)
        for row, length in enumerate(LENGTHS):
            alone = model(ids()[row : row + 1, : length + 1])[0, -1:]
            torch.testing.assert_close(hidden[row], alone, rtol=1e-10, atol=1e-10)
    assert cache.length == 15


def test_what_padding_holds_does_not_matter() -> None:
    model, lengths = network(window=4), torch.tensor(LENGTHS)
    results = []
    for padding in (0, 29):
        cache = model.make_cache(3)
        padded = ids()[:, :14].clone()
        padded[torch.arange(14) >= lengths.unsqueeze(1)] = padding
        with torch.no_grad():
            model(padded, cache=cache, lengths=lengths)
            results.append(model(ids()[:, 20:21], cache=cache))
    assert torch.equal(*results)


def test_a_full_row_is_refused_before_anything_is_stored() -> None:
    model = network()
    cache = model.make_cache(3, max_length=15)
    with torch.no_grad():
        model(ids()[:, :14], cache=cache, lengths=torch.tensor(LENGTHS))
        model(ids()[:, :1], cache=cache)
        with pytest.raises(ConfigError, match="max_length=15"):
            model(ids()[:, :1], cache=cache)
    assert cache.lengths is not None
    assert cache.lengths.tolist() == [10, 4, 15]


def test_mistakes_are_named() -> None:
    model = network()
    with pytest.raises(ConfigError, match="lengths without a cache"):
        model(ids(), lengths=torch.tensor(LENGTHS))
    with pytest.raises(ConfigError, match="lengths has shape"):
        model(ids(), cache=model.make_cache(3), lengths=torch.tensor([1, 2]))
    lengths = torch.tensor(LENGTHS)
    with pytest.raises(ConfigError, match="prefix_lengths with cached tokens or lengths"):
        model(ids(), cache=model.make_cache(3), lengths=lengths, prefix_lengths=lengths)


@pytest.mark.parametrize("wrong", [[9, 5, 5], [5, -1, 5], [5, 5, 6]])
def test_lengths_that_rows_cannot_have_store_nothing(wrong: list[int]) -> None:
    model = network()
    for name in ("lengths", "prefix_lengths"):
        cache = model.make_cache(3)
        with pytest.raises(ConfigError) as caught:
            model(ids()[:, :5], cache=cache, **{name: torch.tensor(wrong)})
        assert caught.value.option == name
        assert caught.value.value == wrong
        assert cache.length == 0
    with torch.no_grad():  # a finished row may have no new token
        model(ids()[:, :5], cache=model.make_cache(3), lengths=torch.tensor([0, 5, 2]))


def test_a_cache_is_cut_and_sorted_by_numbers_that_it_has() -> None:
    model = network()
    cache = model.make_cache(3)
    with torch.no_grad():
        model(ids()[:, :5], cache=cache)
    wrong = (-3, torch.tensor([2, -1, 4]), torch.tensor(2.5), torch.tensor([1, 2]), True)
    for length in wrong:
        with pytest.raises(ConfigError) as caught:
            cache.truncate(length)
        assert caught.value.option == "length"
    for rows in ([0, 3], [-1], []):
        with pytest.raises(ConfigError) as caught:
            cache.reorder(torch.tensor(rows, dtype=torch.int64))
        assert caught.value.option == "rows"
    assert cache.length == 5
    assert cache.batch_size == 3
    cache.truncate(9)  # more than there are: nothing is forgotten
    assert cache.length == 5
    cache.truncate(0)
    assert cache.length == 0
