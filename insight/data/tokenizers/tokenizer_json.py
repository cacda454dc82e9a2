"""The parts of a ``tokenizer.json``: alphabets, rules for words, templates and run-time options.

The format is that of Hugging Face's library `tokenizers` (https://github.com/huggingface/tokenizers).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from insight.runtime.errors import TokenizerError

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SPACE = "\u2581"
"""The character that SentencePiece (Kudo and Richardson 2018) writes for a space."""
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
# Pre-tokenizers that drop characters. Those with a "behavior" drop them only if it is "Removed".
_DROPPING = ("BertPreTokenizer", "CharDelimiterSplit", "Whitespace", "WhitespaceSplit")


def parsed(tokenizer_json: str, name: str) -> dict[str, Any]:
    """The JSON object in ``tokenizer_json``, or a TokenizerError that begins with ``name``."""
    remedy = "give the file that Hugging Face writes"
    try:
        data = json.loads(tokenizer_json)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{name}: not JSON ({error})", remedy) from error
    if not isinstance(data, dict):
        raise TokenizerError(f"{name}: not a tokenizer.json", remedy)
    return data


def document(
    pre_tokenizer: dict[str, Any] | None,
    decoder: dict[str, Any],
    model: dict[str, Any],
    *,
    normalizer: dict[str, Any] | None = None,
    added: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """The content of a ``tokenizer.json``, made of its parts."""
    start = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": list(added)}
    steps = {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": None}
    return {**start, **steps, "decoder": decoder, "model": model}


def bpe_model(vocabulary: dict[str, int], merges: list[list[str]], **options: Any) -> dict[str, Any]:
    """A model of byte-pair encoding, with the options of the library that differ from its defaults."""
    unset = dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"))
    off = dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False)
    return {"type": "BPE", **unset, **off, **options, "vocab": vocabulary, "merges": merges}


def added_token(index: int, name: str, special: bool = True, normalized: bool = False) -> dict[str, Any]:
    """An entry of ``added_tokens``."""
    off = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    return {"id": index, "content": name, **off, "normalized": normalized, "special": special}


def split(pattern: str) -> dict[str, Any]:
    """The step that cuts a text into the matches of a regular expression (Oniguruma)."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    """Several steps of a pre-tokenizer, one after the other."""
    return {"type": "Sequence", "pretokenizers": list(steps)}


def byte_level(use_regex: bool) -> dict[str, Any]:
    """The step that writes bytes as characters; with ``use_regex`` it also cuts by GPT-2's rule."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def added_tokens(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of ``added_tokens`` that are objects."""
    added = data.get("added_tokens")
    return [token for token in added if isinstance(token, dict)] if isinstance(added, list) else []


def special_names(data: dict[str, Any]) -> set[str]:
    """The names of the special tokens."""
    return {str(token.get("content")) for token in added_tokens(data) if token.get("special")}


_PRINTABLE = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
_OTHERS = iter(range(0x100, 0x200))
BYTE_CHARACTERS = tuple(chr(value if value in _PRINTABLE else next(_OTHERS)) for value in range(256))
"""The character that a byte-level ``tokenizer.json`` writes for each byte (Radford et al. 2019, GPT-2)."""
_BYTE_OF = {character: value for value, character in enumerate(BYTE_CHARACTERS)}


def token_text_of(data: dict[str, Any]) -> Callable[[str], bytes]:
    """A function from the name of a token to its bytes, for the content of a ``tokenizer.json``.

    SentencePiece writes ``▁`` for a space and ``<0x0A>`` for a byte whose character is not in the vocabulary;
    all other supported vocabularies are byte-level (GPT-2).
    """
    return _sentencepiece_bytes if "ByteFallback" in _kinds(data.get("decoder"), "decoders") else _level_bytes


def _level_bytes(token: str) -> bytes:
    try:
        return bytes([_BYTE_OF[character] for character in token])
    except KeyError:  # A token with a character outside the alphabet was added as plain text.
        return token.encode("utf-8")


def _sentencepiece_bytes(token: str) -> bytes:
    match = _BYTE.fullmatch(token)
    return bytes.fromhex(match[1]) if match else token.replace(SPACE, " ").encode("utf-8")


def _steps(step: Any, inner_key: str) -> list[dict[str, Any]]:
    """A step of a pipeline and all steps inside it."""
    if not isinstance(step, dict):
        return []
    inner = step.get(inner_key)
    return [step, *(each for item in inner for each in _steps(item, inner_key))] if inner else [step]


def _kinds(step: Any, inner_key: str) -> list[str]:
    return [str(each.get("type")) for each in _steps(step, inner_key)]


@dataclass(frozen=True)
class PreTokenizer:
    """A rule by which BPE first cuts a text into words; only parts of a word can become one token.

    Attributes:
        pattern: A regular expression (Oniguruma) whose matches are the words.
        boundaries: White space that no word joins to a preceding character that is not white space, as
            characters of a regular expression: a text may be cut before it without changing any id.
    """

    pattern: str
    boundaries: str

    def to_json(self) -> list[dict[str, Any]]:
        """The forms of this rule in a ``tokenizer.json``; the first one is written."""
        forms = [sequence(split(self.pattern), byte_level(use_regex=False))]
        # GPT-2's rule is built into the library, and that form was written before there were other rules.
        return [byte_level(use_regex=True), *forms] if self.pattern == GPT2_PATTERN else forms


PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    # Words with the space before them, numbers, punctuation (Radford et al. 2019).
    "gpt2": PreTokenizer(GPT2_PATTERN, r" \t\n\r"),
    # As GPT-2's, but with one token per digit, so that place value can be learnt (Nogueira et al. 2021, arXiv
    # 2102.13019; PaLM, Chowdhery et al. 2022, arXiv 2204.02311).
    "single_digits": PreTokenizer(
        r"'(?:[sdmt]|ll|ve|re)|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", r" \t\n\r"
    ),
    # The rule of GPT-4's vocabulary cl100k_base, as published with the library tiktoken. Punctuation includes
    # the line breaks after it, so a text cannot be cut at those.
    "gpt4": PreTokenizer(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
        r" \t",
    ),
}

NORMALIZATIONS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "nfc": {"type": "NFC"},
    "nfkc": {"type": "NFKC"},
    "lowercase": {"type": "Lowercase"},
}
"""The value of ``normalizer`` in a ``tokenizer.json`` by name; all but ``none`` lose text."""


def pre_tokenizer_of(data: dict[str, Any]) -> PreTokenizer | None:
    """The rule in the content of a ``tokenizer.json``, or ``None`` if it is not in ``PRE_TOKENIZERS``."""
    written = data.get("pre_tokenizer")
    return next((rule for rule in PRE_TOKENIZERS.values() if written in rule.to_json()), None)


def end_template(name: str, index: int) -> dict[str, Any]:
    """A template that appends the special token ``name`` with the id ``index`` to a text."""
    return {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": name, "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [index], "tokens": [name]}},
    }


def last_of_template(data: dict[str, Any]) -> str | None:
    """The special token that the template of a ``tokenizer.json`` appends to a text, or ``None``."""
    try:
        name = data["post_processor"]["single"][-1]["SpecialToken"]["id"]
    except (KeyError, IndexError, TypeError):
        return None
    return name if isinstance(name, str) else None


def merge_pairs(model: dict[str, Any]) -> list[tuple[str, str]]:
    """The merges of a BPE model as pairs of names; files write them as lists or as ``"left right"``."""
    pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model.get("merges") or [])
    return [(left, right) for left, right in pairs]


def without_run_time_options(data: dict[str, Any]) -> dict[str, Any]:
    """Clear the options that make ids random, cut or pad texts, or lose text.

    - ``dropout`` skips merges at random (BPE-dropout, Provilkov et al. 2020), which only helps training.
    - ``truncation`` and ``padding`` change the length of a text.
    - ``lstrip`` and ``rstrip`` of an added token that stands for text drop the white space next to it.
    - A merge that forms a special token would form it from plain text, which is then lost. Without the merge
      the text is encoded by smaller tokens.

    Special tokens keep their ``lstrip`` and ``rstrip``, since no text ever becomes one of them.

    Returns:
        ``data`` itself if it has none of these options, otherwise a changed copy.
    """
    cleared = data | {key: None for key in ("truncation", "padding") if key in data}
    added = added_tokens(data)
    stripped = [
        token | {key: False for key in ("lstrip", "rstrip") if key in token and not token.get("special")}
        for token in added
    ]
    if stripped != added:
        cleared["added_tokens"] = stripped
    model = data.get("model")
    if isinstance(model, dict):
        cleared["model"] = model | ({"dropout": None} if model.get("dropout") else {})
        special = special_names(data)
        made = [left + right for left, right in merge_pairs(model)]
        if not special.isdisjoint(made):
            pairs = zip(model["merges"], made, strict=True)
            cleared["model"]["merges"] = [pair for pair, token in pairs if token not in special]
    return data if cleared == data else cleared


def losses_of(data: dict[str, Any]) -> str:
    """Describe the text that a tokenizer drops or takes for a special token; ``""`` if there is none.

    Normalization does not count. The rules follow the steps of the library and find losses that samples miss.
    """
    for step in _steps(data.get("pre_tokenizer"), "pretokenizers"):
        if step.get("behavior") == "Removed" or step.get("type") in _DROPPING:
            return f"its pre-tokenizer {step.get('type')} drops characters"
    model = data["model"]
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict):
        return ""
    if model.get("byte_fallback"):
        needed = [f"<0x{value:02X}>" for value in range(256)]
    elif "ByteLevel" in _kinds(data.get("pre_tokenizer"), "pretokenizers"):
        needed = list(BYTE_CHARACTERS)
    else:
        return ""
    special = special_names(data)
    missing = [token for token in needed if token not in vocabulary]
    if missing:
        return f"its vocabulary lacks {len(missing)} of the 256 bytes, such as {missing[0]!r}"
    taken = special.intersection(needed)
    if model.get("ignore_merges"):
        # A word that is in the vocabulary is then one token, without any merge.
        rule = pre_tokenizer_of(data)
        taken |= {
            name for name in special if name in vocabulary and (rule is None or is_one_word(name, rule))
        }
    return f"its special token {min(taken)!r} is also made of plain text" if taken else ""


def is_one_word(name: str, rule: PreTokenizer) -> bool:
    """Whether a rule keeps the text of a byte-level token in one word, so that merges may form it."""
    from tokenizers import Regex, pre_tokenizers

    text = _level_bytes(name).decode("utf-8", errors="replace")
    split: Any = pre_tokenizers.Split(Regex(rule.pattern), "isolated")
    return len(split.pre_tokenize_str(text)) <= 1
