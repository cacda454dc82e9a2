"""The fused loss against torch's own projection and cross-entropy."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from insight.data.sampling import IGNORED_TARGET
from insight.runtime.errors import ConfigError
from insight.training.losses import linear_cross_entropy, token_losses


def make_inputs(
    num_rows: int = 37, vocabulary: int = 50, hidden_size: int = 8, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(num_rows, hidden_size, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocabulary, hidden_size, generator=generator, dtype=dtype, requires_grad=True)
    targets = torch.randint(0, vocabulary, (num_rows,), generator=generator)
    targets[::5] = IGNORED_TARGET
    return hidden, weight, targets


def plain_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    soft_cap: float | None = None,
    z_loss: float = 0.0,
) -> torch.Tensor:
    logits = F.linear(hidden, weight)
    if soft_cap is not None:
        logits = soft_cap * torch.tanh(logits / soft_cap)
    penalty = (torch.logsumexp(logits, -1).square() * (targets != IGNORED_TARGET)).sum()
    return F.cross_entropy(logits, targets, reduction="sum") + z_loss * penalty


@pytest.mark.parametrize("soft_cap", [None, 3.0])
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("chunk_size", [None, 1, 7, 37, 100])
def test_loss_and_gradients_equal_the_plain_ones(
    soft_cap: float | None, z_loss: float, chunk_size: int | None
) -> None:
    hidden, weight, targets = make_inputs()
    expected = plain_loss(hidden, weight, targets, soft_cap, z_loss)
    expected_gradients = torch.autograd.grad(3 * expected, (hidden, weight))
    result = linear_cross_entropy(
        hidden, weight, targets, soft_cap=soft_cap, z_loss=z_loss, chunk_size=chunk_size
    )
    gradients = torch.autograd.grad(3 * result.loss, (hidden, weight))
    torch.testing.assert_close(result.loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        result.negative_log_likelihood,
        plain_loss(hidden, weight, targets, soft_cap).detach(),
        rtol=1e-12,
        atol=0,
    )
    assert result.num_valid.item() == (targets != IGNORED_TARGET).sum().item()
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-12)


def test_blocks_inside_a_chunk_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, targets = make_inputs(num_rows=90)
    whole = linear_cross_entropy(hidden, weight, targets)
    whole_gradients = torch.autograd.grad(whole.loss, (hidden, weight))
    monkeypatch.setattr("insight.training.losses._CPU_BLOCK_NUMBERS", 1)  # blocks of 16 rows
    cut = linear_cross_entropy(hidden, weight, targets, chunk_size=50)
    torch.testing.assert_close(cut.loss, whole.loss, rtol=1e-12, atol=0)
    for ours, theirs in zip(torch.autograd.grad(cut.loss, (hidden, weight)), whole_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("soft_cap", "z_loss"), [(None, 0.0), (2.0, 0.05)])
def test_gradcheck(soft_cap: float | None, z_loss: float) -> None:
    hidden, weight, targets = make_inputs(num_rows=6, vocabulary=9, hidden_size=4)

    def loss(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return linear_cross_entropy(
            hidden, weight, targets, soft_cap=soft_cap, z_loss=z_loss, chunk_size=4
        ).loss

    assert torch.autograd.gradcheck(loss, (hidden, weight))


def test_gradcheck_notices_a_wrong_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: ignored rows that still pull on the weights."""
    hidden, weight, targets = make_inputs(num_rows=6, vocabulary=9, hidden_size=4)
    original = torch.Tensor.all
    monkeypatch.setattr(torch.Tensor, "all", lambda *_: original(torch.tensor(True)))
    result = linear_cross_entropy(hidden, weight, targets, chunk_size=4)
    gradient = torch.autograd.grad(result.loss, weight)[0]
    monkeypatch.undo()
    expected = torch.autograd.grad(plain_loss(hidden, weight, targets), weight)[0]
    assert not torch.allclose(gradient, expected)


def smoothed_loss(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, soft_cap: float | None, z_loss: float
) -> torch.Tensor:
    logits = F.linear(hidden, weight)
    if soft_cap is not None:
        logits = soft_cap * torch.tanh(logits / soft_cap)
    penalty = (torch.logsumexp(logits, -1).square() * (targets != IGNORED_TARGET)).sum()
    return F.cross_entropy(logits, targets, reduction="sum", label_smoothing=0.2) + z_loss * penalty


@pytest.mark.parametrize("soft_cap", [None, 3.0])
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("chunk_size", [None, 7])
def test_label_smoothing_is_that_of_torch(
    soft_cap: float | None, z_loss: float, chunk_size: int | None
) -> None:
    hidden, weight, targets = make_inputs()
    options = {"soft_cap": soft_cap, "z_loss": z_loss, "label_smoothing": 0.2, "chunk_size": chunk_size}
    expected = smoothed_loss(hidden, weight, targets, soft_cap, z_loss)
    result = linear_cross_entropy(hidden, weight, targets, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(result.loss, expected, rtol=1e-12, atol=0)
    # What is logged stays comparable with runs without smoothing.
    plain = plain_loss(hidden, weight, targets, soft_cap).detach()
    torch.testing.assert_close(result.negative_log_likelihood, plain, rtol=1e-12, atol=0)
    for ours, theirs in zip(
        torch.autograd.grad(result.loss, (hidden, weight)),
        torch.autograd.grad(expected, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        again = linear_cross_entropy(hidden, weight, targets, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(again.loss, expected.detach(), rtol=1e-12, atol=0)


def test_smoothing_left_out_of_the_gradient_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, targets = make_inputs()
    monkeypatch.setattr(torch.Tensor, "sub_", lambda self, *_: self)
    result = linear_cross_entropy(hidden, weight, targets, label_smoothing=0.2)
    gradient = torch.autograd.grad(result.loss, weight)[0]
    monkeypatch.undo()
    expected = torch.autograd.grad(smoothed_loss(hidden, weight, targets, None, 0.0), weight)[0]
    assert not torch.allclose(gradient, expected)


def test_confident_predictions_stay_finite_and_precise() -> None:
    """A target 200 nats below the best word: its probability is 0 in float32, its loss is not."""
    hidden = torch.eye(3, requires_grad=True)
    weight = torch.tensor([[200.0, 0.0, 0.0], [0.0, 1e-3, 30.0], [0.0, 0.0, 0.0]], requires_grad=True)
    targets = torch.tensor([2, 1, 1])
    result = linear_cross_entropy(hidden, weight, targets)
    expected = plain_loss(hidden.double(), weight.double(), targets)
    assert result.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    gradients = torch.autograd.grad(result.loss, (hidden, weight))
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("vocabulary", [50, 700])
def test_autocast_multiplies_in_bfloat16_and_sums_in_float32(vocabulary: int) -> None:
    hidden, weight, targets = make_inputs(num_rows=64, vocabulary=vocabulary, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = F.cross_entropy(F.linear(hidden, weight), targets, reduction="sum")
        result = linear_cross_entropy(hidden, weight, targets, chunk_size=24)
    # The plain logits are the same bfloat16 numbers, so the losses agree far below their rounding.
    torch.testing.assert_close(result.loss, expected, rtol=2e-6, atol=0)
    expected_gradients = torch.autograd.grad(expected, (hidden, weight))
    for gradient, expected_gradient in zip(
        torch.autograd.grad(result.loss, (hidden, weight)), expected_gradients, strict=True
    ):
        assert gradient.dtype == torch.float32
        assert (gradient - expected_gradient).norm() < 0.01 * expected_gradient.norm()


def test_nothing_valid_is_zero_with_zero_gradients() -> None:
    hidden, weight, targets = make_inputs()
    result = linear_cross_entropy(hidden, weight, torch.full_like(targets, IGNORED_TARGET), z_loss=0.1)
    assert result.loss.item() == 0
    assert result.num_valid.item() == 0
    for gradient in torch.autograd.grad(result.loss, (hidden, weight)):
        assert gradient.count_nonzero() == 0


def test_shapes_of_batches_and_frozen_parts() -> None:
    hidden, weight, targets = make_inputs(num_rows=24)
    batch = hidden.detach().view(4, 6, 8)
    result = linear_cross_entropy(batch, weight, targets.view(4, 6))
    gradient = torch.autograd.grad(result.loss, weight)[0]
    expected = torch.autograd.grad(plain_loss(hidden.detach(), weight, targets), weight)[0]
    torch.testing.assert_close(gradient, expected)
    with torch.no_grad():
        assert not linear_cross_entropy(batch, weight, targets.view(4, 6)).loss.requires_grad


@pytest.mark.parametrize("soft_cap", [None, 3.0])
def test_token_losses_are_those_of_each_token(soft_cap: float | None) -> None:
    hidden, weight, targets = make_inputs(num_rows=24)
    losses = token_losses(hidden.view(4, 6, 8), weight, targets.view(4, 6), soft_cap=soft_cap, chunk_size=5)
    logits = F.linear(hidden, weight)
    if soft_cap is not None:
        logits = soft_cap * torch.tanh(logits / soft_cap)
    expected = F.cross_entropy(logits, targets, reduction="none").view(4, 6)
    torch.testing.assert_close(losses, expected.detach())
    assert losses.view(-1)[::5].count_nonzero() == 0


def test_chunk_size_below_one_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        linear_cross_entropy(*make_inputs(), chunk_size=0)
    assert (caught.value.option, caught.value.value) == ("loss_chunk_size", 0)


_PEAK_PROGRAM = """
import torch, torch.nn.functional as F
from insight.training.losses import linear_cross_entropy
hidden = torch.randn(4096, 64, requires_grad=True)
weight = torch.randn(16384, 64, requires_grad=True)
targets = torch.randint(0, 16384, (4096,))
linear_cross_entropy(hidden[:256], weight, targets[:256]).loss.backward()
def peak():  # not getrusage: its figure survives exec, so it may be the peak of the tests' own process
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
start = peak()
linear_cross_entropy(hidden, weight, targets).loss.backward()
fused = peak()
F.cross_entropy(F.linear(hidden, weight), targets, reduction="sum").backward()
print(fused - start, peak() - start)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_far_below_the_logits() -> None:
    """All logits are 256 MiB; the fused loss adds less than a quarter of them to the process's peak."""
    command = [sys.executable, "-c", _PEAK_PROGRAM]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    fused, plain = map(int, output.split())
    assert fused < 64 * 1024  # KiB
    assert plain > 400 * 1024
