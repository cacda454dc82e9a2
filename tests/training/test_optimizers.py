"""Optimizers against torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from insight.models import DecoderConfig, GroupedQueryAttention, SwiGLU, muon_splits, parameter_role
from insight.runtime.errors import ConfigError
from insight.training import AdamW, MuonAdamW
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


def test_muon_equals_torch_muon_on_each_matrix() -> None:
    net = network()
    splits, roles = muon_splits(net), parameter_role(net)
    hidden = {name: p for name, p in net.named_parameters() if roles[name] == "hidden"}
    theirs = {
        name: [part.detach().clone().requires_grad_() for part in p.split(splits.get(name, p.shape[0]))]
        for name, p in hidden.items()
    }
    optimizer = MuonAdamW(learning_rate=0.02, weight_decay=0.1).build(net)
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
    for name, parameter in hidden.items():
        # Both iterate in bfloat16, in another order of operations.
        torch.testing.assert_close(parameter.data, torch.cat(theirs[name]).data, rtol=0, atol=2e-3)


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


def test_orthogonalized_matrices_have_singular_values_near_one() -> None:
    matrices = torch.randn(3, 16, 40, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrices, 5).float())
    assert values.min() > 0.5
    assert values.max() < 1.3


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
    ("config", "arguments", "named"),
    [
        (MuonAdamW, {"learning_rate": 0.0}, "learning_rate=0.0"),
        (MuonAdamW, {"momentum": 1.0}, "momentum=1.0"),
        (MuonAdamW, {"num_iterations": 0}, "num_iterations=0"),
        (AdamW, {"weight_decay": -1.0}, "weight_decay=-1.0"),
        (AdamW, {"learning_rate": float("nan")}, "learning_rate=nan"),
    ],
)
def test_mistakes_are_named(config: type, arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        config(**arguments)
