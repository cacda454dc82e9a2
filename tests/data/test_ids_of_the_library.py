"""Every kind of tokenizer gives the ids of `tokenizers` on many languages, emoji, code and random bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizer_texts import HARD_TEXTS, TRAINING_TEXT
from tokenizers import Tokenizer

from insight.data import (
    BaseTokenizer,
    BPETokenizerConfig,
    ByteTokenizer,
    PretrainedTokenizer,
    WordTokenizerConfig,
    load_tokenizer,
)
from insight.data.tokenizers.tokenizer_json import NORMALIZATIONS, PRE_TOKENIZERS


def _pretrained() -> PretrainedTokenizer:
    """With a rule that is not one of ours: texts go to the library as a whole."""
    data = json.loads(BPETokenizerConfig(700).build([TRAINING_TEXT]).to_json())
    digits = {"type": "Digits", "individual_digits": True}
    data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, data["pre_tokenizer"]]}
    tokenizer = load_tokenizer(json.dumps(data))
    assert isinstance(tokenizer, PretrainedTokenizer)
    return tokenizer


KINDS: dict[str, BaseTokenizer] = {
    "byte": ByteTokenizer(),
    "word": WordTokenizerConfig(500, min_frequency=1).build([TRAINING_TEXT]),
    "pretrained": _pretrained(),
    **{
        f"bpe {rule} {normalization}": BPETokenizerConfig(
            700, pre_tokenizer=rule, normalization=normalization
        ).build([TRAINING_TEXT])
        for rule, normalization in [*((rule, "none") for rule in PRE_TOKENIZERS)]
        + [("gpt2", name) for name in NORMALIZATIONS if name != "none"]
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_the_library(kind: str) -> None:
    tokenizer = KINDS[kind]
    library: Any = Tokenizer.from_str(tokenizer.to_json())
    library.encode_special_tokens = True
    expected = [library.encode(text, add_special_tokens=False).ids for text in HARD_TEXTS]
    batch = tokenizer.encode_batch(HARD_TEXTS)
    parts = [batch.ids[a:b].tolist() for a, b in zip(batch.offsets, batch.offsets[1:], strict=False)]
    for text, found, wanted in zip(HARD_TEXTS, parts, expected, strict=True):
        assert found == wanted, repr(text[:80])
        assert tokenizer.encode(text) == wanted
    if tokenizer.is_lossless:
        assert tokenizer.decode_batch(parts) == list(HARD_TEXTS)


@pytest.mark.slow
def test_long_texts_of_every_kind_too() -> None:
    """Long enough for the fast encoder where there is one."""
    text = "".join(HARD_TEXTS) * 40
    for kind, tokenizer in KINDS.items():
        library: Any = Tokenizer.from_str(tokenizer.to_json())
        library.encode_special_tokens = True
        assert tokenizer.encode(text) == library.encode(text, add_special_tokens=False).ids, kind
