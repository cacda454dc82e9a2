"""Every legal container of every compressed format is read whole or refused by name; damage is not silent."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
from pathlib import Path

import pytest
import zstandard

from insight.data.sources.decoding import open_source
from insight.runtime.errors import DataError

A, B = b"first \xf0\x9f\xa6\x8b text " * 100, b"second text " * 100
SKIPPABLE = struct.pack("<II", 0x184D2A50, 5) + b"extra"


def zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def with_window(data: bytes, window_log: int) -> bytes:
    """As `zstd --long=N` writes what it reads from a pipe: the frame does not tell its size."""
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=window_log, enable_ldm=True)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return frame.compress(data) + frame.flush()


def read(folder: Path, content: bytes, compression: str) -> bytes:
    path = folder / f"file.{compression}"
    path.write_bytes(content)
    with open_source(path, path.name, compression) as file:
        return file.read()


LEGAL = {
    "xz streams": ("xz", lzma.compress(A) + lzma.compress(B)),
    "xz padding between": ("xz", lzma.compress(A) + bytes(4) + lzma.compress(B)),
    "xz padding at the end": ("xz", lzma.compress(A) + lzma.compress(B) + bytes(8)),
    "xz long padding": ("xz", lzma.compress(A) + bytes(3 << 12) + lzma.compress(B) + bytes(4)),
    "xz empty stream": ("xz", lzma.compress(A) + lzma.compress(b"") + lzma.compress(B)),
    "xz without check": ("xz", lzma.compress(A, check=lzma.CHECK_NONE) + lzma.compress(B)),
    "lzma": ("xz", lzma.compress(A + B, format=lzma.FORMAT_ALONE)),
    "gz members": ("gz", gzip.compress(A) + gzip.compress(B)),
    "gz padding": ("gz", gzip.compress(A) + bytes(5) + gzip.compress(B) + bytes(513)),
    "bz2 streams": ("bz2", bz2.compress(A) + bz2.compress(b"") + bz2.compress(B)),
    "zst frames": ("zst", zst(A) + zst(b"") + zst(B)),
    "zst skippable frames": ("zst", SKIPPABLE + zst(A) + SKIPPABLE * 2 + zst(B) + SKIPPABLE),
    "zst --long=31": ("zst", zst(A) + with_window(B, 31)),
    "zst --long=28": ("zst", with_window(A + B, 28)),
}


@pytest.mark.parametrize("name", LEGAL)
def test_legal_containers_are_read_whole(tmp_path: Path, name: str) -> None:
    compression, content = LEGAL[name]
    assert read(tmp_path, content, compression) == A + B


def dictionary_frame() -> bytes:
    samples = [os.urandom(8) + b"sample text %d" % number for number in range(300)]
    dictionary = zstandard.train_dictionary(2000, samples)
    return zstandard.ZstdCompressor(dict_data=dictionary).compress(samples[0])


def too_large_window() -> bytes:
    frame = bytearray(with_window(A, 31))
    frame[5] = 22 << 3
    return bytes(frame)


REFUSED = {
    "dictionary": ("zst", dictionary_frame(), "dictionary"),
    "window": ("zst", too_large_window(), "window of 4.0 GiB"),
    "old": ("zst", b"\x27\xb5\x2f\xfd" + bytes(20), "zstd 0.7 or older"),
    "xz padding": ("xz", lzma.compress(A) + bytes(6) + lzma.compress(B), "6 bytes of padding"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused_by_name(tmp_path: Path, name: str) -> None:
    compression, content, said = REFUSED[name]
    with pytest.raises(DataError) as error:
        read(tmp_path, content, compression)
    assert said in str(error.value)


@pytest.mark.parametrize("rest", [b"some text", bytes(2), b"\x1f", b"\xfd7zXZ"], ids=repr)
@pytest.mark.parametrize("compression", ["gz", "bz2", "xz", "zst"])
def test_what_follows_a_stream_is_never_dropped(tmp_path: Path, compression: str, rest: bytes) -> None:
    stream = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zst}[compression](A)
    for content in (stream + rest, stream + stream[:-1], stream + stream[:9] + bytes(40) + stream[49:]):
        if compression == "gz" and content == stream + bytes(2):
            continue  # zero bytes are padding there
        with pytest.raises(DataError) as error:
            read(tmp_path, content, compression)
        assert f"damaged .{compression} file" in str(error.value)
