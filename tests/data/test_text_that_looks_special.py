"""No text is lost: names of special tokens in a text, and options of a foreign file that act at run time."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insight.data import (
    BaseTokenizer,
    BPETokenizer,
    BPETokenizerConfig,
    PretrainedTokenizer,
    load_tokenizer,
    read_corpus,
)
from insight.data.tokenizers.tokenizer_json import PRE_TOKENIZERS
from insight.runtime.errors import TokenizerError

TEXT = read_corpus("austen-emma")[:60_000]
MARKED = "\n### user\n#### 12\nthe theme, ## the\u00e9 ###the! " * 400 + TEXT
NAMES = ("###", "the", "\u0120the", "<|user|>")


def trained(pre_tokenizer: str = "gpt2", names: tuple[str, ...] = NAMES) -> BPETokenizer:
    return BPETokenizerConfig(500, 2, pre_tokenizer, "none", names).build([MARKED])


TRAINED = {rule: trained(rule) for rule in PRE_TOKENIZERS}


def check(tokenizer: BaseTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & set(tokenizer.special_tokens.values())
    assert tokenizer.token_byte_lengths()[ids].sum() == len(text.encode("utf-8"))


@pytest.mark.parametrize("rule", PRE_TOKENIZERS)
def test_text_that_looks_like_a_special_token_is_text(rule: str) -> None:
    tokenizer = TRAINED[rule]
    assert tokenizer.vocabulary_size == 500
    assert set(tokenizer.special_tokens) == {"<|endoftext|>", *NAMES}
    check(tokenizer, MARKED)
    check(tokenizer, MARKED * 3)  # long enough for the fast encoder, if there is one
    # Every token but the special ones can be made: none is wasted on the parts of another.
    used = [tokenizer.token_bytes(index) for index in range(500) if index >= 5]
    assert all(used)
    assert len(set(used)) == len(used)


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.sampled_from([*NAMES, " ", "#", "##", "t", "he", "\n", " the", "\u00e9", "a"])).map("".join)
)
def test_any_mixture_of_them_comes_back(text: str) -> None:
    for tokenizer in TRAINED.values():
        check(tokenizer, text)


def test_other_special_tokens_change_nothing() -> None:
    """A name that merges cannot make leaves the merges as they were."""
    plain, marked = (trained(names=names) for names in (("<|user|>",), ("<|user|>", "<|system|>")))
    assert (
        json.loads(marked.to_json())["model"]["merges"]
        == (json.loads(plain.to_json())["model"]["merges"][:-1])
    )


def foreign(**model: Any) -> dict[str, Any]:
    """A file of another program: not of the form that Insight writes, since it has an added token of text."""
    data: dict[str, Any] = json.loads(BPETokenizerConfig(500).build([MARKED]).to_json())
    added = data["added_tokens"][0] | {"id": 500, "content": "<mark>", "special": False}
    data["added_tokens"].append(added)
    data["model"] |= model
    return data


def as_special(data: dict[str, Any], name: str) -> dict[str, Any]:
    index = data["model"]["vocab"][name]
    data["added_tokens"].insert(1, data["added_tokens"][0] | {"id": index, "content": name})
    return data


@pytest.mark.parametrize("name", ["###", "the", "\u0120the", "er"])
def test_a_merged_token_that_a_file_marks_special(name: str) -> None:
    data = foreign()
    tokenizer = load_tokenizer(json.dumps(as_special(data, name)))
    assert isinstance(tokenizer, PretrainedTokenizer)
    assert tokenizer.is_lossless
    check(tokenizer, MARKED)
    check(load_tokenizer(tokenizer.to_json()), MARKED)


def test_an_own_file_of_before_is_mended_when_it_is_read() -> None:
    data = json.loads(BPETokenizerConfig(500).build([MARKED]).to_json())
    tokenizer = load_tokenizer(json.dumps(as_special(data, "###")))
    assert isinstance(tokenizer, BPETokenizer)
    check(tokenizer, MARKED)


@pytest.mark.parametrize("name", ["a", "\u0120", "\u00c3"])
def test_a_byte_that_a_file_marks_special_is_refused(name: str) -> None:
    with pytest.raises(TokenizerError, match="is also made of plain text"):
        load_tokenizer(json.dumps(as_special(foreign(), name)))


def test_words_that_are_looked_up_whole() -> None:
    """With ``ignore_merges`` a word of the vocabulary needs no merge."""
    with pytest.raises(TokenizerError, match="is also made of plain text"):
        load_tokenizer(json.dumps(as_special(foreign(ignore_merges=True), "###")))
    check(load_tokenizer(json.dumps(foreign(ignore_merges=True))), MARKED)


def test_dropout_is_cleared() -> None:
    first, *others = (load_tokenizer(json.dumps(foreign(dropout=0.3))) for _ in range(3))
    assert all(other.encode(MARKED) == first.encode(MARKED) for other in others)
    assert first.encode(MARKED) == load_tokenizer(json.dumps(foreign())).encode(MARKED)
    assert len({each.fingerprint() for each in (first, *others)}) == 1


@pytest.mark.parametrize("options", [{"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}])
def test_white_space_beside_an_added_token_is_kept(options: dict[str, bool]) -> None:
    data = foreign()
    data["added_tokens"][-1] |= options
    tokenizer = load_tokenizer(json.dumps(data))
    text = "a  <mark> \n b<mark>"
    assert tokenizer.encode(text).count(500) == 2
    check(tokenizer, text)


def test_texts_are_neither_cut_nor_padded() -> None:
    data = foreign()
    data["truncation"] = {
        "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0
    }  # fmt: skip
    data["padding"] = {
        "strategy": {"Fixed": 4096}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "<|endoftext|>",
    }  # fmt: skip
    check(load_tokenizer(json.dumps(data)), MARKED[:2000])


@pytest.mark.parametrize(
    "step",
    [
        {"type": "Split", "pattern": {"String": "\u2603"}, "behavior": "Removed", "invert": False},
        {"type": "CharDelimiterSplit", "delimiter": "|"},
        {"type": "Punctuation", "behavior": "Removed"},
    ],
    ids=lambda step: step["type"],
)
def test_steps_that_drop_rare_characters_are_refused(step: dict[str, Any]) -> None:
    data = foreign()
    data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [step, data["pre_tokenizer"]]}
    with pytest.raises(TokenizerError, match="loses text"):
        load_tokenizer(json.dumps(data))


def test_a_vocabulary_without_some_byte_is_refused() -> None:
    data = foreign()
    del data["model"]["vocab"]["\u0143"]  # byte 0xAD, which no probe has
    with pytest.raises(TokenizerError, match="lacks 1 of the 256 bytes"):
        load_tokenizer(json.dumps(data))


RUNS = {
    "equal": "a" * 200_000,
    "bases": "".join("ACGT"[(index * index * 2654435761 >> 16) & 3] for index in range(200_000)),
    "digits": "31415926535897932384626433832795" * 6000,
    "white space": " " * 200_000,
    "dots": "._" * 100_000,
    "Han": "漢字仮名" * 50_000,
}


@pytest.mark.parametrize("name", RUNS)
def test_training_on_one_long_run_is_quick_and_told(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    started = time.process_time()
    tokenizer = BPETokenizerConfig(264).build([f"Some words before. {RUNS[name]} And behind."])
    assert time.process_time() - started < 5  # 16 s at least where the time grows with the square
    assert tokenizer.decode(tokenizer.encode(RUNS[name])) == RUNS[name]
    told = capsys.readouterr().err
    assert "1 runs of 1,024 characters or more" in told
    assert "the longest has " in told


def test_natural_text_is_not_divided(capsys: pytest.CaptureFixture[str]) -> None:
    chinese = "".join("的一是不了人我在有他"[index * index % 10] for index in range(900))
    BPETokenizerConfig(270).build([TEXT, f"{chinese}。{chinese}，" * 5, "x" * 1023])
    assert "divided" not in capsys.readouterr().err
