"""Every text round-trips, byte counts are exact, special tokens cannot be forged, errors are typed."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from insight.data import (
    BaseTokenizer,
    BPETokenizer,
    BPETokenizerConfig,
    ByteTokenizer,
    ByteTokenizerConfig,
    PretrainedTokenizer,
    PretrainedTokenizerConfig,
    load_tokenizer,
    read_corpus,
)
from insight.data.sources.cuts import cut_text, safe_cut
from insight.data.tokenizers.base import utf8_length
from insight.data.tokenizers.tokenizer_json import PRE_TOKENIZERS
from insight.runtime.component import component_from_dict
from insight.runtime.errors import ConfigError, TokenizerError

TEXTS = [
    "",
    " ",
    "It is a truth universally acknowledged, that a single man",
    "naïve café — “quotes”\r\n\ttabs  and   spaces \n\n\n",
    "日本語 и русский עברית العربية 👩‍👩‍👧 \U0001f9ff",
    "def f(x):\n    return x ** 2  # code\n",
    "\x00\x01\x7f\x85\xa0\u2028\ufeff\ufffd",
    "a<|endoftext|>b <|endoftext|>",
    "e\u0301 \u00e9",
]
BPE = BPETokenizerConfig(600).build([read_corpus("austen-persuasion")[:100_000], *TEXTS])
ALL: list[BaseTokenizer] = [BPE, ByteTokenizer(), PretrainedTokenizer(BPE.to_json())]
each = pytest.mark.parametrize("tokenizer", ALL, ids=lambda t: type(t).__name__)
any_text = st.text(st.characters(exclude_categories=["Cs"]))


@each
@pytest.mark.parametrize("text", TEXTS)
def test_texts_round_trip(tokenizer: BaseTokenizer, text: str) -> None:
    check(tokenizer, text)


@settings(deadline=None, max_examples=150)
@given(any_text)
def test_any_text_round_trips(text: str) -> None:
    for tokenizer in ALL:
        check(tokenizer, text)


def check(tokenizer: BaseTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(tokenizer.token_bytes(index) for index in ids) == text.encode("utf-8")
    assert int(tokenizer.token_byte_lengths()[ids].sum()) == len(text.encode("utf-8"))
    assert tokenizer.end_of_text_id not in ids


@settings(deadline=None, max_examples=50)
@given(st.lists(any_text, max_size=6))
def test_batch_is_the_texts_one_by_one(texts: list[str]) -> None:
    for tokenizer in ALL:
        batch = tokenizer.encode_batch(texts)
        assert batch.ids.dtype == batch.offsets.dtype == np.int64
        parts = [batch.ids[a:b].tolist() for a, b in zip(batch.offsets, batch.offsets[1:], strict=False)]
        assert parts == [tokenizer.encode(text) for text in texts]
        assert tokenizer.decode_batch(parts) == texts


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.sampled_from(["a", "'s", " ", "\n", "1", "é", "。", "\u2003", "!", "\t", "it"])).map("".join),
    st.integers(1, 6),
)
def test_cutting_changes_no_id(text: str, size: int) -> None:
    pieces = list(cut_text(text, size, safe_cut(PRE_TOKENIZERS["gpt2"].boundaries)))
    assert "".join(pieces) == text
    reference = Tokenizer.from_str(BPE.to_json())
    whole = reference.encode(text).ids
    assert [index for piece in pieces for index in reference.encode(piece).ids] == whole


def test_ids_are_those_of_the_library() -> None:
    text = read_corpus("austen-persuasion")[:200_000] + "".join(TEXTS).replace("<|endoftext|>", "")
    assert BPE.encode(text) == Tokenizer.from_str(BPE.to_json()).encode(text).ids
    assert ByteTokenizer().encode(text) == Tokenizer.from_str(ByteTokenizer().to_json()).encode(text).ids


@each
def test_planted_special_token_is_plain_text(tokenizer: BaseTokenizer) -> None:
    """The library itself would let a document forge the end of another."""
    text = "a<|endoftext|>b"
    assert tokenizer.end_of_text_id not in tokenizer.encode(text)
    assert tokenizer.end_of_text_id in Tokenizer.from_str(tokenizer.to_json()).encode(text).ids
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.encode(text) == tokenizer.encode(text)


@each
def test_special_tokens(tokenizer: BaseTokenizer) -> None:
    end = tokenizer.end_of_text_id
    assert tokenizer.special_tokens == {"<|endoftext|>": end}
    assert tokenizer.token_bytes(end) == b""
    assert tokenizer.token_byte_lengths()[end] == 0
    assert tokenizer.decode([end]) == ""
    assert tokenizer.decode([end], skip_special_tokens=False) == "<|endoftext|>"
    assert tokenizer.vocabulary_size == len(tokenizer.token_byte_lengths())


@each
def test_decoding_half_a_character(tokenizer: BaseTokenizer) -> None:
    ids = tokenizer.encode("\U000e0041")  # too rare to be one token
    assert tokenizer.decode(ids[:-1]) == "\ufffd"
    assert tokenizer.decode_bytes(ids[:-1]) == "\U000e0041".encode()[:-1]


@each
def test_saving_and_loading(tokenizer: BaseTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    tokenizer.save(tmp_path / "other.json")
    for place in (tmp_path, str(tmp_path / "other.json"), tokenizer.to_json()):
        again = load_tokenizer(place)
        # What was pretrained from our own file is recognised as ours.
        assert type(again) is type(tokenizer) or isinstance(tokenizer, PretrainedTokenizer)
        assert again.fingerprint() == tokenizer.fingerprint()
        assert again.encode(TEXTS[3]) == tokenizer.encode(TEXTS[3])


def test_fingerprints_differ() -> None:
    other = BPETokenizerConfig(600).build([read_corpus("austen-emma")[:100_000]])
    assert len({BPE.fingerprint(), other.fingerprint(), ByteTokenizer().fingerprint()}) == 3


def test_training_is_deterministic() -> None:
    texts = [read_corpus("austen-persuasion")[:100_000], *TEXTS]
    assert BPETokenizerConfig(600).build(iter(texts)).fingerprint() == BPE.fingerprint()


def test_threads_share_a_tokenizer() -> None:
    text = read_corpus("austen-emma")[:50_000]
    expected = BPE.encode(text)
    results: list[list[int]] = []
    threads = [threading.Thread(target=lambda: results.append(BPE.encode(text))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 8


@each
def test_wrong_input_to_encode(tokenizer: BaseTokenizer) -> None:
    for value in (b"bytes", None, 3, ["a"]):
        with pytest.raises(TokenizerError, match="must be str"):
            tokenizer.encode(value)  # type: ignore[arg-type]
    with pytest.raises(TokenizerError, match="needs a list"):
        tokenizer.encode_batch("text")
    with pytest.raises(TokenizerError, match=r"texts\[1\] must be str, got NoneType"):
        tokenizer.encode_batch(["a", None])  # type: ignore[list-item]
    with pytest.raises(TokenizerError, match="half a surrogate pair at character 2"):
        tokenizer.encode("ab\ud800c")
    batch = tokenizer.encode_batch([])
    assert batch.ids.tolist() == []
    assert batch.offsets.tolist() == [0]


@each
def test_wrong_input_to_decode(tokenizer: BaseTokenizer) -> None:
    for value in ([-1], [tokenizer.vocabulary_size], np.array([0, 10**6])):
        with pytest.raises(TokenizerError, match="is outside"):
            tokenizer.decode(value)
    for wrong in ([1.5], ["a"], [[1]], [True], [None]):
        with pytest.raises(TokenizerError, match="must be a list of integers"):
            tokenizer.decode(wrong)  # type: ignore[arg-type]
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode(np.array([], dtype=np.int64)) == ""


def test_vocabulary_larger_than_the_text_supports() -> None:
    with pytest.raises(TokenizerError) as caught:
        BPETokenizerConfig(5000).build(["only a few words, only a few"])
    size = int(str(caught.value).split("support only ")[1].split()[0])
    assert (caught.value.option, caught.value.value) == ("vocabulary_size", 5000)
    assert f"use {size}," in caught.value.remedy
    assert BPETokenizerConfig(size).build(["only a few words, only a few"]).vocabulary_size == size


@pytest.mark.parametrize(
    ("make", "option", "value"),
    [
        (BPETokenizerConfig, "vocabulary_size", 256),
        (BPETokenizerConfig, "min_frequency", 0),
        (PretrainedTokenizerConfig, "path", ""),
    ],
)
def test_wrong_configurations(make: Callable[..., object], option: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**{option: value})
    assert (caught.value.option, caught.value.value) == (option, value)


def test_nothing_to_learn_from() -> None:
    with pytest.raises(TokenizerError, match="no text"):
        BPETokenizerConfig().build([])


def test_configurations_travel_as_plain_values() -> None:
    for config in (BPETokenizerConfig(300, 3), ByteTokenizerConfig(), PretrainedTokenizerConfig("x.json")):
        data = config.to_dict()
        assert data["class_path"] == f"insight.data.{type(config).__name__}"
        assert component_from_dict(data) == config


def test_damaged_tokenizer_files(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="no such file"):
        load_tokenizer(tmp_path)
    for content in ("{", "{}", '{"added_tokens": 3}', "[]", BPE.to_json().replace('"BPE"', '"BPX"')):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(TokenizerError):
            load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe")
    with pytest.raises(TokenizerError, match="cannot be read"):
        PretrainedTokenizerConfig(str(tmp_path)).build([])


def test_pretrained_that_loses_text_is_refused() -> None:
    lossy = Tokenizer.from_str(BPE.to_json())
    from tokenizers import normalizers

    lossy.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    with pytest.raises(TokenizerError, match="loses text"):
        load_tokenizer(lossy.to_str())


def test_pretrained_without_an_end_of_text_token_is_refused() -> None:
    with pytest.raises(TokenizerError, match="no special token that ends a text"):
        load_tokenizer(BPE.to_json().replace("<|endoftext|>", "<|other|>"))


def test_pretrained_with_another_name_and_a_template() -> None:
    """Truncation, padding and templates in the file play no part."""
    from tokenizers import processors

    other = Tokenizer.from_str(BPE.to_json().replace("<|endoftext|>", "</s>"))
    other.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    other.enable_truncation(3)
    other.enable_padding(length=5)
    tokenizer = load_tokenizer(other.to_str())
    assert isinstance(tokenizer, PretrainedTokenizer)
    assert tokenizer.special_tokens == {"</s>": 0}
    check(tokenizer, "It is a truth universally acknowledged </s>")


def test_bpe_class_is_what_the_config_builds() -> None:
    assert type(BPE) is BPETokenizer
    assert BPE.vocabulary_size == 600


@given(st.text(st.characters(exclude_categories=[])))
def test_length_in_bytes(text: str) -> None:
    """Also of halves of surrogate pairs, which no text may have; twice, since the first answer is kept."""
    for _ in range(2):
        try:
            expected = len(text.encode("utf-8"))
        except UnicodeEncodeError as error:
            with pytest.raises(TokenizerError, match=f"surrogate pair at character {error.start}"):
                utf8_length(text)
        else:
            assert utf8_length(text) == expected
