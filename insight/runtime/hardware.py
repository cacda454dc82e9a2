"""The machine as measured, and what follows for precision and threads. No product name decides anything."""

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
        dtype: The type of both matrices and of the product.
        device: The device that multiplies.
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
        dtype: The type of their elements.
        device: The device that they lie on.
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


# bf16-mixed adds casts around every matmul: it pays only when the multiplication itself gains clearly.
_BFLOAT16_GAIN_NEEDED = 1.3
_SINGLE_THREAD_GAIN_NEEDED = 1.1


@dataclass(frozen=True)
class Hardware:
    """The machine of a run, as it was measured.

    Args:
        num_cores: Cores this process may use (affinity and container quota counted).
        memory_bytes: Memory this process may use.
        cpu_capability: Vector extension torch uses, with ``+AMX`` where its tiles work, or ``"unknown"``.
        accelerator: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        accelerator_name: Name of the accelerator or processor, for people to read; ``"unknown"`` if hidden.
        has_compiler: Whether ``torch.compile`` can build: see :func:`compiler_path`.
        matmul_flops: Measured FLOP/s on ``accelerator`` by type: ``"float32"`` and, where the device has
            the type, ``"bfloat16"``. Empty when nothing could be measured.
    """

    num_cores: int
    memory_bytes: int
    cpu_capability: str
    accelerator: str
    accelerator_name: str
    has_compiler: bool
    matmul_flops: dict[str, float] = field(default_factory=dict)


def measure_hardware(num_threads: int | None = None) -> Hardware:
    """Look at the machine and time its matmuls, in about 100 ms after torch's first use.

    Args:
        num_threads: CPU threads to measure with (torch's count is put back afterwards); ``None`` takes
            torch's present count.
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
    """Lightning's name of the precision that trains fastest here at full quality.

    Returns:
        ``"bf16-mixed"`` on a CUDA device that has bfloat16, and elsewhere when bfloat16 matmuls were
        measured more than 1.3 times as fast as float32 ones; else ``"32-true"``.
    """
    single = hardware.matmul_flops.get("float32", 0.0)
    half = hardware.matmul_flops.get("bfloat16", 0.0)
    if hardware.accelerator == "cuda" and half > 0:
        return "bf16-mixed"
    return "bf16-mixed" if single > 0 and half > _BFLOAT16_GAIN_NEEDED * single else "32-true"


def choose_num_threads(num_cores: int | None = None) -> int:
    """How many CPU threads multiply fastest, tried in about 100 ms.

    One thread, the physical cores and all usable cores are tried in turns and the best reading of each
    counts. Two virtual cores may share one physical core, a container may lend less than it shows: that is
    seen here and in no name. One thread wins only when it is clearly faster, because a neighbour that is
    busy during the probe is gone a minute later, and a thread too few costs the whole run.

    Args:
        num_cores: Cores to consider; ``None`` takes those this process may use.
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
    # Of equally fast counts the larger one: sorted ascending, so the last maximum is taken.
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

    Inductor takes ``$CXX`` or, without it, ``g++`` (``clang++`` on macOS) and nothing else
    (``torch._inductor.config.cpp.cxx``), its kernels include ``Python.h``, and it cannot link a torch that is
    installed under a path with a space.
    """
    default = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = shutil.which(os.environ.get("CXX", default))
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    # Inductor does not quote the paths that it hands to the linker.
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
    # An old CUDA device emulates bfloat16; its rate would be real and its use a mistake.
    if accelerator == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        del types["bfloat16"]
    rates: dict[str, float] = {}
    # In turns, the best of each: a neighbour that is busy for a moment must not decide the precision.
    for _ in range(2):
        for name, dtype in types.items():
            try:
                rate = measure_matmul_rate(dtype, accelerator, seconds=0.02)
            except (RuntimeError, NotImplementedError):
                continue  # the device has no such matmul: unknown, not guessed
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
    except (AttributeError, RuntimeError):  # a private call: its absence means nothing
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
    """The machine, measured at the first call with the threads that training uses."""
    return measure_hardware()


def matmul_rate(precision: str) -> float | None:
    """The measured FLOP/s of the type that matmuls have under a Trainer precision, or ``None`` if unknown.

    Args:
        precision: Lightning's name, e.g. ``"bf16-mixed"`` or ``"32-true"``.
    """
    names = {"bf16": "bfloat16", "16": "float16", "32": "float32", "64": "float64"}
    name = names.get(str(precision).split("-")[0])
    return this_machine().matmul_flops.get(name) if name else None
