"""Denormal numbers are zero in every thread of a process that begins with it, and only there."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SCRIPT = """
import torch
from insight.runtime.hardware import flush_denormals
if {begins}:
    if not flush_denormals():
        print("unsupported")
        raise SystemExit
torch.set_num_threads(2)
tiny = torch.full((1_000_000,), 1e-30)
print(int((tiny * 1e-10).count_nonzero()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("begins", [True, False])
def test_every_thread_flushes(begins: bool) -> None:
    script = _SCRIPT.format(begins=begins)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    if done.stdout.strip() == "unsupported":
        pytest.skip("this processor cannot")
    assert int(done.stdout) == (0 if begins else 1_000_000)
