"""Train tokenizers: once for all processes, and for one text or texts of several languages."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import xxhash
from filelock import FileLock, Timeout

from insight.data.tokenizers.base import BaseTokenizer, TokenizerConfig
from insight.data.tokenizers.pretrained import load_tokenizer
from insight.runtime.errors import ConfigError, OutputError, TokenizerError
from insight.runtime.files import atomic_write_text, writing_to
from insight.runtime.messages import say


class TokenizerCache:
    """The trained tokenizers in a cache folder, each a file with the hash of its JSON before the JSON."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / "tokenizers"

    def find_or_build(self, key: str, build: Callable[[], BaseTokenizer], title: str) -> BaseTokenizer:
        """The tokenizer with this key; it is trained if it is missing or damaged.

        Args:
            key: A hash of everything that decides the tokenizer.
            build: Trains the tokenizer; one process at a time calls it while the others wait.

        Raises:
            OutputError: The cache folder cannot be written to.
        """
        file = self._folder / f"{key}.json"
        if found := _read(file):
            return found
        try:
            with writing_to(self._root):
                self._folder.mkdir(parents=True, exist_ok=True)
                lock = FileLock(self._folder / f"{key}.lock")
                try:
                    held = lock.acquire(timeout=0)
                except Timeout:
                    say(f"waiting for another process that is training a tokenizer on {title}")
                    held = lock.acquire()
                with held:
                    if found := _read(file):
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
    try:
        content = file.read_text(encoding="utf-8")
        tokenizer_json = content.partition("\n")[2]
        return load_tokenizer(tokenizer_json) if content == _with_hash(tokenizer_json) else None
    except (OSError, UnicodeDecodeError, TokenizerError):
        return None


def joint_vocabulary(config: TokenizerConfig, texts: Mapping[str, Iterable[str]]) -> BaseTokenizer:
    """Train one tokenizer on the texts of all languages, in their order.

    Languages of one script then share names, loan words and numbers, and source and target embeddings may be
    one matrix (Sennrich et al. 2016, arXiv 1508.07909). More text of a language gets it more tokens.

    Raises:
        ConfigError: There is no text, or the tokenizer does not learn from text.
        TokenizerError: The texts are unsuitable for training.
    """
    _check(config, texts)
    return config.build(itertools.chain.from_iterable(texts.values()))


def separate_vocabularies(
    config: TokenizerConfig, texts: Mapping[str, Iterable[str]]
) -> dict[str, BaseTokenizer]:
    """Train one tokenizer for each language, so that each has its own vocabulary; the result is by name.

    Raises the errors of :func:`joint_vocabulary`.
    """
    _check(config, texts)
    return {name: config.build(documents) for name, documents in texts.items()}


def _check(config: TokenizerConfig, texts: Mapping[str, Iterable[str]]) -> None:
    if not texts:
        raise ConfigError("texts is empty", "give at least one language")
    if not config.learns_from_text:
        problem = f"{type(config).__name__} does not learn from text"
        raise ConfigError(problem, "use BPETokenizerConfig or WordTokenizerConfig")
