"""Convert the tokenizer inside a GGUF file into the content of a ``tokenizer.json``.

Only the metadata at the front of the file is read (versions 2 and 3, little-endian); nothing is executed. The
format is described in https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; the rules for words have the
names of `llama-vocab.cpp` in llama.cpp. The library `gguf` reads such files too, but without any bounds.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from insight.data.tokenizers.tokenizer_json import PRE_TOKENIZERS, byte_level, end_template
from insight.runtime.errors import TokenizerError

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# Bounds above every valid file, so that a damaged or hostile one cannot take all memory.
_MOST_PAIRS = 1 << 16
_MOST_ITEMS = 1 << 24
_MOST_STRING_BYTES = 1 << 24
_MOST_DEPTH = 4


def read_gguf_metadata(path: str | Path, prefix: str = "") -> dict[str, Any]:
    """The values whose names begin with ``prefix``: numbers, ``bool``, ``str``, and lists of those.

    Raises:
        TokenizerError: The file cannot be read, is not a GGUF file, has an unknown version, or is damaged.
    """
    try:
        with open(path, "rb") as file:
            return _Reader(file, str(path)).metadata(prefix)
    except OSError as error:
        raise TokenizerError(
            f"{path}: cannot be read ({error.strerror or error})", "check the file and its permissions"
        ) from error


class _Reader:
    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        self._name = name

    def metadata(self, prefix: str) -> dict[str, Any]:
        if self._file.read(4) != MAGIC:
            raise TokenizerError(f"{self._name}: not a GGUF file", "give one that begins with GGUF")
        version = self._scalar("I")
        if version not in _VERSIONS:
            raise TokenizerError(
                f"{self._name}: GGUF version {version}", "convert it again; versions 2 and 3 are read"
            )
        self._scalar("Q")  # Number of tensors.
        num_pairs = self._count(_MOST_PAIRS, "values")
        found = {}
        for _ in range(num_pairs):
            key = self._string()
            kind = self._scalar("I")
            if key.startswith(prefix):
                found[key] = self._value(kind, _MOST_DEPTH)
            else:
                self._skip(kind, _MOST_DEPTH)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._scalar(self._code(kind))
        item_kind, count = self._array_header(depth)
        if item_kind in (_STRING, _ARRAY):
            return [self._value(item_kind, depth - 1) for _ in range(count)]
        dtype = np.dtype(self._code(item_kind)).newbyteorder("<")
        return np.frombuffer(self._bytes(count * dtype.itemsize), dtype=dtype).tolist()

    def _skip(self, kind: int, depth: int) -> None:
        if kind == _STRING:
            self._bytes(self._count(_MOST_STRING_BYTES, "bytes"))
        elif kind != _ARRAY:
            self._scalar(self._code(kind))
        else:
            item_kind, count = self._array_header(depth)
            if item_kind in (_STRING, _ARRAY):
                for _ in range(count):
                    self._skip(item_kind, depth - 1)
            else:
                self._bytes(count * struct.calcsize(self._code(item_kind)))

    def _array_header(self, depth: int) -> tuple[int, int]:
        if depth == 0:
            self._damaged("lists inside lists inside lists")
        return self._scalar("I"), self._count(_MOST_ITEMS, "items")

    def _string(self) -> str:
        data = self._bytes(self._count(_MOST_STRING_BYTES, "bytes"))
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            self._damaged("a text that is not UTF-8")

    def _count(self, most: int, unit: str) -> int:
        count: int = self._scalar("Q")
        if count > most:
            self._damaged(f"{count:,} {unit}")
        return count

    def _code(self, kind: int) -> str:
        if kind not in _SCALARS:
            self._damaged(f"a value of type {kind}")
        return _SCALARS[kind]

    def _scalar(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._bytes(struct.calcsize(f"<{code}")))[0]

    def _bytes(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            self._damaged("it ends too early")
        return data

    def _damaged(self, reason: str) -> NoReturn:
        raise TokenizerError(f"{self._name}: damaged GGUF file ({reason})", "make or fetch it again")


_PREFIX = "tokenizer.ggml."
# Kinds of tokens; 5 means unused, 6 a byte.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4
_DIGITS = {"type": "Digits", "individual_digits": True}
_SPACE = "\u2581"


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


_GPT2 = byte_level(use_regex=True)
_LLAMA3 = PRE_TOKENIZERS["gpt4"].to_json()[0]
# As in GPT-4's rule, but each digit is a word; published in the tokenizer.json of Qwen 2.
_QWEN2 = _sequence(
    _split(PRE_TOKENIZERS["gpt4"].pattern.replace(r"\p{N}{1,3}", r"\p{N}")), byte_level(use_regex=False)
)
_SMOLLM = _sequence(_DIGITS, _GPT2)
# Name of the rule → (its form in a tokenizer.json, whether words that are tokens skip merges, normalizer).
_RULES: dict[str, tuple[dict[str, Any], bool, dict[str, Any] | None]] = {
    **dict.fromkeys(
        ("gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "granite-docling"), (_GPT2, False, None)
    ),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), (_LLAMA3, True, None)),
    **dict.fromkeys(("dbrx", "smaug-bpe"), (_LLAMA3, False, None)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), (_QWEN2, False, {"type": "NFC"})),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), (_SMOLLM, False, None)),
}


def tokenizer_json_of_gguf(path: str | Path) -> str:
    """The content of a ``tokenizer.json`` with the same ids as the tokenizer in a GGUF file.

    Supported are byte-level BPE (``gpt2``) with a known rule for words, and SentencePiece's BPE (``llama``).

    Raises:
        TokenizerError: The file cannot be read, is damaged, or holds no supported tokenizer.
    """
    found = _Values(read_gguf_metadata(path, _PREFIX), str(path))
    model = found.text("model")
    builders: dict[str, Callable[[_Values], dict[str, Any]]] = {
        "gpt2": _byte_level_bpe,
        "llama": _sentencepiece,
    }
    if model not in builders:
        raise TokenizerError(
            f"{path}: its tokenizer is of kind {model!r}",
            f"known: {', '.join(builders)}; use its tokenizer.json",
        )
    data = builders[model](found)
    return json.dumps({**data, "post_processor": _template(found)}, ensure_ascii=False)


class _Values:
    """The values of a file by name, with errors for missing values and wrong kinds."""

    def __init__(self, values: dict[str, Any], name: str) -> None:
        self._values = values
        self.name = name
        self.tokens = self.texts("tokens")
        self.kinds: list[int] = self.numbers("token_type", [_NORMAL] * len(self.tokens))
        if len(set(self.tokens)) != len(self.tokens) or not self.tokens:
            raise self.damaged("tokens that are equal, or none")

    def get(self, key: str, default: Any = None) -> Any:
        return self._values.get(_PREFIX + key, default)

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str):
            raise TokenizerError(f"{self.name}: no {_PREFIX}{key} in it", "give a GGUF file with a tokenizer")
        return value

    def texts(self, key: str) -> list[str]:
        value = self.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise TokenizerError(f"{self.name}: no {_PREFIX}{key} in it", "give a GGUF file with a tokenizer")
        return value

    def numbers(self, key: str, default: Sequence[float] | None = None) -> list[Any]:
        value = self.get(key, default)
        if not isinstance(value, list) or len(value) != len(self.tokens):
            raise self.damaged(f"{_PREFIX}{key} is not a number for each token")
        return value

    def token(self, key: str) -> str | None:
        """The token whose id is stored under ``key``; ``None`` if the value is missing."""
        index = self.get(key)
        if index is None:
            return None
        if not isinstance(index, int) or not 0 <= index < len(self.tokens):
            raise self.damaged(f"{_PREFIX}{key}={index!r} is no token")
        return self.tokens[index]

    def damaged(self, reason: str) -> TokenizerError:
        return TokenizerError(f"{self.name}: damaged GGUF file ({reason})", "make or fetch it again")


def _byte_level_bpe(found: _Values) -> dict[str, Any]:
    rule = found.get("pre")
    if rule not in _RULES:
        raise TokenizerError(
            f"{found.name}: cuts words by the rule {rule!r}, which is not known",
            f"known: {', '.join(_RULES)}; use its tokenizer.json",
        )
    pre_tokenizer, ignore_merges, normalizer = _RULES[rule]
    merges = [merge.split(" ") for merge in found.texts("merges")]
    vocabulary = {token: index for index, token in enumerate(found.tokens)}
    for merge in merges:
        if len(merge) != 2 or not {*merge, "".join(merge)} <= vocabulary.keys():
            raise found.damaged(f"a merge of {merge!r}")
    return {
        **_frame(found, normalized=False),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "decoder": byte_level(use_regex=True),
        "model": {**_bpe(vocabulary, merges), "ignore_merges": ignore_merges},
    }


def _sentencepiece(found: _Values) -> dict[str, Any]:
    """BPE whose merges follow from the scores of the tokens (Kudo and Richardson 2018)."""
    scores = found.numbers("scores")
    vocabulary = {token: index for index, token in enumerate(found.tokens)}
    unknown = found.token("unknown_token_id")
    if unknown is None:
        unknown = next((found.tokens[i] for i, kind in enumerate(found.kinds) if kind == _UNKNOWN), None)
    steps: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}]
    undo: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if found.get("add_space_prefix", True):
        steps = [{"type": "Prepend", "prepend": _SPACE}, *steps]
        undo = [*undo, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    model = _bpe(vocabulary, _merges_by_score(found, vocabulary, scores))
    return {
        **_frame(found, normalized=True),
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": undo},
        "model": {**model, "unk_token": unknown, "fuse_unk": True, "byte_fallback": True},
    }


def _merges_by_score(found: _Values, vocabulary: dict[str, int], scores: list[float]) -> list[list[str]]:
    """All pairs of tokens that form a token, in the order of that token's score."""
    ranked = []
    for index, token in enumerate(found.tokens):
        if found.kinds[index] != _NORMAL:
            continue
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocabulary and right in vocabulary:
                # A pair of better parts comes before other pairs that form the same token.
                parts = sorted((vocabulary[left], vocabulary[right]))
                ranked.append((-scores[index], index, parts, left, right))
    return [[left, right] for *_, left, right in sorted(ranked)]


def _frame(found: _Values, normalized: bool) -> dict[str, Any]:
    added = []
    for index, (token, kind) in enumerate(zip(found.tokens, found.kinds, strict=True)):
        is_special = kind in (_CONTROL, _UNKNOWN)
        if is_special or kind == _USER_DEFINED:
            added.append(
                {
                    "id": index,
                    "content": token,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": normalized and not is_special,
                    "special": is_special,
                }
            )
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added}


def _bpe(vocabulary: dict[str, int], merges: list[list[str]]) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": merges,
    }


def _template(found: _Values) -> dict[str, Any] | None:
    end = found.token("eos_token_id")
    return end_template(end, found.tokens.index(end)) if end is not None else None
