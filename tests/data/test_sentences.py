"""Sentences of files and streams: lines as they come, and where they end."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insight.data.sources import sentences
from insight.data.sources.sentences import SentenceLines, is_regular, open_sentences
from insight.runtime.errors import DataError


def _all(reader: SentenceLines, most: int = 3) -> list[str]:
    taken: list[str] = []
    while lines := reader.take(most):
        assert len(lines) <= most
        taken += lines
    return taken


class Pieces:
    """A stream that gives its bytes in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)
        self.num_reads = 0

    def read1(self, size: int) -> bytes:
        self.num_reads += 1
        return next(self._pieces, b"")


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.text(st.characters(exclude_characters="\n\r\ufeff", exclude_categories=["Cs"]))),
    st.lists(st.integers(1, 9)),
    st.booleans(),
)
def test_any_text_in_any_pieces_gives_its_lines(lines: list[str], sizes: list[int], is_live: bool) -> None:
    data = "".join(f"{line}\n" for line in lines).encode()
    pieces, start = [], 0
    for size in sizes:
        pieces.append(data[start : start + size])
        start += size
    stream = Pieces([piece for piece in (*pieces, data[start:]) if piece])
    assert _all(SentenceLines(stream, "stream", is_live=is_live)) == lines


def test_a_live_stream_is_not_asked_for_more_than_one_line() -> None:
    stream = Pieces([b"one\ntw", b"o\n", b"three"])
    reader = SentenceLines(stream, "stream", is_live=True)
    assert reader.take(10) == ["one"]
    assert stream.num_reads == 1
    assert reader.take(10) == ["two"]
    assert stream.num_reads == 2
    assert reader.take(10) == ["three"]
    assert reader.take(10) == []
    assert SentenceLines(Pieces([b"one\ntwo\nthree\n"]), "", is_live=True).take(2) == ["one", "two"]


def test_files_may_be_compressed_and_their_content_is_hashed(tmp_path: Path) -> None:
    data = "one\r\n\u2028\ntwo".encode()
    (tmp_path / "a.txt").write_bytes(data)
    (tmp_path / "a.gz").write_bytes(gzip.compress(data))
    hashes = []
    for name in ("a.txt", "a.gz"):
        assert is_regular(tmp_path / name)
        with open_sentences(tmp_path / name) as reader:
            assert _all(reader) == ["one", "\u2028", "two"]
            assert reader.num_lines == 3
            hashes.append(reader.content_hash)
    assert hashes[0] == hashes[1]
    with open_sentences(tmp_path / "a.txt") as reader:
        assert reader.content_hash != hashes[0]


def test_wrong_bytes_are_placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"stream: line 2, byte 5 \(0xff\)"):
        _all(SentenceLines(io.BytesIO(b"one\nt\xff\n"), "stream"))
    reader = SentenceLines(io.BytesIO(b"one\nt\xff\n"), "stream", "replace")
    assert _all(reader) == ["one", "t\ufffd"]
    assert reader.repairs.num_places == 1
    monkeypatch.setattr(sentences, "_MOST_LINE_BYTES", 8)
    for text in (b"a\n" + b"x" * 20, b"a\n" + b"x" * 20 + b"\n"):
        with pytest.raises(DataError, match="line 2 is longer"):
            _all(SentenceLines(io.BytesIO(text), "stream"))
    with pytest.raises(DataError, match="is a folder"):
        is_regular(tmp_path)
    with pytest.raises(DataError, match="there is no such file"):
        is_regular(tmp_path / "none")
    with pytest.raises(DataError, match="cannot be the name"):
        is_regular(tmp_path / ("x" * 300))
