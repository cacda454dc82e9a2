"""Decoders with linear mixers: causality, documents, types, counts, and what they refuse."""

from __future__ import annotations

from typing import Any

import jsonargparse
import pytest
import torch
import torch.nn.functional as F
import yaml
from linear_networks import ALL, DELTA, HYBRIDS, MIXERS, VOCABULARY, config, decoder, ids
from torch.utils.flop_counter import FlopCounterMode

from insight.models import (
    Alibi,
    Attention,
    CallContext,
    DecoderConfig,
    FullCache,
    GatedDeltaNet,
    GatedLinearAttention,
    GroupedQueryAttention,
    LayerPattern,
    NoPosition,
    RelativeBias,
    Retention,
    Rope,
    muon_splits,
    parameter_role,
)
from insight.models.caches import CacheShape
from insight.models.masks import BidirectionalMask, CausalMask, DocumentMask, Mask
from insight.runtime.component import component_from_dict
from insight.runtime.errors import ConfigError


@pytest.mark.parametrize("attention", ALL.values(), ids=ALL.keys())
def test_the_future_never_reaches_the_past(attention: Attention) -> None:
    network, tokens = decoder(attention), ids(length=80)
    before = network(tokens)
    tokens[:, 70:] = (tokens[:, 70:] + 1) % VOCABULARY
    after = network(tokens)
    torch.testing.assert_close(after[:, :70], before[:, :70], rtol=1e-12, atol=1e-12)
    assert not torch.isclose(after[:, 70:], before[:, 70:]).all(dim=-1).any()


@pytest.mark.parametrize("attention", ALL.values(), ids=ALL.keys())
def test_the_first_token_reaches_the_last(attention: Attention) -> None:
    network, tokens = decoder(attention), ids(length=80)
    before = network(tokens)
    tokens[:, 0] = (tokens[:, 0] + 1) % VOCABULARY
    assert not torch.equal(network(tokens)[:, -1], before[:, -1])


def test_retention_is_its_parallel_form() -> None:
    """Equation 5 of arXiv 2307.08621 in complex numbers: sum of Q_n e^(in) (K_m e^(im))* decay^(n-m) V_m."""
    module: Any = decoder(Retention(2), num_layers=1).blocks[0].attention
    hidden = torch.randn(1, 70, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    positions = torch.arange(70)
    with torch.no_grad():
        result = module(hidden, CallContext(CausalMask(), module.position.tables(positions)))
        query, key, value = module.query_key_value(hidden)[0].unflatten(-1, (3, 2, 16)).unbind(1)
        angles = positions[:, None] * 10000.0 ** (-torch.arange(0, 16, 2, dtype=torch.float64) / 16)
        turn = torch.polar(torch.ones_like(angles), angles)[:, None]
        turned = [torch.view_as_complex(x.unflatten(-1, (8, 2)).contiguous()) * turn for x in (query, key)]
        heads = []
        for head in range(2):
            scores = (turned[0][:, head] @ turned[1][:, head].conj().T).real / 4
            distances = positions[:, None] - positions
            decay = torch.where(distances >= 0, (1 - 2.0 ** (-5 - head)) ** distances.double(), 0.0)
            mixed = scores * decay @ value[:, head]
            heads.append(mixed / (mixed.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt())
        gated = torch.cat(heads, dim=-1) * F.silu(module.gate(hidden)[0])
        torch.testing.assert_close(result[0], module.output(gated), rtol=1e-6, atol=1e-6)


def test_decays_of_gated_linear_attention() -> None:
    module: Any = decoder(GatedLinearAttention(2, decay_root=8.0), num_layers=1).blocks[0].attention
    hidden = torch.randn(1, 9, 32, dtype=torch.float64)
    parts = [torch.randn(1, 2, 9, 16, dtype=torch.float64) for _ in range(3)]
    decay = module.recurrence(*parts, module.control(hidden)).log_decay.exp()
    expected = torch.sigmoid(module.decay(module.decay_latent(hidden))) ** (1 / 8)
    torch.testing.assert_close(decay.transpose(1, 2).flatten(2), expected)


def test_first_values_of_the_delta_net() -> None:
    torch.manual_seed(0)
    module: Any = config(GatedDeltaNet(64, 2), hidden_size=128).build(VOCABULARY).blocks[0].attention
    rates, steps = module.log_rate.exp(), F.softplus(module.step_bias)
    assert 0 < rates.min() < 4
    assert 12 < rates.max() <= 16
    assert 0.0009 < steps.min() < 0.003
    assert 0.03 < steps.max() < 0.11


@pytest.mark.parametrize("attention", ALL.values(), ids=ALL.keys())
def test_packed_documents_equal_separate_runs_with_gradients(attention: Attention) -> None:
    lengths = [9, 70, 1, 20]
    tokens = ids(1, 100)
    documents = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))[None]
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    network, twin = decoder(attention), decoder(attention)
    together = network(tokens, document_ids=documents, position_ids=positions)
    together.square().sum().backward()
    separate = torch.cat([twin(part) for part in tokens.split(lengths, dim=1)], dim=1)
    separate.square().sum().backward()
    torch.testing.assert_close(together, separate, rtol=1e-9, atol=1e-10)
    for ours, expected in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-8, atol=1e-9)
    assert (network(tokens, position_ids=positions) - separate)[:, 9:].abs().max() > 1e-3  # the ids matter


@pytest.mark.parametrize("attention", [*MIXERS.values(), HYBRIDS["three to one"]])
def test_documents_in_pieces(attention: Attention) -> None:
    tokens, documents = ids(1, 90), torch.arange(90).remainder(3)[None]
    network = decoder(attention)
    together = network(tokens, document_ids=documents, position_ids=torch.arange(90)[None] // 3)
    for document in range(3):
        alone = network(tokens[:, document::3])
        torch.testing.assert_close(together[:, document::3], alone, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("attention", ALL.values(), ids=ALL.keys())
def test_padding_on_either_side_changes_nothing(attention: Attention) -> None:
    network, tokens = decoder(attention), ids(1, 20)
    alone = network(tokens)
    documents = torch.tensor([[7] * 3 + [0] * 20 + [7] * 5])
    positions = (torch.arange(28) - 3).clamp_min(0)[None]
    padded = F.pad(tokens, (3, 5))
    result = network(padded, document_ids=documents, position_ids=positions)
    torch.testing.assert_close(result[:, 3:23], alone, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("attention", MIXERS.values(), ids=MIXERS.keys())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_trains_in_every_dtype(attention: Attention, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = config(attention, dropout=0.1).build(VOCABULARY).to(dtype).train()
    hidden = network(ids())
    assert hidden.dtype == dtype
    network.logits(hidden).float().square().mean().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == dtype
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("attention", MIXERS.values(), ids=MIXERS.keys())
def test_bfloat16_stays_near_float32(attention: Attention) -> None:
    torch.manual_seed(0)
    network = config(attention).build(VOCABULARY)
    exact = network(ids(length=150)).detach()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(ids(length=150)).detach()
    rounded = network.bfloat16()(ids(length=150)).detach()
    for result in (mixed, rounded):
        assert (result.float() - exact).norm() / exact.norm() < 0.03


def test_fixed_decays_do_not_round_with_the_weights() -> None:
    module: Any = decoder(Retention(4), num_layers=1).blocks[0].attention.bfloat16()
    parts = [torch.zeros(1, 4, 1, 8) for _ in range(3)]
    decays = module.recurrence(*parts, torch.zeros(1, 1, 0)).log_decay.flatten().exp()
    torch.testing.assert_close(decays, 1 - 2.0 ** -torch.arange(5.0, 9.0), rtol=1e-7, atol=0)


def test_meta_device_then_weights() -> None:
    for attention in (*MIXERS.values(), *HYBRIDS.values()):
        with torch.device("meta"):
            empty = config(attention).build(VOCABULARY)
        empty = empty.to_empty(device="cpu").double().eval()
        empty.load_state_dict(decoder(attention).state_dict())
        torch.testing.assert_close(empty(ids()), decoder(attention)(ids()))


@pytest.mark.parametrize("attention", ALL.values(), ids=ALL.keys())
def test_configurations_survive_json_and_yaml(attention: Attention) -> None:
    settings = config(attention)
    assert component_from_dict(settings.to_dict()) == settings
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=DecoderConfig)
    written = yaml.safe_load(yaml.safe_dump({"network": settings.to_dict()["init_args"]}))
    assert parser.instantiate(parser.parse_object(written)).network == settings


def test_roles_and_splits() -> None:
    network = decoder(DELTA, num_layers=1)
    roles = parameter_role(network)
    prefix = "blocks.0.attention."
    for name in ("query_key_value", "gate", "strength_step", "output"):
        assert roles[f"{prefix}{name}.weight"] == "hidden"
    for name in ("convolution.weight", "log_rate", "step_bias", "norm.weight"):
        assert roles[prefix + name] == "vector"
    splits = muon_splits(network)
    assert splits[f"{prefix}query_key_value.weight"] == (32, 32, 32)
    assert splits[f"{prefix}strength_step.weight"] == (4, 4)


@pytest.mark.parametrize("attention", [DELTA, Retention(4, value_dim=16)], ids=["delta net", "retention"])
@pytest.mark.parametrize("length", [16, 64, 192])
def test_flops_are_those_counted(attention: Attention, length: int) -> None:
    network = decoder(attention).float()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.logits(network(ids(3, length)))
    module: Any = network.blocks[0].attention
    # torch does not count the triangular system.
    size = min(length, 64)
    uncounted = 2 * 4 * (size * (module.head_dim + module.value_dim) // 2) if module.delta_rule else 0
    per_token = network.flops_per_token(length) // 3 - len(network.blocks) * uncounted
    assert counter.get_total_flops() == per_token * 3 * length


def test_time_does_not_grow_with_the_square() -> None:
    linear, attention = (decoder(mixer) for mixer in (DELTA, GroupedQueryAttention(4)))
    assert linear.flops_per_token(4096) == linear.flops_per_token(1024)
    assert attention.flops_per_token(4096) > 2 * attention.flops_per_token(1024)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: GatedDeltaNet(0), "num_heads=0"),
        (lambda: GatedDeltaNet(4, 0), "head_dim=0"),
        (lambda: GatedDeltaNet(4, 8, 0), "value_dim=0"),
        (lambda: GatedDeltaNet(4, num_key_heads=3), "num_key_heads=3"),
        (lambda: GatedDeltaNet(4, convolution_width=0), "convolution_width=0"),
        (lambda: GatedLinearAttention(4, decay_size=0), "decay_size=0"),
        (lambda: GatedLinearAttention(4, decay_root=0.0), "decay_root=0"),
        (lambda: config(GatedDeltaNet(5)), "num_heads=5"),
        (lambda: config(Retention(4, 7)), "head_dim=7"),
        (lambda: config(Retention(4, position=Alibi())), "position=Alibi"),
        (lambda: config(Retention(4, position=RelativeBias())), "position=RelativeBias"),
    ],
)
def test_mistakes_are_named(build: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        build()


@pytest.mark.parametrize("option", ["window", "sinks", "kernel", "score_soft_cap", "qk_norm"])
def test_options_of_attention_are_refused(option: str) -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=DecoderConfig)
    written = {"attention": {"class_path": "GatedDeltaNet", "init_args": {option: 3}}}
    with pytest.raises(jsonargparse.ArgumentError, match=option):
        parser.parse_object({"network": written})


@pytest.mark.parametrize("attention", ALL.values(), ids=ALL.keys())
def test_no_use_for_an_encoder(attention: Attention) -> None:
    assert attention.causal_only
    assert not LayerPattern((GroupedQueryAttention(),)).causal_only
    with pytest.raises(ConfigError) as error:
        attention.check_bidirectional()
    assert error.value.option == "attention"


@pytest.mark.parametrize("attention", MIXERS.values(), ids=MIXERS.keys())
def test_no_use_for_another_sequence(attention: Attention) -> None:
    with pytest.raises(ConfigError) as error:
        attention.check_cross(32)
    assert error.value.option == "cross_attention"


@pytest.mark.parametrize(
    "mask",
    [CausalMask(3), BidirectionalMask(), DocumentMask(torch.zeros(2, 30), None, BidirectionalMask())],
    ids=["window", "both directions", "documents in both directions"],
)
def test_masks_that_a_state_cannot_follow(mask: Mask) -> None:
    module: Any = decoder(DELTA).blocks[0].attention
    with pytest.raises(ConfigError, match="over a linear mixer"):
        module(torch.zeros(2, 30, 32, dtype=torch.float64), CallContext(mask))


def test_a_prefix_is_refused() -> None:
    with pytest.raises(ConfigError, match="PrefixMask over a linear mixer"):
        decoder(DELTA)(ids(), prefix_lengths=torch.tensor([3, 0]))


def test_a_cache_of_keys_is_refused() -> None:
    network = decoder(DELTA)
    cache = network.make_cache(2)
    cache.layers[0] = FullCache(CacheShape(2, 30, torch.float64, torch.device("cpu")), 4, 8)
    with pytest.raises(ConfigError, match="FullCache given to a linear mixer"):
        network(ids(), cache=cache)


def test_rotations_of_either_layout_and_none() -> None:
    results = [
        decoder(Retention(4, position=position))(ids()) for position in (Rope(), NoPosition(), Rope(500.0))
    ]
    assert not torch.allclose(results[0], results[1])
    assert not torch.allclose(results[0], results[2])
