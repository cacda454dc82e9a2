"""A tokenizer that somebody else trained, from its tokenizer.json."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insight.data.tokenizers.base import END_OF_TEXT, BaseTokenizer, TokenizerConfig
from insight.data.tokenizers.library import LibraryTokenizer
from insight.runtime.errors import ConfigError, TokenizerError

_END_OF_TEXT_NAMES = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "<|im_end|>")
_PROBES = (
    "Hello, world!  It's  2 spaces,\ttabs\r\nand\n\nlines. ",
    " leading space",
    "naïve café — “quotes” … ∑ ﷽",
    "日本語のテキスト и русский",
    "👩‍👩‍👧 emoji \x00\x01 control",
)


class PretrainedTokenizer(LibraryTokenizer):
    """Any byte-level ``tokenizer.json`` that gives back the text it was given.

    Its end-of-text token is the first of ``<|endoftext|>``, ``<|end_of_text|>``, ``</s>``, ``<eos>``,
    ``<|eos|>``, ``[EOS]``, ``<|im_end|>`` among its special tokens. Texts are encoded without the special
    tokens that its template would add. A tokenizer that normalises to NFC is accepted; bytes are then those
    of the normalised text.

    Args:
        tokenizer_json: The content of the file.
        name: What messages call it.

    Raises:
        TokenizerError: It is damaged, has no end-of-text token, or loses text.
    """

    def __init__(self, tokenizer_json: str, name: str = "tokenizer.json") -> None:
        try:
            data = json.loads(tokenizer_json)
            special = {token["content"] for token in data["added_tokens"] if token["special"]}
        except (ValueError, KeyError, TypeError) as error:
            raise TokenizerError(
                f"{name}: not a tokenizer.json", "give the file that Hugging Face writes"
            ) from error
        known = [token for token in _END_OF_TEXT_NAMES if token in special]
        if not known:
            raise TokenizerError(
                f"{name}: no special token that ends a text (it has {', '.join(sorted(special)) or 'none'})",
                f"add one of {', '.join(_END_OF_TEXT_NAMES)}",
            )
        super().__init__(tokenizer_json, known[0])
        for probe in _PROBES:
            if self.decode(self.encode(probe)) != probe:
                raise TokenizerError(
                    f"{name}: loses text ({probe!r} comes back as {self.decode(self.encode(probe))!r})",
                    "use a byte-level tokenizer",
                )


@dataclass(frozen=True)
class PretrainedTokenizerConfig(TokenizerConfig):
    """Use an existing tokenizer.

    Args:
        path: A ``tokenizer.json`` or a folder that holds one.
    """

    path: str

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError("path='': names no tokenizer", "give a tokenizer.json or its folder")

    def build(self, texts: Iterable[str]) -> BaseTokenizer:
        """Read the file; ``texts`` are not read.

        Raises:
            TokenizerError: It is missing, damaged, or loses text.
        """
        from insight.data.tokenizers.loading import load_tokenizer

        return load_tokenizer(self.path)


def read_tokenizer_file(path: str | os.PathLike[str]) -> str:
    """The content of a ``tokenizer.json``, named itself or by its folder.

    Raises:
        TokenizerError: It is missing or cannot be read.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        file = file / "tokenizer.json"
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise TokenizerError(
            f"{file}: no such file", "give a tokenizer.json or a folder that holds one"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{file}: cannot be read ({error})", "make or fetch it again") from error


def parsed(tokenizer_json: str, name: str) -> dict[str, Any]:
    """The JSON object in ``tokenizer_json``.

    Raises:
        TokenizerError: It is not JSON or not an object.
    """
    try:
        data = json.loads(tokenizer_json)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(
            f"{name}: not JSON ({error})", "give the file that Hugging Face writes"
        ) from error
    if not isinstance(data, dict):
        raise TokenizerError(f"{name}: not a tokenizer.json", "give the file that Hugging Face writes")
    return data
