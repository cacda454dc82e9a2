"""Which characters may become one token at all: the rules by which BPE first cuts a text into words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
