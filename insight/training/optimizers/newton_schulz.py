"""Newton-Schulz: the nearest orthogonal matrix by products alone."""

from __future__ import annotations

import functools

import torch
from torch import distributed

from insight.runtime.matmul_rate import measure_matmul_rate

# The quintic of Jordan et al.: x -> a x + b x^3 + c x^5 drives singular values between 0 and 1 towards 1
# fast at the price of leaving them within about [0.7, 1.2].
_A, _B, _C = 3.4445, -4.7750, 2.0315
_BFLOAT16_GAIN_NEEDED = 1.3


def orthogonalize(matrices: torch.Tensor, num_iterations: int) -> torch.Tensor:
    """Roughly the nearest orthogonal matrices: singular vectors kept, singular values near 1.

    Source: Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/); Bernstein and Newhouse 2024,
    arXiv 2409.20325. The products run in the type of ``matrices``; bfloat16 is precise enough, since what
    it loses (2% of the result) is far below what the quintic leaves.

    Args:
        matrices: ``(batch, rows, columns)``; overwritten.
        num_iterations: Iterations of the quintic.

    Returns:
        ``(batch, rows, columns)``.
    """
    x = matrices.mul_(matrices.norm(dim=(-2, -1), keepdim=True).clamp_min_(1e-7).reciprocal_())
    # Tall matrices are multiplied from the right, so that the square in between is always the small one.
    tall = x.shape[-2] > x.shape[-1]
    for _ in range(num_iterations):
        gram = torch.bmm(x.mT, x) if tall else torch.bmm(x, x.mT)
        factor = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        # a·x goes in through the diagonal: it costs a row of the small square instead of a pass over x.
        factor.diagonal(dim1=-2, dim2=-1).add_(_A)
        x = torch.bmm(x, factor) if tall else torch.bmm(factor, x)
    return x


@functools.cache
def faster_dtype(device: str) -> str:
    """``"bfloat16"`` where its products were measured to be clearly faster, else ``"float32"``.

    A machine without bfloat16 instructions emulates them, up to 50 times slower than float32.

    Args:
        device: Type of the device that holds the parameters.
    """
    single = measure_matmul_rate(torch.float32, device)
    try:
        half = measure_matmul_rate(torch.bfloat16, device)
    except (RuntimeError, NotImplementedError):  # the device lacks the type
        return "float32"
    return "bfloat16" if half > _BFLOAT16_GAIN_NEEDED * single else "float32"


def agreed_dtype(device: str) -> str:
    """:func:`faster_dtype` of the first process, for all processes of a run: their updates must be the same.

    Every process has to ask at the same time.
    """
    choice = [faster_dtype(device)]
    if distributed.is_available() and distributed.is_initialized():
        distributed.broadcast_object_list(choice, src=0)
    return choice[0]
