"""The machine is measured in a tenth of a second, and choices follow from what was measured."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import sysconfig
import time
from pathlib import Path

import pytest
import torch

from insight.runtime import hardware as hardware_module
from insight.runtime import hardware as matmul_rate
from insight.runtime.hardware import (
    Hardware,
    choose_num_threads,
    choose_precision,
    compiler_path,
    describe,
    format_flops,
    measure_hardware,
    measure_matmul_rate,
)

MACHINE = Hardware(2, 16 << 30, "AVX2", "cpu", "A processor", True, {"float32": 1e11, "bfloat16": 3e11})


def with_rates(accelerator: str = "cpu", **rates: float) -> Hardware:
    return dataclasses.replace(MACHINE, accelerator=accelerator, matmul_flops=rates)


@pytest.mark.parametrize(
    ("machine", "precision"),
    [
        (with_rates(float32=1e11, bfloat16=1.31e11), "bf16-mixed"),
        (with_rates(float32=1e11, bfloat16=1.30e11), "32-true"),
        (with_rates(float32=1e11, bfloat16=4e9), "32-true"),
        (with_rates(float32=1e11), "32-true"),
        (with_rates(bfloat16=1e11), "32-true"),
        (with_rates(), "32-true"),
        (with_rates("cuda", float32=5e13, bfloat16=6e13), "bf16-mixed"),
        (with_rates("cuda", float32=5e12), "32-true"),
        (with_rates("mps", float32=5e12, bfloat16=5e12), "32-true"),
    ],
)
def test_precision_follows_the_rates(machine: Hardware, precision: str) -> None:
    assert choose_precision(machine) == precision


def test_measurement_of_this_machine() -> None:
    torch.mm(torch.ones(8, 8), torch.ones(8, 8))
    threads = torch.get_num_threads()
    machine = measure_hardware()
    assert torch.get_num_threads() == threads
    assert machine.num_cores >= 1
    assert machine.memory_bytes > 1 << 28
    assert machine.accelerator in ("cpu", "cuda", "mps")
    assert machine.matmul_flops["float32"] > 1e8
    assert describe(machine).count("\n") == 0


@pytest.mark.parametrize("slowness", [1e7, 1e9])
def test_a_type_that_the_machine_emulates_costs_no_seconds(
    monkeypatch: pytest.MonkeyPatch, slowness: float
) -> None:
    """Multiplications are slowed down to 10 MFLOP/s and 1 GFLOP/s: less than any bfloat16 seen under AVX2."""
    real = torch.mm

    def slow(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        time.sleep(2 * len(left) ** 3 / slowness)
        return real(left, right, out=out)

    monkeypatch.setattr(torch, "mm", slow)
    start = time.perf_counter()
    rate = measure_matmul_rate(torch.float32, seconds=0.04)
    assert time.perf_counter() - start < 1.0
    assert rate == pytest.approx(slowness, rel=0.5)


@pytest.mark.slow
def test_without_the_guard_it_costs_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: one fixed size, as a naive probe has, takes longer than the test above allows."""
    real = torch.mm

    def slow(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        time.sleep(2 * len(left) ** 3 / 5e8)
        return real(left, right, out=out)

    monkeypatch.setattr(torch, "mm", slow)
    monkeypatch.setattr(matmul_rate, "_CPU_SIZES", (512,))
    start = time.perf_counter()
    measure_matmul_rate(torch.float32, seconds=0.04)
    assert time.perf_counter() - start > 1.0


def test_emulated_bfloat16_for_real() -> None:
    """Whatever this machine is: bfloat16 within its time, with a rate that is a number."""
    start = time.perf_counter()
    assert measure_matmul_rate(torch.bfloat16, seconds=0.04) > 0
    assert time.perf_counter() - start < 5.0  # the first call may build kernels, and the machine may be busy


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ({1: 1.0, 2: 1.9}, 2),
        ({1: 1.0, 2: 1.0}, 2),
        ({1: 1.0, 2: 0.95}, 2),
        ({1: 1.0, 2: 0.6}, 1),
    ],
)
def test_threads_follow_the_rates(
    monkeypatch: pytest.MonkeyPatch, rates: dict[int, float], chosen: int
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(
        hardware_module, "measure_matmul_rate", lambda dtype, seconds: rates[torch.get_num_threads()]
    )
    assert choose_num_threads(2) == chosen
    assert torch.get_num_threads() == before


def test_physical_cores_are_a_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {1: 1.0, 4: 4.0, 8: 3.0}
    monkeypatch.setattr(
        hardware_module, "measure_matmul_rate", lambda dtype, seconds: rates[torch.get_num_threads()]
    )
    monkeypatch.setattr(hardware_module.psutil, "cpu_count", lambda logical: 4)
    assert choose_num_threads(8) == 4


def test_one_core_needs_no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware_module, "measure_matmul_rate", None)
    assert choose_num_threads(1) == 1


def test_threads_of_this_machine() -> None:
    assert 1 <= choose_num_threads() <= hardware_module.usable_cores()


def make_compiler(folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)


@pytest.mark.skipif(sys.platform != "linux", reason="names of compilers on Linux")
def test_compiler_is_the_one_that_inductor_would_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    headers = tmp_path / "include"
    headers.mkdir()
    (headers / "Python.h").write_text("")
    monkeypatch.setattr(hardware_module.sysconfig, "get_path", lambda _: str(headers))
    assert compiler_path() is None
    make_compiler(tmp_path, "clang++")
    assert compiler_path() is None  # Inductor does not look for it by itself
    monkeypatch.setenv("CXX", "clang++")
    assert compiler_path() == str(tmp_path / "clang++")
    monkeypatch.delenv("CXX")
    make_compiler(tmp_path, "g++")
    assert compiler_path() == str(tmp_path / "g++")
    monkeypatch.setenv("CXX", "missing++")
    assert compiler_path() is None
    monkeypatch.delenv("CXX")
    (headers / "Python.h").unlink()
    assert compiler_path() is None


@pytest.mark.slow
def test_compiler_answer_agrees_with_torch_compile() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler

    if compiler_path() is None:
        pytest.skip("no compiler here")
    assert get_cpp_compiler()
    function = torch.compile(lambda x: (x * 2).relu().sum())
    assert function(torch.ones(64)) == 128


def test_description_says_unknown_instead_of_guessing() -> None:
    assert describe(MACHINE) == (
        "2 cores, A processor (AVX2), 16.0 GiB memory, matmul 100 GFLOP/s fp32, 300 GFLOP/s bf16, "
        "torch.compile can build"
    )
    unknown = Hardware(1, 1 << 30, "unknown", "cpu", "unknown", False)
    assert (
        describe(unknown)
        == "1 core, unknown (unknown), 1.0 GiB memory, matmul rate unknown, torch.compile cannot build"
    )


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (3.84e11, "384 GFLOP/s"),
        (3.485e12, "3.48 TFLOP/s"),
        (9.9e14, "990 TFLOP/s"),
        (5e7, "50 MFLOP/s"),
        (1.2e15, "1.2 PFLOP/s"),
    ],
)
def test_rates_with_units(rate: float, text: str) -> None:
    assert format_flops(rate) == text


def test_unreadable_machine_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> str:
        raise RuntimeError("not on this build")

    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", missing)
    monkeypatch.setattr(torch, "mm", missing)
    machine = measure_hardware()
    assert machine.cpu_capability == "unknown"
    assert machine.matmul_flops == {}
    assert choose_precision(machine) == "32-true"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_is_measured() -> None:
    torch.ones(1, device="cuda")
    start = time.perf_counter()
    machine = measure_hardware()
    assert time.perf_counter() - start < 5.0
    assert machine.accelerator == "cuda"
    assert machine.accelerator_name == torch.cuda.get_device_name()
    assert machine.matmul_flops["float32"] > 1e11
    supported = torch.cuda.is_bf16_supported(including_emulation=False)
    assert choose_precision(machine) == ("bf16-mixed" if supported else "32-true")


def test_torch_under_a_path_with_a_space_cannot_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inductor hands unquoted paths to the linker, so that compiling would fail in the middle of a run."""
    real = sysconfig.get_path
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/g++")
    monkeypatch.setattr(
        sysconfig, "get_path", lambda name: "/a folder/site-packages" if name == "purelib" else real(name)
    )
    assert compiler_path() is None
