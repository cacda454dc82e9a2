"""Measurements of the machine, and the choice of precision and threads. No product name decides anything."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from insight.runtime.errors import ConfigError
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
    slower than float32) costs milliseconds, not seconds. The rest of the time repeats the size found. The
    rate is 2·n³ divided by the shortest time of one multiplication.

    ``seconds`` include the warm-up and are exceeded by a few multiplications at most.
    """
    import torch

    deadline = time.perf_counter() + seconds
    # One thread, because on a busy machine every multiplication with more threads waits for the scheduler
    # (16 ms were seen for matrices of 64), which hides the cost of the next size.
    with _threads(1 if device == "cpu" else torch.get_num_threads()):
        size, matmul = _find_size(dtype, device, seconds / 4)
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


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """Let torch use some number of CPU threads in the block."""
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(number)
        yield
    finally:
        torch.set_num_threads(before)


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

        # An accelerator works asynchronously.
        wait = getattr(torch, self.device).synchronize if self.device in ("cuda", "mps") else lambda: None
        wait()
        start = time.perf_counter()
        with torch.inference_mode():
            for _ in range(count):
                torch.mm(self.left, self.right, out=self.product)
        wait()
        return max(time.perf_counter() - start, 1e-9) / count


# bf16-mixed adds casts around every matmul, so it pays only when the multiplication itself is clearly faster.
_BFLOAT16_GAIN_NEEDED = 1.3
_SINGLE_THREAD_GAIN_NEEDED = 1.1


@dataclass(frozen=True)
class Hardware:
    """The measured machine of a run."""

    num_cores: int  # that this process may use, by affinity and container quota
    memory_bytes: int  # that this process may use
    cpu_capability: str  # vector extension of torch, with "+AMX" where its tiles work, or "unknown"
    accelerator: str  # "cpu", "cuda" or "mps"
    accelerator_name: str  # of the accelerator or processor, for people
    has_compiler: bool  # whether torch.compile can build: see compiler_path
    # Measured FLOP/s on the accelerator for "float32" and "bfloat16", as far as it has them.
    matmul_flops: dict[str, float] = field(default_factory=dict)


def measure_hardware() -> Hardware:
    """Inspect the machine and time its matmuls, in about 100 ms after torch's first use."""
    accelerator = present_accelerator()
    return Hardware(
        usable_cores(),
        usable_memory_bytes(),
        _cpu_capability(),
        accelerator,
        _accelerator_name(accelerator),
        has_compiler=compiler_path() is not None,
        matmul_flops=_matmul_rates(accelerator),
    )


def choose_precision(hardware: Hardware) -> str:
    """Lightning's name of the precision that trains fastest on this machine at full quality.

    It is ``"bf16-mixed"`` on a CUDA device that has bfloat16, and elsewhere where bfloat16 matmuls were
    measured more than 1.3 times as fast as float32 ones; otherwise ``"32-true"``.
    """
    single, half = (hardware.matmul_flops.get(name, 0.0) for name in ("float32", "bfloat16"))
    if hardware.accelerator == "cuda":
        return "bf16-mixed" if half > 0 else "32-true"
    return "bf16-mixed" if 0 < _BFLOAT16_GAIN_NEEDED * single < half else "32-true"


def choose_num_threads(num_cores: int | None = None) -> int:
    """The number of CPU threads that multiplies fastest, at most ``num_cores``, measured in about 100 ms.

    One thread, the physical cores and all usable cores are tried in turn, and the best reading of each
    counts. Only a measurement shows that two virtual cores share a physical core, or that a container
    provides less than it reports. One thread wins only when it is clearly faster, because a program that is
    busy during the measurement may soon end. ``None`` takes the cores that this process may use.
    """
    import torch

    cores = usable_cores() if num_cores is None else num_cores
    if cores <= 1:
        return 1
    physical = psutil.cpu_count(logical=False) or cores
    rates = dict.fromkeys(sorted({1, min(physical, cores), cores}), 0.0)
    for threads in (*rates, *rates):
        with _threads(threads):
            rates[threads] = max(rates[threads], measure_matmul_rate(torch.float32, seconds=0.02))
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
    return (
        f"{hardware.num_cores} core{'s' if hardware.num_cores != 1 else ''}, "
        f"{hardware.accelerator_name} ({hardware.cpu_capability}), "
        f"{hardware.memory_bytes / 2**30:.1f} GiB memory, matmul {', '.join(rates) or 'rate unknown'}, "
        f"torch.compile {'can' if hardware.has_compiler else 'cannot'} build"
    )


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


def present_accelerator() -> str:
    """``"cuda"``, ``"mps"`` or ``"cpu"``: the fastest kind of device that torch finds here."""
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
    for name in (*types, *types):
        with contextlib.suppress(RuntimeError, NotImplementedError):  # the device has no such matmul
            rate = measure_matmul_rate(types[name], accelerator, seconds=0.02)
            rates[name] = max(rates.get(name, 0.0), rate)
    return rates


def _cpu_capability() -> str:
    import torch

    capability = "unknown"
    with contextlib.suppress(AttributeError, RuntimeError):
        capability = str(torch.backends.cpu.get_cpu_capability())
        if torch.cpu._is_amx_tile_supported():  # a private function of torch, which may be missing
            capability += "+AMX"
    return capability


def _accelerator_name(accelerator: str) -> str:
    import torch

    if accelerator == "cuda":
        return str(torch.cuda.get_device_name())
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model") and value.strip():
                return " ".join(value.split())
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


def flush_denormals() -> bool:
    """Make torch's CPU arithmetic treat numbers below 1e-38 as zero, and return whether it does.

    Such numbers arise as softmax weights of far keys where scores fall with the distance (ALiBi), and as old
    averages of gradients. Threads inherit the setting, so it comes before the first computation.
    """
    import torch

    return torch.set_flush_denormal(True)


def usable_device(name: str) -> torch.device:
    """The device called ``name``, after a trial; from now on the CPU treats denormal numbers as zero."""
    import torch

    flush_denormals()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError("torch cannot use it here", "use cpu", option="--device", value=name) from error
    return device
