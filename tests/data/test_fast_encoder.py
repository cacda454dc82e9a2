"""The fast encoder is used where it gives the same ids, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insight.data import BPETokenizer, BPETokenizerConfig, WordTokenizerConfig, read_corpus
from insight.data.tokenizers import fast_encoder
from insight.data.tokenizers.base import EncodedBatch
from insight.data.tokenizers.fast_encoder import FastEncoder, probes, proven_encoder
from insight.data.tokenizers.tokenizer_json import PRE_TOKENIZERS

TEXT = read_corpus("austen-emma")[:200_000]
TOKENIZERS = [
    BPETokenizerConfig(700, pre_tokenizer=rule, special_tokens=("<|user|>",)).build([TEXT])
    for rule in PRE_TOKENIZERS
]
TOKENIZER = TOKENIZERS[0]
SPECIAL = list(TOKENIZER.special_tokens)
installed = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("fastokens") is None,
    reason="needs fastokens: pip install 'insight[fast]'",
)


def fresh() -> BPETokenizer:
    """A tokenizer that has not looked for an encoder yet."""
    return BPETokenizer(TOKENIZER.to_json())


@installed
def test_long_texts_are_encoded_fast_and_alike() -> None:
    for tokenizer in TOKENIZERS:
        batch = tokenizer.encode_batch([TEXT, "", "a<|user|>b", TEXT[:999]])
        assert tokenizer.encoder.startswith("fastokens ")
        exact = tokenizer._encode_exactly([TEXT, "", "a<|user|>b", TEXT[:999]])
        assert np.array_equal(batch.ids, exact.ids)
        assert np.array_equal(batch.offsets, exact.offsets)
        assert batch.ids.dtype == batch.offsets.dtype == np.int64
        assert tokenizer.special_tokens["<|user|>"] not in batch.ids


@installed
@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"])),
            st.lists(st.sampled_from([*"aé日 \n\r\t\x1c\x85'!1", "<|user|>", "'s"])).map("".join),
        ),
        max_size=4,
    )
)
def test_any_text_is_encoded_alike(texts: list[str]) -> None:
    for tokenizer in TOKENIZERS:
        assert tokenizer._fast is not None
        found = tokenizer._fast.encode(texts)
        expected = tokenizer._encode_exactly(texts)
        assert np.array_equal(found.ids, expected.ids)
        assert np.array_equal(found.offsets, expected.offsets)


def test_an_encoder_that_differs_is_not_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Planted fault: an encoder that is right on everything but one kind of white space."""

    class Almost(FastEncoder):
        def __init__(self, tokenizer_json: str) -> None:
            self.name = "almost 1.0"
            self.exact = BPETokenizer(tokenizer_json)

        def encode(self, texts: Sequence[str]) -> EncodedBatch:
            return self.exact._encode_exactly([text.replace("\x85", " ") for text in texts])

    monkeypatch.setattr(fast_encoder, "FastEncoder", Almost)
    tokenizer = fresh()
    exact = tokenizer._encode_exactly([TEXT]).ids
    assert np.array_equal(tokenizer.encode_batch([TEXT]).ids, exact)
    assert tokenizer.encoder.startswith("tokenizers ")
    assert "almost 1.0 encodes some text differently than tokenizers does" in capsys.readouterr().err


@pytest.mark.parametrize("fails_on", ["probes", "text"])
def test_a_text_it_cannot_do_is_encoded_exactly(monkeypatch: pytest.MonkeyPatch, fails_on: str) -> None:
    class Limited(FastEncoder):
        def __init__(self, tokenizer_json: str) -> None:
            self.name = "limited 1.0"
            self.exact = BPETokenizer(tokenizer_json)

        def encode(self, texts: Sequence[str]) -> EncodedBatch:
            if (len(texts) == 1) is (fails_on == "text"):
                raise ValueError("match limit exceeded")
            return self.exact._encode_exactly(texts)

    monkeypatch.setattr(fast_encoder, "FastEncoder", Limited)
    tokenizer = fresh()
    exact = tokenizer._encode_exactly([TEXT]).ids
    assert np.array_equal(tokenizer.encode_batch([TEXT]).ids, exact)
    assert (tokenizer._fast is None) is (fails_on == "probes")


def test_without_it_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "fastokens", None)
    tokenizer = fresh()
    assert len(tokenizer.encode(TEXT)) == len(tokenizer._encode_exactly([TEXT]).ids)
    assert tokenizer.encoder.startswith("tokenizers ")
    assert capsys.readouterr().err == ""


@installed
def test_what_it_cannot_do_is_done_without_it() -> None:
    for config in (WordTokenizerConfig(100), BPETokenizerConfig(300, normalization="nfkc")):
        tokenizer = config.build([TEXT])
        assert len(tokenizer.encode(TEXT)) > 10_000
        assert tokenizer.encoder.startswith("tokenizers ")


def test_short_texts_do_not_set_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("set up for a short text")

    monkeypatch.setattr("insight.data.tokenizers.library.proven_encoder", refuse)
    assert fresh().encode("a short text")


def test_probes_hold_what_encoders_differ_on() -> None:
    texts = probes(SPECIAL)
    everything = "".join(texts)
    for needed in ("<|user|>", "\x85", "日", "\u0308", "👩", "\r\n", "'LL", "def f("):
        assert needed in everything
    assert len(texts) == len(probes(SPECIAL)) >= 200
    assert texts == probes(SPECIAL)


@installed
def test_proof_compares_offsets_too() -> None:
    def shifted(texts: Sequence[str]) -> EncodedBatch:
        batch = TOKENIZER._encode_exactly(texts)
        return EncodedBatch(batch.ids, np.concatenate([batch.offsets[:1], batch.offsets[:-1]]))

    assert proven_encoder(TOKENIZER.to_json(), SPECIAL, TOKENIZER._encode_exactly) is not None
    assert proven_encoder(TOKENIZER.to_json(), SPECIAL, shifted) is None
