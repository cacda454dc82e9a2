"""Ranges of bytes make the same documents and the same ids as the whole file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insight.data import BPETokenizerConfig, ByteTokenizer, WordTokenizerConfig, expand_sources
from insight.data.sources.decoding import Reading, TextRepairs
from insight.data.sources.formats import ByteRange, TextPart, as_documents
from insight.data.sources.ranges import RangedText, RangeStart, TextRange, _text_place, joined_ranges
from insight.runtime.errors import DataError

TEXT = "ab ab\nab éa éa bb, ba. 日本語。日本\tword1 word2\n\n  end\u3000x"
TOKENIZERS = [
    BPETokenizerConfig(280, min_frequency=1, pre_tokenizer=rule).build([TEXT * 9])
    for rule in ("gpt2", "single_digits", "gpt4")
]
TOKENIZERS += [ByteTokenizer(), WordTokenizerConfig(20, min_frequency=1).build([TEXT])]
awkward = st.lists(
    st.sampled_from([*"ab1é。 \n\t,!日\u3000\x85\u2003'", "ab ab", "word1 ", "\r\n"]), max_size=60
).map("".join)


def ranged(
    folder: Path, name: str, data: bytes, range_bytes: int, reading: Reading = Reading()
) -> RangedText:
    (folder / name).write_bytes(data)
    return RangedText(expand_sources(str(folder / name)), reading, range_bytes)


def parts_of_ranges(text: RangedText, reading: Reading = Reading()) -> list[TextPart]:
    return [part for each in text.ranges for part in each.parts(reading, TextRepairs())]


@settings(deadline=None, max_examples=60)
@given(awkward.filter(bool), st.integers(4, 40))
def test_ranges_of_a_text_have_its_ids(
    tmp_path_factory: pytest.TempPathFactory, document: str, range_bytes: int
) -> None:
    text = ranged(tmp_path_factory.mktemp("a"), "a.txt", document.encode(), range_bytes)
    parts = parts_of_ranges(text)
    assert "".join(part.text for part in parts) == document
    assert [part.is_last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert list(as_documents(text.parts(TextRepairs()))) == [document]
    for tokenizer in TOKENIZERS:
        pieces = ["".join(part.text for part in each.parts(Reading(), TextRepairs())) for each in text.ranges]
        assert [index for piece in pieces for index in tokenizer.encode(piece)] == tokenizer.encode(document)
    position = 0
    for start, each in zip(text.starts, text.ranges, strict=True):
        assert start == RangeStart(0, position)
        position += sum(len(part.text) for part in each.parts(Reading(), TextRepairs()))


def test_planted_fault_is_seen() -> None:
    """Cutting at any byte, or inside a word, changes ids: the test above could not be passed that way."""
    tokenizer = TOKENIZERS[0]
    document = "ab ab ab"
    assert tokenizer.encode("a") + tokenizer.encode(document[1:]) != tokenizer.encode(document)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(st.just(""), awkward), min_size=1, max_size=12), st.integers(1, 80))
def test_ranges_of_lines_have_their_documents(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str], range_bytes: int
) -> None:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in documents) + "\n\n"
    text = ranged(tmp_path_factory.mktemp("a"), "a.jsonl", lines.encode(), range_bytes)
    kept = [document for document in documents if document]
    if not kept:
        with pytest.raises(DataError, match="holds no text"):
            list(text.parts(TextRepairs()))
        return
    assert list(as_documents(parts_of_ranges(text))) == kept
    assert list(as_documents(text.parts(TextRepairs()))) == kept
    counts = [len(list(each.parts(Reading(), TextRepairs()))) for each in text.ranges]
    assert [start.document for start in text.starts] == [sum(counts[:index]) for index in range(len(counts))]


def test_ranges_are_about_as_long_as_asked(tmp_path: Path) -> None:
    text = ranged(tmp_path, "a.txt", ("word " * 20_000).encode(), 1000)
    sizes = [each.num_bytes for each in text.ranges]
    assert sum(sizes) == 100_000
    assert all(1000 <= size < 1010 for size in sizes[:-1])
    assert [each.is_open for each in text.ranges] == [True] * (len(sizes) - 1) + [False]


def test_place_is_looked_for_beyond_one_window(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(("é" * 300 + "日本 word").encode())
    with open(path, "rb") as file:
        for wanted in range(16, 600, 7):
            assert _text_place(file, wanted, window_bytes=64) == 606
        assert _text_place(file, 607, window_bytes=64) is None


def test_invalid_bytes_are_no_place_to_cut(tmp_path: Path) -> None:
    """Left out, they would bring white space to white space: the one before and the one behind the cut."""
    data = b"ab \xff ab \xff ab ab \xff\xfe ab" * 20
    for policy in ("skip", "replace"):
        reading = Reading("text", policy)
        for range_bytes in (8, 64, 10_000):
            text = ranged(tmp_path, "a.txt", data, range_bytes, reading)
            document = "".join(part.text for part in parts_of_ranges(text, reading))
            assert document == data.decode("utf-8", "ignore" if policy == "skip" else "replace")
            for each in text.ranges[1:]:
                assert each.byte_range
                before = data[: each.byte_range.start].decode("utf-8", "ignore")
                assert not before[-1].isspace()


def test_text_that_is_left_out_ends_its_document_all_the_same(tmp_path: Path) -> None:
    reading = Reading("text", "skip")
    source = expand_sources(str(write(tmp_path / "a.txt", b"ab ab \xff\xff")))[0]
    ranges = [TextRange(source, 8, ByteRange(0, 5), is_open=True), TextRange(source, 8, ByteRange(6, 8))]
    parts = [part for each in ranges for part in each.parts(reading, TextRepairs())]
    assert parts[-1] == TextPart("", True)
    assert list(as_documents(parts)) == ["ab ab"]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_errors_count_lines_from_the_beginning_of_the_file(tmp_path: Path) -> None:
    good = json.dumps({"text": "word " * 10}) + "\n"
    for bad, said in (
        ("{", "line 8 is not JSON"),
        ('{"body": 1}', "line 8 has no field"),
        ("[]", "line 8 is"),
    ):
        text = ranged(tmp_path, "a.jsonl", (good * 7 + bad + "\n" + good).encode(), 70)
        assert len(text.ranges) > 3
        with pytest.raises(DataError, match=said):
            parts_of_ranges(text)
    text = ranged(tmp_path, "a.txt", b"word " * 100 + b"\xff", 70)
    with pytest.raises(DataError, match=r"a\.txt: byte 500"):
        parts_of_ranges(text)


def test_what_cannot_be_cut_is_one_range(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"word " * 1000))
    (tmp_path / "b.txt").write_bytes(b"x" * 1000)
    (tmp_path / "c.txt").write_bytes("日".encode() * 1000)
    text = RangedText(expand_sources(str(tmp_path)), Reading(), 100)
    assert [each.byte_range for each in text.ranges] == [None, None, None]
    assert [str(each) for each in text.ranges] == [
        str(tmp_path / f"{n}") for n in ("a.txt.gz", "b.txt", "c.txt")
    ]


def test_joined_ranges_are_whole_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"word " * 100)
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "some words"}\n' * 10)
    text = RangedText(expand_sources(str(tmp_path)), Reading(), 50)
    ranges, starts = joined_ranges(text.ranges, text.starts)
    assert ranges[0].byte_range is None
    assert not ranges[0].is_open
    assert [start.document for start in starts][:3] == [0, 1, 4]
    assert (
        len(ranges) == len(starts) == len([each for each in text.ranges if each.source.format == "jsonl"]) + 1
    )


def test_file_that_changed_is_refused(tmp_path: Path) -> None:
    text = ranged(tmp_path, "a.txt", b"word " * 100, 50)
    ranges = text.ranges
    (tmp_path / "a.txt").write_bytes(b"word " * 99)
    with pytest.raises(DataError, match="changed while it was read"):
        list(ranges[0].parts(Reading(), TextRepairs()))
    (tmp_path / "a.txt").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        list(ranges[0].parts(Reading(), TextRepairs()))
