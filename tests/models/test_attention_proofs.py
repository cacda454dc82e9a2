"""What attention promises, for every projection; and where each promise is proven.

| promise | proven in |
|---|---|
| logits, parameter gradients, cached decoding of published networks | parity/test_presets |
| gradient of each projection by finite differences | here |
| every kernel gives one answer over positions x masks x options | attention/test_product, test_flex_kernel |
| weights sum to 1, or to 1 less the sink | attention/test_options, test_kernels |
| a cache gives what one pass gives, however it is cut | here; options in attention/test_options |
| edge of a window; of a prefix | here, masks/test_windows |
| chunks longer than a window | here, caches/test_ring_cache |
| packed documents = separate ones, gradients too, also counted anew | here, positions/test_biases |
| padding left, right or none | here, attention/test_options |
| rows of different lengths = single rows | here, caches/test_ragged_rows |
| a row that sees nothing is finite | masks/test_windows, attention/test_flex_kernel |
| the future never reaches the past | here, attention/test_product |
| fewer queries than keys | attention/test_kernels, test_flex_kernel |
| absorbed latent attention = expanded | attention/test_latent |
| interleaved and half-split rotation; their shift; YaRN and Llama 3 frequencies | positions/test_rope* |
| buckets of T5, slopes of ALiBi | positions/test_biases |
| differential attention without its second part | attention/test_differential |
| drafts taken back were never there | here, caches/test_ring_cache |
| a source's keys and values are computed once | caches/test_cross_cache |
| bfloat16; four times the context; compiled whole, decoded without compiling anew | test_compile_matrix |
| exported with any length | test_compiling_variants, test_encoder_decoder_graphs |
| weights through a file, tied matrices, the meta device | test_building |
| what cannot work is refused | test_rejected_combinations |
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from shaken_networks import build_shaken

from insight.models import (
    Attention,
    CallContext,
    CausalMask,
    Decoder,
    DecoderConfig,
    DifferentialAttention,
    FullWidthNorm,
    GroupedQueryAttention,
    LatentAttention,
)

WINDOW = 5
LATENT: dict[str, Any] = {"latent_size": 12, "head_dim": 6, "rotary_dim": 4, "value_dim": 8}
PROJECTIONS: dict[str, Attention] = {
    "multi-head": GroupedQueryAttention(4),
    "grouped-query": GroupedQueryAttention(4, 2, qk_norm=FullWidthNorm()),
    "multi-query": GroupedQueryAttention(4, 1, sinks=True, output_gate=True),
    "differential": DifferentialAttention(4, 2),
    "latent": LatentAttention(**LATENT, query_latent_size=10),
}
WINDOWED: dict[str, Attention] = {
    "grouped-query": GroupedQueryAttention(4, 2, window=WINDOW),
    "multi-query, capped": GroupedQueryAttention(4, 1, window=WINDOW, score_soft_cap=2.0),
    "differential": DifferentialAttention(4, 2, window=WINDOW),
    "latent": LatentAttention(**LATENT, window=WINDOW),
}
ALL = {**PROJECTIONS, **{f"{name}, window": attention for name, attention in WINDOWED.items()}}


def each(cases: dict[str, Attention]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("attention", cases.values(), ids=cases.keys())


def network(attention: Attention, num_layers: int = 2) -> Decoder:
    config = DecoderConfig(hidden_size=32, num_layers=num_layers, attention=attention, max_sequence_length=64)
    decoder: Decoder = build_shaken(config, 30, noise=0.2).eval()
    return decoder


def ids(length: int = 24) -> torch.Tensor:
    return torch.randint(0, 30, (2, length), generator=torch.Generator().manual_seed(1))


def close(ours: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.slow
@each(ALL)
def test_gradients_of_input_and_every_parameter_by_finite_differences(attention: Attention) -> None:
    torch.manual_seed(0)
    if isinstance(attention, LatentAttention):
        attention = dataclasses.replace(attention, latent_size=4, num_heads=2, query_latent_size=None)
    layer = attention.build(8, lambda position, *sizes: position.build(*sizes)).double()
    names, values = zip(*layer.named_parameters(), strict=True)
    tables = layer.position.tables(torch.arange(7))
    hidden = torch.randn(1, 7, 8, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(1, 7, 8, dtype=torch.float64)

    def run(hidden: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        arguments = {"context": CallContext(CausalMask(), tables)}
        named = dict(zip(names, parameters, strict=True))
        output: torch.Tensor = torch.func.functional_call(layer, named, (hidden,), arguments)
        return (output * weights).sum()

    assert torch.autograd.gradcheck(run, (hidden, *values))


@each(ALL)
@pytest.mark.parametrize("chunks", [[1] * 24, [7, 17], [3, 1, 12, 8], [24]])
def test_a_cache_gives_what_one_pass_gives(attention: Attention, chunks: list[int]) -> None:
    decoder = network(attention)
    cache = decoder.make_cache(2)
    with torch.no_grad():
        parts = [decoder(part, cache=cache) for part in ids().split(chunks, dim=1)]
        close(torch.cat(parts, dim=1), decoder(ids()))


@each(WINDOWED)
def test_the_oldest_key_of_a_window_counts_and_the_one_before_does_not(attention: Attention) -> None:
    decoder = network(attention, num_layers=1)
    changed = ids()
    changed[:, 10] = (changed[:, 10] + 1) % 30
    differs = (decoder(changed) - decoder(ids())).abs().amax(dim=-1) > 1e-9
    assert differs[:, 10 : 10 + WINDOW].all()
    assert not differs[:, :10].any()
    assert not differs[:, 10 + WINDOW :].any()


@each(ALL)
@pytest.mark.parametrize("counted_anew", [False, True])
def test_packed_documents_equal_separate_ones_with_gradients(
    attention: Attention, counted_anew: bool
) -> None:
    decoder, cut = network(attention), 9
    documents = (torch.arange(24) >= cut).long().expand(2, -1)
    positions = torch.cat([torch.arange(cut), torch.arange(24 - cut)]).expand(2, -1)
    weights = torch.randn(2, 24, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def gradients(hidden: torch.Tensor) -> list[torch.Tensor]:
        decoder.zero_grad()
        (hidden * weights).sum().backward()
        return [hidden.detach(), *(p.grad.clone() for p in decoder.parameters() if p.grad is not None)]

    packed = decoder(ids(), document_ids=documents, position_ids=positions if counted_anew else None)
    separate = torch.cat([decoder(ids()[:, :cut]), decoder(ids()[:, cut:])], dim=1)
    for ours, expected in zip(gradients(packed), gradients(separate), strict=True):
        close(ours, expected)
    assert not torch.allclose(packed, decoder(ids()))


@each(ALL)
def test_padding_left_right_or_none(attention: Attention) -> None:
    decoder = network(attention)
    padding = torch.zeros(2, 6, dtype=torch.int64)
    real, pad = torch.zeros(2, 24, dtype=torch.int64), torch.full((2, 6), -1)
    alone = decoder(ids())
    right = decoder(torch.cat([ids(), padding], 1), document_ids=torch.cat([real, pad], 1))
    close(right[:, :24], alone)
    left = decoder(torch.cat([padding, ids()], 1), document_ids=torch.cat([pad, real], 1))
    close(left[:, 6:], alone)
    assert left.isfinite().all()


@each(ALL)
def test_rows_of_different_lengths_equal_single_rows(attention: Attention) -> None:
    decoder, lengths = network(attention), torch.tensor([12, 3])
    cache = decoder.make_cache(2)
    with torch.no_grad():
        prompts = decoder(ids()[:, :12], cache=cache, lengths=lengths)
        steps = [
            decoder(ids()[torch.arange(2), lengths + step].unsqueeze(1), cache=cache) for step in range(4)
        ]
        for row, length in enumerate(lengths.tolist()):
            alone = decoder(ids()[row : row + 1, : length + 4])[0]
            close(prompts[row, :length], alone[:length])
            close(torch.cat(steps, dim=1)[row], alone[length:])


@each(ALL)
def test_drafts_taken_back_were_never_there(attention: Attention) -> None:
    decoder = network(attention)
    cache = decoder.make_cache(2, max_rollback=3)
    draft = torch.flip(ids(), dims=[1])[:, :3]
    with torch.no_grad():
        decoder(ids()[:, :12], cache=cache)
        decoder(draft, cache=cache)
        cache.truncate(12)
        close(decoder(ids()[:, 12:], cache=cache), decoder(ids())[:, 12:])


@each(ALL)
def test_the_past_does_not_change_with_the_future(attention: Attention) -> None:
    decoder = network(attention)
    changed = ids()
    changed[:, 13:] = (changed[:, 13:] + 1) % 30
    difference = (decoder(changed) - decoder(ids())).abs().amax(dim=-1)
    assert (difference[:, :13] < 1e-12).all()
    assert (difference[:, 13:] > 1e-6).all()


@each(ALL)
def test_a_token_that_is_no_number_stays_in_its_future(attention: Attention) -> None:
    """In later chunks and other documents; inside one matrix product 0 x NaN is NaN, whatever the mask."""
    decoder = network(attention)
    text = ids().clamp_max(28)
    with torch.no_grad():
        expected = decoder(text)
        decoder.embedding.weight[29] = float("nan")
        broken = text.clone()
        broken[:, 15:] = 29
        cache = decoder.make_cache(2, max_rollback=9)
        past, future = decoder(broken[:, :15], cache=cache), decoder(broken[:, 15:], cache=cache)
        close(past, expected[:, :15])
        assert future.isnan().all()
        cache.truncate(15)
        close(decoder(text[:, 15:], cache=cache), expected[:, 15:])  # nothing of it is left behind
        documents = (torch.arange(24) >= 15).long().expand(2, -1)
        close(decoder(broken, document_ids=documents)[:, :15], expected[:, :15])


@each(ALL)
def test_a_mask_that_lets_the_future_in_would_be_noticed(attention: Attention) -> None:
    decoder = network(attention)
    everything = torch.tensor([24, 24])
    assert not torch.allclose(decoder(ids(), prefix_lengths=everything)[:, :13], decoder(ids())[:, :13])
