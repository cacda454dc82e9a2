"""Files, folders, globs and corpora become documents, in order, in every format and compression."""

from __future__ import annotations

import gzip
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from insight.data import expand_sources
from insight.data.sources.decoding import Reading
from insight.runtime.errors import ConfigError, DataError

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gz": gzip.compress,
    "xz": lzma.compress,
    # Two frames one after the other are one file.
    "zst": lambda data: b"".join(zstandard.compress(part) for part in (data[:7], data[7:])),
}
DOCUMENTS = ["first\ndocument ", "zweites Dökument", "第三 👩‍👩‍👧\x00\r\n"]


def encoded(format: str, documents: list[str]) -> bytes:
    if format == "txt":
        return "".join(documents).encode("utf-8")
    if format == "jsonl":
        return "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in documents).encode("utf-8")
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"id": range(len(documents)), "text": documents}), sink)
    return bytes(sink.getvalue().to_pybytes())


def documents_of(*patterns: str, text_field: str = "text") -> list[str]:
    return [
        text for source in expand_sources(list(patterns)) for text in source.documents(Reading(text_field))
    ]


def error_of(*patterns: str, text_field: str = "text") -> str:
    with pytest.raises(DataError) as caught:
        documents_of(*patterns, text_field=text_field)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.remedy
    return message


@pytest.mark.parametrize("compression", sorted(COMPRESS))
@pytest.mark.parametrize("format", ["txt", "jsonl", "parquet"])
def test_every_format_in_every_compression(tmp_path: Path, format: str, compression: str) -> None:
    path = tmp_path / f"file.{format}{'.' * bool(compression)}{compression}"
    path.write_bytes(COMPRESS[compression](encoded(format, DOCUMENTS)))
    assert documents_of(str(path)) == (["".join(DOCUMENTS)] if format == "txt" else DOCUMENTS)


def test_file_larger_than_any_buffer(tmp_path: Path) -> None:
    documents = [f"{number} {'x' * (number % 997)}" for number in range(5000)]
    for compression, compress in COMPRESS.items():
        path = tmp_path / f"big.jsonl.{compression}".rstrip(".")
        path.write_bytes(compress(encoded("jsonl", documents)))
        assert documents_of(str(path)) == documents


def test_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbftext")
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "line"}\n\n{"text": "next"}')
    assert documents_of(str(tmp_path)) == ["text", "line", "next"]


def test_empty_documents_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n\n{"text": "here"}\n{"text": null}\n')
    assert documents_of(str(tmp_path / "a.jsonl")) == ["here"]


def test_other_field_and_column(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "text of a"}\n')
    pyarrow.parquet.write_table(pyarrow.table({"body": ["text of b"]}), tmp_path / "b.parquet")
    assert documents_of(str(tmp_path), text_field="body") == ["text of a", "text of b"]


def test_folder_is_searched_in_order_without_hidden_names_and_link_loops(tmp_path: Path) -> None:
    for name in ("b/z.txt", "b/a.txt", "a.txt", "c.md", ".hidden/x.txt", "b/.x.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    (tmp_path / "empty.txt").touch()
    os.symlink(tmp_path, tmp_path / "b" / "loop")
    assert documents_of(str(tmp_path)) == ["a.txt", "b/a.txt", "b/z.txt"]


def test_glob_and_order_of_patterns(tmp_path: Path) -> None:
    for name in ("x1.txt", "x2.txt", "y.txt", "deep/z.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert documents_of(f"{tmp_path}/y.txt", f"{tmp_path}/x*.txt") == ["y.txt", "x1.txt", "x2.txt"]
    assert documents_of(f"{tmp_path}/**/*.txt") == ["deep/z.txt", "x1.txt", "x2.txt", "y.txt"]


def test_each_file_is_used_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    os.symlink(tmp_path / "a.txt", tmp_path / "link.txt")
    assert documents_of(f"{tmp_path}/a.txt", str(tmp_path), f"{tmp_path}/*.txt") == ["a"]


def test_name_with_glob_characters_is_a_file_first(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("brackets")
    assert documents_of(f"{tmp_path}/a[1].txt") == ["brackets"]


def test_corpus() -> None:
    (source,) = expand_sources("corpus:austen-emma")
    assert source.name == "corpus:austen-emma"
    assert next(source.documents()).startswith("EMMA\n")


def test_missing_file_names_option_and_neighbour(tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text("x")
    with pytest.raises(DataError) as caught:
        expand_sources(f"{tmp_path}/novle.txt", "train_files")
    assert "train_files=" in str(caught.value)
    assert "no such file" in str(caught.value)
    assert f"did you mean {tmp_path}/novel.txt?" in str(caught.value)
    assert "does not exist either" in error_of(f"{tmp_path}/nowhere/x.txt")


def test_nothing_to_read(tmp_path: Path) -> None:
    assert "the folder holds no text" in error_of(str(tmp_path))
    assert "matches no text file" in error_of(f"{tmp_path}/*.txt")
    (tmp_path / "a.pdf").write_text("x")
    assert "the folder holds no text" in error_of(str(tmp_path))
    assert "but a.pdf" in error_of(f"{tmp_path}/*")
    assert "kind of file is not supported" in error_of(f"{tmp_path}/a.pdf")
    (tmp_path / "b.txt").touch()
    assert "the file is empty" in error_of(f"{tmp_path}/b.txt")
    assert "every file in it is empty" in error_of(str(tmp_path))
    (tmp_path / "c.jsonl").write_text('{"text": ""}\n')
    assert "holds no text" in error_of(f"{tmp_path}/c.jsonl")
    with pytest.raises(DataError) as error:
        expand_sources([])
    assert error.value.option == "files"


def test_not_utf8_names_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"fine \xc3\xa9 then caf\xe9 au lait")
    assert f"{path}: byte 16 (0xe9) is not UTF-8" in error_of(str(path))
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "ok"}\n{"text": "\xff"}\n')
    assert "line 2, byte 25 (0xff) is not UTF-8" in error_of(str(path))


def test_bad_json_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "ok"}\n\n{"text": \n')
    assert "line 3 is not JSON" in error_of(str(path))
    path.write_text('["text"]\n')
    assert "line 1 is not a JSON object" in error_of(str(path))
    path.write_text("[" * 100_000 + "\n")
    assert "line 1 is not JSON" in error_of(str(path))
    path.write_text('{"text": "\\ud800"}\n')
    assert "half a surrogate pair" in error_of(str(path))
    path.write_text('{"text": 3}\n')
    assert "is int, not text" in error_of(str(path))


def test_missing_field_lists_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"txt": "ok", "id": 1}\n')
    message = error_of(f"{tmp_path}/a.jsonl")
    assert "line 1 has no field 'text': it has 'txt', 'id'; text_field='txt'?" in message
    pyarrow.parquet.write_table(pyarrow.table({"body": ["x"], "id": [1]}), tmp_path / "b.parquet")
    assert "no column 'text': it has 'body', 'id'" in error_of(f"{tmp_path}/b.parquet")
    assert "is int, not text" in error_of(f"{tmp_path}/b.parquet", text_field="id")


@pytest.mark.parametrize("compression", ["gz", "xz", "zst"])
def test_damaged_compressed_file(tmp_path: Path, compression: str) -> None:
    path = tmp_path / f"a.txt.{compression}"
    data = COMPRESS[compression](os.urandom(5000).hex().encode())
    path.write_bytes(data[: len(data) // 2])
    assert f"damaged .{compression} file" in error_of(str(path))
    path.write_bytes(b"not compressed at all")
    assert f"damaged .{compression} file" in error_of(str(path))


def test_damaged_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(encoded("parquet", DOCUMENTS)[:-20])
    assert "damaged .parquet file" in error_of(str(path))


def test_table_with_a_header_and_without(tmp_path: Path) -> None:
    table = 'en\tes\r\nhello "you"\thola\r\n\r\n\tvacío\nbye\tadiós'
    (tmp_path / "a.tsv").write_text(f"\ufeff{table}", encoding="utf-8", newline="")
    assert documents_of(str(tmp_path), text_field="es") == ["hola", "vacío", "adiós"]
    assert documents_of(str(tmp_path), text_field="en") == ['hello "you"', "bye"]  # quotes are text, too
    assert documents_of(str(tmp_path), text_field="1") == ["en", 'hello "you"', "bye"]
    (tmp_path / "b.tsv.xz").write_bytes(lzma.compress(b"one\ttwo\nthree\tfour\n"))
    assert documents_of(f"{tmp_path}/b.tsv.xz", text_field="2") == ["two", "four"]


def test_wrong_table(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("en\tes\nhello\thola\n")
    assert "no column 'text' in its first line: it has 'en', 'es'" in error_of(str(path))
    assert "no column 3: it has 2" in error_of(str(path), text_field="3")
    assert "columns are counted from 1" in error_of(str(path), text_field="0")
    path.write_text("en\tes\nhello\thola\nbye\n")
    assert "line 3 has 1 columns, the first line 2" in error_of(str(path), text_field="es")


def test_links_that_lead_nowhere_or_in_circles(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    os.symlink(tmp_path / "one.txt", tmp_path / "two.txt")
    os.symlink(tmp_path / "two.txt", tmp_path / "one.txt")
    os.symlink(tmp_path / "gone", tmp_path / "broken.txt")
    for name in ("folder", "another"):  # followed, two circles would be 2^40 paths
        os.symlink(tmp_path, tmp_path / name)
    assert documents_of(str(tmp_path)) == ["text"]
    assert documents_of(f"{tmp_path}/**/*.txt") == ["text"]
    for name, target in (("one.txt", "two.txt"), ("broken.txt", "gone")):
        told = error_of(f"{tmp_path}/{name}")
        assert "no such file or folder" in told
        assert f"it is a link that leads nowhere (to {tmp_path / target})" in told
    # Neither a link that leads nowhere nor one in its place is worth naming.
    assert "did you mean" not in error_of(f"{tmp_path}/brokn.txt")
    os.symlink(tmp_path / "gone", tmp_path / "gone_folder")
    assert "gone_folder is a link that leads nowhere" in error_of(f"{tmp_path}/gone_folder/a.txt")


def test_record_that_is_too_long_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("insight.data.sources.formats._MOST_LINE_BYTES", 1 << 20)
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + json.dumps({"text": "x" * (1 << 20)}))
    assert "line 2, from byte 17, is longer than 1 MiB" in error_of(str(path))


@pytest.mark.parametrize(
    "patterns", [None, 3, b"a.txt", "", [""], [None], ["a.txt", 3], {"a": "b"}, [b"a.txt"]], ids=repr
)
def test_what_names_no_file(patterns: object) -> None:
    with pytest.raises(DataError) as caught:
        expand_sources(patterns, "train_files")  # type: ignore[arg-type]
    assert caught.value.option == "train_files"
    assert caught.value.remedy


def test_name_that_no_file_can_have() -> None:
    with pytest.raises(DataError) as error:
        expand_sources("x" * 5000 + ".txt")
    assert (error.value.option, error.value.value) == (
        "files",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.txt",
    )
    with pytest.raises(DataError) as error:
        expand_sources("a\0b.txt")
    assert (error.value.option, error.value.value) == ("files", "a\x00b.txt")


def test_a_path_is_a_name_too(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    assert expand_sources(tmp_path) == expand_sources([tmp_path / "a.txt"])  # type: ignore


def test_field_that_is_none() -> None:
    (source,) = expand_sources("corpus:austen-emma")
    with pytest.raises(ConfigError) as error:
        next(source.documents(Reading("")))
    assert (error.value.option, error.value.value) == ("text_field", "")


def test_repetition_compressed_a_thousandfold_is_read_in_pieces(tmp_path: Path) -> None:
    """A few bytes of zstd can stand for megabytes: what is held of them stays small."""
    path = tmp_path / "a.txt.zst"
    path.write_bytes(zstandard.compress(b"word " * 20_000_000))
    assert path.stat().st_size < 20_000
    (source,) = expand_sources(str(path))
    total = sum(len(part.text) for part in source.parts())
    assert total == 100_000_000
