"""Text of any length is encoded in the same few megabytes, and the store is that of the whole text."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insight.data import (
    BPETokenizer,
    BPETokenizerConfig,
    ByteTokenizer,
    Preparation,
    Source,
    TextFiles,
    expand_sources,
)
from insight.data.encoding.documents import encode_documents, encode_parts
from insight.data.sources import cuts
from insight.data.sources.cuts import cut_stream, safe_cut
from insight.data.sources.decoding import Reading, TextRepairs
from insight.data.sources.formats import ByteRange, TextPart, as_documents, training_texts
from insight.data.store import StoreWriter
from insight.data.tokenizers.tokenizer_json import NORMALIZATIONS, PRE_TOKENIZERS
from insight.runtime.errors import DataError, TokenizerError

WORDS = (
    *("go", "it's", "stop!", "12345", "naïve", "語文", "。", "（", "“"),
    *("\n", "\n\n", " ", "  ", "\t", "\r\n", "\u00a0"),
)
TEXT = st.lists(st.sampled_from(WORDS), max_size=40).map("".join)
BUILT: dict[tuple[str, str], BPETokenizer] = {
    (rule, normalization): BPETokenizerConfig(
        275, min_frequency=1, pre_tokenizer=rule, normalization=normalization
    ).build(["go it's stop!\n\n naïve 語文。12345 “ go go it's it's stop! stop!"])
    for rule in PRE_TOKENIZERS
    for normalization in NORMALIZATIONS
}


def in_chunks(text: str, places: list[int]) -> list[str]:
    bounds = [0, *sorted(place for place in places if place < len(text)), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(bounds)]


@pytest.mark.slow
@settings(deadline=None, max_examples=80)
@given(TEXT, st.lists(st.integers(0, 120), max_size=8), st.integers(1, 6))
def test_stream_in_parts_has_the_ids_of_the_whole(text: str, places: list[int], size: int) -> None:
    for tokenizer in (*BUILT.values(), ByteTokenizer()):
        parts = list(tokenizer.stream_parts(in_chunks(text, places), size))
        assert "".join(parts) == text
        assert [index for part in parts for index in tokenizer.encode(part)] == tokenizer.encode(text)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.lists(TEXT, min_size=1, max_size=5), st.lists(st.integers(0, 120), max_size=5), st.integers(1, 40))
def test_store_of_documents_in_parts_is_that_of_the_whole_ones(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str], places: list[int], batch_bytes: int
) -> None:
    tokenizer = BUILT["gpt4", "none"]
    parts = [
        TextPart(chunk, index == len(chunks) - 1)
        for chunks in (in_chunks(document, places) for document in documents)
        for index, chunk in enumerate(chunks)
    ]
    assert list(as_documents(parts)) == documents
    manifests = []
    for streamed in (False, True):
        writer = StoreWriter(tmp_path_factory.mktemp("store"), tokenizer, 30)
        if streamed:
            encode_parts(parts, writer, batch_bytes=batch_bytes)
        else:
            encode_documents(documents, writer)
        manifests.append(writer.close({}).to_json())
    assert manifests[0] == manifests[1]


def test_planted_fault_is_seen() -> None:
    """Cut wherever a chunk ends, a text gets other ids."""
    tokenizer = BUILT["gpt2", "none"]
    chunks = ["sto", "p! i", "t's"]
    assert [i for part in chunks for i in tokenizer.encode(part)] != tokenizer.encode("stop! it's")
    parts = tokenizer.stream_parts(chunks, 1)
    assert [i for part in parts for i in tokenizer.encode(part)] == tokenizer.encode("stop! it's")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["NFC", "NFKC", "lower"])
def test_letters_and_wide_punctuation_stay_what_they_are(form: str) -> None:
    """Between the two is a place to cut; so no normalization may make the one part of the other."""

    def normal(text: str) -> str:
        return "".join(map(str.lower, text)) if form == "lower" else unicodedata.normalize(form, text)

    letters = [chr(code) for code in range(0x10000) if safe_cut(" ").search(f"{chr(code)}\n")]
    marks = [chr(code) for code in range(0x10000) if safe_cut(" ").search(f"a{chr(code)}")]
    assert len(letters) > 30_000
    assert {"\n", "\r", "。", "，", " "} <= set(marks)
    wrong = [letter for letter in letters if unicodedata.category(normal(letter)[-1])[0] not in "LN"]
    wrong += [mark for mark in marks if unicodedata.category(normal(mark)[0])[0] not in "PZC"]
    assert not wrong
    for mark in marks:
        joined = normal("".join(letter + mark for letter in letters))
        assert joined == "".join(normal(letter) + normal(mark) for letter in letters)


def test_one_line_of_words_and_lines_of_one_word_can_be_cut() -> None:
    for rule in PRE_TOKENIZERS.values():
        for text in ("word " * 1000, "word\n" * 1000, "漢字。" * 1000):
            assert len(list(cut_stream([text], 100, safe_cut(rule.boundaries)))) > 20


def test_what_cannot_be_cut_is_refused_before_it_takes_all_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuts, "_MOST_UNCUT_CHARACTERS", 1000)
    tokenizer = BUILT["gpt2", "none"]
    with pytest.raises(TokenizerError, match="characters without white space behind a word"):
        list(tokenizer.stream_parts(["x" * 100] * 50, 10))
    assert len(list(ByteTokenizer().stream_parts(["x" * 100] * 50, 10))) == 500


def test_long_text_trains_the_same_tokenizer_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("insight.data.sources.formats._TRAINING_CHARACTERS", 50)
    text = "Some words, again and again: it's 12 o'clock.\n\nSome lines\nof words。" * 40
    chunks = in_chunks(text, list(range(0, len(text), 7)))
    parts = [TextPart(chunk, index == len(chunks) - 1) for index, chunk in enumerate(chunks)]
    texts = list(training_texts(parts))
    assert len(texts) > 10
    for rule in PRE_TOKENIZERS:
        config = BPETokenizerConfig(270, pre_tokenizer=rule)
        assert config.build(texts).to_json() == config.build([text]).to_json()


@settings(deadline=None, max_examples=50)
@given(st.lists(TEXT.filter(str.strip), min_size=1, max_size=6), st.data())
def test_ranges_of_a_file_make_the_whole(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("ranges")
    (folder / "a.txt").write_bytes("".join(texts).encode())
    lines = [b'{"text": ' + f'"line {number}"}}\n'.encode() for number in range(9)]
    (folder / "b.jsonl").write_bytes(b"".join(lines))
    txt, jsonl = expand_sources(str(folder))
    assert txt.has_ranges
    assert jsonl.has_ranges

    ends = [sum(len(text.encode()) for text in texts[:count]) for count in range(len(texts) + 1)]
    found = [read_range(txt, a, b) for a, b in itertools.pairwise(ends)]
    assert "".join("".join(documents) for documents in found) == "".join(texts)

    cut = data.draw(st.integers(0, 9))
    middle = sum(map(len, lines[:cut]))
    found = [read_range(jsonl, 0, middle), read_range(jsonl, middle, sum(map(len, lines)))]
    assert [len(documents) for documents in found] == [cut, 9 - cut]
    assert [*found[0], *found[1]] == [f"line {number}" for number in range(9)]


def read_range(source: Source, start: int, stop: int) -> list[str]:
    return list(as_documents(source.records(Reading(), TextRepairs(), ByteRange(start, stop))))


def test_ranges_are_checked(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("text\nx\n")
    (source,) = expand_sources(str(tmp_path))
    assert not source.has_ranges
    with pytest.raises(DataError, match="only a plain txt or jsonl file has ranges"):
        read_range(source, 0, 3)
    with pytest.raises(DataError) as error:
        ByteRange(3, 2)
    assert (error.value.option, error.value.value) == ("start", 3)


def test_small_chunks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading, division and encoding of a file in one chunk, and in hundreds."""
    source = random.Random(0)
    words = ["alpha", "beta,", "naïve", "語。", "12", "it's", "\n", "\n\n", "\t"]
    (tmp_path / "a.txt").write_text(" ".join(source.choices(words, k=5000)), encoding="utf-8")
    files = TextFiles(str(tmp_path / "a.txt"), None, None, None, "text", 0.1, 0)
    stores = []
    for size, batch in ((1 << 20, 1 << 22), (97, 500)):
        monkeypatch.setattr("insight.data.sources.formats._TEXT_BYTES", size)
        monkeypatch.setattr(encode_parts, "__kwdefaults__", {"batch_bytes": batch, "watcher": None})
        preparation = Preparation(files, BPETokenizerConfig(265), tmp_path / str(size))
        stores.append([preparation.store(split).manifest.to_json() for split in ("train", "validation")])
    assert stores[0] == stores[1]


ENCODE = """
import sys
from pathlib import Path
from insight.data import Preparation, TextFiles, load_tokenizer
from insight.data.encoding.documents import encode_documents
from insight.data.store import StoreWriter
from insight.data.encoding.executors import InProcess
from insight.runtime.resources import peak_resident_bytes
text, tokenizer, cache = Path(sys.argv[1]), load_tokenizer(sys.argv[2]), Path(sys.argv[3])
if sys.argv[4] == "streamed":
    files = TextFiles(str(text), None, None, None, "text", 0.05, 0)
    Preparation(files, tokenizer, cache, executor=InProcess()).store("train")
else:
    cache.mkdir()
    writer = StoreWriter(cache, tokenizer)
    encode_documents([text.read_text()], writer)
    writer.close({})
print(peak_resident_bytes())
"""


def peak_of_encoding(folder: Path, name: str, megabytes: int, how: str = "streamed") -> int:
    """Most memory of a process that encodes a file of this size, in bytes."""
    source = random.Random(1)
    separator = " " if name == "line" else "\n"
    words = ["".join(source.choices("etaoinshrdlu", k=source.randint(1, 9))) for _ in range(4000)]
    block = separator.join(source.choices(words, k=200_000)) + separator
    text = folder / f"{name}{megabytes}{how}.txt"
    with open(text, "w") as file:
        for _ in range(megabytes * 1_000_000 // len(block)):
            file.write(block)
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.exists():
        BPETokenizerConfig(400).build([block[:100_000]]).save(tokenizer)
    arguments = [str(text), str(tokenizer), str(folder / f"cache{text.stem}"), how]
    done = subprocess.run(
        [sys.executable, "-c", ENCODE, *arguments], capture_output=True, text=True, check=True
    )
    text.unlink()
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["line", "lines"])
def test_memory_does_not_grow_with_the_text(tmp_path: Path, name: str) -> None:
    small, large = (peak_of_encoding(tmp_path, name, megabytes) for megabytes in (25, 100))
    assert large - small < 30e6
    assert large < 600e6


@pytest.mark.slow
def test_planted_fault_takes_memory(tmp_path: Path) -> None:
    """A file that is read as a whole: the limits above would see it."""
    small, large = (peak_of_encoding(tmp_path, "line", megabytes, "whole") for megabytes in (25, 100))
    assert large - small > 55e6
