"""The fused loss against torch's own, in values, gradients and memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from insight.data.batches import IGNORED_TARGET
from insight.runtime.errors import ConfigError
from insight.training import linear_cross_entropy, token_losses


def problem(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 11, 8, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(19, 8, generator=generator, dtype=dtype).requires_grad_()
    targets = torch.randint(0, 19, (3, 11), generator=generator)
    targets[0, :4] = IGNORED_TARGET
    return hidden, weight, targets


def plain(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, soft_cap: float | None, z_loss: float
) -> torch.Tensor:
    logits = F.linear(hidden, weight).flatten(0, 1)
    if soft_cap is not None:
        logits = soft_cap * torch.tanh(logits / soft_cap)
    flat = targets.flatten()
    loss = F.cross_entropy(logits, flat, ignore_index=IGNORED_TARGET, reduction="sum")
    return loss + z_loss * logits.logsumexp(-1).square()[flat != IGNORED_TARGET].sum()


@pytest.mark.parametrize("chunk_size", [1, 5, 33, None])
@pytest.mark.parametrize(("soft_cap", "z_loss"), [(None, 0.0), (3.0, 0.0), (None, 0.1), (3.0, 0.1)])
def test_values_and_gradients_equal_the_plain_loss(
    chunk_size: int | None, soft_cap: float | None, z_loss: float
) -> None:
    hidden, weight, targets = problem()
    expected = plain(hidden, weight, targets, soft_cap, z_loss)
    expected_gradients = torch.autograd.grad(3 * expected, (hidden, weight))
    result = linear_cross_entropy(
        hidden, weight, targets, soft_cap=soft_cap, z_loss=z_loss, chunk_size=chunk_size
    )
    gradients = torch.autograd.grad(3 * result.loss, (hidden, weight))
    torch.testing.assert_close(result.loss, expected, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert int(result.num_valid) == 29


def test_gradient_passes_gradcheck() -> None:
    hidden, weight, targets = problem()
    assert torch.autograd.gradcheck(
        lambda h, w: linear_cross_entropy(h, w, targets, soft_cap=2.0, z_loss=0.05, chunk_size=7).loss,
        (hidden, weight),
    )


def test_without_gradients_the_loss_is_the_same() -> None:
    hidden, weight, targets = problem()
    with torch.no_grad():
        quiet = linear_cross_entropy(hidden, weight, targets)
        single = token_losses(hidden, weight, targets)
    expected = plain(hidden, weight, targets, None, 0.0)
    torch.testing.assert_close(quiet.negative_log_likelihood, expected.detach())
    torch.testing.assert_close(single.sum(), expected.detach())
    assert (single[targets == IGNORED_TARGET] == 0).all()


def test_autocast_stays_near_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(64, 32, generator=generator).requires_grad_()
    weight = (0.1 * torch.randn(50, 32, generator=generator)).requires_grad_()
    targets = torch.randint(0, 50, (64,), generator=generator)
    exact = linear_cross_entropy(hidden, weight, targets)
    (exact_gradient,) = torch.autograd.grad(exact.loss, weight)
    with torch.autocast("cpu", torch.bfloat16):
        half = linear_cross_entropy(hidden, weight, targets)
    (half_gradient,) = torch.autograd.grad(half.loss, weight)
    assert half_gradient.dtype == torch.float32
    torch.testing.assert_close(half.loss, exact.loss, rtol=5e-3, atol=0)
    error = (half_gradient - exact_gradient).norm() / exact_gradient.norm()
    assert error < 0.02


def test_all_targets_ignored_is_zero_and_finite() -> None:
    hidden, weight, targets = problem()
    result = linear_cross_entropy(hidden, weight, torch.full_like(targets, IGNORED_TARGET))
    result.loss.backward()
    assert float(result.loss) == 0
    assert hidden.grad is not None
    assert (hidden.grad == 0).all()


def test_whole_logits_are_never_held() -> None:
    """The largest tensor made on the way is far smaller than (tokens, vocabulary)."""
    tokens, vocabulary = 2048, 4096
    hidden = torch.randn(tokens, 16, requires_grad=True)
    weight = torch.randn(vocabulary, 16, requires_grad=True)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple) else (result,):
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return result

    with Watch():
        linear_cross_entropy(
            hidden, weight, torch.zeros(tokens, dtype=torch.long), chunk_size=64
        ).loss.backward()
    assert largest <= 64 * vocabulary
    with Watch():
        F.cross_entropy(hidden @ weight.T, torch.zeros(tokens, dtype=torch.long)).backward()
    assert largest == tokens * vocabulary, "the watch must see the plain loss hold them"


def test_chunk_of_no_rows_is_refused() -> None:
    with pytest.raises(ConfigError, match="loss_chunk_size=0"):
        linear_cross_entropy(*problem(), chunk_size=0)
