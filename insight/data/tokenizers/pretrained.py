"""Open existing tokenizers: any tokenizer.json, as the class that wrote it, or a GGUF file."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insight.data.tokenizers import tokenizer_json as parts
from insight.data.tokenizers.base import END_OF_TEXT, BaseTokenizer, TokenizerConfig
from insight.data.tokenizers.bpe import BPETokenizer, is_bpe_tokenizer
from insight.data.tokenizers.byte import ByteTokenizer, is_byte_tokenizer
from insight.data.tokenizers.gguf import MAGIC, tokenizer_json_of_gguf
from insight.data.tokenizers.library import LibraryTokenizer
from insight.data.tokenizers.tokenizer_json import last_of_template, parsed
from insight.data.tokenizers.word import WordTokenizer, is_word_tokenizer
from insight.runtime.errors import ConfigError, TokenizerError
from insight.runtime.files import missing_path_remedy

_END_OF_TEXT_NAMES = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "<|im_end|>")
_PROBES = (
    "Hello, world!  It's  2 spaces,\ttabs\r\nand\n\nlines. ",
    " leading space",
    "naïve café — “quotes” … ∑ ﷽",
    "日本語のテキスト и русский",
    "👩‍👩‍👧 emoji \x00\x01 control",
)
_WHAT_TO_GIVE = "give a tokenizer.json, a folder that holds one, or a GGUF file"


class PretrainedTokenizer(LibraryTokenizer):
    """Any lossless ``tokenizer.json``: byte-level, or SentencePiece with byte fallback.

    Its end-of-text token is the first of ``<|endoftext|>``, ``<|end_of_text|>``, ``</s>``, ``<eos>``,
    ``<|eos|>``, ``[EOS]``, ``<|im_end|>`` among its special tokens, else the one that its template appends to
    a text. Texts are encoded without the special tokens of the template. A tokenizer that normalizes to NFC
    is accepted; the bytes of its tokens are then those of the normalized text.

    Run-time options are cleared: dropout, truncation, padding, white space stripped by added tokens, and
    merges that would form a special token from plain text.

    Args:
        tokenizer_json: The content of the file.
        name: Name of the file in messages.

    Raises:
        TokenizerError: The file is damaged, has no end-of-text token, or loses text.
    """

    def __init__(self, tokenizer_json: str, name: str = "tokenizer.json") -> None:
        data = parsed(tokenizer_json, name)
        if not isinstance(data.get("model"), dict) or not isinstance(data.get("added_tokens"), list):
            raise TokenizerError(f"{name}: not a tokenizer.json", "give the file that Hugging Face writes")
        special = parts.special_names(data)
        candidates = (*_END_OF_TEXT_NAMES, last_of_template(data))
        known = [token for token in candidates if token is not None and token in special]
        if not known:
            problem = f"no special token that ends a text (it has {', '.join(sorted(special)) or 'none'})"
            raise TokenizerError(f"{name}: {problem}", f"add one of {', '.join(_END_OF_TEXT_NAMES)}")
        super().__init__(tokenizer_json, known[0])
        loss, remedy = self._find_loss(data)
        if loss:
            raise TokenizerError(f"{name}: loses text ({loss})", remedy)

    def _find_loss(self, data: dict[str, Any]) -> tuple[str, str]:
        """Text that is lost, or ``""``, and the remedy."""
        remedy = "use a byte-level tokenizer"
        if loss := parts.losses_of(data):
            return loss, remedy
        for probe in _PROBES:
            decoded = self.decode(self.encode(probe))
            if decoded == f" {probe}":
                remedy = "it puts a space before every text; use a tokenizer without a dummy prefix"
            if decoded != probe:
                return f"{probe!r} comes back as {decoded!r}", remedy
        # Models other than BPE may have the names of special tokens among their pieces.
        for token, ids in zip(self._special, self._encode_with_library(list(self._special)), strict=True):
            if self._special[token] in ids:
                return f"its special token {token!r} is also made of plain text", remedy
        return "", remedy


@dataclass(frozen=True)
class PretrainedTokenizerConfig(TokenizerConfig):
    """Use an existing tokenizer.

    Args:
        path: A ``tokenizer.json``, a folder that holds one (a Hugging Face model, a run), or a GGUF file.
    """

    path: str

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError("names no tokenizer", _WHAT_TO_GIVE, option="path", value=self.path)

    def build(self, texts: Iterable[str]) -> BaseTokenizer:
        """Read the file, with the errors of :func:`load_tokenizer`; ``texts`` are not read."""
        return load_tokenizer(self.path)


def load_tokenizer(path_or_json: str | os.PathLike[str]) -> BaseTokenizer:
    """Load a tokenizer from a file, a folder or a string.

    Args:
        path_or_json: A ``tokenizer.json``, a folder that holds one, a GGUF file, or the content of a
            ``tokenizer.json`` (starts with ``{``).

    Raises:
        TokenizerError: The tokenizer is missing or damaged, has no end-of-text token, or loses text.
    """
    if not isinstance(path_or_json, (str, os.PathLike)) or not os.fspath(path_or_json):
        raise TokenizerError(f"{path_or_json!r} names no tokenizer", f"{_WHAT_TO_GIVE}, or its content")
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


def read_tokenizer_file(path: str | os.PathLike[str]) -> str:
    """The content of a ``tokenizer.json`` (given by its path or folder), or of the tokenizer in a GGUF file.

    In a Hugging Face folder, the end-of-text token may be named only in ``tokenizer_config.json``
    (``eos_token``). It is then added to the template of the content, so that one file is enough.

    Raises:
        TokenizerError: The file is missing or cannot be read.
    """
    file = Path(path).expanduser()
    if not file.is_dir():
        return tokenizer_json_of_gguf(file) if _is_gguf(file) else _read(file)
    content = _read(file / "tokenizer.json")
    config = file / "tokenizer_config.json"
    if not config.is_file():
        return content
    data, named = parsed(content, str(file)), parsed(_read(config), str(config)).get("eos_token")
    name = named.get("content") if isinstance(named, dict) else named
    special = {
        token.get("content"): token.get("id") for token in parts.added_tokens(data) if token.get("special")
    }
    if name not in special or special.keys() & set(_END_OF_TEXT_NAMES) or last_of_template(data) == name:
        return content
    template = parts.end_template(str(name), int(special[name] or 0))
    return json.dumps({**data, "post_processor": template}, ensure_ascii=False)


def _is_gguf(file: Path) -> bool:
    """Whether the file begins like a GGUF file, whatever its name is."""
    with contextlib.suppress(OSError), open(file, "rb") as opened:
        return opened.read(len(MAGIC)) == MAGIC
    return False  # The next reader of the file reports the error.


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        remedy = missing_path_remedy(file) or _WHAT_TO_GIVE
        raise TokenizerError(f"{file}: there is no such file", remedy) from error
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{file}: cannot be read ({error})", "make or fetch it again") from error
