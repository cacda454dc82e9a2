"""Memory of the process, now and at its worst."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from insight.runtime.resources import peak_resident_bytes, resident_bytes

_MEGABYTE = 1 << 20


def test_an_allocation_shows_and_the_peak_stays() -> None:
    code = (
        "from insight.runtime.resources import *\n"
        "import numpy as np\n"
        "before = resident_bytes()\n"
        "block = np.ones(200 << 20, dtype=np.uint8)\n"
        "during = resident_bytes()\n"
        "del block\n"
        "print(before, during, resident_bytes(), peak_resident_bytes())"
    )
    before, during, after, peak = _run(code)
    assert during - before > 190 * _MEGABYTE
    assert after < before + 50 * _MEGABYTE
    assert peak >= during - _MEGABYTE


@pytest.mark.skipif(sys.platform != "linux", reason="what ru_maxrss inherits is Linux's affair")
def test_peak_of_a_large_parent_is_not_inherited() -> None:
    block = np.ones(300 << 20, dtype=np.uint8)
    (peak,) = _run("from insight.runtime.resources import *\nprint(peak_resident_bytes())")
    assert block.nbytes == 300 << 20
    assert peak < 250 * _MEGABYTE


def test_order() -> None:
    assert 0 < resident_bytes() <= peak_resident_bytes() + _MEGABYTE


def _run(code: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    return [int(number) for number in done.stdout.split()]
