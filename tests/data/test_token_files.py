"""Token ids of other programs become stores that say the same text; nothing in their files is trusted."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insight.data import (
    BPETokenizerConfig,
    ByteTokenizer,
    Preparation,
    PretrainedTokenizerConfig,
    TextFiles,
    TokenStore,
    expand_sources,
)
from insight.data.tokenizers import BaseTokenizer
from insight.runtime.errors import DataError

TOKENIZER = BPETokenizerConfig(270, min_frequency=1).build(["some text, some more text and naïve text"])
DOCUMENTS = ["some text", "naïve text, more of it", "x" * 50]
END = TOKENIZER.end_of_text_id


def ids_of(documents: list[str], end: int = END) -> list[int]:
    return [index for text in documents for index in [*TOKENIZER.encode(text), end]]


def prepared(patterns: str | list[str], cache: Path, tokenizer: BaseTokenizer = TOKENIZER) -> TokenStore:
    files = TextFiles(patterns, None, None, None, "text", 0.0, 0)
    return Preparation(files, tokenizer, cache).store("train")


def texts_of(store: TokenStore) -> list[str]:
    return [TOKENIZER.decode(store.document(index)) for index in range(store.num_documents)]


def raw(path: Path, ids: list[int], dtype: str = "<u2") -> Path:
    path.write_bytes(np.array(ids, dtype=dtype).tobytes())
    return path


def llm_c(path: Path, ids: list[int]) -> Path:
    """As `dev/data/data_common.py` of llm.c writes GPT-2's ids: the end of text before each document."""
    header = np.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, len(ids)
    path.write_bytes(header.tobytes() + np.array(ids, dtype="<u2").tobytes())
    return path


def packed(path: Path, ids: list[int]) -> Path:
    """As `packed_dataset.py` of lit-gpt 0.x and TinyLlama writes them, filled up with ends of text."""
    header = struct.pack("<7sQBQ", b"LITPKDS", 1, 8, len(ids) + 20)
    path.write_bytes(header + np.array(ids + [END] * 20, dtype="<u2").tobytes())
    return path


def litdata(folder: Path, chunks: list[list[list[int]]], code: int = 16, dtype: str = "<i4") -> Path:
    """As litdata's `BinaryWriter` writes one-dimensional tensors, which is how litgpt prepares text."""
    folder.mkdir()
    described = []
    for number, items in enumerate(chunks):
        data = [np.array(item, dtype=dtype).tobytes() for item in items]
        starts = 4 * (len(items) + 2) + np.cumsum([0, *map(len, data)])
        name = f"chunk-0-{number}.bin"
        (folder / name).write_bytes(
            struct.pack("<I", len(items)) + starts.astype("<u4").tobytes() + b"".join(data)
        )
        size = sum(map(len, data))
        described.append(
            {"chunk_bytes": size, "chunk_size": len(items), "dim": sum(map(len, items)), "filename": name}
        )
    config = {"compression": None, "data_format": [f"no_header_tensor:{code}"], "data_spec": "[1, null]"}
    (folder / "index.json").write_text(json.dumps({"chunks": described, "config": config}))
    return folder


def test_raw_ids_say_the_same_text(tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))
    expected = prepared(str(tmp_path / "text.jsonl"), tmp_path / "cache")
    for number, path in enumerate(
        (
            raw(tmp_path / "a.bin", ids_of(DOCUMENTS)),
            raw(tmp_path / "b.bin", ids_of(DOCUMENTS), "<u4"),
            raw(tmp_path / "c.bin", ids_of(DOCUMENTS)[:-1]),  # the last document has no end
            llm_c(tmp_path / "d.bin", [END, *ids_of(DOCUMENTS)[:-1]]),
            packed(tmp_path / "e.bin", ids_of(DOCUMENTS)),
        )
    ):
        store = prepared(str(path), tmp_path / f"cache{number}")
        assert texts_of(store) == DOCUMENTS, path
        assert store.manifest.shards == expected.manifest.shards
        assert store.num_bytes == expected.num_bytes


def test_folder_that_litgpt_prepared(tmp_path: Path) -> None:
    items = [TOKENIZER.encode(text) for text in DOCUMENTS]
    folder = litdata(tmp_path / "train", [[items[0], [*items[1], END]], [items[2]]])
    store = prepared(str(folder), tmp_path / "cache")
    assert texts_of(store) == DOCUMENTS
    wide = litdata(tmp_path / "wide", [items], 18, "<i8")
    assert prepared(str(wide), tmp_path / "wide-cache").manifest.shards == store.manifest.shards


def test_folder_that_litdata_itself_wrote(tmp_path: Path) -> None:
    pytest.importorskip("litdata")
    import torch
    from litdata.streaming.item_loader import PyTreeLoader, TokensLoader
    from litdata.streaming.writer import BinaryWriter

    for loader in (TokensLoader(16), PyTreeLoader()):
        folder = tmp_path / type(loader).__name__
        folder.mkdir()
        writer = BinaryWriter(str(folder), chunk_bytes=200, item_loader=loader)
        for number, text in enumerate(DOCUMENTS):
            writer[number] = torch.tensor(TOKENIZER.encode(text), dtype=torch.int)
        writer.done()
        writer.merge(1)
    assert texts_of(prepared(str(tmp_path / "TokensLoader"), tmp_path / "cache")) == DOCUMENTS
    assert "not prepared for a loader of tokens" in error_of(tmp_path / "PyTreeLoader", tmp_path / "cache")


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from([END, *TOKENIZER.encode("text, naïve")]), max_size=60), st.integers(1, 9))
def test_how_the_file_is_read_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, ids: list[int], at_once: int
) -> None:
    """Documents end at the end-of-text id, the last one with the file; empty ones are left out."""
    folder = tmp_path_factory.mktemp("ids")
    ids = [*ids, TOKENIZER.encode("x")[0]]
    path = raw(folder / "a.bin", ids)
    documents: list[list[int]] = [[]]
    for index in ids:
        if index == END:
            documents.append([])
        else:
            documents[-1].append(index)
    expected = [document for document in documents if document]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("insight.data.sources.token_files._BATCH_IDS", at_once)
        store = prepared(str(path), folder / "cache")
    assert [store.document(index).tolist() for index in range(store.num_documents)] == expected
    assert store.num_bytes == sum(len(TOKENIZER.decode_bytes(document)) for document in expected)


def test_large_vocabulary_has_ids_of_four_bytes(tmp_path: Path) -> None:
    class Large(ByteTokenizer):
        @property
        def vocabulary_size(self) -> int:
            return 70_000

        def token_byte_lengths(self) -> npt.NDArray[np.int64]:
            return np.ones(70_000, dtype=np.int64)

    store = prepared(str(raw(tmp_path / "a.bin", [5, 69_999, 256], "<u4")), tmp_path / "cache", Large())
    assert store.tokens(0, 3).tolist() == [5, 69_999, 256]


def test_bin_files_have_to_be_named(tmp_path: Path) -> None:
    """In a folder with text a .bin may be anything, such as the weights of a model."""
    raw(tmp_path / "pytorch_model.bin", ids_of(DOCUMENTS))
    (tmp_path / "a.txt").write_text("text")
    assert [source.format for source in expand_sources(str(tmp_path))] == ["txt"]
    assert [source.format for source in expand_sources(f"{tmp_path}/*")] == ["txt"]
    assert [source.format for source in expand_sources(f"{tmp_path}/*.bin")] == ["bin"]
    both = prepared([str(tmp_path / "a.txt"), str(tmp_path / "pytorch_model.bin")], tmp_path / "cache")
    assert texts_of(both) == ["text", *DOCUMENTS]


def error_of(pattern: Path, cache: Path) -> str:
    with pytest.raises(DataError) as caught:
        prepared(str(pattern), cache)
    assert caught.value.remedy
    return str(caught.value)


def test_ids_of_another_tokenizer_and_damage(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert "token 3 is 300 (read as uint16), outside 0..269" in error_of(
        raw(tmp_path / "a.bin", [1, 2, 3, 300]), cache
    )
    (tmp_path / "b.bin").write_bytes(b"\x01\x00\x02")
    assert "3 bytes are no whole number of uint16 ids" in error_of(tmp_path / "b.bin", cache)
    (tmp_path / "c.bin").write_bytes(b"LITPKDS\x01")
    assert "ends in its header" in error_of(tmp_path / "c.bin", cache)
    (tmp_path / "d.bin").write_bytes(struct.pack("<7sQBQ", b"LITPKDS", 1, 6, 1) + b"\0\0\0\0")
    assert "version 1 and type 6" in error_of(tmp_path / "d.bin", cache)
    assert not list((cache / "stores").glob("[0-9a-f]*[0-9a-f]"))


def test_damaged_folder_of_litgpt(tmp_path: Path) -> None:
    folder = litdata(tmp_path / "train", [[[1, 2, 3]]])
    chunk = folder / "chunk-0-0.bin"
    whole = chunk.read_bytes()
    longer, elsewhere = b"\xff\xff\xff\xff" + whole[4:], whole[:4] + b"\0" * 4 + whole[8:]
    for damaged in (whole[:-4], whole[:6], longer, elsewhere):
        chunk.write_bytes(damaged)
        assert "chunk-0-0.bin: damaged" in error_of(folder, tmp_path / "cache")


def test_index_of_litgpt_cannot_point_elsewhere(tmp_path: Path) -> None:
    raw(tmp_path / "secret.bin", [1, 2, 3])
    folder = litdata(tmp_path / "train", [[[1, 2, 3]]])
    index = json.loads((folder / "index.json").read_text())
    for name in ("../secret.bin", str(tmp_path / "secret.bin"), "gone.bin", 3, None, "", "."):
        index["chunks"][0]["filename"] = name
        (folder / "index.json").write_text(json.dumps(index))
        assert "is no file of this folder" in error_of(folder, tmp_path / "cache")


def test_other_folders_with_an_index(tmp_path: Path) -> None:
    folder = litdata(tmp_path / "train", [[[1, 2, 3]]])
    index = json.loads((folder / "index.json").read_text())
    encrypted = {"encryption": {"level": "chunk"}}
    for change in ({"compression": "zstd"}, {"data_format": ["int", "int"]}, encrypted):
        (folder / "index.json").write_text(json.dumps({**index, "config": {**index["config"], **change}}))
        assert "compressed, encrypted or of" in error_of(folder, tmp_path / "cache")
    items = {**index, "chunks": [{**index["chunks"][0], "dim": None}]}
    (folder / "index.json").write_text(json.dumps(items))
    assert "not prepared for a loader of tokens" in error_of(folder, tmp_path / "cache")
    changed = {**index, "config": {**index["config"], "data_format": ["no_header_tensor:0"]}}
    (folder / "index.json").write_text(json.dumps(changed))
    assert "holds no token ids" in error_of(folder, tmp_path / "cache")
    (folder / "index.json").write_text('{"name": "something else"}')
    (folder / "a.txt").write_text("text")
    assert [source.format for source in expand_sources(str(folder))] == ["txt"]


def test_ids_are_no_text(tmp_path: Path) -> None:
    path = str(raw(tmp_path / "a.bin", ids_of(DOCUMENTS)))
    (source,) = expand_sources(path)
    with pytest.raises(DataError, match="holds token ids, not text"):
        next(source.documents())
    untrained = Preparation(
        TextFiles(path, None, None, None, "text", 0.0, 0), BPETokenizerConfig(300), tmp_path / "cache"
    )
    with pytest.raises(DataError, match=r"from which no tokenizer can learn.*PretrainedTokenizerConfig"):
        untrained.store("train")
    divided = Preparation(TextFiles(path, None, None, None, "text", 0.1, 0), TOKENIZER, tmp_path / "cache")
    with pytest.raises(DataError, match="no part can be set aside of files that hold token ids"):
        divided.store("train")


def test_tokenizer_named_by_its_file(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path / "tokenizer.json")
    files = TextFiles(str(raw(tmp_path / "a.bin", ids_of(DOCUMENTS))), None, None, None, "text", 0.0, 0)
    config = PretrainedTokenizerConfig(str(tmp_path / "tokenizer.json"))
    assert texts_of(Preparation(files, config, tmp_path / "cache").store("train")) == DOCUMENTS
