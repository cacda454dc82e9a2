"""A faster encoder, the library `fastokens`, used if it is installed and gives the same ids."""

from __future__ import annotations

import importlib
import importlib.metadata
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from insight.data.tokenizers.base import EncodedBatch
from insight.runtime.messages import say

_ALPHABETS = (
    "etaoinshrdlu .,'\"-\n",
    "éüßñøåçğıșžăęł",
    "абвгдежзийклмнопрст",
    "日本語中文字漢한국어カタカナ",
    "عربيةעבריתहिन्दीไทย",
    "👩‍👧🧿😀🏳️‍🌈🇫🇷",
    "0123456789.,%$€",
    "{}[]()<>=+*/\\|&^~`@#:;!?_",
    " \t\n\r\x0b\x0c\x1c\x85\u00a0\u2003\u3000\u200b",
    "\u0300\u0308\u0323\u20dd\ufeff\ufffd\x00\x01\x7f",
)
_CODE = (
    "def f(x: int) -> str:\n\treturn f'{x!r:>10}'  # it's\n\n\nif __name__ == \"__main__\":\r\n    f(0x7F)\n"
)
ENCODING_ERRORS = (ValueError, RuntimeError)
"""Errors of the library for texts beyond its limits, e.g. those of its regular expressions."""
_NUM_PROBES = 200
_SEED = 20260


class FastEncoder:
    """Encodes texts without creating an object for each token.

    Raises ImportError without the library, ValueError for a kind of tokenizer that it does not support, and
    one of ``ENCODING_ERRORS`` for a text beyond its limits.
    """

    def __init__(self, tokenizer_json: str) -> None:
        library: Any = importlib.import_module("fastokens")
        self._tokenizer: Any = library.Tokenizer.from_json_str(tokenizer_json)
        self.name = f"fastokens {importlib.metadata.version('fastokens')}"

    def encode(self, texts: Sequence[str]) -> EncodedBatch:
        """The ids of every text; names of special tokens in a text are plain text."""
        ids, offsets = self.encode_flat(texts)
        return EncodedBatch(ids.astype(np.int64), offsets.astype(np.int64))

    def encode_flat(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint64]]:
        """Ids and offsets as read-only views of the library's memory."""
        ids, offsets = self._tokenizer.encode_batch_flat(list(texts), split_special_tokens=True)
        return np.frombuffer(ids, dtype="<u4"), np.frombuffer(offsets, dtype="<u8")


def proven_encoder(
    tokenizer_json: str, special_tokens: Sequence[str], reference: Callable[[Sequence[str]], EncodedBatch]
) -> FastEncoder | None:
    """The fast encoder, if it is installed and gives the same ids as ``reference`` for every probe.

    The probes contain the names of the special tokens.
    """
    try:
        encoder = FastEncoder(tokenizer_json)
    except (ImportError, ValueError):
        return None
    texts = probes(special_tokens)
    expected = reference(texts)
    try:
        found = encoder.encode(texts)
    except ENCODING_ERRORS:
        return None
    if np.array_equal(expected.offsets, found.offsets) and np.array_equal(expected.ids, found.ids):
        return encoder
    say(f"{encoder.name} encodes some text differently than tokenizers does, and is not used")
    return None


def probes(special_tokens: Sequence[str]) -> list[str]:
    """Texts for which encoders tend to differ: scripts, emoji, code, white space, marks, special tokens."""
    source = random.Random(_SEED)
    pieces = [*special_tokens, "'s", "'LL", "'Re", "  ", "\r\n", _CODE]
    texts = ["", " ", _CODE, *special_tokens]
    while len(texts) < _NUM_PROBES:
        alphabets = source.sample(_ALPHABETS, source.randint(1, 4))
        words = []
        for _ in range(source.randint(1, 30)):
            letters = source.choice(alphabets)
            words.append("".join(source.choices(letters, k=source.randint(1, 8))))
            words.append(source.choice(pieces) if source.random() < 0.1 else source.choice(["", " ", " "]))
        texts.append("".join(words))
    return texts
