"""How fast this machine multiplies matrices, found in milliseconds. Torch is imported at first use."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Sides of the square matrices tried, smallest first; a CPU is full at 1024, an accelerator later.
_CPU_SIZES = (64, 128, 256, 512, 1024)
_ACCELERATOR_SIZES = (256, 512, 1024, 2048, 4096, 8192)
_READING_SECONDS = 0.002


def measure_matmul_rate(dtype: torch.dtype, device: str = "cpu", seconds: float = 0.04) -> float:
    """The best rate of a square matmul, in FLOP/s, at torch's present thread count.

    First a size is found: it grows by two (the work by eight) while the next one fits into a quarter of
    ``seconds``, so a type that the machine emulates (bfloat16 under AVX2 was measured 50 times slower than
    float32) costs milliseconds, not seconds. The rest of the time is spent repeating that size.

    Args:
        dtype: Type of both matrices and of the product.
        device: Where to multiply.
        seconds: Time to spend, warm-up calls included; exceeded by a few multiplications at most.

    Returns:
        2·n³ divided by the shortest time of one multiplication: a rate that the machine has reached, so
        that shares of it computed later are not flattered by a neighbour that was busy during the probe.
    """
    import torch

    deadline = time.perf_counter() + seconds
    threads = torch.get_num_threads()
    try:
        # One thread: on a busy machine every multiplication with more waits for the scheduler (16 ms
        # were seen for matrices of 64), which says nothing about the cost of the next size.
        if device == "cpu":
            torch.set_num_threads(1)
        size, matmul = _find_size(dtype, device, seconds / 4)
    finally:
        torch.set_num_threads(threads)
    elapsed = matmul.seconds(count=1)  # warms the other threads up
    shortest = elapsed
    while True:
        elapsed = matmul.seconds(max(1, int(_READING_SECONDS / elapsed)))
        shortest = min(shortest, elapsed)
        if time.perf_counter() + elapsed > deadline:
            return 2 * size**3 / shortest


def _find_size(dtype: torch.dtype, device: str, longest: float) -> tuple[int, _Matmul]:
    """The largest size whose multiplication is expected to take at most ``longest`` seconds."""
    sizes = _CPU_SIZES if device == "cpu" else _ACCELERATOR_SIZES
    for size, following in zip(sizes, (*sizes[1:], None), strict=True):
        matmul = _Matmul(size, dtype, device)
        matmul.seconds(count=1)  # kernels are chosen and built at the first call
        # The best of three: one reading that a busy neighbour spoiled must not end the search at a size that
        # says nothing.
        elapsed = min(matmul.seconds(count=1) for _ in range(3))
        if following is None or (following / size) ** 3 * elapsed > longest:
            break
    return size, matmul


class _Matmul:
    """One multiplication that can be repeated.

    Args:
        size: Rows and columns of both matrices.
        dtype: Their type.
        device: Where they lie.
    """

    def __init__(self, size: int, dtype: torch.dtype, device: str) -> None:
        import torch

        # Zeros would let an accelerator clock higher than real numbers do.
        generator = torch.Generator().manual_seed(0)
        self.left = torch.randn(size, size, generator=generator).to(device=device, dtype=dtype)
        self.right = self.left.t().contiguous()
        self.product = torch.empty_like(self.left)
        self.device = device

    def seconds(self, count: int) -> float:
        """Seconds that one of ``count`` multiplications takes."""
        import torch

        self._wait()
        start = time.perf_counter()
        with torch.inference_mode():
            for _ in range(count):
                torch.mm(self.left, self.right, out=self.product)
        self._wait()
        return max(time.perf_counter() - start, 1e-9) / count

    def _wait(self) -> None:
        """Until the device has done what it was given: it works asynchronously."""
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()
        elif self.device == "mps":
            torch.mps.synchronize()
