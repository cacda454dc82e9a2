"""Cross-attention: by its formula, against torch's own layer, padding, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from insight.models import (
    Alibi,
    Attention,
    CallContext,
    CrossAttentionModule,
    DecoderConfig,
    DifferentialAttention,
    EncoderDecoderConfig,
    EncoderStates,
    GroupedQueryAttention,
    HeadNorm,
    InterleavedRope,
    LatentAttention,
    LayerPattern,
    NoPosition,
    ParallelResidual,
    Position,
    QueryTemperature,
    RelativeBias,
    Retention,
    Rope,
)
from insight.models.masks import padding_mask
from insight.runtime.component import component_from_dict
from insight.runtime.errors import ConfigError

HIDDEN, SOURCE = 16, 12
OPTIONS: dict[str, Any] = {
    "multi-head": GroupedQueryAttention(4, position=NoPosition()),
    "multi-query": GroupedQueryAttention(4, 1, position=NoPosition(), qkv_bias=True, output_bias=True),
    "grouped": GroupedQueryAttention(4, 2, position=NoPosition(), qk_norm=HeadNorm(), output_gate=True),
    "sinks": GroupedQueryAttention(4, 2, position=NoPosition(), sinks=True, score_scale=0.7),
    "capped": GroupedQueryAttention(4, 2, position=NoPosition(), score_soft_cap=2.0),
    "norm after": GroupedQueryAttention(4, position=NoPosition(), qk_norm=HeadNorm(after_position=True)),
    "differential": DifferentialAttention(4, 2, position=NoPosition()),
    "alibi": GroupedQueryAttention(4, 2, position=Alibi(bidirectional=True), qk_norm="rms_weightless"),
    "relative bias": DifferentialAttention(4, 2, position=RelativeBias(8, 20, bidirectional=True)),
}


def build(attention: Attention, encoder_size: int = SOURCE) -> CrossAttentionModule:
    torch.manual_seed(0)

    def build_position(position: Position, head_dim: int, num_heads: int) -> Any:
        return position.build(head_dim, num_heads)

    module = attention.build_cross(HIDDEN, encoder_size, build_position)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
    return module.double()


def inputs(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(2, 3, HIDDEN, dtype=dtype, generator=generator)
    states = torch.randn(2, 7, SOURCE, dtype=dtype, generator=generator)
    return hidden, states, torch.arange(7) < torch.tensor([7, 4])[:, None]


def read(module: CrossAttentionModule, hidden: torch.Tensor, memory: EncoderStates) -> torch.Tensor:
    places = torch.arange(hidden.shape[1])
    output: torch.Tensor = module(
        hidden, CallContext(memory.mask, encoder_states=memory, position_ids=places)
    )
    return output


def test_it_equals_torchs_own_layer() -> None:
    attention = GroupedQueryAttention(4, position=NoPosition(), qkv_bias=True, output_bias=True)
    module: Any = build(attention)
    hidden, states, tokens = inputs()
    theirs = nn.MultiheadAttention(HIDDEN, 4, kdim=SOURCE, vdim=SOURCE, batch_first=True).double()
    key, value = module.key_value.parts()
    with torch.no_grad():
        theirs.q_proj_weight.copy_(module.query.weight)
        theirs.k_proj_weight.copy_(key)
        theirs.v_proj_weight.copy_(value)
        theirs.in_proj_bias.copy_(torch.cat([module.query.bias, module.key_value.bias]))
        theirs.out_proj.weight.copy_(module.output.weight)
        theirs.out_proj.bias.copy_(module.output.bias)
    expected, _ = theirs(hidden, states, states, key_padding_mask=~tokens)
    torch.testing.assert_close(read(module, hidden, EncoderStates(states, padding_mask(tokens))), expected)


def test_reading_itself_equals_self_attention_in_both_directions() -> None:
    config = GroupedQueryAttention(4, 2, position=NoPosition(), qk_norm="rms")
    cross: Any = build(config, HIDDEN)
    hidden, _, _ = inputs()
    own: Any = config.build(HIDDEN, lambda p, d, h: p.build(d, h)).double()
    weights = {k: v for k, v in cross.state_dict().items() if not k.startswith(("query.", "key_value."))}
    weights["query_key_value.weight"] = torch.cat([cross.query.weight, cross.key_value.weight])
    own.load_state_dict(weights)
    memory = EncoderStates(hidden)
    torch.testing.assert_close(read(cross, hidden, memory), own(hidden, CallContext(memory.mask)))


def test_alibi_lowers_scores_by_the_distance_of_two_places() -> None:
    """By the formula: softmax(q k / sqrt(d) - slope |i - j|), with the published slopes of four heads."""
    hidden, states, tokens = inputs()
    for position in (NoPosition(), Alibi(bidirectional=True)):
        module: Any = build(GroupedQueryAttention(4, 2, position=position))
        query = (hidden @ module.query.weight.T).view(2, 3, 4, 4)
        key, value = ((states @ part.T).view(2, 7, 2, 4) for part in module.key_value.parts())
        mixed = torch.empty(2, 3, 4, 4, dtype=torch.float64)
        for row, head, i in itertools.product(range(2), range(4), range(3)):
            seen = int(tokens[row].sum())
            slope = 4.0 ** -(head + 1) if isinstance(position, Alibi) else 0.0
            scores = torch.stack(
                [query[row, i, head] @ key[row, j, head // 2] / 2 - slope * abs(i - j) for j in range(seen)]
            )
            mixed[row, i, head] = scores.softmax(0) @ value[row, :seen, head // 2]
        expected = mixed.flatten(2) @ module.output.weight.T
        torch.testing.assert_close(
            read(module, hidden, EncoderStates(states, padding_mask(tokens))), expected
        )


@pytest.mark.slow
@pytest.mark.parametrize("attention", OPTIONS.values(), ids=OPTIONS.keys())
def test_gradients_are_those_of_the_function(attention: Attention) -> None:
    module = build(attention)
    hidden, states, tokens = inputs()

    def call(hidden: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        return read(module, hidden, EncoderStates(states, padding_mask(tokens)))

    assert gradcheck(call, (hidden.requires_grad_(), states.requires_grad_()))


@pytest.mark.parametrize("attention", OPTIONS.values(), ids=OPTIONS.keys())
def test_padding_is_not_read_and_learns_nothing(attention: Attention) -> None:
    module = build(attention)
    hidden, states, tokens = inputs()
    states.requires_grad_()
    together = read(module, hidden, EncoderStates(states, padding_mask(tokens)))
    alone = read(module, hidden[1:], EncoderStates(states[1:, :4]))
    torch.testing.assert_close(together[1:], alone)
    together.square().sum().backward()
    assert states.grad is not None
    assert (states.grad[1, 4:] == 0).all()
    assert (states.grad[1, :4] != 0).any(dim=-1).all()


@pytest.mark.parametrize("attention", OPTIONS.values(), ids=OPTIONS.keys())
def test_padding_may_stand_on_either_side(attention: Attention) -> None:
    module = build(attention)
    hidden, states, tokens = inputs()
    right = read(module, hidden, EncoderStates(states, padding_mask(tokens)))
    turned = torch.stack([states[0], states[1].roll(3, dims=0)])
    mask = padding_mask(torch.stack([tokens[0], tokens[1].roll(3)]))
    torch.testing.assert_close(read(module, hidden, EncoderStates(turned, mask)), right)


@pytest.mark.parametrize("position", [NoPosition(), Alibi(bidirectional=True)], ids=["none", "alibi"])
@pytest.mark.parametrize("kernel", ["auto", "sdpa", "tiled"])
def test_kernels_agree(kernel: Any, position: Position) -> None:
    hidden, states, tokens = inputs()
    memory = EncoderStates(states, padding_mask(tokens))
    results = []
    for name in ("reference", kernel):
        module = build(GroupedQueryAttention(4, 2, position=position, sinks=True, kernel=name))
        output = read(module, hidden, memory)
        output.square().sum().backward()
        results.append([output.detach(), *(p.grad for p in module.parameters())])
    for result, expected in zip(*results, strict=True):
        assert result is not None
        torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-11)


def test_an_empty_source_is_finite() -> None:
    module = build(GroupedQueryAttention(4, position=NoPosition()))
    hidden, states, tokens = inputs()
    tokens[1] = False
    output = read(module, hidden, EncoderStates(states, padding_mask(tokens)))
    output.sum().backward()
    assert output.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize(
    ("attention", "named"),
    [
        (GroupedQueryAttention(4, position=Rope()), "position=Rope"),
        (
            GroupedQueryAttention(4, position=InterleavedRope()),
            "position=InterleavedRope",
        ),
        (GroupedQueryAttention(4, position=Alibi()), "position=Alibi"),
        (GroupedQueryAttention(4, position=RelativeBias()), "position=RelativeBias"),
        (GroupedQueryAttention(4, position=QueryTemperature()), "position=QueryTemperature"),
        (DifferentialAttention(4, position=Rope()), "position=Rope"),
        (GroupedQueryAttention(4, position=NoPosition(), window=8), "window=8"),
        (GroupedQueryAttention(3, position=NoPosition()), "num_heads=3"),
        (LatentAttention(), "cross_attention=LatentAttention"),
        (Retention(), "cross_attention=Retention"),
        (
            LayerPattern((GroupedQueryAttention(4, position=NoPosition()), GroupedQueryAttention(4))),
            "position=Rope",
        ),
    ],
)
def test_what_cannot_work_is_refused_when_configured(attention: Attention, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        EncoderDecoderConfig(cross_attention=attention)
    assert caught.value.remedy


def test_parallel_branches_have_no_place_for_it() -> None:
    with pytest.raises(ConfigError) as error:
        EncoderDecoderConfig(decoder=DecoderConfig(block=ParallelResidual()))
    assert (error.value.option, error.value.value) == ("decoder.block", "ParallelResidual")


@pytest.mark.slow
def test_a_pattern_reads_another_way_from_layer_to_layer() -> None:
    pattern = LayerPattern(
        (GroupedQueryAttention(4, position=NoPosition()), GroupedQueryAttention(2, 1, position=NoPosition()))
    )
    config = EncoderDecoderConfig(cross_attention=pattern)
    network = config.build(20)
    assert [block.cross_attention.num_heads for block in network.decoder.blocks] == [4, 2, 4, 2]  # type: ignore[union-attr]
    assert component_from_dict(config.to_dict()) == config
