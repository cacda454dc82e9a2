"""Measurements of the machine, and the choice of precision and threads. No product name decides anything."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import sys
import sysconfig
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from insight.runtime.resources import usable_cores, usable_memory_bytes

if TYPE_CHECKING:
    import torch


# Sides of the square matrices to try, smallest first. A CPU reaches its rate at 1024, an accelerator later.
_CPU_SIZES = (64, 128, 256, 512, 1024)
_ACCELERATOR_SIZES = (256, 512, 1024, 2048, 4096, 8192)
_READING_SECONDS = 0.002


def measure_matmul_rate(dtype: torch.dtype, device: str = "cpu", seconds: float = 0.04) -> float:
    """The best rate of a square matmul, in FLOP/s, at torch's current thread count.

    The size of the matrices doubles (the work grows eightfold) while the next size is expected to fit into a
    quarter of ``seconds``, so a type that the machine emulates (bfloat16 under AVX2 was measured 50 times
    slower than float32) costs milliseconds, not seconds. The rest of the time repeats the size found.

    Args:
        dtype: The type of both matrices and of the product.
        device: The device that multiplies.
        seconds: The time to spend, warm-up included; it is exceeded by a few multiplications at most.

    Returns:
        2·n³ divided by the shortest time of one multiplication. This rate was reached, so shares of it that
        are computed later do not look better because another program was busy during the measurement.
    """
    import torch

    deadline = time.perf_counter() + seconds
    threads = torch.get_num_threads()
    try:
        # One thread, because on a busy machine every multiplication with more threads waits for the scheduler
        # (16 ms were seen for matrices of 64), which hides the cost of the next size.
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
        # The best of three, because one reading spoiled by another program must not end the search too early.
        elapsed = min(matmul.seconds(count=1) for _ in range(3))
        if following is None or (following / size) ** 3 * elapsed > longest:
            break
    return size, matmul


class _Matmul:
    """One multiplication of two ``size`` × ``size`` matrices that can be repeated."""

    def __init__(self, size: int, dtype: torch.dtype, device: str) -> None:
        import torch

        # Zeros would let an accelerator clock higher than real numbers do.
        generator = torch.Generator().manual_seed(0)
        self.left = torch.randn(size, size, generator=generator).to(device=device, dtype=dtype)
        self.right = self.left.t().contiguous()
        self.product = torch.empty_like(self.left)
        self.device = device

    def seconds(self, count: int) -> float:
        """Seconds per multiplication, averaged over ``count`` of them."""
        import torch

        self._wait()
        start = time.perf_counter()
        with torch.inference_mode():
            for _ in range(count):
                torch.mm(self.left, self.right, out=self.product)
        self._wait()
        return max(time.perf_counter() - start, 1e-9) / count

    def _wait(self) -> None:
        """Wait until the device, which works asynchronously, has finished."""
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()
        elif self.device == "mps":
            torch.mps.synchronize()


# bf16-mixed adds casts around every matmul, so it pays only when the multiplication itself is clearly faster.
_BFLOAT16_GAIN_NEEDED = 1.3
_SINGLE_THREAD_GAIN_NEEDED = 1.1


@dataclass(frozen=True)
class Hardware:
    """The measured machine of a run.

    Args:
        num_cores: Cores that this process may use, by affinity and container quota.
        memory_bytes: Memory that this process may use.
        cpu_capability: Vector extension of torch, with ``+AMX`` where its tiles work, or ``"unknown"``.
        accelerator: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        accelerator_name: Readable name of the accelerator or processor, or ``"unknown"``.
        has_compiler: Whether ``torch.compile`` can build: see :func:`compiler_path`.
        matmul_flops: Measured FLOP/s on ``accelerator`` by type: ``"float32"`` and, where the device has
            it, ``"bfloat16"``. Empty when nothing could be measured.
    """

    num_cores: int
    memory_bytes: int
    cpu_capability: str
    accelerator: str
    accelerator_name: str
    has_compiler: bool
    matmul_flops: dict[str, float] = field(default_factory=dict)


def measure_hardware(num_threads: int | None = None) -> Hardware:
    """Inspect the machine and time its matmuls, in about 100 ms after torch's first use.

    ``num_threads`` CPU threads take part, or torch's count for ``None``; torch's count is then restored.
    """
    import torch

    accelerator = _accelerator()
    threads_before = torch.get_num_threads()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    try:
        matmul_flops = _matmul_rates(accelerator)
    finally:
        torch.set_num_threads(threads_before)
    return Hardware(
        num_cores=usable_cores(),
        memory_bytes=usable_memory_bytes(),
        cpu_capability=_cpu_capability(),
        accelerator=accelerator,
        accelerator_name=_accelerator_name(accelerator),
        has_compiler=compiler_path() is not None,
        matmul_flops=matmul_flops,
    )


def choose_precision(hardware: Hardware) -> str:
    """Lightning's name of the precision that trains fastest on this machine at full quality.

    Returns:
        ``"bf16-mixed"`` on a CUDA device that has bfloat16, and elsewhere where bfloat16 matmuls were
        measured more than 1.3 times as fast as float32 ones; otherwise ``"32-true"``.
    """
    single = hardware.matmul_flops.get("float32", 0.0)
    half = hardware.matmul_flops.get("bfloat16", 0.0)
    if hardware.accelerator == "cuda" and half > 0:
        return "bf16-mixed"
    return "bf16-mixed" if single > 0 and half > _BFLOAT16_GAIN_NEEDED * single else "32-true"


def choose_num_threads(num_cores: int | None = None) -> int:
    """The number of CPU threads that multiplies fastest, at most ``num_cores``, measured in about 100 ms.

    One thread, the physical cores and all usable cores are tried in turn, and the best reading of each
    counts. Only a measurement shows that two virtual cores share a physical core, or that a container
    provides less than it reports. One thread wins only when it is clearly faster, because a program that is
    busy during the measurement may soon end, while one thread too few slows the whole run. ``None`` takes
    the cores that this process may use.
    """
    import torch

    cores = usable_cores() if num_cores is None else num_cores
    if cores <= 1:
        return 1
    physical = psutil.cpu_count(logical=False) or cores
    rates = dict.fromkeys(sorted({1, min(physical, cores), cores}), 0.0)
    threads_before = torch.get_num_threads()
    try:
        for _ in range(2):
            for threads in rates:
                torch.set_num_threads(threads)
                rate = measure_matmul_rate(torch.float32, seconds=0.02)
                rates[threads] = max(rates[threads], rate)
    finally:
        torch.set_num_threads(threads_before)
    single = rates.pop(1)
    # The larger of equally fast counts wins.
    best = max(rates, key=lambda threads: (rates[threads], threads))
    return 1 if single > _SINGLE_THREAD_GAIN_NEEDED * rates[best] else best


def describe(hardware: Hardware) -> str:
    """The machine in one line, for the terminal and the report."""
    rates = [
        f"{format_flops(hardware.matmul_flops[name])} {short}"
        for name, short in (("float32", "fp32"), ("bfloat16", "bf16"))
        if name in hardware.matmul_flops
    ]
    parts = [
        f"{hardware.num_cores} core{'s' if hardware.num_cores != 1 else ''}",
        f"{hardware.accelerator_name} ({hardware.cpu_capability})",
        f"{hardware.memory_bytes / 2**30:.1f} GiB memory",
        f"matmul {', '.join(rates) if rates else 'rate unknown'}",
        "torch.compile can build" if hardware.has_compiler else "torch.compile cannot build",
    ]
    return ", ".join(parts)


def format_flops(rate: float) -> str:
    """A rate with its unit, e.g. ``384 GFLOP/s``."""
    for factor, unit in ((1e15, "PFLOP/s"), (1e12, "TFLOP/s"), (1e9, "GFLOP/s")):
        if rate >= factor:
            return f"{rate / factor:.3g} {unit}"
    return f"{rate / 1e6:.3g} MFLOP/s"


def compiler_path() -> str | None:
    """The C++ compiler that ``torch.compile`` would use on a CPU, or ``None`` when it would fail.

    Inductor uses only ``$CXX`` or, if it is not set, ``g++`` (``clang++`` on macOS;
    ``torch._inductor.config.cpp.cxx``). Its kernels include ``Python.h``, and it cannot link a torch that is
    installed under a path with a space.
    """
    default = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = shutil.which(os.environ.get("CXX", default))
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    # Inductor does not quote the paths that it passes to the linker.
    linkable = not any(character.isspace() for character in sysconfig.get_path("purelib"))
    return compiler if compiler and headers.is_file() and linkable else None


def _accelerator() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _matmul_rates(accelerator: str) -> dict[str, float]:
    import torch

    types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    # An old CUDA device emulates bfloat16. Its rate would be real, but its use a mistake.
    if accelerator == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        del types["bfloat16"]
    rates: dict[str, float] = {}
    # The types take turns and the best reading counts: a short disturbance must not decide the precision.
    for _ in range(2):
        for name, dtype in types.items():
            try:
                rate = measure_matmul_rate(dtype, accelerator, seconds=0.02)
            except (RuntimeError, NotImplementedError):
                continue  # the device has no such matmul, so its rate stays unknown
            rates[name] = max(rates.get(name, 0.0), rate)
    return rates


def _cpu_capability() -> str:
    import torch

    try:
        capability = str(torch.backends.cpu.get_cpu_capability())
    except (AttributeError, RuntimeError):
        return "unknown"
    try:
        tiles = bool(torch.cpu._is_amx_tile_supported())
    except (AttributeError, RuntimeError):  # this is a private function of torch, which may be missing
        tiles = False
    return f"{capability}+AMX" if tiles else capability


def _accelerator_name(accelerator: str) -> str:
    import torch

    if accelerator == "cuda":
        return str(torch.cuda.get_device_name())
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model") and value.strip():
                return " ".join(value.split())
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


@functools.cache
def this_machine() -> Hardware:
    """The machine, measured once, at the first call, with the threads that training uses."""
    return measure_hardware()


def matmul_rate(precision: str) -> float | None:
    """The measured FLOP/s of matmuls under a Trainer precision such as ``"bf16-mixed"``, or ``None``."""
    names = {"bf16": "bfloat16", "16": "float16", "32": "float32", "64": "float64"}
    name = names.get(str(precision).split("-")[0])
    return this_machine().matmul_flops.get(name) if name else None
