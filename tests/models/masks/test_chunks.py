"""Attention in chunks: a query sees only keys of its own chunk (Llama 4)."""

from __future__ import annotations

import pytest
import torch

from insight.models import (
    Alibi,
    BidirectionalMask,
    CausalMask,
    Decoder,
    DecoderConfig,
    EncoderConfig,
    GroupedQueryAttention,
    LayerPattern,
    PrefixMask,
    RelativeBias,
    Rope,
)
from insight.models.masks import document_mask
from insight.runtime.errors import ConfigError

CHUNK, LENGTH = 7, 24


def network(dtype: torch.dtype = torch.float64, kernel: str = "auto", **options: object) -> Decoder:
    torch.manual_seed(0)
    local = GroupedQueryAttention(4, 2, chunk_size=CHUNK, kernel=kernel, **options)  # type: ignore[arg-type]
    attention = LayerPattern((local, GroupedQueryAttention(4, 2)))
    config = DecoderConfig(32, 2, attention=attention, max_sequence_length=64)
    return config.build(50).to(dtype).eval()


def ids(rows: int = 2, length: int = LENGTH) -> torch.Tensor:
    return torch.randint(0, 50, (rows, length), generator=torch.Generator().manual_seed(1))


def test_the_mask_is_that_of_separate_chunks() -> None:
    allowed = CausalMask(chunk_size=CHUNK).allowed(LENGTH, LENGTH, torch.device("cpu"))[0, 0]
    for query in range(LENGTH):
        for key in range(LENGTH):
            assert allowed[query, key] == (key <= query and key // CHUNK == query // CHUNK)
    narrow = CausalMask(chunk_size=CHUNK).within(3, 9)
    assert narrow == CausalMask(3, CHUNK)
    assert CausalMask().within(None, CHUNK) == CausalMask(None, CHUNK)


@pytest.mark.parametrize("options", [{}, {"window": 4}, {"position": Alibi()}, {"position": RelativeBias()}])
def test_every_kernel_agrees(options: dict[str, object]) -> None:
    expected = network(kernel="reference", **options)(ids())
    for kernel in ("sdpa", "tiled", "auto"):
        torch.testing.assert_close(network(kernel=kernel, **options)(ids()), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunks", [[LENGTH], [1] * LENGTH, [7, 17], [5, 1, 1, 12, 5], [23, 1]])
def test_cached_chunks_equal_one_pass(chunks: list[int]) -> None:
    model = network()
    cache = model.make_cache(2)
    with torch.no_grad():
        parts = [model(part, cache=cache) for part in ids().split(chunks, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(ids()), rtol=1e-10, atol=1e-10)


def test_rows_of_different_lengths_go_on_in_their_own_chunks() -> None:
    model, lengths = network(), torch.tensor([9, 4])
    cache = model.make_cache(2)
    with torch.no_grad():
        model(ids()[:, :9], cache=cache, lengths=lengths)
        rows = torch.stack([ids()[0, 9:12], ids()[1, 4:7]])
        found = torch.cat([model(rows[:, i : i + 1], cache=cache) for i in range(3)], dim=1)
        for row, length in enumerate(lengths.tolist()):
            alone = model(ids()[row : row + 1, : length + 3])
            torch.testing.assert_close(found[row], alone[0, length:], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("in_pieces", [False, True])
def test_packed_documents_begin_chunks_of_their_own(in_pieces: bool) -> None:
    model = network()
    first, second = ids(1, 10), ids(1, 16)[:, 1:]
    places = torch.arange(25)
    if in_pieces:  # tokens of both in turn
        places = torch.cat([torch.arange(0, 20, 2), torch.arange(1, 20, 2), torch.arange(20, 25)])
    packed, documents, positions = (torch.empty(1, 25, dtype=torch.int64) for _ in range(3))
    packed[:, places] = torch.cat([first, second], dim=1)
    documents[:, places] = torch.tensor([4] * 10 + [-2] * 15)
    positions[:, places] = torch.cat([torch.arange(10), torch.arange(15)])
    together = model(packed, document_ids=documents, position_ids=positions)[:, places]
    expected = torch.cat([model(first), model(second)], dim=1)
    torch.testing.assert_close(together, expected, rtol=1e-10, atol=1e-10)


def test_what_is_not_causal_has_no_chunks() -> None:
    masks = (
        BidirectionalMask(),
        PrefixMask(torch.tensor([3])),
        document_mask(torch.zeros(1, 4, dtype=torch.int64), BidirectionalMask()),
    )
    for mask in masks:
        with pytest.raises(ConfigError) as caught:
            mask.within(None, 4)
        assert caught.value.option == "chunk_size"
    with pytest.raises(ConfigError) as caught:
        EncoderConfig(32, 2, attention=GroupedQueryAttention(4, position=Rope(), chunk_size=4))
    assert caught.value.option == "chunk_size"
    with pytest.raises(ConfigError) as caught:
        network()(ids(), prefix_lengths=torch.tensor([2, 3]))
    assert caught.value.option == "chunk_size"
