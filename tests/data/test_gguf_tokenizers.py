"""The tokenizer inside a GGUF file, written here by the library `gguf`, gives the ids it was made of."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_texts import HARD_TEXTS, TRAINING_TEXT
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from insight.data import BPETokenizer, BPETokenizerConfig, PretrainedTokenizer, load_tokenizer
from insight.data.tokenizers.gguf import read_gguf_metadata, tokenizer_json_of_gguf
from insight.runtime.errors import TokenizerError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
RULES = {"gpt-2": "gpt2", "llama-bpe": "gpt4"}


def write_gguf(
    path: Path,
    tokenizer: Tokenizer,
    model: str,
    rule: str | None,
    end: str,
    scores: list[float] | None = None,
    **others: Any,
) -> Path:
    """What llama.cpp's converter writes of a tokenizer; its order and some weights around it."""
    data = json.loads(tokenizer.to_str())
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    added = {token["content"]: token for token in data["added_tokens"]}
    kinds = []
    for token in tokens:
        kind = NORMAL
        if token in added:
            kind = CONTROL if added[token]["special"] else USER_DEFINED
        elif model == "llama" and len(token) == 6 and token.startswith("<0x"):
            kind = BYTE
        kinds.append(UNKNOWN if token == "<unk>" else kind)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    if rule is not None:
        writer.add_tokenizer_pre(rule)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    if scores is not None:
        writer.add_token_scores(scores)
    else:
        merges = data["model"]["merges"]
        writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(vocabulary[end])
    writer.add_chat_template("{{ messages }}")
    writer.add_array("general.tags", ["a", "b"])
    writer.add_uint32("llama.block_count", 2)
    for name, value in others.items():
        writer.add_key_value(f"tokenizer.ggml.{name}", value, gguf.GGUFValueType.get_type(value))
    writer.add_tensor("output.weight", np.ones((4, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def byte_level(rule: Any) -> Tokenizer:
    """A byte-level tokenizer whose words another library's rule cuts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = rule
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|endoftext|>", "<|im_start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TRAINING_TEXT], trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer


SMOLLM = byte_level(
    pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
)


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize("rule", RULES)
def test_byte_level_bpe(tmp_path: Path, rule: str) -> None:
    made_of = BPETokenizerConfig(700, pre_tokenizer=RULES[rule], special_tokens=("<|user|>",)).build(
        [TRAINING_TEXT]
    )
    reference = Tokenizer.from_str(made_of.to_json())
    reference.encode_special_tokens = True
    path = write_gguf(tmp_path / "model.gguf", reference, "gpt2", rule, "<|endoftext|>")
    tokenizer = load_tokenizer(path)
    # Known rules are recognised, so that text is cut, looked up and encoded fast as with our own.
    assert type(tokenizer) is BPETokenizer
    assert tokenizer.boundaries == made_of.boundaries
    assert tokenizer.special_tokens == made_of.special_tokens
    assert tokenizer.end_of_text_id == made_of.end_of_text_id
    for text in HARD_TEXTS:
        assert tokenizer.encode(text) == ids_of(reference, text), repr(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(deadline=None, max_examples=75)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_digits_apart(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "smollm.gguf"
    if not path.exists():
        write_gguf(path, SMOLLM, "gpt2", "smollm", "<|endoftext|>")
        for hard in HARD_TEXTS:
            assert load_tokenizer(path).encode(hard) == ids_of(SMOLLM, hard), repr(hard)
    tokenizer = _loaded(path)
    assert type(tokenizer) is PretrainedTokenizer
    assert tokenizer.encode(text) == ids_of(SMOLLM, text)


_LOADED: dict[Path, PretrainedTokenizer] = {}


def _loaded(path: Path) -> PretrainedTokenizer:
    if path not in _LOADED:
        tokenizer = load_tokenizer(path)
        assert isinstance(tokenizer, PretrainedTokenizer)
        _LOADED[path] = tokenizer
    return _LOADED[path]


def sentencepiece() -> tuple[Tokenizer, list[float]]:
    """A BPE as SentencePiece's, with bytes for what it lacks, and the scores that its file would hold."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    specials = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=specials + [f"<0x{value:02X}>" for value in range(256)],
        limit_alphabet=200,
        show_progress=False,
    )
    tokenizer.train_from_iterator([TRAINING_TEXT], trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] in specials]
    data["pre_tokenizer"] = None  # it only kept the trainer from making tokens of several words
    data["decoder"] = json.loads(
        '{"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u2581"},'
        ' "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]}'
    )
    merged = {"".join(merge): -float(rank) for rank, merge in enumerate(data["model"]["merges"])}
    vocabulary = data["model"]["vocab"]
    scores = [merged.get(token, 0.0) for token in sorted(vocabulary, key=lambda token: vocabulary[token])]
    rebuilt = Tokenizer.from_str(json.dumps(data))
    rebuilt.encode_special_tokens = True
    return rebuilt, scores


def test_sentencepiece_bpe(tmp_path: Path) -> None:
    reference, scores = sentencepiece()
    path = write_gguf(
        tmp_path / "model.gguf", reference, "llama", "default", "</s>", scores, add_space_prefix=False
    )
    tokenizer = load_tokenizer(path)
    assert isinstance(tokenizer, PretrainedTokenizer)
    assert tokenizer.end_of_text_id == 2
    for text in HARD_TEXTS:
        assert tokenizer.encode(text) == ids_of(reference, text), repr(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_space_before_every_text_is_refused_as_in_a_tokenizer_json(tmp_path: Path) -> None:
    reference, scores = sentencepiece()
    path = write_gguf(tmp_path / "model.gguf", reference, "llama", None, "</s>", scores)
    with pytest.raises(TokenizerError, match="puts a space before every text"):
        load_tokenizer(path)


def test_user_defined_tokens_and_another_end(tmp_path: Path) -> None:
    reference = Tokenizer.from_str(SMOLLM.to_str().replace("<|endoftext|>", "<|stop|>"))
    reference.add_tokens([AddedToken("two words", normalized=False)])
    reference.encode_special_tokens = True
    path = write_gguf(tmp_path / "m.gguf", reference, "gpt2", "smollm", "<|stop|>")
    tokenizer = load_tokenizer(path)
    assert tokenizer.special_tokens["<|stop|>"] == tokenizer.end_of_text_id
    for text in ("two words", "these two words 12", *HARD_TEXTS):
        assert tokenizer.encode(text) == ids_of(reference, text)


def test_only_metadata_with_the_prefix_is_kept(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", SMOLLM, "gpt2", "smollm", "<|endoftext|>")
    assert read_gguf_metadata(path, "llama.") == {"llama.block_count": 2}
    everything = read_gguf_metadata(path)
    assert everything["general.tags"] == ["a", "b"]
    assert everything["general.architecture"] == "llama"
    assert everything["tokenizer.ggml.eos_token_id"] == 0


@pytest.mark.parametrize(
    ("model", "rule", "said"),
    [
        ("rwkv", "smollm", "of kind 'rwkv': known: gpt2, llama"),
        ("gpt2", "tekken", "by the rule 'tekken', which is not known"),
        ("gpt2", None, "by the rule None"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path: Path, model: str, rule: str | None, said: str) -> None:
    path = write_gguf(tmp_path / "m.gguf", SMOLLM, model, rule, "<|endoftext|>")
    with pytest.raises(TokenizerError, match=said):
        load_tokenizer(path)


def edited(change: Callable[[bytearray], object]) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        changed = bytearray(data)
        change(changed)
        return bytes(changed)

    return edit


def _number_at(place: int, value: int) -> Callable[[bytearray], None]:
    return lambda data: struct.pack_into("<Q", data, place, value)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda data: data[:3], "not a tokenizer.json|cannot be read|not JSON"),
        (lambda data: data[:60], "ends too early"),
        (lambda data: data[:4] + b"\1\0\0\0" + data[8:], "GGUF version 1"),
        (lambda data: data[:4] + b"\0\0\0\3" + data[8:], "GGUF version 50331648"),
        (edited(_number_at(16, 1 << 60)), "1,152,921,504,606,846,976 values"),
        (edited(_number_at(24, 1 << 60)), "1,152,921,504,606,846,976 bytes"),
        (lambda data: data.replace(b"llama.block_count", b"\xff" * 17), "not UTF-8"),
        (
            lambda data: data.replace(b"tokenizer.ggml.tokens", b"tokenizer.ggml.nekots"),
            "no tokenizer.ggml.tokens",
        ),
    ],
)
def test_damaged_files(tmp_path: Path, edit: Callable[[bytes], bytes], said: str) -> None:
    path = write_gguf(tmp_path / "m.gguf", SMOLLM, "gpt2", "smollm", "<|endoftext|>")
    path.write_bytes(edit(path.read_bytes()))
    with pytest.raises(TokenizerError, match=said) as caught:
        load_tokenizer(path)
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_any_damage_ends_in_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.gguf"
    whole = tmp_path_factory.getbasetemp() / "whole.gguf"
    if not whole.exists():
        write_gguf(whole, SMOLLM, "gpt2", "smollm", "<|endoftext|>")
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(4, len(content)))])
    with contextlib.suppress(TokenizerError):
        tokenizer_json_of_gguf(path)
