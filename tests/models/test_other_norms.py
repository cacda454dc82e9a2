"""Layer norm and the RMS norm whose factors are one more than the weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from insight.models import LayerNorm, Norm, OffsetRMSNorm, RMSNorm
from insight.runtime.errors import ConfigError


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (values + 0.5).requires_grad_()


def test_layer_norm_equals_the_formula() -> None:
    module: Any = LayerNorm(eps=1e-2).build(6).double()
    with torch.no_grad():
        module.weight.copy_(numbers(6, seed=1))
        module.bias.copy_(numbers(6, seed=2))
    hidden = numbers(4, 6)
    centred = hidden - hidden.mean(-1, keepdim=True)
    expected = centred / (centred.square().mean(-1, keepdim=True) + 1e-2).sqrt() * module.weight + module.bias
    torch.testing.assert_close(module(hidden), expected)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (LayerNorm(), ["weight", "bias"]),
        (LayerNorm(bias=False), ["weight"]),
        (LayerNorm(weight=False), []),
        (OffsetRMSNorm(), ["weight"]),
    ],
)
def test_parameters(config: Norm, names: list[str]) -> None:
    assert [name for name, _ in config.build(6).named_parameters()] == names


def test_offset_is_one_more_than_the_weight() -> None:
    offset: Any = OffsetRMSNorm(1e-3).build(6).double()
    plain: Any = RMSNorm(1e-3).build(6).double()
    weight = numbers(6, seed=1)
    with torch.no_grad():
        offset.weight.copy_(weight - 1)
        plain.weight.copy_(weight)
    results = []
    for module in (offset, plain):
        hidden = numbers(4, 6)
        output = module(hidden)
        (output * torch.arange(6)).square().sum().backward()
        results.append([output, hidden.grad, module.weight.grad])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


def test_offset_begins_as_plain_rms() -> None:
    hidden = numbers(4, 6)
    torch.testing.assert_close(
        OffsetRMSNorm().build(6).double()(hidden), RMSNorm(weight=False).build(6)(hidden)
    )


def test_a_small_weight_is_not_lost_in_bfloat16() -> None:
    module: Any = OffsetRMSNorm().build(64)
    with torch.no_grad():
        module.weight.fill_(0.0015)  # 1.0015 would round to 1 in bfloat16
    hidden = numbers(5, 64).detach().to(torch.bfloat16)
    exact = module.double()(hidden.double())
    assert (module.float()(hidden).double() - exact).abs().max() <= 2**-8 * exact.abs().max()
    assert module(hidden).dtype == torch.bfloat16


@pytest.mark.parametrize("config", [LayerNorm(), LayerNorm(bias=False), OffsetRMSNorm(), RMSNorm()])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_with_float32_weights(config: Norm, dtype: torch.dtype) -> None:
    module, hidden = config.build(16), numbers(5, 16).detach().to(dtype)
    output = module(hidden)
    assert output.dtype == dtype
    torch.testing.assert_close(
        output.double(), config.build(16).double()(hidden.double()), rtol=2e-2, atol=2e-2
    )


@pytest.mark.parametrize("kind", [LayerNorm, OffsetRMSNorm])
def test_eps_is_checked(kind: Any) -> None:
    with pytest.raises(ConfigError) as error:
        kind(eps=0.0)
    assert (error.value.option, error.value.value) == ("eps", 0.0)
