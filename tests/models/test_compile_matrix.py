"""Every attention with every position: compiled whole with the same numbers, and once while decoding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from shaken_networks import build_shaken
from torch._dynamo.utils import counters

from insight.models import (
    Alibi,
    Attention,
    Decoder,
    DecoderConfig,
    DifferentialAttention,
    DynamicNTKScaling,
    GroupedQueryAttention,
    InputPosition,
    InterleavedRope,
    LatentAttention,
    LayerPattern,
    LearnedPosition,
    LinearScaling,
    Llama3Scaling,
    NoPosition,
    Position,
    RelativeBias,
    Rope,
    SinusoidalPosition,
    YarnScaling,
)
from insight.runtime.errors import ConfigError

ATTENTIONS: dict[str, Attention] = {
    "multi-head": GroupedQueryAttention(4),
    "grouped": GroupedQueryAttention(4, 2, qk_norm="rms"),
    "multi-query": GroupedQueryAttention(4, 1),
    "window": GroupedQueryAttention(4, 2, window=9),
    "sinks": GroupedQueryAttention(4, 2, sinks=True, output_gate=True),
    "differential": DifferentialAttention(4, 2),
    "latent": LatentAttention(4, 12, 6, rotary_dim=8, value_dim=8),
}
POSITIONS: dict[str, tuple[Position, InputPosition | None]] = {
    "rope": (Rope(), None),
    "interleaved": (InterleavedRope(), None),
    "partial": (Rope(rotated_share=0.5), None),
    "linear": (Rope(scaling=LinearScaling(2.0)), None),
    "dynamic": (Rope(scaling=DynamicNTKScaling(2.0, 64)), None),
    "yarn": (Rope(scaling=YarnScaling(2.0, 32)), None),
    "llama3": (Rope(scaling=Llama3Scaling(2.0, original_length=32)), None),
    "alibi": (Alibi(), None),
    "learned bias": (RelativeBias(8, 30), None),
    "none": (NoPosition(), None),
    "learned": (NoPosition(), LearnedPosition()),
    "sinusoidal": (NoPosition(), SinusoidalPosition()),
}
REFUSED = {("latent", "alibi"), ("latent", "learned bias")}
# Attentions as the layers of one network, since one graph for all costs half of what as many graphs do.
EACH = "+".join(ATTENTIONS)
# A step of decoding could be compiled anew for the kind of cache (full, ring, latent) with each position, and
# for what a projection adds to it.
DECODED = {position: EACH if position == "rope" else "grouped+window+latent" for position in POSITIONS}
COMPILED = [
    pytest.param("grouped", "rope"),
    pytest.param("latent", "interleaved"),
    *(pytest.param(EACH, position, marks=pytest.mark.slow, id=f"each-{position}") for position in POSITIONS),
]


def config(attention: str, position: str, num_layers: int = 2) -> DecoderConfig:
    inside, at_input = POSITIONS[position]
    names = attention.split("+")
    if len(names) > 1:
        names = [name for name in names if (name, position) not in REFUSED]
    layers: list[Any] = [replace(ATTENTIONS[name], position=inside) for name in names]  # type: ignore[call-arg]
    mixer = layers[0] if len(layers) == 1 else LayerPattern(tuple(layers))
    depth = max(num_layers, len(layers))
    return DecoderConfig(32, depth, attention=mixer, max_sequence_length=64, input_position=at_input)


def decoder(config: DecoderConfig) -> Decoder:
    network: Decoder = build_shaken(config, 30, noise=0.1)
    return network


def ids(length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 30, (2, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("attention", "position"), sorted(REFUSED))
def test_what_has_no_meaning_is_refused_when_configured(attention: str, position: str) -> None:
    with pytest.raises(ConfigError, match=f"position={type(POSITIONS[position][0]).__name__}"):
        config(attention, position)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_trains_and_decodes(attention: str, position: str) -> None:
    if (attention, position) in REFUSED:
        pytest.skip("refused when configured")
    network = decoder(config(attention, position))
    network.logits(network(ids(40))).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    cache = network.make_cache(2)
    with torch.no_grad():
        parts = [network(part, cache=cache) for part in ids(40).split([13, 1, 1, 25], dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), network(ids(40)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_four_times_the_context_is_finite_or_refused(attention: str, position: str) -> None:
    if (attention, position) in REFUSED:
        pytest.skip("refused when configured")
    network = decoder(config(attention, position))
    if position == "learned":
        with pytest.raises(ConfigError, match="position 255: learned positions end at 63"):
            network(ids(256))
    else:
        assert network(ids(256)).isfinite().all()


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_bfloat16_stays_near_and_angles_stay_precise(attention: str, position: str) -> None:
    if (attention, position) in REFUSED:
        pytest.skip("refused when configured")
    network = decoder(config(attention, position))
    with torch.no_grad():
        exact = network(ids(40))
        half = network.bfloat16()(ids(40)).double()
    assert (half - exact).norm() < 0.06 * exact.norm()
    for name, buffer in network.named_buffers():
        assert buffer.dtype == torch.float32, name
    for table in network.blocks[0].attention.position.tables(torch.arange(5)):  # type: ignore[union-attr, operator]
        assert table.dtype in (torch.float32, torch.float64)


@pytest.mark.parametrize(("attention", "position"), COMPILED)
def test_compiles_whole_with_the_same_numbers(attention: str, position: str) -> None:
    network = decoder(config(attention, position, num_layers=1))
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True, dynamic=False)

    def gradients(call: Any, tokens: torch.Tensor) -> list[torch.Tensor]:
        network.zero_grad()
        hidden = call(tokens)
        hidden.square().mean().backward()
        return [hidden.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]

    for seed in range(2):
        tokens = ids(40, seed)
        for result, expected in zip(gradients(compiled, tokens), gradients(network, tokens), strict=True):
            assert (result - expected).norm() <= 1e-6 * expected.norm().clamp_min(1e-6)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("position", POSITIONS)
def test_decoding_compiles_no_more_after_its_first_steps(position: str) -> None:
    network = decoder(config(DECODED[position], position)).eval()
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    cache, tokens, first = network.make_cache(2), ids(40), 12  # beyond the window: the ring has turned
    graphs = []
    with torch.no_grad():
        outputs = [network(tokens[:, :first], cache=cache)]
        for position_now in range(first, 40):
            outputs.append(compiled(tokens[:, position_now : position_now + 1], cache=cache))
            graphs.append(counters["stats"]["unique_graphs"])
        torch.testing.assert_close(torch.cat(outputs, dim=1), network(tokens), rtol=1e-6, atol=1e-6)
    assert graphs[-1] == graphs[3], graphs


@pytest.mark.slow
def test_a_step_that_needs_a_new_graph_each_time_is_noticed() -> None:
    """The twin: with lengths that the compiler takes for constants, every step compiles again."""
    network = decoder(config("grouped", "rope")).eval()
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(network, backend="eager", dynamic=False)
    cache, graphs = network.make_cache(2), []
    with torch.no_grad():
        for column in ids(7).split(1, dim=1):
            compiled(column, cache=cache)
            graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[-1] > graphs[3], graphs


@pytest.mark.slow
def test_a_pattern_of_layers_compiles() -> None:
    layers = (GroupedQueryAttention(4, 2, window=9), GroupedQueryAttention(4, 2, position=NoPosition()))
    network = decoder(replace(config("grouped", "rope"), attention=LayerPattern(layers)))
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(ids(40)), network(ids(40)), rtol=1e-6, atol=1e-6)
