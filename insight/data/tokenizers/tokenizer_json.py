"""The 256 printable characters that stand for the 256 bytes inside a byte-level tokenizer.json."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _alphabet() -> list[str]:
    """Character of each byte (Radford et al. 2019, GPT-2): itself where printable, else U+0100 onwards."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(value) if value in printable else chr(next(others)) for value in range(256)]


BYTE_CHARACTERS: tuple[str, ...] = tuple(_alphabet())
"""``BYTE_CHARACTERS[value]`` is the character that a tokenizer.json writes for that byte."""

_BYTE_OF = {character: value for value, character in enumerate(BYTE_CHARACTERS)}


def bytes_of_token(token: str) -> bytes:
    """The bytes that the token's text in a byte-level vocabulary stands for.

    A token with a character outside the alphabet was added as plain text and stands for its own UTF-8.
    """
    try:
        return bytes([_BYTE_OF[character] for character in token])
    except KeyError:
        return token.encode("utf-8")


_SPACE = "\u2581"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def token_text_of(data: dict[str, Any]) -> Callable[[str], bytes]:
    """Token name → bytes, for the content of a ``tokenizer.json``.

    SentencePiece (Kudo and Richardson 2018) writes ``▁`` for a space and ``<0x0A>`` for a byte that is no
    character of the vocabulary; everything else here is byte-level (GPT-2).
    """
    return _sentencepiece_bytes if "ByteFallback" in set(_kinds(data.get("decoder"))) else bytes_of_token


def _sentencepiece_bytes(token: str) -> bytes:
    match = _BYTE.fullmatch(token)
    return bytes.fromhex(match[1]) if match else token.replace(_SPACE, " ").encode("utf-8")


def _kinds(decoder: Any) -> list[str]:
    if not isinstance(decoder, dict):
        return []
    inner = decoder.get("decoders")
    below = [kind for item in inner for kind in _kinds(item)] if isinstance(inner, list) else []
    return [str(decoder.get("type")), *below]


GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class PreTokenizer:
    r"""One rule.

    Attributes:
        description: For people.
        pattern: Regular expression (Oniguruma) whose matches are the words.
        boundaries: White space that no word joins to a character before it that is not white space, as
            characters of a regular expression: a text may be cut there without changing any id.
    """

    description: str
    pattern: str
    boundaries: str

    def to_json(self) -> list[dict[str, Any]]:
        """What a ``tokenizer.json`` may say for it; the first is what is written."""
        split = {
            "type": "Split",
            "pattern": {"Regex": self.pattern},
            "behavior": "Isolated",
            "invert": False,
        }
        forms = [{"type": "Sequence", "pretokenizers": [split, _byte_level(use_regex=False)]}]
        # The library has GPT-2's rule built in, and that form was written before there were others.
        return [_byte_level(use_regex=True), *forms] if self.pattern == GPT2_PATTERN else forms


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    # Radford et al. 2019.
    "gpt2": PreTokenizer("words with the space before them, numbers, punctuation", GPT2_PATTERN, r" \t\n\r"),
    # GPT-2's, but a number is as many tokens as it has digits, so that place value can be learnt
    # (Nogueira et al. 2021, arXiv 2102.13019; PaLM, Chowdhery et al. 2022, arXiv 2204.02311).
    "single_digits": PreTokenizer(
        "as gpt2, each digit on its own",
        r"'(?:[sdmt]|ll|ve|re)|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r" \t\n\r",
    ),
    # The rule of GPT-4's vocabulary cl100k_base, as published with the library tiktoken. Punctuation takes
    # the line breaks behind it, so those are no place to cut.
    "gpt4": PreTokenizer(
        "as gpt2, numbers in threes, line breaks with the punctuation before them, case-blind contractions",
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
"""Name → what a ``tokenizer.json`` says; all but ``none`` lose text."""


def pre_tokenizer_of(data: dict[str, Any]) -> PreTokenizer | None:
    """The rule in the content of a ``tokenizer.json``, or ``None`` if it is not one of ours."""
    written = data.get("pre_tokenizer")
    return next((rule for rule in PRE_TOKENIZERS.values() if written in rule.to_json()), None)


def end_template(name: str, index: int) -> dict[str, Any]:
    """A template that puts the token ``name`` with the id ``index`` behind a text."""
    return {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": name, "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [index], "tokens": [name]}},
    }


def last_of_template(data: dict[str, Any]) -> str | None:
    """The special token that the template of a ``tokenizer.json`` puts behind a text."""
    processor = data.get("post_processor")
    single = processor.get("single") if isinstance(processor, dict) else None
    last = single[-1] if isinstance(single, list) and single else None
    token = last.get("SpecialToken") if isinstance(last, dict) else None
    name = token.get("id") if isinstance(token, dict) else None
    return name if isinstance(name, str) else None
