"""Mixtures of experts against a loop over tokens, and what a network may ask of them."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.utils import counters
from torch.utils.flop_counter import FlopCounterMode

from insight.models import (
    ActivationCheckpointing,
    BalanceBias,
    BalanceLoss,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    FeedForwardPattern,
    GroupedQueryAttention,
    MixtureOfExperts,
    ReluSquared,
    Router,
    RouterBalance,
    SwiGLU,
    ZeroOutputInitialization,
    linear,
    muon_splits,
    parameter_role,
)
from insight.models.feed_forward.mixture import balance_loss
from insight.models.linear import grouped_linear, grouped_linear_backward
from insight.runtime.component import component_from_dict
from insight.runtime.errors import ConfigError

HIDDEN = 16
CONFIGS: dict[str, MixtureOfExperts] = {
    name: replace(config, intermediate_size=12)
    for name, config in {
        "softmax": MixtureOfExperts(6, 2),
        "raw softmax": MixtureOfExperts(6, 2, normalized_weights=False),
        "one expert": MixtureOfExperts(6, 1, normalized_weights=False),
        "all experts": MixtureOfExperts(4, 4),
        "shared": MixtureOfExperts(6, 2, num_shared_experts=2),
        "deepseek": MixtureOfExperts(
            8,
            3,
            num_shared_experts=1,
            score="sigmoid",
            weight_scale=2.5,
            num_groups=4,
            num_groups_per_token=2,
            balance=BalanceBias(),
        ),
        "groups of one": MixtureOfExperts(4, 2, num_groups=4, num_groups_per_token=2),
        "gpt-oss": MixtureOfExperts(6, 3, gate="clamped", expert_bias=True, router_bias=True, balance=None),
    }.items()
}


def build(config: MixtureOfExperts, dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(0)
    layer = config.build(HIDDEN).to(dtype)
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            tensor.normal_(std=0.5)
    return layer


def numbers(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gated(config: MixtureOfExperts, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    if config.gate == "silu":
        return F.silu(gate) * up
    gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
    return (up + 1) * gate / (1 + torch.exp(-1.702 * gate))


def one_token(config: MixtureOfExperts, layer: Any, x: torch.Tensor) -> torch.Tensor:
    """The layer's output for one token, expert by expert."""
    router = layer.router
    logits = router.projection.weight @ x
    if config.router_bias:
        logits = logits + router.projection.bias
    scores = torch.sigmoid(logits) if config.score == "sigmoid" else logits.exp() / logits.exp().sum()
    ranked = scores.detach().clone()
    if router.choice_bias is not None:
        ranked += router.choice_bias
    size = config.num_experts // config.num_groups
    merits = [sum(sorted(ranked[g * size : (g + 1) * size].tolist())[-2:]) for g in range(config.num_groups)]
    best = sorted(range(config.num_groups), key=lambda g: -merits[g])[: config.num_groups_per_token]
    allowed = [e for e in range(config.num_experts) if e // size in best]
    chosen = sorted(allowed, key=lambda e: -float(ranked[e]))[: config.num_experts_per_token]
    total = sum(scores[e] for e in chosen) if config.normalized_weights else 1.0
    output = torch.zeros_like(x)
    for e in chosen:
        inner, outer = layer.expert_gate_up.weight[e] @ x, layer.expert_down.weight[e]
        if config.expert_bias:
            inner = inner + layer.expert_gate_up.bias[e]
        result = outer @ gated(config, *inner.chunk(2))
        if config.expert_bias:
            result = result + layer.expert_down.bias[e]
        output = output + config.weight_scale * scores[e] / total * result
    if layer.shared is not None:
        gate, up = layer.shared.gate_up.parts()
        output = output + layer.shared.down.weight @ gated(config, gate @ x, up @ x)
    return output


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_equals_a_loop_over_tokens_with_gradients(config: MixtureOfExperts) -> None:
    layer = build(config).eval()
    hidden, twin = numbers(2, 7, HIDDEN).requires_grad_(), numbers(2, 7, HIDDEN).requires_grad_()
    expected = torch.stack([one_token(config, layer, x) for x in twin.flatten(0, 1)]).view(2, 7, HIDDEN)
    weights = numbers(2, 7, HIDDEN, seed=2)
    (expected * weights).sum().backward()
    gradients = {name: p.grad.clone() for name, p in layer.named_parameters() if p.grad is not None}
    layer.zero_grad()
    output = layer(hidden)
    (output * weights).sum().backward()
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(hidden.grad, twin.grad)
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], msg=name)


def test_the_bias_of_the_choice_changes_the_choice_and_no_weight() -> None:
    layer = build(replace(CONFIGS["deepseek"], num_groups=1, num_groups_per_token=1, num_experts_per_token=8))
    tokens = numbers(9, HIDDEN)
    before = layer(tokens)
    layer.router.choice_bias.normal_(std=3.0)
    torch.testing.assert_close(layer(tokens), before)  # all eight are chosen in any case
    few = build(CONFIGS["deepseek"])
    before = few(tokens)
    few.router.choice_bias.neg_()
    assert not torch.allclose(few(tokens), before)


def test_a_token_does_not_depend_on_its_neighbours() -> None:
    layer = build(CONFIGS["softmax"])
    tokens = numbers(40, HIDDEN)
    torch.testing.assert_close(torch.cat([layer(tokens[i : i + 1]) for i in range(40)]), layer(tokens))
    crowd = tokens[:1].expand(40, -1)  # no expert has a capacity that could overflow
    torch.testing.assert_close(layer(crowd), layer(tokens[:1]).expand(40, -1))


ENDS = torch.tensor([3, 3, 8, 9])


def test_grouped_products_by_finite_differences() -> None:
    rows, weight = numbers(9, 5).requires_grad_(), numbers(4, 6, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda *tensors: grouped_linear(*tensors, ENDS), (rows, weight))


def test_the_operation_keeps_what_torch_asks_of_one() -> None:
    rows, weight = numbers(9, 5).requires_grad_(), numbers(4, 6, 5).requires_grad_()
    torch.library.opcheck(grouped_linear, (rows, weight, ENDS))


def test_torch_grouped_products_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What accelerators run, here by torch's own fallback."""
    rows, weight, gradient = (numbers(*shape).bfloat16() for shape in ((9, 16), (4, 24, 16), (9, 24)))

    def products() -> list[torch.Tensor]:
        gradients = grouped_linear_backward(gradient, rows, weight, ENDS)
        return [grouped_linear(rows, weight, ENDS), *gradients]

    one_by_one, calls = products(), []
    monkeypatch.setattr(linear, "has_fused_kernel", lambda *_: calls.append(1) or True)
    for result, wanted in zip(products(), one_by_one, strict=True):
        torch.testing.assert_close(result, wanted)
    assert len(calls) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_accelerator_multiplies_alike() -> None:
    layer = build(replace(CONFIGS["shared"], intermediate_size=16), torch.float32)
    tokens = numbers(50, HIDDEN).float()
    results = []
    for device in ("cpu", "cuda"):
        layer.zero_grad()
        moved = layer.to(device).bfloat16()
        output = moved(tokens.to(device).bfloat16())
        output.float().square().sum().backward()
        gradient = moved.expert_gate_up.weight.grad
        results.append((output.detach().float().cpu(), gradient.float().cpu()))
    for cpu, cuda in zip(*results, strict=True):
        assert (cpu - cuda).norm() < 0.02 * cpu.norm()


def test_the_balance_loss_is_that_of_transformers() -> None:
    pytest.importorskip("transformers")
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    logits = numbers(50, 6).float()
    probabilities = logits.softmax(-1)
    counts = torch.bincount(probabilities.topk(2).indices.flatten(), minlength=6)
    # Theirs grows with the number of experts a token is given.
    assert 2 * balance_loss(counts, probabilities) == pytest.approx(
        float(load_balancing_loss_func((logits,), 6, 2)), rel=1e-5
    )


def test_even_load_has_a_balance_of_one_and_uneven_load_more() -> None:
    even, uneven = torch.eye(4), torch.eye(4)[[0, 0, 0, 1]]
    for probabilities, expected in ((even, 1.0), (uneven, 4 * (0.75**2 + 0.25**2))):
        assert balance_loss(probabilities.sum(0).long(), probabilities) == pytest.approx(expected)


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_what_a_training_pass_did_is_told_once(score: Any) -> None:
    layer = build(MixtureOfExperts(6, 2, intermediate_size=12, score=score)).train()
    layer(numbers(3, 10, HIDDEN))
    routed = layer.router.take()
    assert routed.counts.sum() == 60
    assert layer.router.take() is None
    routed.balance.backward()
    assert layer.router.projection.weight.grad.norm() > 0
    layer.eval()(numbers(3, 10, HIDDEN))
    assert layer.router.take() is None
    layer.train()
    with torch.no_grad():
        layer(numbers(3, 10, HIDDEN))
    assert layer.router.take() is None


@pytest.mark.parametrize("balance", [BalanceLoss(), BalanceBias(0.5)])
@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_padding_takes_no_part_in_the_balance(balance: RouterBalance, score: Any) -> None:
    layer = build(MixtureOfExperts(4, 2, intermediate_size=12, score=score, balance=balance)).train()
    tokens, real = numbers(2, 8, HIDDEN), torch.ones(2, 32, dtype=torch.bool)
    layer(tokens)
    expected = layer.router.take()
    real[:, 8:] = False
    layer(torch.cat([tokens, numbers(1, 1, HIDDEN).expand(2, 24, -1)], dim=1), real)
    found = layer.router.take()
    assert found.counts.tolist() == expected.counts.tolist()
    torch.testing.assert_close(found.balance, expected.balance)
    layer.router.move_bias(found.counts)
    layer(tokens, torch.zeros(2, 8, dtype=torch.bool))  # nothing but padding
    empty = layer.router.take()
    assert empty.counts.sum() == 0
    assert empty.balance == 0


def test_every_network_passes_its_padding_on_to_the_routers() -> None:
    mixture = MixtureOfExperts(4, 2, intermediate_size=12)
    encoder = EncoderConfig(HIDDEN, 2, GroupedQueryAttention(4), mixture)
    decoder = DecoderConfig(HIDDEN, 2, GroupedQueryAttention(4), mixture)
    ids, real = torch.arange(32).view(2, 16), torch.arange(16) < torch.tensor([[16], [5]])
    together = EncoderDecoderConfig(encoder, decoder).build(50)
    together(ids, ids, source_mask=real, target_mask=real)
    encoder.build(50)(ids, token_mask=real)
    for network, arguments in (
        (together, {"source_mask": real, "target_mask": real}),
        (encoder.build(50), {"token_mask": real}),
        (decoder.build(50), {"token_mask": real}),
    ):
        network.train()(*([ids] * (2 if network is together else 1)), **arguments)
        routers = [module for module in network.modules() if isinstance(module, Router)]
        assert len(routers) >= 2
        for router in routers:
            routed = router.take()
            assert routed is not None
            assert routed.counts.sum() == 2 * 21


def test_a_network_can_be_copied_after_a_training_pass() -> None:
    layer = build(CONFIGS["softmax"]).train()
    layer(numbers(3, HIDDEN))
    twin = copy.deepcopy(layer)
    assert twin.router.take() is None
    torch.testing.assert_close(twin(numbers(3, HIDDEN)), layer(numbers(3, HIDDEN)))


def test_the_bias_moves_against_the_load() -> None:
    router = build(CONFIGS["deepseek"]).router
    before = router.choice_bias.clone()
    router.move_bias(torch.tensor([9, 5, 1, 5, 5, 5, 5, 5]))
    steps = [-0.001, 0, 0.001, 0, 0, 0, 0, 0]
    torch.testing.assert_close(router.choice_bias - before, torch.tensor(steps, dtype=torch.float64))


def test_routers_stay_precise_in_sixteen_bits() -> None:
    layer = build(CONFIGS["deepseek"], torch.float32).eval()
    tokens = numbers(64, HIDDEN).float().bfloat16()
    bias = layer.router.choice_bias.clone()
    rounded = copy.deepcopy(layer).bfloat16()
    assert rounded.router.choice_bias.dtype == torch.float32
    assert torch.equal(rounded.router.choice_bias, bias)
    assert rounded(tokens).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        experts, weights = layer.router(tokens.float())
        assert layer(tokens.float()).dtype == torch.bfloat16
    assert weights.dtype == torch.float32
    assert torch.equal(experts, layer.router(tokens.float())[0])


def network(**options: Any) -> Any:
    torch.manual_seed(0)
    mixture = MixtureOfExperts(6, 2, intermediate_size=24, num_shared_experts=1, expert_bias=True)
    settings: dict[str, Any] = {
        "hidden_size": HIDDEN,
        "num_layers": 2,
        "max_sequence_length": 32,
        "feed_forward": FeedForwardPattern((mixture,), first=(SwiGLU(40),)),
    }
    return DecoderConfig(**(settings | options)).build(30)


def test_a_pattern_has_its_first_layers_once() -> None:
    first, dense, mixture = SwiGLU(8), ReluSquared(8), MixtureOfExperts(4, 2, intermediate_size=8)
    pattern = FeedForwardPattern((mixture, dense), first=(first, first))
    kinds = [type(pattern.build(HIDDEN, layer)).__name__ for layer in range(6)]
    gated_kind, mixed, plain = (type(each.build(HIDDEN)).__name__ for each in (first, mixture, dense))
    assert kinds == [gated_kind, gated_kind, mixed, plain, mixed, plain]
    assert component_from_dict(pattern.to_dict()) == pattern


def test_counts_of_parameters_and_products() -> None:
    net = network()
    dense = network(feed_forward=SwiGLU(40))
    expert = 3 * 24 * HIDDEN
    extra = 7 * expert + 6 * HIDDEN + 6 * (48 + HIDDEN) + 48 + HIDDEN - 3 * 40 * HIDDEN
    assert net.num_parameters() == dense.num_parameters() + extra
    assert dense.num_active_parameters() == dense.num_parameters()
    assert net.num_active_parameters() == net.num_parameters() - 4 * (expert + 48 + HIDDEN)
    used = 3 * expert + 6 * HIDDEN - 3 * 40 * HIDDEN
    assert net.flops_per_token(8) == dense.flops_per_token(8) + 6 * used


def test_products_equal_a_count_of_the_operations() -> None:
    net = network(attention=GroupedQueryAttention(4, kernel="reference")).eval()
    ids = torch.randint(0, 30, (2, 16))

    def products(rows: Any, weight: Any, ends: Any, **_: Any) -> int:
        return int(2 * rows[0] * weight[1] * weight[2])

    mapping = {torch.ops.insight.grouped_linear: products}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        net.logits(net(ids))
    assert 3 * counter.get_total_flops() == net.flops_per_token(16) * ids.numel()


def test_a_token_costs_about_what_it_costs_without_a_mixture() -> None:
    dense = DecoderConfig(hidden_size=256, num_layers=2).build(30)
    mixture = MixtureOfExperts(8, 2, num_shared_experts=1)
    net = DecoderConfig(hidden_size=256, num_layers=2, feed_forward=mixture).build(30)
    assert net.flops_per_token(64) == pytest.approx(dense.flops_per_token(64), rel=0.05)


def test_roles_and_splits() -> None:
    net = network()
    roles = {
        name.removeprefix("blocks.1.feed_forward."): role
        for name, role in parameter_role(net).items()
        if name.startswith("blocks.1.feed_forward.")
    }
    assert roles == {
        "router.projection.weight": "router",
        "expert_gate_up.weight": "hidden",
        "expert_gate_up.bias": "vector",
        "expert_down.weight": "hidden",
        "expert_down.bias": "vector",
        "shared.gate_up.weight": "hidden",
        "shared.gate_up.bias": "vector",
        "shared.down.weight": "hidden",
        "shared.down.bias": "vector",
    }
    splits = muon_splits(net)
    assert splits["blocks.1.feed_forward.expert_gate_up.weight"] == (24, 24)
    assert "blocks.1.feed_forward.expert_down.weight" not in splits


def test_experts_are_initialized_by_their_role() -> None:
    large = MixtureOfExperts(8, 2, intermediate_size=64)
    options = {"hidden_size": 64, "num_layers": 2, "feed_forward": large}
    scaled: Any = DecoderConfig(**options).build(30).blocks[0].feed_forward
    assert float(scaled.expert_gate_up.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(scaled.expert_down.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    zero: Any = DecoderConfig(**options, initialization=ZeroOutputInitialization()).build(30)
    zeroed = zero.blocks[0].feed_forward
    assert float(zeroed.expert_gate_up.weight.detach().std()) == pytest.approx(64**-0.5, rel=0.05)
    assert not zeroed.expert_down.weight.any()
    first, second = (scaled.expert_gate_up.weight[e] for e in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shared", "deepseek", "gpt-oss"])
def test_compiles_whole_with_the_gradient_of_the_balance(name: str) -> None:
    net = network(feed_forward=CONFIGS[name]).double().train()
    routers = [module for module in net.modules() if isinstance(module, Router)]
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True, dynamic=False)

    def outcome(call: Any, ids: torch.Tensor) -> list[torch.Tensor]:
        net.zero_grad()
        hidden = call(ids)
        routed = [router.take() for router in routers]
        assert all(routed)
        loss = hidden.square().mean() + sum(result.balance for result in routed if result is not None)
        loss.backward()
        told = [part for result in routed if result is not None for part in result]
        gradients = [p.grad.clone() for p in net.parameters() if p.grad is not None]
        assert len(gradients) == len(list(net.parameters())) - 1  # the head is not asked
        return [hidden.detach(), *told, *gradients]

    for seed in range(2):
        ids = torch.randint(0, 30, (2, 20), generator=torch.Generator().manual_seed(seed))
        for result, expected in zip(outcome(compiled, ids), outcome(net, ids), strict=True):
            torch.testing.assert_close(result, expected)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("name", ["deepseek", "gpt-oss"])
def test_recomputed_activations_choose_and_count_alike(name: str) -> None:
    ids = torch.randint(0, 30, (2, 20), generator=torch.Generator().manual_seed(0))

    def outcome(checkpointing: ActivationCheckpointing | None) -> list[torch.Tensor]:
        net = network(feed_forward=CONFIGS[name], activation_checkpointing=checkpointing).train()
        hidden = net(ids)
        routed = [module.take() for module in net.modules() if isinstance(module, Router)]
        (hidden.square().mean() + sum(result.balance for result in routed if result is not None)).backward()
        told = [part for result in routed if result is not None for part in result]
        return told + [p.grad for p in net.parameters() if p.grad is not None]

    for result, expected in zip(outcome(ActivationCheckpointing()), outcome(None), strict=True):
        assert torch.equal(result, expected)


@pytest.mark.slow
def test_export_with_dynamic_length() -> None:
    net = network().eval()
    ids = torch.randint(0, 30, (2, 20))
    length = torch.export.Dim("length", min=2, max=31)
    exported = torch.export.export(net, (ids,), dynamic_shapes={"input_ids": {1: length}}).module()
    with torch.no_grad():
        for some in (ids, ids[:, :3]):
            torch.testing.assert_close(exported(some), net(some), rtol=1e-4, atol=1e-5)


def test_the_choice_bias_travels_with_the_weights() -> None:
    one, other = (network(feed_forward=CONFIGS["deepseek"]) for _ in range(2))
    one.blocks[0].feed_forward.router.choice_bias += 1
    other.load_state_dict(one.state_dict())
    assert other.blocks[0].feed_forward.router.choice_bias.eq(1).all()
    assert component_from_dict(one.config.to_dict()) == one.config


def test_built_on_the_meta_device_and_filled_later() -> None:
    with torch.device("meta"):
        net = network()
    assert all(parameter.is_meta for parameter in net.parameters())
    net.to_empty(device="cpu")
    net.load_state_dict(network().state_dict())
    ids = torch.arange(20)[None]
    assert torch.equal(net(ids), network()(ids))


@pytest.mark.parametrize(
    ("build_it", "named"),
    [
        (lambda: MixtureOfExperts(0), "num_experts=0"),
        (lambda: MixtureOfExperts(4, 5), "num_experts_per_token=5"),
        (lambda: MixtureOfExperts(4, 2, intermediate_size=0), "intermediate_size=0"),
        (lambda: MixtureOfExperts(4, 2, num_shared_experts=-1), "num_shared_experts=-1"),
        (lambda: MixtureOfExperts(4, 2, num_groups=3), "num_groups=3: must divide.*use 1, 2 or 4"),
        (lambda: MixtureOfExperts(4, 2, num_groups=2, num_groups_per_token=3), "num_groups_per_token=3"),
        (lambda: MixtureOfExperts(8, 3, num_groups=4), "hold 2 experts"),
        (lambda: MixtureOfExperts(4, 2, weight_scale=0.0), "weight_scale=0"),
        (lambda: MixtureOfExperts(4, 2, gate="clampd"), "did you mean 'clamped'"),  # type: ignore[arg-type]
        (lambda: MixtureOfExperts(4, 2, score="soft"), "score=soft: is unknown"),  # type: ignore[arg-type]
        (lambda: BalanceLoss(0.0), "coefficient=0"),
        (lambda: BalanceBias(-1.0), "rate=-1"),
        (lambda: FeedForwardPattern(), r"layers=\(\)"),
    ],
)
def test_mistakes_are_named(build_it: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        build_it()
