"""RMS norm: the formula, its hand-written gradient, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from insight.models import RMSNorm
from insight.models.norms import rms_norm
from insight.runtime.errors import ConfigError


def written_down(hidden: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    normed = hidden / (hidden.square().mean(-1, keepdim=True) + eps).sqrt()
    return normed if weight is None else normed * weight


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (values + 0.5).to(dtype).requires_grad_()


@pytest.mark.parametrize("shape", [(7, 16), (2, 3, 4, 6)])
@pytest.mark.parametrize("weighted", [True, False])
def test_values_and_gradients_equal_the_formula(shape: tuple[int, ...], weighted: bool) -> None:
    results = []
    for formula in (rms_norm, written_down):
        hidden, weight = numbers(*shape), numbers(shape[-1], seed=1) if weighted else None
        output = formula(hidden, weight, 1e-2)
        (output * torch.arange(shape[-1])).square().sum().backward()
        results.append([output, hidden.grad, weight.grad if weight is not None else None])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


def test_gradient_by_finite_differences() -> None:
    inputs = (numbers(3, 5, 8), numbers(8, seed=1))
    assert torch.autograd.gradcheck(lambda hidden, weight: rms_norm(hidden, weight, 1e-3), inputs)


def test_a_forgotten_mean_correction_would_be_noticed() -> None:
    # The gradient comes out of layer norm's kernel; without the correction it is layer norm's.
    hidden, weight = numbers(4, 8), numbers(8, seed=1)
    rms_norm(hidden, weight, 1e-6).square().sum().backward()
    size, inverse = 8, (hidden.square().mean(-1, keepdim=True) + 1e-6).rsqrt().detach()
    gradient = 2 * rms_norm(hidden, weight, 1e-6).detach()
    uncorrected = torch.ops.aten.native_layer_norm_backward(
        gradient, hidden, [size], torch.zeros_like(inverse), inverse, weight, None, [True, False, False]
    )[0]
    assert hidden.grad is not None
    assert not torch.allclose(hidden.grad, uncorrected, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_dtype_and_computes_in_float32(dtype: torch.dtype) -> None:
    hidden, weight = numbers(5, 64, dtype=dtype), numbers(64, seed=1, dtype=torch.float32)
    output = rms_norm(hidden, weight, 1e-6)
    output.float().square().sum().backward()
    exact = numbers(5, 64, dtype=dtype).detach().double().requires_grad_()
    expected = written_down(exact, weight.double(), 1e-6)
    expected.square().sum().backward()
    assert output.dtype == dtype
    assert hidden.grad is not None
    assert hidden.grad.dtype == dtype
    torch.testing.assert_close(output.double(), expected, rtol=1e-2, atol=1e-2)
    assert exact.grad is not None
    torch.testing.assert_close(hidden.grad.double(), exact.grad, rtol=5e-2, atol=5e-2)


def test_only_what_needs_a_gradient_gets_one() -> None:
    hidden, weight = numbers(4, 8).detach(), numbers(8, seed=1)
    rms_norm(hidden, weight, 1e-6).sum().backward()
    assert weight.grad is not None
    frozen, hidden = numbers(8, seed=1).detach(), numbers(4, 8)
    rms_norm(hidden, frozen, 1e-6).sum().backward()
    assert hidden.grad is not None


def test_evaluation_equals_training() -> None:
    hidden, weight = numbers(4, 8), numbers(8, seed=1)
    with torch.no_grad():
        evaluated = rms_norm(hidden, weight, 1e-6)
    torch.testing.assert_close(evaluated, rms_norm(hidden, weight, 1e-6).detach())


def test_zeros_stay_finite() -> None:
    hidden = torch.zeros(2, 8, requires_grad=True)
    rms_norm(hidden, None, 1e-6).sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()


def test_weight_is_optional() -> None:
    assert [name for name, _ in RMSNorm().build(8).named_parameters()] == ["weight"]
    assert list(RMSNorm(weight=False).build(8).parameters()) == []


@pytest.mark.parametrize("eps", [0.0, -1e-6, 1.0, float("nan")])
def test_eps_is_checked(eps: float) -> None:
    with pytest.raises(ConfigError) as error:
        RMSNorm(eps=eps)
    assert error.value.option == "eps"
