"""Open any tokenizer.json as the class that wrote it."""

from __future__ import annotations

import os

from insight.data.tokenizers.base import BaseTokenizer
from insight.data.tokenizers.bpe import BPETokenizer, is_bpe_tokenizer
from insight.data.tokenizers.byte import ByteTokenizer, is_byte_tokenizer
from insight.data.tokenizers.pretrained import PretrainedTokenizer, parsed, read_tokenizer_file
from insight.data.tokenizers.word import WordTokenizer, is_word_tokenizer
from insight.runtime.errors import TokenizerError


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
