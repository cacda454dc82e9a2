"""Options of attention by their formulas: norms, caps, sinks, gates, windows, patterns; and refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shaken_networks import build_shaken

from insight.models import (
    Alibi,
    CallContext,
    Decoder,
    DecoderConfig,
    FullWidthNorm,
    GroupedQueryAttention,
    HeadNorm,
    LayerNorm,
    LayerPattern,
    NoPosition,
    OffsetRMSNorm,
    QueryKeyNorm,
    ReferenceKernel,
    RelativeBias,
    RMSNorm,
    Rope,
    ScoreChange,
    SDPAKernel,
    muon_splits,
    parameter_role,
)
from insight.models.masks import CausalMask
from insight.runtime.component import component_from_dict
from insight.runtime.errors import ConfigError


def decoder(num_layers: int = 2, **options: Any) -> Decoder:
    attention = GroupedQueryAttention(4, 2, **options)
    config = DecoderConfig(hidden_size=32, num_layers=num_layers, attention=attention, max_sequence_length=64)
    network: Decoder = build_shaken(config, 30, noise=0.2).eval()
    return network


def ids(length: int = 20) -> torch.Tensor:
    return torch.randint(0, 30, (2, length), generator=torch.Generator().manual_seed(1))


OPTIONS: dict[str, dict[str, Any]] = {
    "full-width norm": {"qk_norm": FullWidthNorm()},
    "head layer norm": {"qk_norm": HeadNorm(LayerNorm())},
    "weightless norm after the rotation": {"qk_norm": HeadNorm(RMSNorm(weight=False), after_position=True)},
    "cap": {"score_soft_cap": 2.0},
    "sinks": {"sinks": True},
    "gate": {"output_gate": True},
    "biases": {"qkv_bias": True, "output_bias": True},
    "scale": {"score_scale": 0.1},
    "window": {"window": 6},
    "window and cap and sinks": {"window": 6, "score_soft_cap": 2.0, "sinks": True},
    "bias and cap": {"position": RelativeBias(8, 12), "score_soft_cap": 2.0},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("chunks", [[1] * 20, [7, 13]])
def test_cached_chunks_equal_one_pass(options: dict[str, Any], chunks: list[int]) -> None:
    network = decoder(**options)
    cache = network.make_cache(2)
    with torch.no_grad():
        parts = [network(part, cache=cache) for part in ids().split(chunks, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), network(ids()), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_every_option_changes_the_output_and_every_parameter_learns(options: dict[str, Any]) -> None:
    network = decoder(**options)
    output = network(ids())
    network.logits(output).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name
    plain = decoder()
    plain.load_state_dict(network.state_dict(), strict=False)
    assert not torch.allclose(output, plain(ids()))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_gradients_by_finite_differences(options: dict[str, Any]) -> None:
    network = decoder(num_layers=1, **options)
    attention: Any = network.blocks[0].attention  # type: ignore[union-attr]
    tables = attention.position.tables(torch.arange(5))
    hidden = torch.randn(1, 5, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    names = [name for name, _ in attention.named_parameters()]
    values = [parameter.detach()[:1].clone().requires_grad_() for parameter in attention.parameters()]

    def run(hidden: torch.Tensor, *first_rows: torch.Tensor) -> torch.Tensor:
        # The first row of every parameter: differences over all of them would take minutes.
        whole = dict(attention.named_parameters())
        parameters = {
            name: torch.cat([row, whole[name].detach()[1:]])
            for name, row in zip(names, first_rows, strict=True)
        }
        output: torch.Tensor = torch.func.functional_call(
            attention, parameters, (hidden,), {"context": CallContext(CausalMask(), tables)}
        )
        return output.sum(dim=(0, 1))

    assert torch.autograd.gradcheck(run, (hidden.requires_grad_(), *values), fast_mode=True)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_configurations_survive_json_and_weights_a_round_trip(options: dict[str, Any]) -> None:
    network = decoder(**options)
    config = component_from_dict(network.config.to_dict())
    assert config == network.config
    assert isinstance(config, DecoderConfig)
    with torch.device("meta"):
        twin = config.build(30)
    twin = twin.to_empty(device="cpu").double().eval()
    twin.load_state_dict(network.state_dict())
    assert torch.equal(twin(ids()), network(ids()))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_bfloat16_stays_near_float64(options: dict[str, Any]) -> None:
    network = decoder(**options)
    exact = network(ids())
    half = network.bfloat16()(ids()).double()
    assert (half - exact).norm() < 0.06 * exact.norm()


def test_order_of_scale_cap_bias_mask_and_sink() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 3, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    bias = torch.randn(1, 2, 3, 3, generator=generator, dtype=torch.float64)
    sinks = torch.tensor([0.5, -1.0], dtype=torch.float64)
    change = ScoreChange(bias, 1.5, sinks)
    output = ReferenceKernel()(query, key, value, CausalMask(), 0.7, change)
    for head in range(2):
        for row in range(3):
            capped = 1.5 * torch.tanh(0.7 * (key[0, head, : row + 1] @ query[0, head, row]) / 1.5)
            scores = torch.cat([capped + bias[0, head, row, : row + 1], sinks[head : head + 1]])
            weights = scores.softmax(0)[:-1]
            torch.testing.assert_close(output[0, head, row], weights @ value[0, head, : row + 1])


def test_weights_sum_to_one_less_the_sink() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 2, 6, 4, generator=generator) for _ in range(2))
    kernel = ReferenceKernel()
    torch.testing.assert_close(kernel.weights(query, key, CausalMask(), 1.0).sum(-1), torch.ones(1, 2, 6))
    taken = kernel.weights(query, key, CausalMask(), 1.0, ScoreChange(sinks=torch.tensor([0.0, 3.0])))
    assert (taken.sum(-1) < 1).all()
    gone = kernel.weights(query, key, CausalMask(), 1.0, ScoreChange(sinks=torch.full((2,), -1e9)))
    torch.testing.assert_close(gone, kernel.weights(query, key, CausalMask(), 1.0))


def test_a_fused_kernel_never_drops_a_cap_silently() -> None:
    query = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ConfigError) as error:
        SDPAKernel()(query, query, query, CausalMask(), 1.0, ScoreChange(soft_cap=1.0))
    assert (error.value.option, error.value.value) == ("score_soft_cap", 1.0)


def test_full_width_differs_from_per_head_in_shape_and_result() -> None:
    full, per_head = decoder(qk_norm=FullWidthNorm()), decoder(qk_norm=HeadNorm())
    assert full.blocks[0].attention.query_norm.norm.weight.shape == (32,)  # type: ignore[union-attr]
    assert per_head.blocks[0].attention.query_norm.weight.shape == (8,)  # type: ignore[union-attr]


def test_names_stand_for_components() -> None:
    for name, component in (
        ("rms", HeadNorm(RMSNorm(eps=1e-6))),
        ("rms_weightless", HeadNorm(RMSNorm(eps=1e-6, weight=False))),
    ):
        assert torch.equal(decoder(qk_norm=name)(ids()), decoder(qk_norm=component)(ids()))


def test_window_edge() -> None:
    network = decoder(num_layers=1, window=4)
    before = network(ids())
    changed = ids()
    changed[:, 10] = (changed[:, 10] + 1) % 30
    after = network(changed)
    differs = (after != before).any(dim=-1)
    assert differs[:, 10:14].all()
    assert not differs[:, :10].any()
    assert not differs[:, 14:].any()


def test_pattern_repeats_over_layers() -> None:
    local = GroupedQueryAttention(4, 2, window=4, position=Rope(100.0))
    pattern = LayerPattern((local, local, GroupedQueryAttention(4, 2, position=NoPosition())))
    network = DecoderConfig(hidden_size=32, num_layers=7, attention=pattern).build(30)
    windows = [block.attention.window for block in network.blocks]  # type: ignore[union-attr]
    assert windows == [4, 4, None, 4, 4, None, 4]
    positions = {id(block.attention.position) for block in network.blocks}  # type: ignore[union-attr]
    assert len(positions) == 2  # layers with equal positions share one
    assert component_from_dict(network.config.to_dict()) == network.config


def test_roles_and_splits_of_what_options_add() -> None:
    network = decoder(num_layers=1, sinks=True, output_gate=True, qkv_bias=True, qk_norm=FullWidthNorm())
    roles = parameter_role(network)
    assert roles["blocks.0.attention.sinks"] == "vector"
    assert roles["blocks.0.attention.query_key_value.bias"] == "vector"
    assert roles["blocks.0.attention.gate.weight"] == "hidden"
    assert muon_splits(network)["blocks.0.attention.query_key_value.weight"] == (32, 16, 16)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: GroupedQueryAttention(window=0), "window=0"),
        (lambda: GroupedQueryAttention(score_scale=0.0), "score_scale=0.0"),
        (lambda: GroupedQueryAttention(score_soft_cap=-1.0), "score_soft_cap=-1.0"),
        (
            lambda: GroupedQueryAttention(kernel="sdpa", score_soft_cap=50.0),
            "kernel=sdpa: ",
        ),
        (lambda: GroupedQueryAttention(kernel="tiled", score_soft_cap=9.0), "kernel=tiled: "),
        (lambda: LayerPattern(()), "layers="),
        (
            lambda: DecoderConfig(
                attention=GroupedQueryAttention(position=Alibi(), qk_norm=HeadNorm(after_position=True))
            ),
            "position=Alibi: qk_norm with after_position=true",
        ),
        (
            lambda: DecoderConfig(
                hidden_size=30, attention=LayerPattern((GroupedQueryAttention(3), GroupedQueryAttention(4)))
            ),
            "num_heads=4",
        ),
        (
            lambda: DecoderConfig(attention=GroupedQueryAttention(position=Alibi(), score_soft_cap=2.0)),
            "position=Alibi: score_soft_cap=2.0",
        ),
        (lambda: DecoderConfig(embedding_scale=0.0), "embedding_scale=0.0"),
        (lambda: HeadNorm(OffsetRMSNorm(eps=2.0)), "eps=2.0"),
    ],
)
def test_refused_combinations_are_named(build: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        build()


def test_unusual_calls_are_named() -> None:
    network = decoder()
    with pytest.raises(ConfigError, match="token id 30: the vocabulary has 30 tokens"):
        network(torch.tensor([[1, 30]]))
    with pytest.raises(ConfigError, match="token id -1"):
        network(torch.tensor([[1, -1]]))
    with pytest.raises(ConfigError, match="there is no token"):
        network(torch.zeros(2, 0, dtype=torch.int64))
    with pytest.raises(ConfigError) as error:
        network.make_cache(1, max_rollback=-1)
    assert (error.value.option, error.value.value) == ("max_rollback", -1)
    with pytest.raises(ConfigError, match="prefix_lengths has shape"):
        network(ids(), prefix_lengths=torch.tensor([1]))
    with pytest.raises(ConfigError, match="prefix_lengths with document_ids"):
        network(ids(), prefix_lengths=torch.tensor([1, 1]), document_ids=torch.zeros_like(ids()))


def test_a_prefix_sees_itself_in_both_directions() -> None:
    network = decoder()
    prefix = torch.tensor([4, 0])
    before = network(ids(), prefix_lengths=prefix)
    changed = ids()
    changed[:, 3] = (changed[:, 3] + 1) % 30
    differs = (network(changed, prefix_lengths=prefix) != before).any(dim=-1)
    assert differs[0].all()
    assert not differs[1, :3].any()
    cache = network.make_cache(2)
    with torch.no_grad():
        parts = [
            network(ids()[:, :9], cache=cache, prefix_lengths=prefix),
            network(ids()[:, 9:], cache=cache),
        ]
    torch.testing.assert_close(torch.cat(parts, dim=1), before)


@pytest.mark.parametrize("window", [None, 5])
def test_padding_left_or_right_or_none(window: int | None) -> None:
    network = decoder(window=window)
    text, padding = ids(12), torch.zeros(2, 8, dtype=torch.int64)
    alone = network(text)
    real, pad = torch.zeros(2, 12, dtype=torch.int64), torch.full((2, 8), -1)
    right = network(torch.cat([text, padding], 1), document_ids=torch.cat([real, pad], 1))
    torch.testing.assert_close(right[:, :12], alone)
    left = network(
        torch.cat([padding, text], 1),
        document_ids=torch.cat([pad, real], 1),
        position_ids=torch.cat([torch.zeros(8, dtype=torch.int64), torch.arange(12)]).expand(2, -1),
    )
    torch.testing.assert_close(left[:, 8:], alone)
    assert left.isfinite().all()


def test_four_times_the_context_stays_finite() -> None:
    for options in OPTIONS.values():
        assert decoder(**options)(ids(256)).isfinite().all()


def test_both_kinds_of_query_key_norm_are_components() -> None:
    for norm in (HeadNorm(), FullWidthNorm(RMSNorm(1e-5))):
        assert isinstance(norm, QueryKeyNorm)
        assert component_from_dict(norm.to_dict()) == norm
