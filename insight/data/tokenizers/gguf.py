"""Convert the tokenizer inside a GGUF file into the content of a ``tokenizer.json``.

Only the metadata at the front of the file is read (versions 2 and 3, little-endian); nothing is executed. The
format is described in https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; the rules for words have the
names of `llama-vocab.cpp` in llama.cpp. The library `gguf` reads such files too, but without any bounds.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from insight.data.tokenizers import tokenizer_json as parts
from insight.data.tokenizers.tokenizer_json import PRE_TOKENIZERS, SPACE, byte_level
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
        problem = f"{path}: cannot be read ({error.strerror or error})"
        raise TokenizerError(problem, "check the file and its permissions") from error


@dataclass
class _Reader:
    file: IO[bytes]
    name: str

    def metadata(self, prefix: str) -> dict[str, Any]:
        if self.file.read(4) != MAGIC:
            raise TokenizerError(f"{self.name}: not a GGUF file", "give one that begins with GGUF")
        version = self._scalar("I")
        if version not in _VERSIONS:
            problem, remedy = f"GGUF version {version}", "convert it again; versions 2 and 3 are read"
            raise TokenizerError(f"{self.name}: {problem}", remedy)
        self._scalar("Q")  # Number of tensors.
        found = {}
        for _ in range(self._count(_MOST_PAIRS, "values")):
            key = self._value(_STRING)
            is_wanted = key.startswith(prefix)
            value = self._value(self._scalar("I"), is_wanted)
            if is_wanted:
                found[key] = value
        return found

    def _value(self, kind: int, is_wanted: bool = True, depth: int = _MOST_DEPTH) -> Any:
        """Read past a value, and return it if it is wanted."""
        if kind == _STRING:
            data = self._bytes(self._count(_MOST_STRING_BYTES, "bytes"))
            try:
                return data.decode("utf-8") if is_wanted else None
            except UnicodeDecodeError as error:
                raise _damaged(self.name, "a text that is not UTF-8") from error
        if kind != _ARRAY:
            return self._scalar(self._code(kind))
        if depth == 0:
            raise _damaged(self.name, "lists inside lists inside lists")
        item_kind, count = self._scalar("I"), self._count(_MOST_ITEMS, "items")
        if item_kind in (_STRING, _ARRAY):
            return [self._value(item_kind, is_wanted, depth - 1) for _ in range(count)]
        dtype = np.dtype(self._code(item_kind)).newbyteorder("<")
        data = self._bytes(count * dtype.itemsize)
        return np.frombuffer(data, dtype=dtype).tolist() if is_wanted else None

    def _count(self, most: int, unit: str) -> int:
        count: int = self._scalar("Q")
        if count > most:
            raise _damaged(self.name, f"{count:,} {unit}")
        return count

    def _code(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise _damaged(self.name, f"a value of type {kind}")
        return _SCALARS[kind]

    def _scalar(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._bytes(struct.calcsize(f"<{code}")))[0]

    def _bytes(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) != count:
            raise _damaged(self.name, "it ends too early")
        return data


def _damaged(name: str, reason: str) -> TokenizerError:
    return TokenizerError(f"{name}: damaged GGUF file ({reason})", "make or fetch it again")


_PREFIX = "tokenizer.ggml."
# Kinds of tokens; 5 means unused, 6 a byte.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4

_GPT2 = byte_level(use_regex=True)
_LLAMA3 = PRE_TOKENIZERS["gpt4"].to_json()[0]
# As in GPT-4's rule, but each digit is a word; published in the tokenizer.json of Qwen 2.
_QWEN2 = parts.PreTokenizer(PRE_TOKENIZERS["gpt4"].pattern.replace(r"\p{N}{1,3}", r"\p{N}"), "").to_json()[0]
_SMOLLM = parts.sequence({"type": "Digits", "individual_digits": True}, _GPT2)
# Name of the rule → (its form in a tokenizer.json, whether words that are tokens skip merges, normalizer).
_RULES: dict[str, tuple[dict[str, Any], bool, dict[str, Any] | None]] = {
    **dict.fromkeys(("gpt-2", "gpt2", "phi-2", "mpt", "olmo"), (_GPT2, False, None)),
    **dict.fromkeys(("jais", "granite-docling"), (_GPT2, False, None)),
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
    model = found.get("model", str)
    builders = {"gpt2": _byte_level_bpe, "llama": _sentencepiece}
    if model not in builders:
        problem = f"{path}: its tokenizer is of kind {model!r}"
        raise TokenizerError(problem, f"known: {', '.join(builders)}; use its tokenizer.json")
    data = builders[model](found)
    if (end := found.token("eos_token_id")) is not None:
        data["post_processor"] = parts.end_template(end, found.tokens.index(end))
    return json.dumps(data, ensure_ascii=False)


class _Values:
    """The values of a file by name, with errors for missing values and wrong kinds."""

    def __init__(self, values: dict[str, Any], name: str) -> None:
        self._values = values
        self.name = name
        self.tokens: list[str] = self.get("tokens", list)
        self.ids = {token: index for index, token in enumerate(self.tokens)}
        self.kinds = self.numbers("token_type", [_NORMAL] * len(self.tokens))
        if len(self.ids) != len(self.tokens) or not self.tokens:
            raise _damaged(name, "tokens that are equal, or none")

    def get(self, key: str, kind: type[str] | type[list[str]]) -> Any:
        """The text, or the list of texts, under ``key``."""
        value = self.optional(key)
        items = value if kind is list and isinstance(value, list) else [value]
        if not isinstance(value, kind) or not all(isinstance(item, str) for item in items):
            raise TokenizerError(f"{self.name}: no {_PREFIX}{key} in it", "give a GGUF file with a tokenizer")
        return value

    def optional(self, key: str, default: Any = None) -> Any:
        return self._values.get(_PREFIX + key, default)

    def numbers(self, key: str, default: list[int] | None = None) -> list[Any]:
        value = self.optional(key, default)
        if not isinstance(value, list) or len(value) != len(self.tokens):
            raise _damaged(self.name, f"{_PREFIX}{key} is not a number for each token")
        return value

    def token(self, key: str) -> str | None:
        """The token whose id is stored under ``key``; ``None`` if the value is missing."""
        index = self.optional(key)
        if index is not None and not (isinstance(index, int) and 0 <= index < len(self.tokens)):
            raise _damaged(self.name, f"{_PREFIX}{key}={index!r} is no token")
        return None if index is None else self.tokens[index]

    def added(self, normalized: bool) -> list[dict[str, Any]]:
        """The special tokens, and those that stand for text but are no part of the model."""
        return [
            parts.added_token(index, token, special, normalized and not special)
            for index, (token, kind) in enumerate(zip(self.tokens, self.kinds, strict=True))
            if (special := kind in (_CONTROL, _UNKNOWN)) or kind == _USER_DEFINED
        ]


def _byte_level_bpe(found: _Values) -> dict[str, Any]:
    rule = found.optional("pre")
    if rule not in _RULES:
        problem = f"{found.name}: cuts words by the rule {rule!r}, which is not known"
        raise TokenizerError(problem, f"known: {', '.join(_RULES)}; use its tokenizer.json")
    pre_tokenizer, ignore_merges, normalizer = _RULES[rule]
    merges = [merge.split(" ") for merge in found.get("merges", list)]
    for merge in merges:
        if len(merge) != 2 or not {*merge, "".join(merge)} <= found.ids.keys():
            raise _damaged(found.name, f"a merge of {merge!r}")
    model = parts.bpe_model(found.ids, merges, ignore_merges=ignore_merges)
    added = found.added(normalized=False)
    return parts.document(
        pre_tokenizer, byte_level(use_regex=True), model, normalizer=normalizer, added=added
    )


def _sentencepiece(found: _Values) -> dict[str, Any]:
    """BPE whose merges follow from the scores of the tokens (Kudo and Richardson 2018)."""
    unknown = found.token("unknown_token_id")
    if unknown is None:
        unknown = next((found.tokens[i] for i, kind in enumerate(found.kinds) if kind == _UNKNOWN), None)
    steps: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]
    undo: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if found.optional("add_space_prefix", True):
        steps = [{"type": "Prepend", "prepend": SPACE}, *steps]
        undo = [*undo, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    model = parts.bpe_model(
        found.ids, _merges_by_score(found), unk_token=unknown, fuse_unk=True, byte_fallback=True
    )
    return parts.document(
        None,
        {"type": "Sequence", "decoders": undo},
        model,
        normalizer={"type": "Sequence", "normalizers": steps},
        added=found.added(normalized=True),
    )


def _merges_by_score(found: _Values) -> list[list[str]]:
    """All pairs of tokens that form a token, in the order of that token's score."""
    scores, ids = found.numbers("scores"), found.ids
    ranked = []
    for index, token in enumerate(found.tokens):
        if found.kinds[index] != _NORMAL:
            continue
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                # A pair of better parts comes before other pairs that form the same token.
                pair = sorted((ids[left], ids[right]))
                ranked.append((-scores[index], index, pair, left, right))
    return [[left, right] for *_, left, right in sorted(ranked)]
