"""Optimizers against torch's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from insight.models import DecoderConfig, GroupedQueryAttention, SwiGLU, muon_splits, parameter_role
from insight.runtime.errors import ConfigError
from insight.training import AdamW, MuonAdamW
from insight.training.optimizers import muon_adamw as newton_schulz
from insight.training.optimizers.muon_adamw import orthogonalize


def network() -> nn.Module:
    torch.manual_seed(0)
    return DecoderConfig(
        hidden_size=32,
        num_layers=2,
        attention=GroupedQueryAttention(num_heads=4, num_key_value_heads=2),
        feed_forward=SwiGLU(intermediate_size=48),
    ).build(64)


def with_gradients(net: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("whole", [False, True])
def test_muon_equals_torch_muon_on_each_matrix(whole: bool) -> None:
    """With the planted fault ``whole``, fused weights are compared with one orthogonalisation of them all."""
    net = network()
    splits, roles = {} if whole else muon_splits(net), parameter_role(net)
    hidden = {name: p for name, p in net.named_parameters() if roles[name] == "hidden"}
    theirs = {
        name: [part.detach().clone().requires_grad_() for part in p.split(splits.get(name, p.shape[0]))]
        for name, p in hidden.items()
    }
    optimizer = MuonAdamW(learning_rate=0.02, weight_decay=0.1, precision="bfloat16").build(net)
    reference = torch.optim.Muon(
        [part for parts in theirs.values() for part in parts],
        lr=0.02,
        weight_decay=0.1,
        momentum=0.95,
        nesterov=True,
        ns_steps=5,
    )
    for step in range(3):
        with_gradients(net, step)
        for name, parameter in hidden.items():
            assert parameter.grad is not None
            for part, gradient in zip(
                theirs[name], parameter.grad.split(splits.get(name, parameter.shape[0])), strict=True
            ):
                part.grad = gradient.clone()
        optimizer.step()
        reference.step()
    # Both iterate in bfloat16, in another order of operations.
    largest = max(float((p - torch.cat(theirs[name])).detach().abs().max()) for name, p in hidden.items())
    assert largest > 6e-3 if whole else largest < 2e-3


def test_the_rest_equals_torch_adamw() -> None:
    net, roles = network(), parameter_role(network())
    rest = {name: p for name, p in net.named_parameters() if roles[name] != "hidden"}
    theirs = {name: p.detach().clone().requires_grad_() for name, p in rest.items()}
    optimizer = MuonAdamW(adam_learning_rate=3e-3, embedding_learning_rate=0.09).build(net)
    reference = torch.optim.AdamW(
        [{"params": [p], "lr": 0.09 if roles[name] == "embedding" else 3e-3} for name, p in theirs.items()],
        betas=(0.9, 0.95),
        weight_decay=0.0,
    )
    for step in range(3):
        with_gradients(net, step)
        for name, parameter in rest.items():
            assert parameter.grad is not None
            theirs[name].grad = parameter.grad.clone()
        optimizer.step()
        reference.step()
    for name, parameter in rest.items():
        torch.testing.assert_close(parameter.data, theirs[name].data, rtol=1e-5, atol=1e-6)


def test_every_parameter_is_in_exactly_one_group() -> None:
    net = network()
    for config in (MuonAdamW(), AdamW()):
        grouped = [p for group in config.build(net).param_groups for p in group["params"]]
        assert len(grouped) == len(set(grouped)) == len(list(net.parameters()))


def test_adamw_decays_only_matrices() -> None:
    groups = {
        g["role"]: g
        for g in AdamW(weight_decay=0.1, embedding_learning_rate=0.5).build(network()).param_groups
    }
    assert {role: g["weight_decay"] for role, g in groups.items()} == {
        "embedding": 0.0,
        "hidden": 0.1,
        "head": 0.1,
        "vector": 0.0,
    }
    assert groups["embedding"]["initial_lr"] == 0.5
    assert groups["hidden"]["initial_lr"] == 3e-3


@pytest.mark.parametrize("shape", [(3, 16, 40), (3, 40, 16), (2, 24, 24)])
def test_orthogonalization_is_the_quintic_of_the_singular_values(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    values = values / values.norm(dim=-1, keepdim=True)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    expected = left * values[:, None, :] @ right
    torch.testing.assert_close(orthogonalize(matrices.clone(), 5), expected)
    rough = orthogonalize(matrices.bfloat16(), 5).double()
    assert (rough - expected).norm() < 0.05 * expected.norm()
    if shape[1] != shape[2]:  # a square of random numbers may have a singular value near 0
        assert torch.linalg.svdvals(rough).min() > 0.6
        assert torch.linalg.svdvals(rough).max() < 1.25


def test_precision_is_the_faster_one_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {torch.float32: 100.0, torch.bfloat16: 2.0}
    monkeypatch.setattr(newton_schulz, "measure_matmul_rate", lambda dtype, device: rates[dtype])
    newton_schulz.faster_dtype.cache_clear()
    try:
        assert hidden_group(MuonAdamW().build(network()))["dtype"] == "float32"
        newton_schulz.faster_dtype.cache_clear()
        rates[torch.bfloat16] = 500.0
        assert hidden_group(MuonAdamW().build(network()))["dtype"] == "bfloat16"
        assert hidden_group(MuonAdamW(precision="float32").build(network()))["dtype"] == "float32"
    finally:
        newton_schulz.faster_dtype.cache_clear()


def test_resumed_optimizer_keeps_the_precision_it_began_with() -> None:
    """What is faster is measured, and a neighbour may disturb that: it must not change a resumed run."""
    first, second = (MuonAdamW(precision=p).build(network()) for p in ("float32", "bfloat16"))
    second.load_state_dict(first.state_dict())
    assert hidden_group(second)["dtype"] == "float32"


def hidden_group(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return next(group for group in optimizer.param_groups if group["role"] == "hidden")


def test_state_survives_saving() -> None:
    net = network()
    optimizer = MuonAdamW().build(net)
    with_gradients(net, 0)
    optimizer.step()
    twin = network()
    twin.load_state_dict(net.state_dict())
    other = MuonAdamW().build(twin)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each, its in ((net, optimizer), (twin, other)):
        with_gradients(each, 1)
        its.step()
    for first, second in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("config", "option", "value"),
    [
        (MuonAdamW, "learning_rate", 0.0),
        (MuonAdamW, "momentum", 1.0),
        (MuonAdamW, "num_iterations", 0),
        (MuonAdamW, "precision", "float16"),
        (AdamW, "weight_decay", -1.0),
    ],
)
def test_mistakes_are_named(config: type, option: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**{option: value})
    assert (caught.value.option, caught.value.value) == (option, value)
