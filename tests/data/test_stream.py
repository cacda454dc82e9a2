"""Mapped files as one stream: what is read is what was written, and pages are given back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insight.data.store.reader import MappedStream, ragged_range


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(-5, 50), st.integers(0, 6)), max_size=12))
def test_ragged_range(pieces: list[tuple[int, int]]) -> None:
    starts, lengths = (np.array([piece[side] for piece in pieces], dtype=np.int64) for side in (0, 1))
    expected = [start + number for start, length in pieces for number in range(length)]
    assert ragged_range(starts, lengths).tolist() == expected


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.data())
def test_everything_read_is_a_slice_of_the_whole(sizes: list[int], data: st.DataObject) -> None:
    whole = np.arange(sum(sizes), dtype=np.uint16) * 3
    stream = MappedStream(np.split(whole, np.cumsum(sizes)[:-1]))
    assert len(stream) == len(whole)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    assert stream.range(start, stop).tolist() == whole[start:stop].tolist()
    length = data.draw(st.integers(1, len(whole)))
    starts = data.draw(st.lists(st.integers(0, len(whole) - length), max_size=6))
    windows = stream.windows(np.array(starts, dtype=np.int64), length)
    assert windows.dtype == np.int64
    assert windows.shape == (len(starts), length)
    assert windows.tolist() == [whole[first : first + length].tolist() for first in starts]
    lengths = [data.draw(st.integers(0, len(whole) - first)) for first in starts]
    pieces = stream.pieces(np.array(starts, dtype=np.int64), np.array(lengths, dtype=np.int64))
    assert pieces.dtype == np.int64
    assert pieces.tolist() == [
        number
        for first, count in zip(starts, lengths, strict=True)
        for number in whole[first : first + count].tolist()
    ]


READ = """
import sys
import numpy as np
from insight.data.store import reader as stream
from insight.runtime.resources import resident_bytes

if sys.argv[2] == "kept":
    stream._SMALL_BYTES = 1 << 60
tokens = np.memmap(sys.argv[1], dtype=np.uint16, mode="r")
mapped = stream.MappedStream([tokens])
windows = np.random.default_rng(0).permutation(len(tokens) // 1024 - 1) * 1024
mapped.windows(windows[:16], 1024)
before, most = resident_bytes(), 0
for first in range(0, len(windows), 16):
    mapped.windows(windows[first : first + 16], 1024)
    if first % 64 == 0:
        most = max(most, resident_bytes() - before)
print(most)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads mapped pages from Linux' accounts")
@pytest.mark.parametrize("pages", ["given back", "kept"])
def test_an_epoch_does_not_fill_the_memory(tmp_path: Path, pages: str) -> None:
    """200 MB of windows in random order; without giving pages back all of it stays resident."""
    path = tmp_path / "tokens.bin"
    block = np.arange(1 << 20, dtype=np.uint16).tobytes()
    with open(path, "wb") as file:
        for _ in range(100):
            file.write(block)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path), pages], capture_output=True, text=True, check=True
    )
    growth = int(done.stdout)
    if pages == "given back":
        assert growth < 80e6
    else:
        assert growth > 150e6
