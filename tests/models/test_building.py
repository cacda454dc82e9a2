"""From nothing to a network: on the meta device and directly, by role and depth; weights out and in again."""

from __future__ import annotations

import copy
import io
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn

from insight.models import (
    MLP,
    PRESETS,
    ActivationCheckpointing,
    Alibi,
    BalanceBias,
    Decoder,
    DecoderConfig,
    DifferentialAttention,
    EncoderConfig,
    EncoderDecoderConfig,
    FeedForward,
    FullWidthNorm,
    GatedDeltaNet,
    GatedLinearAttention,
    GroupedQueryAttention,
    InterleavedRope,
    LatentAttention,
    LayerNorm,
    LearnedPosition,
    Llama3Scaling,
    MixtureOfExperts,
    NoPosition,
    OffsetRMSNorm,
    OutputHead,
    Projection,
    RelativeBias,
    Retention,
    Rope,
    SandwichNorm,
    ScaledInitialization,
    SinusoidalPosition,
    TokenEmbedding,
    YarnScaling,
    ZeroOutputInitialization,
)
from insight.runtime.errors import ConfigError

BASE = GroupedQueryAttention(4, 2)
SMALL = DecoderConfig(hidden_size=32, num_layers=2, attention=BASE, max_sequence_length=64)
VARIANTS: dict[str, DecoderConfig] = {
    "plain": SMALL,
    "tied": replace(SMALL, tie_embeddings=True),
    "zero outputs": replace(SMALL, initialization=ZeroOutputInitialization()),
    "biases and norms": replace(
        SMALL,
        attention=replace(BASE, qkv_bias=True, output_bias=True, qk_norm=FullWidthNorm(LayerNorm())),
        feed_forward=MLP(bias=True),
        norm=LayerNorm(),
    ),
    "sinks and gate": replace(SMALL, attention=replace(BASE, sinks=True, output_gate=True)),
    "differential": replace(SMALL, attention=DifferentialAttention(4, 2, sinks=True)),
    "latent": replace(SMALL, attention=LatentAttention(4, 12, 10)),
    "yarn": replace(SMALL, attention=replace(BASE, position=Rope(scaling=YarnScaling(4.0, 32)))),
    "llama3": replace(SMALL, attention=replace(BASE, position=InterleavedRope(scaling=Llama3Scaling()))),
    "alibi": replace(SMALL, attention=replace(BASE, position=Alibi())),
    "learned bias": replace(SMALL, attention=replace(BASE, position=RelativeBias())),
    "learned": replace(
        SMALL, attention=replace(BASE, position=NoPosition()), input_position=LearnedPosition(0.3)
    ),
    "sinusoidal": replace(
        SMALL, attention=replace(BASE, position=NoPosition()), input_position=SinusoidalPosition()
    ),
    "gemma": replace(SMALL, norm=OffsetRMSNorm(), block=SandwichNorm(), embedding_norm=LayerNorm()),
    "mixture": replace(
        SMALL,
        feed_forward=MixtureOfExperts(4, 2, expert_bias=True, num_shared_experts=1, balance=BalanceBias()),
    ),
    "delta net": replace(SMALL, attention=GatedDeltaNet(4)),
    "gated linear": replace(SMALL, attention=GatedLinearAttention(4)),
    "retention": replace(SMALL, attention=Retention(4)),
    "recomputing": replace(SMALL, activation_checkpointing=ActivationCheckpointing()),
}


def direct(config: DecoderConfig, seed: int = 3) -> Decoder:
    torch.manual_seed(seed)
    return config.build(50).eval()


def by_way_of_meta(config: DecoderConfig, seed: int = 3) -> Decoder:
    with torch.device("meta"):
        network = config.build(50)
    assert all(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))
    network.to_empty(device="cpu")
    with torch.no_grad():  # what memory happens to hold must not matter
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.fill_(float("nan"))
    torch.manual_seed(seed)
    network.initialize()
    return network.eval()


def ids() -> torch.Tensor:
    return torch.randint(0, 50, (2, 24), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_meta_and_direct_are_equal_bit_for_bit(config: DecoderConfig) -> None:
    expected, ours = direct(config), by_way_of_meta(config)
    for one, other in ((expected.state_dict(), ours.state_dict()), (vars_of(expected), vars_of(ours))):
        assert one.keys() == other.keys()
        for name, tensor in one.items():
            assert torch.equal(tensor, other[name]), name
    with torch.no_grad():
        assert torch.equal(expected.logits(expected(ids())), ours.logits(ours(ids())))
    assert torch.equal(torch.rand(3), rand_after(config))  # and so is what is drawn afterwards


@pytest.mark.parametrize("shared", [False, True])
def test_encoders_and_decoders_too(shared: bool) -> None:
    both_ways = replace(BASE, position=RelativeBias(bidirectional=True))
    encoder = EncoderConfig(hidden_size=32, num_layers=1, attention=both_ways)
    reader = replace(BASE, position=NoPosition())
    config = EncoderDecoderConfig(encoder, SMALL, reader, shared, logit_bias=True)
    torch.manual_seed(3)
    expected = config.build(50).state_dict()
    with torch.device("meta"):
        network = config.build(50)
    network.to_empty(device="cpu")
    torch.manual_seed(3)
    network.initialize()
    assert expected.keys() == network.state_dict().keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())


def vars_of(network: Decoder) -> dict[str, torch.Tensor]:
    """Buffers, also those that no state dict holds."""
    return dict(network.named_buffers())


def rand_after(config: DecoderConfig) -> torch.Tensor:
    direct(config)
    return torch.rand(3)


def test_another_seed_makes_another_network() -> None:
    """The twin: were first values not drawn again, memory or the constructor would decide them."""
    first, second = by_way_of_meta(SMALL, seed=3), by_way_of_meta(SMALL, seed=4)
    assert not torch.equal(first.embedding.weight, second.embedding.weight)
    assert not torch.equal(direct(SMALL, 3).embedding.weight, direct(SMALL, 4).embedding.weight)


def test_initializing_again_begins_again() -> None:
    network = direct(VARIANTS["differential"])
    expected = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    torch.manual_seed(3)
    network.initialize()
    assert all(map(torch.equal, network.state_dict().values(), expected.values()))


def test_position_tables_are_there_right_after_the_meta_device() -> None:
    for name in ("plain", "yarn", "llama3", "sinusoidal"):
        with torch.device("meta"):
            network = VARIANTS[name].build(50)
        network.to_empty(device="cpu")
        for buffer, expected in zip(network.buffers(), direct(VARIANTS[name]).buffers(), strict=True):
            assert torch.equal(buffer, expected)


class _Unfillable(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.ones(size))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden * self.factors


@dataclass(frozen=True)
class Unfillable(FeedForward):
    """A user's own, which forgot that it can be built without memory."""

    def build(self, hidden_size: int, layer: int = 0) -> nn.Module:
        return _Unfillable(hidden_size)


def test_what_could_never_be_filled_is_refused_on_the_meta_device_only() -> None:
    config = replace(SMALL, feed_forward=Unfillable())
    assert (direct(config).blocks[0].feed_forward.factors == 1).all()  # type: ignore[union-attr, operator]
    with torch.device("meta"), pytest.raises(ConfigError, match=r"blocks\.0\.feed_forward \(_Unfillable\)"):
        config.build(50)


@pytest.mark.parametrize("name", ["llama-2-7b", "gemma-2-2b", "gpt2", "bloom-560m"])
def test_published_networks_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        network = PRESETS[name].config.build(PRESETS[name].vocabulary_size)
    assert all(parameter.is_meta for parameter in network.parameters())


# ------------------------------------------------------------------ by role


def wide(num_layers: int, initialization: Any) -> Decoder:
    config = DecoderConfig(
        hidden_size=256,
        num_layers=num_layers,
        attention=GroupedQueryAttention(4, 2, output_gate=True, qkv_bias=True, sinks=True),
        feed_forward=MLP(512, bias=True),
        initialization=initialization,
    )
    return direct(replace(config, norm=LayerNorm()))


@pytest.mark.parametrize("num_layers", [1, 8])
def test_scaled_initialization_by_role(num_layers: int) -> None:
    network: Any = wide(num_layers, ScaledInitialization(0.02))
    for module in network.modules():
        if isinstance(module, (TokenEmbedding, OutputHead)):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
        elif isinstance(module, Projection):
            expected = 0.02 / (2 * num_layers) ** 0.5 if module.writes_residual else 0.02
            assert module.weight.std().item() == pytest.approx(expected, rel=0.1)
            assert module.weight.abs().max() <= 3 * expected * 1.0001
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
            assert not module.bias.any()
    writers = {name for name, m in network.named_modules() if getattr(m, "writes_residual", False)}
    assert {name.split(".", 2)[2] for name in writers} == {"attention.output", "feed_forward.down"}
    assert not network.blocks[0].attention.sinks.any()


@pytest.mark.parametrize("tied", [False, True])
def test_zero_output_initialization_by_role(tied: bool) -> None:
    rule = ZeroOutputInitialization(embedding_std=0.8, head_std=0.001)
    network: Any = direct(replace(wide(2, rule).config, tie_embeddings=tied))
    assert network.embedding.weight.std().item() == pytest.approx(0.001 if tied else 0.8, rel=0.1)
    if not tied:
        assert network.head.weight.std().item() == pytest.approx(0.001, rel=0.1)
    for module in network.modules():
        if isinstance(module, Projection):
            if module.writes_residual:
                assert not module.weight.any()
            else:
                assert module.weight.std().item() == pytest.approx(module.in_features**-0.5, rel=0.1)


def test_first_values_that_no_rule_gives() -> None:
    learned: Any = direct(VARIANTS["learned"])
    assert learned.input_position.weight.std().item() == pytest.approx(0.3, rel=0.1)
    assert not direct(VARIANTS["learned bias"]).blocks[0].attention.position.weight.any()  # type: ignore[union-attr, operator]
    vectors = [
        getattr(block.attention, f"weight_{part}_{number}")
        for block in direct(replace(VARIANTS["differential"], num_layers=8)).blocks
        for part in ("query", "key")
        for number in (1, 2)
    ]
    assert torch.stack(vectors).std().item() == pytest.approx(0.1, rel=0.2)


def test_the_stream_does_not_grow_with_depth() -> None:
    """What depth scaling is for: after 2 and after 24 layers the stream is about as wide."""

    def width(num_layers: int) -> float:
        network = direct(replace(SMALL, hidden_size=64, num_layers=num_layers))
        hidden: list[torch.Tensor] = []
        network.norm.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0]))
        with torch.no_grad():
            network(ids())
        return float(hidden[0].std())

    assert width(24) == pytest.approx(width(2), rel=0.5)


# ------------------------------------------------------------------ state dicts


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_weights_survive_a_file(config: DecoderConfig) -> None:
    network, other = direct(config), direct(config, seed=4)
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        assert torch.equal(network.logits(network(ids())), other.logits(other(ids())))


def test_a_tied_matrix_is_one_matrix() -> None:
    network = direct(VARIANTS["tied"])
    assert network.head_weight is network.embedding.weight
    assert [name for name in network.state_dict() if "head" in name] == []
    again = direct(VARIANTS["tied"], seed=4)
    again.load_state_dict(network.state_dict())
    for copied in (again, copy.deepcopy(network), by_way_of_meta(VARIANTS["tied"])):
        assert copied.head_weight.data_ptr() == copied.embedding.weight.data_ptr()
    hidden = network(ids())
    network.logits(hidden).sum().backward()
    before = network.head_weight.detach().clone()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    assert not torch.equal(network.head_weight, before)
    assert network.head_weight is network.embedding.weight
