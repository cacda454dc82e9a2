"""Projection to the vocabulary and cross-entropy in one, without ever holding all logits.

The gradient is computed together with the loss, a chunk of tokens at a time, as in Liger kernels (Hsu et al.
2024, arXiv 2410.10989) and Cut Cross-Entropy (Wijmans et al. 2024, arXiv 2411.09009).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torchmetrics import Metric

from insight.data.sampling import IGNORED_TARGET
from insight.runtime.errors import ConfigError

# Measured on 2 cores: products are fastest with long chunks (512 to 1,024 rows), elementwise loops with
# blocks that fit the caches of the cores (256 Ki numbers = 1 MiB each). On an accelerator launches cost most.
_CPU_CHUNK_NUMBERS, _CPU_CHUNK_ROWS, _CPU_BLOCK_NUMBERS = 2**22, 1024, 2**18
_ACCELERATOR_CHUNK_NUMBERS = 2**26


class LinearCrossEntropy(NamedTuple):
    """The result of :func:`linear_cross_entropy`: three scalars, sums over the tokens with a valid target."""

    loss: torch.Tensor  # to differentiate: in nats, z-loss and smoothing included
    negative_log_likelihood: torch.Tensor  # without them, detached
    num_valid: torch.Tensor  # int64


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    soft_cap: float | None = None,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    chunk_size: int | None = None,
) -> LinearCrossEntropy:
    """Summed cross-entropy of ``hidden @ weight.T`` against ``targets``, chunk by chunk.

    The products run in the autocast type if autocast is on, the softmax in float32 (float64 for float64
    input). The forward pass computes the gradients of ``hidden`` and ``weight``, so each chunk of logits is
    dropped at once; the weight's gradient is summed in float32.

    Args:
        hidden: ``(..., hidden_size)``.
        weight: ``(vocabulary, hidden_size)``.
        targets: int64 ``(...)``, ``IGNORED_TARGET`` for positions without a target.
        soft_cap: Bound c of the logits, c · tanh(logit / c) (Gemma 2, arXiv 2408.00118).
        z_loss: Factor of the squared logarithm of the softmax's denominator (PaLM, arXiv 2204.02311).
        label_smoothing: Share of the target that is spread evenly over the vocabulary (Szegedy et al. 2016,
            arXiv 1512.00567), as in ``torch.nn.functional.cross_entropy``.
        chunk_size: Number of rows of logits held at once; ``None`` for a size that was measured to be fast.
    """
    rows, compute_weight = _prepare(hidden, weight)
    losses = _Losses(targets.reshape(-1), rows, soft_cap, z_loss, label_smoothing)
    chunk_rows = _chunk_rows(chunk_size, rows, weight.shape[0])
    if torch.is_grad_enabled() and (rows.requires_grad or weight.requires_grad):
        arguments = rows, weight, compute_weight, losses, chunk_rows
        return LinearCrossEntropy(*_LinearCrossEntropy.apply(*arguments))  # type: ignore[no-untyped-call]
    for rows_range, logits in _logit_chunks(rows, compute_weight, chunk_rows):
        for block_range, block in _blocks(logits, rows_range.start):
            losses.add(block_range, block)
    return LinearCrossEntropy(losses.total, losses.negative_log_likelihood, losses.num_valid)


@torch.no_grad()
def token_losses(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    soft_cap: float | None = None,
    chunk_size: int | None = None,
) -> torch.Tensor:
    """Negative log-likelihood of every target in nats, 0 if ignored, without gradients.

    The arguments are those of :func:`linear_cross_entropy`. The result is float32 (float64 for float64
    input), of the shape of ``targets``.
    """
    rows, compute_weight = _prepare(hidden, weight)
    losses = _Losses(targets.reshape(-1), rows, soft_cap)
    chunk_rows = _chunk_rows(chunk_size, rows, weight.shape[0])
    result = torch.empty(rows.shape[0], dtype=losses.dtype, device=rows.device)
    for rows_range, logits in _logit_chunks(rows, compute_weight, chunk_rows):
        for block_range, block in _blocks(logits, rows_range.start):
            result[block_range] = losses.add(block_range, block)
    return result.view(targets.shape)


class LossMemory(NamedTuple):
    """Bytes of :func:`loss_memory`."""

    logits: int  # a chunk of logits and the buffers of its softmax
    casts: int  # copies in another type: hidden, the matrix, and its gradient
    kept: int  # between forward and backward: the gradients of hidden and of the head's matrix
    scaled: int  # the matrix's gradient times the outer gradient, in the backward pass


def loss_memory(
    num_tokens: int,
    hidden_size: int,
    vocabulary_size: int,
    dtype: torch.dtype = torch.float32,
    weight_dtype: torch.dtype = torch.float32,
) -> LossMemory:
    """The memory that :func:`linear_cross_entropy` takes on a CPU, without running it.

    ``dtype`` is the type of the products, ``weight_dtype`` that of the head's matrix.
    """
    rows = torch.empty(0, dtype=dtype)
    chunk_rows = min(num_tokens, _chunk_rows(None, rows, vocabulary_size))
    block_rows = min(chunk_rows, _block_rows(vocabulary_size))
    wide = torch.promote_types(dtype, torch.float32)
    buffers = 1 if wide == dtype else 2  # probabilities, and widened scores
    logits = vocabulary_size * (chunk_rows * dtype.itemsize + buffers * block_rows * wide.itemsize)
    kept = hidden_size * (num_tokens * dtype.itemsize + vocabulary_size * wide.itemsize)
    matrix = hidden_size * vocabulary_size
    casts = 0 if dtype == weight_dtype else (hidden_size * num_tokens + matrix) * dtype.itemsize
    if dtype != wide:  # a chunk's product, narrow and then widened for the sum
        casts += matrix * (dtype.itemsize + wide.itemsize)
    scaled = matrix * (wide.itemsize + (0 if weight_dtype == wide else weight_dtype.itemsize))
    return LossMemory(logits, casts, kept, scaled)


class _LinearCrossEntropy(torch.autograd.Function):
    """The differentiable form: the forward pass computes the gradients, the backward pass scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: torch.Tensor,
        weight: torch.Tensor,
        compute_weight: torch.Tensor,
        losses: _Losses,
        chunk_rows: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        needs_rows, needs_weight = ctx.needs_input_grad[:2]
        rows_gradient = torch.empty_like(rows) if needs_rows else None
        weight_gradient = torch.zeros_like(weight, dtype=losses.dtype) if needs_weight else None
        with torch.autocast(rows.device.type, enabled=False):
            for rows_range, logits in _logit_chunks(rows, compute_weight, chunk_rows):
                for block_range, block in _blocks(logits, rows_range.start):
                    losses.add_and_differentiate(block_range, block)
                if rows_gradient is not None:
                    torch.mm(logits, compute_weight, out=rows_gradient[rows_range])
                if weight_gradient is not None and logits.dtype == losses.dtype:
                    weight_gradient.addmm_(logits.T, rows[rows_range])
                elif weight_gradient is not None:
                    weight_gradient += logits.T @ rows[rows_range]
        ctx.save_for_backward(rows_gradient, weight_gradient)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(losses.negative_log_likelihood, losses.num_valid)
        return losses.total, losses.negative_log_likelihood, losses.num_valid

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> tuple[Any, ...]:
        rows_gradient, weight_gradient = ctx.saved_tensors
        if rows_gradient is not None:
            rows_gradient = rows_gradient * gradient.to(rows_gradient.dtype)
        if weight_gradient is not None:
            weight_gradient = (weight_gradient * gradient).to(ctx.weight_dtype)
        return rows_gradient, weight_gradient, None, None, None


class _Losses:
    """Sums over the rows so far, and the loss and gradient of one block of logits.

    The arguments are those of :func:`linear_cross_entropy`; the rows give type and device.
    """

    def __init__(
        self,
        targets: torch.Tensor,
        rows: torch.Tensor,
        soft_cap: float | None,
        z_loss: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        self.dtype = torch.promote_types(rows.dtype, torch.float32)
        self.valid = (targets != IGNORED_TARGET).unsqueeze(1)
        self.targets = targets.unsqueeze(1).where(self.valid, 0)
        self.num_valid = self.valid.sum()
        # Reading the result would make an accelerator wait, and there the masking is cheap.
        self.some_ignored = rows.device.type != "cpu" or not bool(self.valid.all())
        self.negative_log_likelihood = torch.zeros((), dtype=self.dtype, device=rows.device)
        self.penalty = torch.zeros_like(self.negative_log_likelihood)
        self.soft_cap, self.z_loss, self.label_smoothing = soft_cap, z_loss, label_smoothing
        self._scores_buffer = torch.empty(0, dtype=self.dtype, device=rows.device)
        self._probabilities_buffer = torch.empty_like(self._scores_buffer)
        self._minus_target = torch.full_like(self.targets, label_smoothing - 1, dtype=self.dtype)

    @property
    def total(self) -> torch.Tensor:
        return self.negative_log_likelihood + self.penalty

    def add(self, block_range: slice, logits: torch.Tensor) -> torch.Tensor:
        """Add one block ``(rows, vocabulary)``; return its losses ``(rows,)`` without penalties."""
        return self._count(block_range, self._scores(logits))[0]

    def add_and_differentiate(self, block_range: slice, logits: torch.Tensor) -> None:
        """Add one block and overwrite its logits with the gradient of the loss with respect to them."""
        scores = self._scores(logits)
        probabilities, log_denominator = self._count(block_range, scores)[1:]
        # d/dx of (lse − (1−ε)·x_t − ε·mean(x) + z·lse²) is softmax · (1 + 2z·lse) − (1−ε)·onehot − ε/n
        # where n is the size of the vocabulary.
        if self.z_loss:
            probabilities.mul_(1 + 2 * self.z_loss * log_denominator)
        if self.label_smoothing:
            probabilities.sub_(self.label_smoothing / logits.shape[1])
        probabilities.scatter_add_(1, self.targets[block_range], self._minus_target[: len(logits)])
        if self.soft_cap is not None:
            probabilities.mul_(1 - (scores / self.soft_cap).square_())
        if self.some_ignored:
            probabilities.mul_(self.valid[block_range])
        logits.copy_(probabilities)

    def _scores(self, logits: torch.Tensor) -> torch.Tensor:
        """The block in the softmax's type: itself, or a copy in a reused buffer."""
        is_same = logits.dtype == self.dtype
        scores = logits if is_same else self._scores_buffer.resize_(logits.shape).copy_(logits)
        if self.soft_cap is not None:
            scores.div_(self.soft_cap).tanh_().mul_(self.soft_cap)
        return scores

    def _count(
        self, block_range: slice, scores: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Add the block's losses; return losses, probabilities (a buffer) and log-denominators."""
        probabilities = self._probabilities_buffer.resize_(scores.shape)
        torch.softmax(scores, 1, out=probabilities)
        # The largest probability is at least 1/vocabulary, so its logarithm is always precise, unlike that
        # of the target's probability: max(p) = exp(max(x) − lse).
        log_denominator = scores.amax(1, keepdim=True) - probabilities.amax(1, keepdim=True).log_()
        target_scores = scores.gather(1, self.targets[block_range])
        losses = log_denominator - target_scores
        if self.some_ignored:
            losses.mul_(self.valid[block_range])
        self.negative_log_likelihood += losses.sum()
        if self.z_loss:
            penalty = log_denominator.square().mul_(self.valid[block_range]).sum()
            self.penalty += self.z_loss * penalty
        if self.label_smoothing:
            shift = (target_scores - scores.mean(1, keepdim=True)).mul_(self.valid[block_range]).sum()
            self.penalty += self.label_smoothing * shift
        return losses.squeeze(1), probabilities, log_denominator


def _prepare(hidden: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and weight in the type of the products; the weight is detached, its gradient summed in float32."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    if hidden.dtype == torch.float64:
        dtype = torch.float64
    rows = hidden.reshape(-1, hidden.shape[-1]).to(dtype)
    return rows.contiguous(), weight.detach().to(dtype)


def _chunk_rows(chunk_size: int | None, rows: torch.Tensor, vocabulary: int) -> int:
    if chunk_size is not None:
        if chunk_size < 1:
            remedy = "use null for automatic"
            raise ConfigError("a chunk needs a row", remedy, option="loss_chunk_size", value=chunk_size)
        return chunk_size
    if rows.device.type == "cpu":
        return max(128, min(_CPU_CHUNK_ROWS, _CPU_CHUNK_NUMBERS // vocabulary))
    return max(256, _ACCELERATOR_CHUNK_NUMBERS // vocabulary)


def _logit_chunks(
    rows: torch.Tensor, weight: torch.Tensor, chunk_rows: int
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Row ranges with their logits, all in one buffer, which the next chunk overwrites."""
    buffer = rows.new_empty(min(chunk_rows, len(rows)), weight.shape[0])
    for start in range(0, len(rows), chunk_rows):
        chunk = slice(start, min(start + chunk_rows, len(rows)))
        logits = buffer[: chunk.stop - start]
        torch.mm(rows[chunk], weight.T, out=logits)
        yield chunk, logits


def _blocks(logits: torch.Tensor, start: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """Cut a chunk into blocks of rows that fit the caches of the cores; one block on an accelerator."""
    num_rows, vocabulary = logits.shape
    step = _block_rows(vocabulary) if logits.device.type == "cpu" else num_rows
    for first in range(0, num_rows, step):
        block = logits[first : first + step]
        yield slice(start + first, start + first + block.shape[0]), block


def _block_rows(vocabulary: int) -> int:
    return max(16, _CPU_BLOCK_NUMBERS * torch.get_num_threads() // vocabulary)


class TextLikelihood(Metric):
    """Negative log-likelihood of a text, with its numbers of tokens and bytes.

    The result does not depend on the batches and processes that the text was divided into.
    """

    full_state_update = False

    nll: torch.Tensor
    num_tokens: torch.Tensor
    num_bytes: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        # Device types without float64 (mps) would reject the first state.
        self.add_state("nll", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_tokens", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("num_bytes", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, nll: torch.Tensor, num_tokens: torch.Tensor, num_bytes: torch.Tensor) -> None:
        """Add a batch: summed negative log-likelihood in nats, number of targets and of their UTF-8 bytes."""
        self.nll += nll.detach().double()
        self.num_tokens += num_tokens
        self.num_bytes += num_bytes

    def compute(self) -> dict[str, torch.Tensor]:
        """The metrics ``loss`` (nats per token), ``perplexity`` and ``bits_per_byte``."""
        loss = self.nll / self.num_tokens
        bits = self.nll / math.log(2)
        return {"loss": loss, "perplexity": loss.exp(), "bits_per_byte": bits / self.num_bytes}
