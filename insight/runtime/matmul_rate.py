"""How fast this machine multiplies matrices, found in milliseconds. Torch is imported at first use."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Sides of the square matrices tried, smallest first. The last is large enough to fill an accelerator.
_SIZES = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
_LARGEST_CPU_SIZE = 1024


def measure_matmul_rate(dtype: torch.dtype, device: str = "cpu", seconds: float = 0.04) -> float:
    """The best rate of a square matmul, in FLOP/s, at torch's present thread count.

    Sizes grow by two (work by eight) while the next one still fits into what is left of ``seconds``, so a
    type that the machine emulates (bfloat16 under AVX2 can be a hundred times slower than float32) costs
    milliseconds, not seconds. At the largest size that fitted the rest of the time is spent repeating.

    Args:
        dtype: Type of both matrices and of the product.
        device: Where to multiply.
        seconds: Time to spend, warm-up calls included; exceeded by at most about one multiplication.

    Returns:
        2·n³ divided by the shortest time of one multiplication: a rate the machine has reached, so that
        shares of it computed later are not flattered by a noisy neighbour during the measurement.
    """
    import torch

    deadline = time.perf_counter() + seconds
    sizes = [size for size in _SIZES if device != "cpu" or size <= _LARGEST_CPU_SIZE]
    best_rate = 0.0
    for position, size in enumerate(sizes):
        # Zeros multiply as fast as anything on a CPU but let an accelerator clock higher: use noise.
        generator = torch.Generator(device="cpu").manual_seed(0)
        left = torch.randn(size, size, generator=generator).to(device=device, dtype=dtype)
        right = left.t().contiguous()
        product = torch.empty_like(left)
        _time_matmuls(left, right, product, device, count=1)  # kernels are chosen and built at the first call
        elapsed = _time_matmuls(left, right, product, device, count=1)
        best_rate = max(best_rate, 2 * size**3 / elapsed)
        left_over = deadline - time.perf_counter()
        # The next size needs 8x the time for its warm-up and 8x for its measurement.
        if position + 1 < len(sizes) and 16 * elapsed < 0.6 * left_over:
            continue
        while time.perf_counter() + elapsed < deadline:
            count = max(1, int(0.002 / elapsed))  # at least 2 ms a reading: the clock is then exact enough
            elapsed = _time_matmuls(left, right, product, device, count)
            best_rate = max(best_rate, 2 * size**3 / elapsed)
        break
    return best_rate


def _time_matmuls(
    left: torch.Tensor, right: torch.Tensor, product: torch.Tensor, device: str, count: int
) -> float:
    """Seconds that one of ``count`` multiplications takes."""
    import torch

    _wait_for(device)
    start = time.perf_counter()
    with torch.inference_mode():
        for _ in range(count):
            torch.mm(left, right, out=product)
    _wait_for(device)
    return max(time.perf_counter() - start, 1e-9) / count


def _wait_for(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()
