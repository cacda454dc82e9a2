"""A tokenizer that somebody else trained, from its tokenizer.json."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insight.data.tokenizers.base import END_OF_TEXT, BaseTokenizer, TokenizerConfig
from insight.data.tokenizers.bpe import BPETokenizer, is_bpe_tokenizer
from insight.data.tokenizers.byte import ByteTokenizer, is_byte_tokenizer
from insight.data.tokenizers.gguf import MAGIC, tokenizer_json_of_gguf
from insight.data.tokenizers.library import SegmentedTokenizer
from insight.data.tokenizers.tokenizer_json import (
    NORMALIZATIONS,
    end_template,
    last_of_template,
    pre_tokenizer_of,
)
from insight.data.tokenizers.word import WordTokenizer, is_word_tokenizer
from insight.runtime.errors import ConfigError, TokenizerError

_END_OF_TEXT_NAMES = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "<|im_end|>")
_PROBES = (
    "Hello, world!  It's  2 spaces,\ttabs\r\nand\n\nlines. ",
    " leading space",
    "naïve café — “quotes” … ∑ ﷽",
    "日本語のテキスト и русский",
    "👩‍👩‍👧 emoji \x00\x01 control",
)


class PretrainedTokenizer(SegmentedTokenizer):
    """Any ``tokenizer.json`` that gives back the text it was given: byte-level, or SentencePiece with bytes.

    Its end-of-text token is the first of ``<|endoftext|>``, ``<|end_of_text|>``, ``</s>``, ``<eos>``,
    ``<|eos|>``, ``[EOS]``, ``<|im_end|>`` among its special tokens, else the one that its template puts
    behind a text. Texts are encoded without the special tokens that its template would add. A tokenizer that
    normalises to NFC is accepted; bytes are then those of the normalised text.

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
        candidates = (*_END_OF_TEXT_NAMES, last_of_template(data))
        known = [token for token in candidates if token is not None and token in special]
        if not known:
            raise TokenizerError(
                f"{name}: no special token that ends a text (it has {', '.join(sorted(special)) or 'none'})",
                f"add one of {', '.join(_END_OF_TEXT_NAMES)}",
            )
        super().__init__(tokenizer_json, known[0])
        for probe in _PROBES:
            if (decoded := self.decode(self.encode(probe))) != probe:
                raise TokenizerError(
                    f"{name}: loses text ({probe!r} comes back as {decoded!r})",
                    "it puts a space before every text; use a tokenizer without a dummy prefix"
                    if decoded == f" {probe}"
                    else "use a byte-level tokenizer",
                )

    def _boundaries(self, data: dict[str, Any]) -> str | None:
        rule = pre_tokenizer_of(data)
        # Plain text that was added as a token may hold white space, and is looked for before words are.
        plain_added = any(not token["special"] for token in data["added_tokens"])
        known_normalizer = data.get("normalizer") in NORMALIZATIONS.values()
        return rule.boundaries if rule and known_normalizer and not plain_added else None


@dataclass(frozen=True)
class PretrainedTokenizerConfig(TokenizerConfig):
    """Use an existing tokenizer.

    Args:
        path: A ``tokenizer.json``, a folder that holds one (a Hugging Face model, a run), or a GGUF file.
    """

    path: str

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError(
                "path='': names no tokenizer", "give a tokenizer.json, its folder or a GGUF file"
            )

    def build(self, texts: Iterable[str]) -> BaseTokenizer:
        """Read the file; ``texts`` are not read.

        Raises:
            TokenizerError: It is missing, damaged, or loses text.
        """
        from insight.data.tokenizers.pretrained import load_tokenizer

        return load_tokenizer(self.path)


def read_tokenizer_file(path: str | os.PathLike[str]) -> str:
    """The content of a ``tokenizer.json``, named itself or by its folder, or of the tokenizer in a GGUF file.

    Where the folder is one of Hugging Face's, and its ``tokenizer_config.json`` names an ``eos_token`` that
    only it knows to end a text, the content says so in its template, so that it explains itself from then on.

    Raises:
        TokenizerError: It is missing or cannot be read.
    """
    file = Path(path).expanduser()
    if not file.is_dir():
        return tokenizer_json_of_gguf(file) if _is_gguf(file) else _read(file)
    content = _read(file / "tokenizer.json")
    config = file / "tokenizer_config.json"
    if not config.is_file():
        return content
    return _with_end_of_text(parsed(content, str(file)), parsed(_read(config), str(config))) or content


def _is_gguf(file: Path) -> bool:
    """By its first bytes, whatever it is called."""
    try:
        with open(file, "rb") as opened:
            return opened.read(len(MAGIC)) == MAGIC
    except OSError:
        return False  # said by whoever reads it


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise TokenizerError(
            f"{file}: no such file", "give a tokenizer.json, a folder that holds one, or a GGUF file"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{file}: cannot be read ({error})", "make or fetch it again") from error


def _with_end_of_text(data: dict[str, Any], config: dict[str, Any]) -> str | None:
    """The file with a template that ends in the configured ``eos_token``; ``None`` where nothing is to do."""
    named = config.get("eos_token")
    name = named.get("content") if isinstance(named, dict) else named
    added = data.get("added_tokens")
    tokens = [token for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    special = {token.get("content"): token.get("id") for token in tokens if token.get("special") is True}
    if name not in special or special.keys() & set(_END_OF_TEXT_NAMES) or last_of_template(data) == name:
        return None
    return json.dumps(
        {**data, "post_processor": end_template(str(name), int(special[name] or 0))}, ensure_ascii=False
    )


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


def load_tokenizer(path_or_json: str | os.PathLike[str]) -> BaseTokenizer:
    """The tokenizer in a file, a folder or a string.

    Args:
        path_or_json: A ``tokenizer.json``, a folder that holds one, a GGUF file, or the content of a
            ``tokenizer.json`` (starts with ``{``).

    Raises:
        TokenizerError: It is missing, damaged, has no end-of-text token, or loses text.
    """
    if not isinstance(path_or_json, (str, os.PathLike)) or not os.fspath(path_or_json):
        raise TokenizerError(
            f"{path_or_json!r} names no tokenizer", "give a tokenizer.json, its folder or its content"
        )
    if isinstance(path_or_json, str) and path_or_json.lstrip().startswith("{"):
        content, name = path_or_json, "tokenizer.json"
    else:
        content, name = read_tokenizer_file(path_or_json), os.fspath(path_or_json)
    data = parsed(content, name)
    if is_byte_tokenizer(data):
        return ByteTokenizer()
    if is_bpe_tokenizer(data):
        return BPETokenizer(content)
    if is_word_tokenizer(data):
        return WordTokenizer(content)
    return PretrainedTokenizer(content, name)
