"""Find a trained tokenizer by its key or train it: one process trains, the others wait and reuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import xxhash

from insight.data.store.lock import file_lock
from insight.data.tokenizers import BaseTokenizer, load_tokenizer
from insight.runtime.errors import OutputError, TokenizerError
from insight.runtime.files import atomic_write_text, writing_to
from insight.runtime.messages import say


class TokenizerCache:
    """The tokenizers below one cache folder, each a file: the hash of its JSON, a line break, its JSON.

    Args:
        root: The cache folder; made when something is trained.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / "tokenizers"

    def find_or_build(self, key: str, build: Callable[[], BaseTokenizer], title: str) -> BaseTokenizer:
        """The tokenizer with this key, trained if it is missing or damaged.

        Args:
            key: Names everything that decides the tokenizer.
            build: Trains it; called by one process at a time.
            title: What messages call the text.

        Raises:
            OutputError: The cache folder cannot be written to.
        """
        file = self._folder / f"{key}.json"
        found = _read(file)
        if found is not None:
            return found
        try:
            with writing_to(self._root):
                self._folder.mkdir(parents=True, exist_ok=True)
                lock = file_lock(
                    self._folder / f"{key}.lock",
                    lambda: say(f"waiting for another process that is training a tokenizer on {title}"),
                )
                with lock:
                    found = _read(file)
                    if found is not None:
                        return found
                    if file.exists():
                        say(f"the cached tokenizer {file} is damaged; training it again")
                    tokenizer = build()
                    atomic_write_text(file, _with_hash(tokenizer.to_json()))
                    return tokenizer
        except OutputError as error:
            raise OutputError(f"cache_dir={error.problem}", "set cache_dir or INSIGHT_CACHE_DIR") from error


def _with_hash(tokenizer_json: str) -> str:
    return f"{xxhash.xxh3_128_hexdigest(tokenizer_json.encode('utf-8'))}\n{tokenizer_json}"


def _read(file: Path) -> BaseTokenizer | None:
    """The tokenizer in ``file``, or ``None`` where there is none or it is damaged."""
    try:
        content = file.read_text(encoding="utf-8")
        tokenizer_json = content.partition("\n")[2]
        return load_tokenizer(tokenizer_json) if content == _with_hash(tokenizer_json) else None
    except (OSError, UnicodeDecodeError, TokenizerError):
        return None
