"""Streaming text: whole characters, and nothing of a stop string, however the bytes are cut."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insight.data.tokenizers import BPETokenizerConfig
from insight.generation import TextStream


def streamed(data: bytes, cuts: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    stream = TextStream(stop)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    pieces = [stream.push(data[a:b]) for a, b in itertools.pairwise(edges)]
    return [*pieces, stream.finish()], stream


@pytest.mark.slow
@given(st.text(), st.lists(st.integers(0, 1000), max_size=20))
def test_pieces_join_to_the_text(text: str, cuts: list[int]) -> None:
    text = text.encode("utf-8", errors="replace").decode("utf-8")
    pieces, _ = streamed(text.encode(), cuts)
    assert "".join(pieces) == text


@given(
    st.text(alphabet="abé☕", max_size=40),
    st.lists(st.text(alphabet="abé☕", min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.integers(0, 1000), max_size=30),
)
def test_text_ends_before_the_first_stop_string(text: str, stop: list[str], cuts: list[int]) -> None:
    pieces, stream = streamed(text.encode(), cuts, tuple(stop))
    found = [text.find(each) for each in stop if each in text]
    assert stream.stopped == bool(found)
    written = "".join(pieces)
    # The end that is known first decides; where every cut is one character that is the earliest.
    assert text.startswith(written)
    assert not any(each in written for each in stop)
    if not found:
        assert written == text


def test_no_character_is_split() -> None:
    stream = TextStream()
    cup = "☕".encode()
    assert [stream.push(bytes([byte])) for byte in cup] == ["", "", "☕"]


def test_tokens_of_a_trained_tokenizer_join_to_the_text() -> None:
    text = "It is a naïve ☕ truth: 日本語, 🎉 and ½."
    tokenizer = BPETokenizerConfig(vocabulary_size=270, min_frequency=1).build([text * 3])
    stream = TextStream()
    pieces = [stream.push(tokenizer.token_bytes(token_id)) for token_id in tokenizer.encode(text)]
    assert "".join([*pieces, stream.finish()]) == text
    assert "\ufffd" not in "".join(pieces)
    assert "" in pieces  # some tokens end inside a character


def test_broken_bytes_become_replacement_characters() -> None:
    stream = TextStream()
    assert stream.push(b"a\xff") + stream.push(b"b\xe2\x98") + stream.finish() == "a�b�"


@pytest.mark.parametrize("seed", range(3))
def test_what_could_become_a_stop_string_is_held_back(seed: int) -> None:
    stream = TextStream(("\n\nEND",))
    assert stream.push(b"text\n") == "text"
    assert stream.push(b"\nEN") == ""
    assert stream.push(random.Random(seed).choice([b"X", b"Y"]))[:4] == "\n\nEN"
