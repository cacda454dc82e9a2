"""Bytes become text in any pieces; what is no text stops, is replaced or left out, and is counted."""

from __future__ import annotations

import codecs
import itertools
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from insight.data import ByteTokenizer, Preparation, TextFiles, expand_sources
from insight.data.sources.decoding import Reading, TextDecoder, TextRepairs
from insight.data.sources.formats import as_documents
from insight.runtime.errors import ConfigError, DataError

AWKWARD = st.lists(
    st.one_of(
        st.binary(max_size=3),
        st.sampled_from([b"a", "é".encode(), "語".encode(), "👩".encode()]),
        st.sampled_from([b"\xed\xa0\x80", b"\xe2\x82", b"\xf0\x90", b"\xef\xbb\xbf"]),
    ),
    max_size=12,
).map(b"".join)


def decoded(data: bytes, invalid_text: str, places: list[int]) -> tuple[str, TextRepairs]:
    """``data`` decoded in pieces that end at ``places``."""
    repairs = TextRepairs()
    decoder = TextDecoder("a.txt", invalid_text, repairs)
    bounds = [0, *sorted(place for place in places if place < len(data)), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(bounds)]
    text = "".join(decoder.decode(piece, is_last=i == len(pieces) - 1) for i, piece in enumerate(pieces))
    return text, repairs


@settings(deadline=None, max_examples=150)
@given(AWKWARD, st.lists(st.integers(0, 40), max_size=6))
@example(b"\x80\xef\xbb\xbf", [1])  # no mark at the beginning, whatever is skipped before it
@example(b"\xef\xbb\xbf\xef\xbb\xbfa", [1, 4])
def test_pieces_decode_as_the_whole(data: bytes, places: list[int]) -> None:
    """Python's own decoder of the whole is what replacing, skipping and stopping are compared with."""
    replaced, repairs = decoded(data, "replace", places)
    text = data.removeprefix(codecs.BOM_UTF8)
    assert replaced == text.decode("utf-8", "replace")
    assert decoded(data, "skip", places)[0] == text.decode("utf-8", "ignore")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        assert repairs.num_places >= 1
        place = rf"byte {error.start} \(0x{data[error.start]:02x}\) is not UTF-8"
        with pytest.raises(DataError, match=place):
            decoded(data, "error", places)
    else:
        assert repairs.num_places == 0
        assert decoded(data, "error", places)[0] == text.decode("utf-8")


def read(path: Path, invalid_text: str) -> tuple[list[str], TextRepairs]:
    repairs = TextRepairs()
    (source,) = expand_sources(str(path))
    return list(as_documents(source.parts(Reading("text", invalid_text), repairs))), repairs


def latin1(path: Path) -> Path:
    """Files with a Latin-1 byte in one of their documents."""
    if path.suffix == ".txt":
        path.write_bytes(b"caf\xe9 au lait")
    elif path.suffix == ".jsonl":
        path.write_bytes(b'{"text": "caf\xe9 au lait"}\n')
    elif path.suffix == ".tsv":
        path.write_bytes(b"id\ttext\n1\tcaf\xe9 au lait\n")
    else:
        binary = pyarrow.array([b"caf\xe9 au lait"], pyarrow.binary())
        text = pyarrow.Array.from_buffers(pyarrow.string(), 1, binary.buffers())
        pyarrow.parquet.write_table(pyarrow.table({"text": text}), path)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.tsv", "a.parquet"])
def test_policies_in_every_format(tmp_path: Path, name: str) -> None:
    path = latin1(tmp_path / name)
    with pytest.raises(DataError, match=r"byte \d+ \(0xe9\) is not UTF-8") as caught:
        read(path, "error")
    assert "invalid_text" in caught.value.remedy
    replaced, repairs = read(path, "replace")
    assert replaced == ["caf\ufffd au lait"]
    assert repairs.num_places == 1
    assert str(path) in repairs.first
    assert read(path, "skip")[0] == ["caf au lait"]


def test_half_a_surrogate_pair_in_json(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": "👩 whole"}), '{"text": "a\\ud83d b"}', '{"text": "\\udc69"}']
    path.write_text("\n".join(lines), encoding="ascii")
    with pytest.raises(DataError, match="line 2, field 'text' has half a surrogate pair at character 1"):
        read(path, "error")
    replaced, repairs = read(path, "replace")
    assert replaced == ["👩 whole", "a\ufffd b", "\ufffd"]
    assert repairs.num_places == 2
    assert read(path, "skip")[0] == ["👩 whole", "a b"]  # what is left of the last one is empty


def test_utf_16_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufefftext".encode("utf-16-le"))
    with pytest.raises(DataError, match=r"byte 0 \(0xff\) is not UTF-8.*utf-16"):
        read(tmp_path / "a.txt", "error")


def test_what_looks_odd_but_is_text_stays(tmp_path: Path) -> None:
    """NUL, CRLF, a byte order mark in the middle, names of special tokens: all of it is text."""
    odd = "a\x00b\r\nc\ufeffd <|endoftext|> \x1a\x85\u2028"
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + odd.encode())
    tokenizer = ByteTokenizer()
    store = Preparation(
        TextFiles(str(tmp_path / "a.txt"), None, None, None, "text", 0.0, 0), tokenizer, tmp_path / "cache"
    ).store("train")
    assert store.num_documents == 1
    assert tokenizer.decode(store.document(0)) == odd
    ids = store.tokens(0, store.num_tokens)
    assert (ids == tokenizer.end_of_text_id).sum() == 1  # the text forged no second one


def test_policy_is_said_counted_and_part_of_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = latin1(tmp_path / "a.txt")

    def prepared(invalid_text: str) -> Preparation:
        files = TextFiles(str(path), None, None, None, "text", 0.0, 0, None, invalid_text)
        return Preparation(files, ByteTokenizer(), tmp_path / "cache")

    with pytest.raises(DataError, match="is not UTF-8"):
        prepared("error").store("train")
    replaced, skipped = prepared("replace").store("train"), prepared("skip").store("train")
    said = capsys.readouterr().err
    assert f"replaced by U+FFFD at 1 place: {path}: byte 3" in said
    assert "left out at 1 place" in said
    assert replaced.path != skipped.path
    assert replaced.manifest.origin["repaired_places"] == 1
    assert replaced.num_bytes == skipped.num_bytes + 3


def test_policies_must_exist() -> None:
    with pytest.raises(ConfigError, match="did you mean 'replace'") as error:
        Reading("text", "replce")
    assert (error.value.option, error.value.value) == ("invalid_text", "replce")
    with pytest.raises(ConfigError) as error:
        Reading("")
    assert (error.value.option, error.value.value) == ("text_field", "")
    with pytest.raises(ConfigError) as error:
        TextFiles("a.txt", None, None, None, "text", 0.0, 0, None, "ignore")
    assert (error.value.option, error.value.value) == ("invalid_text", "ignore")


def test_planted_fault_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that forgets the bytes of a cut character breaks it."""
    (tmp_path / "a.txt").write_text("x" + "é" * 30, encoding="utf-8")
    monkeypatch.setattr("insight.data.sources.formats._TEXT_BYTES", 4)
    assert read(tmp_path / "a.txt", "replace")[0] == ["x" + "é" * 30]
    original = TextDecoder.decode

    def forgetful(self: TextDecoder, data: bytes, is_last: bool = False, line: int | None = None) -> str:
        self._rest = b""
        return original(self, data, is_last, line)

    monkeypatch.setattr(TextDecoder, "decode", forgetful)
    assert read(tmp_path / "a.txt", "replace")[0] != ["x" + "é" * 30]
