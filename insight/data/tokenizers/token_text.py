"""Which bytes a token's name in a vocabulary stands for: each family of tokenizers has its own alphabet."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from insight.data.tokenizers.byte_alphabet import bytes_of_token

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
