"""What the quality of a tokenizer says is what counting by hand says."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insight.data import BaseTokenizer, BPETokenizerConfig, ByteTokenizer, WordTokenizerConfig, read_corpus
from insight.data.tokenizers import quality as module
from insight.data.tokenizers.quality import (
    STRETCH_BYTES,
    NamedText,
    TokenizerQuality,
    compare_tokenizers,
    measure_tokenizer,
)
from insight.runtime.errors import DataError

TEXT = read_corpus("austen-emma")[:60_000]
BPE = BPETokenizerConfig(500).build([TEXT])
WORDS = WordTokenizerConfig(300).build([TEXT])
LOWERCASE = BPETokenizerConfig(400, normalization="lowercase").build([TEXT])
documents = st.lists(st.text(st.sampled_from("ab é日\n."), min_size=1, max_size=30), min_size=1, max_size=8)


def named(*texts: Iterable[str]) -> list[NamedText]:
    return [(f"text {number}", lambda text=list(text): text) for number, text in enumerate(texts)]  # type: ignore[misc]


@settings(deadline=None, max_examples=50)
@given(st.lists(documents, min_size=1, max_size=3), st.sampled_from([BPE, ByteTokenizer(), WORDS]))
def test_figures_are_those_of_counting_by_hand(texts: list[list[str]], tokenizer: BaseTokenizer) -> None:
    quality = measure_tokenizer(tokenizer, named(*texts))
    every_id = [index for text in texts for document in text for index in tokenizer.encode(document)]
    pieces = [tokenizer.token_bytes(index) for index in every_id]
    total = quality.total
    everything = "".join(document for text in texts for document in text)
    assert [text.num_documents for text in quality.texts] == [len(text) for text in texts]
    assert total.num_tokens == len(every_id)
    assert total.num_bytes == len(everything.encode())
    assert total.num_words == sum(len(document.split()) for text in texts for document in text)
    assert total.num_known_bytes == sum(map(len, pieces))
    assert total.num_fragments == sum(len(piece) == 1 and piece >= b"\x80" for piece in pieces)
    assert quality.counts.tolist() == np.bincount(every_id, minlength=tokenizer.vocabulary_size).tolist()
    assert total.bytes_per_token == total.num_bytes / total.num_tokens
    assert int(quality.tokens_per_stretch.sum()) == total.num_tokens
    assert int(quality.bytes_per_stretch.sum()) == total.num_bytes
    ordinary = {index for index in range(tokenizer.vocabulary_size) if tokenizer.token_bytes(index)}
    assert set(quality.ids_with_counts(0, 1).tolist()) == ordinary - set(every_id)
    rare = {index for index in ordinary if 1 <= every_id.count(index) < 3}
    assert set(quality.ids_with_counts(1, 3).tolist()) == rare
    if tokenizer.is_lossless:
        assert total.to_dict()["coverage"] == 1
        assert total.num_lost == 0
        assert total.num_checked == sum(map(len, texts))


@settings(deadline=None, max_examples=25)
@given(documents, st.integers(1, 12))
def test_stretches_are_cut_by_bytes(texts: list[str], size: int) -> None:
    """A token belongs to the stretch that its last byte lies in, whatever the batches were."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STRETCH_BYTES", size)
        patch.setattr(module, "_BATCH_CHARACTERS", 7)
        quality = measure_tokenizer(BPE, named(texts))
    ends = np.cumsum([len(BPE.token_bytes(index)) for text in texts for index in BPE.encode(text)])
    expected = np.bincount((ends - 1) // size, minlength=-(-int(ends[-1]) // size))
    assert quality.tokens_per_stretch.tolist() == expected.tolist()


def test_what_is_lost_is_shown() -> None:
    quality = measure_tokenizer(LOWERCASE, named(["all small", "then Some large"]))
    assert (quality.total.num_checked, quality.total.num_lost) == (2, 1)
    assert quality.total.first_loss == "character 5: 'Some large' comes back as 'some large'"
    words = measure_tokenizer(WORDS, named(["Emma Qwxyz"]))
    assert words.total.to_dict()["coverage"] == pytest.approx(len("Emma") / len("Emma Qwxyz"))
    assert words.total.num_lost == 1


def test_scripts_that_were_never_learnt_are_fragments() -> None:
    assert measure_tokenizer(BPE, named(["日本語"])).total.to_dict()["fragment_share"] == 1
    assert measure_tokenizer(BPE, named([TEXT[:1000]])).total.to_dict()["fragment_share"] < 0.01


def test_comparison_is_paired() -> None:
    larger = BPETokenizerConfig(1000).build([TEXT])
    first, second = (measure_tokenizer(each, named([TEXT])) for each in (BPE, larger))
    difference = compare_tokenizers(first, second)
    assert difference.value == pytest.approx(
        second.total.num_tokens / len(TEXT.encode()) - first.total.num_tokens / len(TEXT.encode())
    )
    assert difference.n == -(-len(TEXT.encode()) // STRETCH_BYTES)
    assert difference.low <= difference.value <= difference.high < 0
    # Unpaired, the text's own unevenness would swamp so small an interval.
    assert difference.high - difference.low < 0.02
    same = compare_tokenizers(first, first)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_texts_must_be_the_same() -> None:
    with pytest.raises(DataError, match="different texts"):
        compare_tokenizers(*(measure_tokenizer(BPE, named([text])) for text in ("one", "three")))
    with pytest.raises(DataError, match="no text"):
        measure_tokenizer(BPE, named([]))


def test_quality_is_one_value() -> None:
    quality = measure_tokenizer(BPE, named([TEXT[:100]], [TEXT[:50]]))
    assert isinstance(quality, TokenizerQuality)
    assert [text.name for text in quality.texts] == ["text 0", "text 1"]
    assert quality.total.name == "all"
