"""MLP and GeGLU: the formulas, biases, names of activations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from insight.models import MLP, DecoderConfig, GeGLU, ReluSquared
from insight.runtime.errors import ConfigError

FORMULAS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "relu": lambda x: x.clamp_min(0),
    "relu_squared": lambda x: x.clamp_min(0) ** 2,
    "silu": lambda x: x * torch.sigmoid(x),
}


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("bias", [False, True])
def test_mlp_equals_the_formula(name: Any, bias: bool) -> None:
    torch.manual_seed(0)
    layer: Any = MLP(24, name, bias).build(16).double()
    hidden = numbers(2, 5, 16)
    inner, outer = 0, 0
    if bias:
        with torch.no_grad():
            layer.up.bias.normal_()
            layer.down.bias.normal_()
        inner, outer = layer.up.bias, layer.down.bias
    expected = FORMULAS[name](hidden @ layer.up.weight.mT + inner) @ layer.down.weight.mT + outer
    torch.testing.assert_close(layer(hidden), expected)
    assert [key for key, _ in layer.named_parameters() if "bias" in key] == ["up.bias", "down.bias"] * bias


def test_geglu_equals_the_formula() -> None:
    torch.manual_seed(0)
    layer: Any = GeGLU(24).build(16).double()
    gate, up = layer.gate_up.parts()
    hidden = numbers(2, 5, 16)
    expected = (FORMULAS["gelu_tanh"](hidden @ gate.mT) * (hidden @ up.mT)) @ layer.down.weight.mT
    torch.testing.assert_close(layer(hidden), expected)


def test_relu_squared_is_an_mlp() -> None:
    torch.manual_seed(0)
    one: Any = ReluSquared(24).build(16)
    torch.manual_seed(0)
    other: Any = MLP(24, "relu_squared").build(16)
    hidden = numbers(3, 16).float()
    assert torch.equal(one(hidden), other(hidden))


def test_biases_begin_at_zero_and_survive_initialization() -> None:
    network = DecoderConfig(hidden_size=16, num_layers=1, feed_forward=MLP(24, bias=True)).build(20)
    biases = {name: p for name, p in network.named_parameters() if name.endswith("bias")}
    assert len(biases) == 2
    assert all((bias == 0).all() for bias in biases.values())


@pytest.mark.parametrize(
    ("config", "width"), [(MLP(), 64), (GeGLU(), 64), (MLP(100), 100), (GeGLU(100), 100)]
)
def test_widths(config: Any, width: int) -> None:
    assert config.build(16).down.in_features == width


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'gelu_tanh'"):
        MLP(activation="gelu_tan")  # type: ignore[arg-type]
    for kind in (MLP, GeGLU):
        with pytest.raises(ConfigError) as error:
            kind(0)
        assert (error.value.option, error.value.value) == ("intermediate_size", 0)
