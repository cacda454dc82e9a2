"""Feed-forward layers: the formulas, the joined gradient, default widths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from insight.models import ReluSquared, SwiGLU
from insight.models.feed_forward import gated_silu
from insight.runtime.errors import ConfigError


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(
        shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).requires_grad_()


def test_swiglu_equals_the_formula_with_gradients() -> None:
    torch.manual_seed(0)
    layer: Any = SwiGLU(24).build(16).double()
    gate, up = layer.gate_up.parts()
    hidden, twin = numbers(2, 5, 16), numbers(2, 5, 16)
    expected = (F.silu(twin @ gate.mT) * (twin @ up.mT)) @ layer.down.weight.mT
    expected.square().sum().backward()
    expected_weight_gradient = layer.gate_up.weight.grad.clone()
    layer.zero_grad()
    output = layer(hidden)
    output.square().sum().backward()
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(hidden.grad, twin.grad)
    torch.testing.assert_close(layer.gate_up.weight.grad, expected_weight_gradient)


def test_gate_gradient_by_finite_differences() -> None:
    assert torch.autograd.gradcheck(gated_silu, (numbers(3, 4, 10),))


def test_gate_and_up_are_not_interchangeable() -> None:
    gate_up = numbers(3, 10)
    swapped = torch.cat(gate_up.chunk(2, dim=-1)[::-1], dim=-1)
    assert not torch.allclose(gated_silu(gate_up), gated_silu(swapped))


def test_backward_twice_gives_the_same() -> None:
    gate_up = numbers(3, 10)
    output = gated_silu(gate_up).square().sum()
    first = torch.autograd.grad(output, gate_up, retain_graph=True)[0].clone()
    torch.testing.assert_close(torch.autograd.grad(output, gate_up)[0], first)


def test_relu_squared_equals_the_formula() -> None:
    layer: Any = ReluSquared(24).build(16).double()
    hidden = numbers(2, 5, 16)
    expected = (hidden @ layer.up.weight.mT).clamp_min(0).pow(2) @ layer.down.weight.mT
    torch.testing.assert_close(layer(hidden), expected)


@pytest.mark.parametrize(
    ("config", "hidden_size", "width"),
    [(SwiGLU(), 192, 512), (SwiGLU(), 256, 704), (SwiGLU(100), 64, 100), (ReluSquared(), 64, 256)],
)
def test_widths(config: SwiGLU | ReluSquared, hidden_size: int, width: int) -> None:
    layer: Any = config.build(hidden_size)
    assert layer.down.in_features == width


@pytest.mark.parametrize("config", [SwiGLU, ReluSquared])
def test_width_is_checked(config: Any) -> None:
    with pytest.raises(ConfigError) as error:
        config(0)
    assert (error.value.option, error.value.value) == ("intermediate_size", 0)
