"""What cannot work is refused where it is given, by a typed error that names it and says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from insight.data import (
    BPETokenizerConfig,
    ByteTokenizer,
    Preparation,
    TextFiles,
    TokenStore,
    load_tokenizer,
)
from insight.data.encoding.documents import encode_documents
from insight.data.sources.content_hashes import ContentHashes
from insight.data.split import ValidationSplit
from insight.data.store import StoreWriter, cache_limit, store_key
from insight.data.store.format import token_dtype
from insight.data.tokenizers import EncodedBatch
from insight.runtime.errors import ConfigError, DataError, InsightError, TokenizerError

BYTES = ByteTokenizer()
BPE = BPETokenizerConfig(258, min_frequency=1).build(["abab"])


@pytest.fixture
def writer(tmp_path: Path) -> StoreWriter:
    folder = tmp_path / "writing"
    folder.mkdir()
    return StoreWriter(folder, BYTES)


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    folder = tmp_path / "store"
    folder.mkdir()
    writer = StoreWriter(folder, BYTES)
    encode_documents(["some text"], writer)
    writer.close({})
    return TokenStore(folder)


def batch(ids: list[int], offsets: list[int]) -> EncodedBatch:
    return EncodedBatch(np.array(ids, dtype=np.int64), np.array(offsets, dtype=np.int64))


WRITER: dict[str, tuple[Callable[[StoreWriter], Any], str]] = {
    "offsets that end early": (lambda w: w.append(batch([1, 2, 3], [0, 2]), 3), "offsets of a batch"),
    "offsets that begin late": (lambda w: w.append(batch([1, 2, 3], [1, 3]), 3), "offsets of a batch"),
    "offsets that fall": (lambda w: w.append(batch([1, 2, 3], [0, 2, 1, 3]), 3), "offsets of a batch"),
    "no offsets": (lambda w: w.append(batch([1, 2, 3], []), 3), "offsets of a batch"),
    "an id that is too large": (lambda w: w.append(batch([1, 70_000], [0, 2]), 2), "outside 0..256"),
    "a negative id": (lambda w: w.append(batch([-1], [0, 1]), 1), "outside 0..256"),
    "ids of another type": (
        lambda w: w.append_finished(np.zeros(3, np.int64), np.array([3]), 2),
        "ids of int64, not uint16",
    ),
    "one text": (lambda w: encode_documents("text", w), "is one text"),
    "a document that is none": (lambda w: encode_documents([3], w), "must be str, got int"),
    "no bytes at once": (lambda w: encode_documents(["a"], w, batch_bytes=0), "batch_bytes=0"),
}


@pytest.mark.parametrize(("act", "message"), WRITER.values(), ids=WRITER.keys())
def test_writer(writer: StoreWriter, act: Callable[[StoreWriter], Any], message: str) -> None:
    with pytest.raises((DataError, TokenizerError), match=message) as caught:
        act(writer)
    assert caught.value.remedy
    assert writer.num_tokens == 0


def test_writer_that_is_closed(writer: StoreWriter) -> None:
    writer.append(batch([1], [0, 1]), 1)
    writer.close({})
    with pytest.raises(DataError, match="the store is closed"):
        writer.append(batch([1], [0, 1]), 1)


STORE: dict[str, tuple[Callable[[TokenStore], Any], str]] = {
    "no tokens in a window": (lambda s: s.windows(np.array([0]), 0), "length=0"),
    "windows that begin nowhere": (lambda s: s.windows(np.array([0.5]), 2), "give a list of whole numbers"),
    "a square of windows": (lambda s: s.windows(np.zeros((2, 2), int), 2), "give a list of whole numbers"),
    "tokens from behind": (lambda s: s.tokens(-1, 3), "the store has 10"),
    "tokens beyond the end": (lambda s: s.tokens(0, 11), "the store has 10"),
    "no such document": (lambda s: s.document(1), "the store has 1"),
    "no such shard": (lambda s: s.shard(1), "the store has 1"),
}


@pytest.mark.parametrize(("act", "message"), STORE.values(), ids=STORE.keys())
def test_store(store: TokenStore, act: Callable[[TokenStore], Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        act(store)


def files(**changes: Any) -> TextFiles:
    values: dict[str, Any] = {
        "train": "a.txt",
        "validation": None,
        "test": None,
        "predict": None,
        "text_field": "text",
        "validation_fraction": 0.0,
        "seed": 0,
    }
    return TextFiles(**{**values, **changes})


OTHERS: dict[str, tuple[Callable[[], Any], str]] = {
    "no vocabulary": (lambda: token_dtype(0), "vocabulary_size=0"),
    "a vocabulary beyond four bytes": (lambda: token_dtype((1 << 32) + 1), "vocabulary_size="),
    "no tokens in a shard": (lambda: StoreWriter(Path(), BYTES, 0), "shard_tokens=0"),
    "a store that is no path": (lambda: TokenStore(3), "path=3"),
    "a key of no sources": (lambda: store_key([], "t", {}), "not a list of hashes"),
    "a key of one name": (lambda: store_key("hash", "t", {}), "not a list of hashes"),
    "a key of an empty hash": (lambda: store_key([""], "t", {}), "is no hash"),
    "a key without a tokenizer": (lambda: store_key(["a"], "", {}), "is no hash"),
    "hashes of one path": (lambda: ContentHashes(Path()).of("a.txt"), "paths"),
    "parts of no length": (lambda: list(BPE.text_parts("text", 0)), "num_characters=0"),
    "parts of half a length": (lambda: list(BYTES.text_parts("text", 0.5)), "num_characters=0.5"),
    "a stream in parts of no length": (lambda: list(BPE.stream_parts(["text"], -1)), "num_characters=-1"),
    "a batch of one text": (lambda: BPE.encode_batch("text"), "needs a list of texts, got one"),
    "a batch of nothing": (lambda: BPE.encode_batch(None), "needs a list of texts, got NoneType"),
    "a batch with a number": (lambda: BYTES.encode_batch(["a", 3]), r"texts\[1\] must be str, got int"),
    "a text that is a number": (lambda: BYTES.encode(3), "text must be str, got int"),
    "ids that are text": (lambda: BYTES.decode("text"), "ids must be a list of integers"),
    "ids that are fractions": (lambda: BYTES.decode([0.5]), "ids must be a list of integers"),
    "an id that is too large": (lambda: BYTES.decode([257]), "id 257 is outside 0..256"),
    "an id that is negative": (lambda: BYTES.token_bytes(-1), "id -1 is outside 0..256"),
    "a batch of one id": (lambda: BYTES.decode_batch(3), "needs a list of lists of ids, got int"),
    "a tokenizer in no place": (lambda: BYTES.save(""), "path=: names no file"),
    "no tokenizer": (lambda: load_tokenizer(None), "None names no tokenizer"),
    "a tokenizer without a name": (lambda: load_tokenizer(""), "'' names no tokenizer"),
    "all of the text for validation": (lambda: files(validation_fraction=1.0), "validation_fraction=1.0"),
    "no field": (lambda: files(text_field=""), "text_field="),
    "a field that is no name": (lambda: files(text_field=3), "text_field=3"),
    "an unknown policy": (lambda: files(invalid_text="ignore"), "invalid_text=ignore"),
    "an unknown split": (lambda: Preparation(files(), BYTES, Path()).store("trian"), "did you mean 'train'"),
    "a split without text": (
        lambda: Preparation(files(), BYTES, Path()).store("test"),
        "test_files=null: names no text",
    ),
    "a negative limit": (lambda: cache_limit(-1), "cache_gigabytes=-1"),
    "a limit that is no number": (lambda: cache_limit(float("nan")), "cache_gigabytes=nan"),
    "no share": (lambda: ValidationSplit(lambda _: iter(()), 0, 0, "a"), "fraction=0"),
}


@pytest.mark.parametrize(("act", "message"), OTHERS.values(), ids=OTHERS.keys())
def test_others(act: Callable[[], Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError, TokenizerError), match=message) as caught:
        act()
    assert isinstance(caught.value, InsightError)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_limit_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INSIGHT_CACHE_GIGABYTES", raising=False)
    assert cache_limit() is None
    monkeypatch.setenv("INSIGHT_CACHE_GIGABYTES", "0.5")
    assert cache_limit() == 500_000_000
    assert cache_limit(2) == 2_000_000_000
    monkeypatch.setenv("INSIGHT_CACHE_GIGABYTES", "much")
    with pytest.raises(ConfigError) as error:
        cache_limit()
    assert (error.value.option, error.value.value) == ("INSIGHT_CACHE_GIGABYTES", "'much'")
