"""ALiBi and T5's relative bias: published values, the written-out bias, shifts, gradients."""

from __future__ import annotations

import pytest
import torch
from shaken_networks import build_shaken

from insight.models import (
    Alibi,
    CausalMask,
    Decoder,
    DecoderConfig,
    GroupedQueryAttention,
    Kernel,
    Position,
    ReferenceKernel,
    RelativeBias,
    ScoreChange,
    SDPAKernel,
    TiledKernel,
    muon_splits,
    parameter_role,
)
from insight.models.positions.biases import alibi_slopes, distance_buckets
from insight.runtime.errors import ConfigError


def decoder(position: Position, **options: object) -> Decoder:
    attention = GroupedQueryAttention(6, 3, head_dim=8, position=position, **options)  # type: ignore[arg-type]
    config = DecoderConfig(hidden_size=24, num_layers=2, attention=attention)
    network: Decoder = build_shaken(config, 30, noise=0.1).eval()
    return network


def ids(length: int = 20) -> torch.Tensor:
    return torch.randint(0, 30, (2, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("num_heads", range(1, 34))
def test_slopes_equal_transformers(num_heads: int) -> None:
    pytest.importorskip("transformers")
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    theirs = build_alibi_tensor(torch.ones(1, 2), num_heads, torch.float32)[:, 0, 1]
    torch.testing.assert_close(torch.tensor(alibi_slopes(num_heads)), theirs, rtol=1e-5, atol=0)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 20)])
def test_buckets_equal_transformers(bidirectional: bool, num_buckets: int, max_distance: int) -> None:
    pytest.importorskip("transformers")
    from transformers.models.t5.modeling_t5 import T5Attention

    relative = torch.arange(-300, 301)
    theirs = T5Attention._relative_position_bucket(relative, bidirectional, num_buckets, max_distance)
    ours = distance_buckets(-relative, RelativeBias(num_buckets, max_distance, bidirectional))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kernel", [ReferenceKernel(), SDPAKernel(), TiledKernel()])
@pytest.mark.parametrize("start", [0, 300])
def test_alibi_channels_equal_the_written_out_bias(kernel: Kernel, start: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, 40, heads, 8, generator=generator, dtype=torch.float64) for heads in (6, 3, 3)
    )
    positions = torch.arange(40) + start
    encoding = Alibi().build(8, 6)
    tables = encoding.tables(positions)
    ours = kernel(
        encoding.encode_queries(query, tables, 0.3).transpose(1, 2),
        encoding.encode_keys(key, tables).transpose(1, 2),
        value.transpose(1, 2),
        CausalMask(),
        0.3,
    )
    distances = positions[:, None] - positions
    bias = -torch.tensor(alibi_slopes(6), dtype=torch.float64)[None, :, None, None] * distances
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    expected = ReferenceKernel()(query, key, value, CausalMask(), 0.3, ScoreChange(bias=bias))
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_alibi_far_from_the_start_stays_near_float64(dtype: torch.dtype) -> None:
    network = decoder(Alibi())
    positions = torch.arange(20).expand(2, -1) + 3000
    exact = network(ids(), position_ids=positions)
    rounded = network.to(dtype)(ids(), position_ids=positions).double()
    assert (rounded - exact).norm() < (1e-3 if dtype == torch.float32 else 5e-2) * exact.norm()


@pytest.mark.parametrize("position", [Alibi(), RelativeBias(8, 12)])
def test_only_distances_count(position: Position) -> None:
    network = decoder(position)
    positions = torch.arange(20).expand(2, -1)
    shifted = network(ids(), position_ids=positions + 700)
    torch.testing.assert_close(shifted, network(ids(), position_ids=positions))


@pytest.mark.parametrize("kernel", ["sdpa", "tiled", "auto"])
@pytest.mark.parametrize("position", [Alibi(), RelativeBias(8, 12)])
@pytest.mark.parametrize("window", [None, 4])
def test_kernels_equal_the_reference_with_gradients(
    kernel: str, position: Position, window: int | None
) -> None:
    results = []
    for name in ("reference", kernel):
        network = decoder(position, kernel=name, window=window)
        output = network(ids())
        output.square().mean().backward()
        results.append([output.detach(), *(p.grad for p in network.parameters() if p.grad is not None)])
    assert len(results[0]) == len(list(network.parameters()))  # one output; the head is not called
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("position", [Alibi(), RelativeBias(8, 12)])
@pytest.mark.parametrize("chunks", [[1] * 20, [7, 13], [3, 1, 16]])
def test_cached_chunks_equal_one_pass(position: Position, chunks: list[int]) -> None:
    network = decoder(position)
    cache = network.make_cache(2)
    with torch.no_grad():
        parts = [network(part, cache=cache) for part in ids().split(chunks, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), network(ids()), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("position", [Alibi(), RelativeBias(8, 12)])
def test_packed_documents_equal_separate_runs(position: Position) -> None:
    network = decoder(position)
    documents = torch.tensor([[0] * 9 + [1] * 11] * 2)
    resets = torch.cat([torch.arange(9), torch.arange(11)]).expand(2, -1)
    for positions in (None, resets):  # distances inside a document are the same
        packed = network(ids(), document_ids=documents, position_ids=positions)
        separate = [network(ids()[:, :9]), network(ids()[:, 9:])]
        torch.testing.assert_close(packed, torch.cat(separate, dim=1))


def test_the_relative_table_is_shared_and_no_matrix() -> None:
    network = decoder(RelativeBias(8, 12))
    tables = [name for name, _ in network.named_parameters() if "position" in name]
    assert tables == ["blocks.0.attention.position.weight"]
    assert parameter_role(network)[tables[0]] == "vector"
    assert not set(tables) & set(muon_splits(network))
    twin = decoder(RelativeBias(8, 12))
    with torch.no_grad():
        twin.blocks[1].attention.position.weight.zero_()  # type: ignore[union-attr, operator]
    assert (twin.blocks[0].attention.position.weight == 0).all()  # type: ignore[union-attr]
    twin.load_state_dict(network.state_dict())
    torch.testing.assert_close(twin(ids()), network(ids()))


def test_relative_bias_learns() -> None:
    network = decoder(RelativeBias(8, 12))
    network(ids()).square().sum().backward()
    gradient = dict(network.named_parameters())["blocks.0.attention.position.weight"].grad
    assert gradient is not None
    assert (gradient != 0).all()


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: RelativeBias(0), "num_buckets=0"),
        (lambda: RelativeBias(7), "num_buckets=7"),
        (lambda: RelativeBias(6, bidirectional=True), "num_buckets=6"),
        (lambda: RelativeBias(32, 16), "max_distance=16"),
    ],
)
def test_mistakes_are_named(build: object, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        build()  # type: ignore[operator]
