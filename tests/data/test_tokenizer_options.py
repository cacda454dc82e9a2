"""BPE with other words, normalizations and special tokens; one token a word; files of other libraries."""

from __future__ import annotations

import json
import pickle
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from insight.data import (
    BPETokenizer,
    BPETokenizerConfig,
    PretrainedTokenizer,
    WordTokenizer,
    WordTokenizerConfig,
    load_tokenizer,
    read_corpus,
)
from insight.data.sources.cuts import cut_text, safe_cut
from insight.data.tokenizers.segments import segment_pattern
from insight.data.tokenizers.tokenizer_json import NORMALIZATIONS, PRE_TOKENIZERS
from insight.runtime.component import component_from_dict
from insight.runtime.errors import ConfigError, TokenizerError
from insight.runtime.memory_watcher import MemoryReading, process_watcher

TEXT = read_corpus("austen-persuasion")[:60_000] + " 1815 and 27 persons, 3.14!\n\nIt's SHE'S; “quoted”\r\n\t"
CONFIGS = {
    (rule, normalization): BPETokenizerConfig(
        400, pre_tokenizer=rule, normalization=normalization, special_tokens=("<|user|>",)
    )
    for rule in PRE_TOKENIZERS
    for normalization in NORMALIZATIONS
}
BUILT = {names: config.build([TEXT]) for names, config in CONFIGS.items()}
WORDS = WordTokenizerConfig(500).build([TEXT])
any_text = st.text(st.characters(exclude_categories=["Cs"]))
AWKWARD = (
    *"a1!é。\u00a8\u0308\u0338 \n\r\t\u00a0\u2003\x1c\x85ﬁİΣ",
    *("'s", "'S", "it", "<|user|>", "<|endoftext|>", "\u1e9b\u0323"),
)
awkward = st.lists(st.sampled_from(AWKWARD), max_size=30).map("".join)


def reference(tokenizer: BPETokenizer | WordTokenizer | PretrainedTokenizer) -> Any:
    """The library alone, which sees every text as a whole."""
    library = Tokenizer.from_str(tokenizer.to_json())
    library.encode_special_tokens = True
    return library


@pytest.mark.slow
@settings(deadline=None, max_examples=75)
@given(st.lists(st.one_of(awkward, any_text), max_size=4))
def test_ids_are_those_of_the_library(texts: list[str]) -> None:
    """Cutting texts into words and looking those up changes no id, for any rule and normalization."""
    for tokenizer in (*BUILT.values(), WORDS):
        batch = tokenizer.encode_batch(texts)
        expected = [item.ids for item in reference(tokenizer).encode_batch(texts, add_special_tokens=False)]
        parts = [batch.ids[a:b].tolist() for a, b in zip(batch.offsets, batch.offsets[1:], strict=False)]
        assert parts == expected


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(st.one_of(awkward, any_text), st.integers(1, 5))
def test_cutting_changes_no_id(text: str, size: int) -> None:
    for tokenizer in (*BUILT.values(), WORDS):
        parts = list(tokenizer.text_parts(text, size))
        assert "".join(parts) == text
        assert [index for part in parts for index in tokenizer.encode(part)] == tokenizer.encode(text)


@settings(deadline=None, max_examples=100)
@given(st.one_of(awkward, any_text))
def test_segments_leave_nothing_out(text: str) -> None:
    for rule in PRE_TOKENIZERS.values():
        assert "".join(segment_pattern(rule.boundaries).findall(text)) == text


def test_planted_fault_is_seen() -> None:
    """GPT-4's rule joins line breaks to punctuation: cutting it where GPT-2's may be cut changes ids."""
    tokenizer, text = BUILT["gpt4", "none"], "stop!\n\ngo on"
    wrong = safe_cut(PRE_TOKENIZERS["gpt2"].boundaries)
    parts = list(cut_text(text, 1, wrong))
    library = reference(tokenizer)
    pieces = [piece for piece, _ in library.pre_tokenizer.pre_tokenize_str(text)]
    apart = [piece for part in parts for piece, _ in library.pre_tokenizer.pre_tokenize_str(part)]
    assert pieces != apart
    right = list(cut_text(text, 1, safe_cut(PRE_TOKENIZERS["gpt4"].boundaries)))
    assert pieces == [piece for part in right for piece, _ in library.pre_tokenizer.pre_tokenize_str(part)]


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_no_character_normalizes_to_white_space_at_its_end(form: str) -> None:
    """Texts are cut behind what is no white space; that must still be none when it has been normalized."""
    ends = [
        normal[-1]
        for code in range(sys.maxunicode + 1)
        if not (character := chr(code)).isspace() and not 0xD800 <= code < 0xE000
        if (normal := unicodedata.normalize(form, character))
    ]
    assert not [end for end in ends if end.isspace()]


@pytest.mark.parametrize(
    ("rule", "size", "longest"), [("single_digits", 257, 1), ("gpt4", 259, 3), ("gpt2", 260, 4)]
)
def test_how_many_digits_become_one_token(rule: str, size: int, longest: int) -> None:
    tokenizer = BPETokenizerConfig(size, min_frequency=1, pre_tokenizer=rule).build(["1815\n" * 4])
    assert max(len(tokenizer.token_bytes(index)) for index in tokenizer.encode("1815")) == longest


@pytest.mark.parametrize("names", CONFIGS, ids="-".join)
def test_every_choice_is_recognised_in_its_file(names: tuple[str, str]) -> None:
    tokenizer = BUILT[names]
    again = load_tokenizer(tokenizer.to_json())
    assert type(again) is BPETokenizer
    assert again.fingerprint() == tokenizer.fingerprint()
    assert pickle.loads(pickle.dumps(tokenizer)).encode(TEXT[-80:]) == tokenizer.encode(TEXT[-80:])
    assert tokenizer.special_tokens == {"<|endoftext|>": 0, "<|user|>": 1}
    assert tokenizer.is_lossless is (names[1] == "none")
    assert tokenizer.vocabulary_size == 400
    assert CONFIGS[names] == component_from_dict(json.loads(json.dumps(CONFIGS[names].to_dict())))


def test_normalized_text_comes_back_normalized() -> None:
    for name, given_text, expected in (
        ("none", "Cafe\u0301 ﬁ", "Cafe\u0301 ﬁ"),
        ("nfc", "Cafe\u0301 ﬁ", "Caf\u00e9 ﬁ"),
        ("nfkc", "Cafe\u0301 ﬁ", "Caf\u00e9 fi"),
        ("lowercase", "Cafe\u0301 ﬁ", "cafe\u0301 ﬁ"),
    ):
        tokenizer = BUILT["gpt2", name]
        assert tokenizer.decode(tokenizer.encode(given_text)) == expected


def test_names_under_which_things_are_cached_did_not_change() -> None:
    """The values of before there were these options; changing them would encode everybody's text again."""
    assert BPETokenizerConfig(600, 3).to_dict() == {
        "class_path": "insight.data.BPETokenizerConfig",
        "init_args": {"vocabulary_size": 600, "min_frequency": 3},
    }
    tokenizer = BPETokenizerConfig(600).build([read_corpus("austen-persuasion")[:100_000]])
    assert tokenizer.fingerprint() == "3f3b89f090723a3e3743de61415ee071"


def test_words_that_repeat_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = BPETokenizerConfig(300).build([TEXT])
    first = tokenizer.encode(TEXT)
    assert tokenizer.cache is not None
    before = tokenizer.cache.statistics()
    assert tokenizer.encode(TEXT) == first
    after = tokenizer.cache.statistics()
    assert after.hits - before.hits == before.num_entries
    assert after.misses - before.misses <= 2  # segments too long to keep
    monkeypatch.setattr("insight.data.tokenizers.library._CACHE_ENTRIES", 3)
    small = pickle.loads(pickle.dumps(tokenizer))
    assert small.encode(TEXT) == first
    assert len(small.cache) == 3


def test_known_words_are_dropped_when_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = BPETokenizerConfig(300).build([TEXT])
    first = tokenizer.encode(TEXT[:5000])
    assert tokenizer.cache
    monkeypatch.setattr(process_watcher(), "_read", lambda: MemoryReading(99, 100, "machine"))
    process_watcher().look()
    assert len(tokenizer.cache) == 0
    monkeypatch.setattr(process_watcher(), "_read", lambda: MemoryReading(1, 100, "machine"))
    process_watcher().look()
    assert process_watcher().work_share == 1
    assert tokenizer.encode(TEXT[:5000]) == first


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pre_tokenizer": "gpt3"}, "did you mean 'gpt4'"),
        ({"normalization": "nfd"}, "did you mean 'nfc'"),
        ({"special_tokens": ("<|a|>", "<|a|>")}, "is there already"),
        ({"special_tokens": ("<|endoftext|>",)}, "is there already"),
        ({"special_tokens": ("a",)}, "stands for a byte"),
        ({"special_tokens": (" ",)}, "is no name"),
        ({"vocabulary_size": 257, "special_tokens": ("<|a|>",)}, "use at least 258"),
    ],
)
def test_wrong_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BPETokenizerConfig(**options)
    assert said in str(caught.value)
    assert caught.value.option == next(iter(options))


def test_known_words_come_back_and_others_are_unknown() -> None:
    assert isinstance(WORDS, WordTokenizer)
    known = " Sir Walter and Anne"
    ids = WORDS.encode(known)
    assert len(ids) == 4
    assert WORDS.decode(ids) == known
    ids = WORDS.encode(" Sir Qwxyz and Anne")
    assert ids.count(WORDS.unknown_id) == 1
    assert WORDS.decode(ids, skip_special_tokens=False) == " Sir<|unknown|> and Anne"
    assert not WORDS.is_lossless
    assert WORDS.token_byte_lengths()[WORDS.unknown_id] == 0
    assert WORDS.end_of_text_id not in WORDS.encode("a<|endoftext|>b<|unknown|>")
    assert WORDS.encode("") == []


def test_words_are_the_most_frequent_ones() -> None:
    tokenizer = WordTokenizerConfig(5, min_frequency=2).build(["b a a c c c d"])
    assert [tokenizer.token_bytes(index) for index in range(tokenizer.vocabulary_size)] == [
        b"", b"", b" c", b" a"
    ]  # fmt: skip
    assert tokenizer.special_tokens == {"<|endoftext|>": 0, "<|unknown|>": 1}
    lowercase = WordTokenizerConfig(50, 1, lowercase=True).build(["Anne anne"])
    assert lowercase.decode(lowercase.encode("ANNE Anne")) == "anne anne"


def test_word_tokenizer_is_recognised_in_its_file(tmp_path: Path) -> None:
    WORDS.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert type(again) is WordTokenizer
    assert again.fingerprint() == WORDS.fingerprint()
    assert again.unknown_id == WORDS.unknown_id
    config = WordTokenizerConfig(500, 3, True)
    assert component_from_dict(config.to_dict()) == config


def test_wrong_word_options() -> None:
    with pytest.raises(ConfigError) as error:
        WordTokenizerConfig(2)
    assert (error.value.option, error.value.value) == ("vocabulary_size", 2)
    with pytest.raises(ConfigError) as error:
        WordTokenizerConfig(min_frequency=0)
    assert (error.value.option, error.value.value) == ("min_frequency", 0)
    with pytest.raises(TokenizerError, match="no text"):
        WordTokenizerConfig().build([])
    with pytest.raises(TokenizerError) as error:
        WordTokenizerConfig(min_frequency=9).build(["a b c"])
    assert (error.value.option, error.value.value) == ("min_frequency", 9)


def sentencepiece(prepend: bool) -> Any:
    """A tokenizer as SentencePiece's BPE with byte fallback is written by Hugging Face (Gemma, Llama 2)."""
    library: Any = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    steps = [normalizers.Prepend("▁")] if prepend else []
    library.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    library.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if prepend else parts)
    # Real ones train on whole sentences; words keep this one quick.
    library.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer: Any = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<unk>", "</s>", *(f"<0x{value:02X}>" for value in range(256))],
        show_progress=False,
    )
    library.train_from_iterator([TEXT], trainer)
    content = json.loads(library.to_str())
    # The bytes are ordinary tokens, not special ones.
    content["added_tokens"] = [
        token for token in content["added_tokens"] if token["content"] in ("<unk>", "</s>")
    ]
    return Tokenizer.from_str(json.dumps(content))


def test_sentencepiece_with_bytes() -> None:
    library = sentencepiece(prepend=False)
    tokenizer = load_tokenizer(library.to_str())
    assert isinstance(tokenizer, PretrainedTokenizer)
    assert tokenizer.end_of_text_id == 1
    for text in (TEXT[:5_000], "日本語 and \U0001f9ff\n\t  x", ""):
        ids = tokenizer.encode(text)
        assert ids == library.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == text
        assert int(tokenizer.token_byte_lengths()[np.array(ids, dtype=np.int64)].sum()) == len(text.encode())


def test_sentencepiece_that_puts_a_space_before_every_text_is_refused() -> None:
    with pytest.raises(TokenizerError) as caught:
        load_tokenizer(sentencepiece(prepend=True).to_str())
    assert "puts a space before every text" in caught.value.remedy


def test_end_of_text_of_a_hugging_face_folder(tmp_path: Path) -> None:
    """A name that only tokenizer_config.json knows travels in the tokenizer's own JSON from then on."""
    content = BUILT["gpt2", "none"].to_json().replace("<|endoftext|>", "<|done|>")
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(TokenizerError, match="no special token that ends a text"):
        load_tokenizer(tmp_path)
    for named in ("<|done|>", {"content": "<|done|>", "lstrip": False}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": named}), encoding="utf-8")
        tokenizer = load_tokenizer(tmp_path)
        again = load_tokenizer(tokenizer.to_json())
        assert tokenizer.end_of_text_id == again.end_of_text_id == tokenizer.special_tokens["<|done|>"]
        assert again.fingerprint() == tokenizer.fingerprint()
        assert tokenizer.encode("a truth") == BUILT["gpt2", "none"].encode("a truth")
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|other|>"}', encoding="utf-8")
    with pytest.raises(TokenizerError, match="no special token that ends a text"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json: not a tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_a_known_name_is_not_overruled_by_a_folder(tmp_path: Path) -> None:
    tokenizer = BUILT["gpt2", "none"]
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|user|>"}', encoding="utf-8")
    assert load_tokenizer(tmp_path).fingerprint() == tokenizer.fingerprint()


def test_template_names_the_end() -> None:
    other = Tokenizer.from_str(BUILT["gpt2", "none"].to_json().replace("<|endoftext|>", "[SEP]"))
    other.post_processor = processors.TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 0)])
    assert load_tokenizer(other.to_str()).end_of_text_id == 0
