"""From the files that the user named to a tokenizer and one token store a split, built once, found again."""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import xxhash

from insight.data.canaries import CanaryInjection
from insight.data.content_hashes import ContentHashes
from insight.data.sources import Source, expand_sources
from insight.data.store import StoreCache, StoreWriter, TokenStore, encode_documents, store_key
from insight.data.tokenizer_cache import TokenizerCache
from insight.data.tokenizers import BaseTokenizer, TokenizerConfig
from insight.data.validation_split import ValidationSplit
from insight.runtime.errors import DataError
from insight.runtime.messages import say

SPLITS = ("train", "validation", "test", "predict")


def default_cache_dir() -> Path:
    """``$INSIGHT_CACHE_DIR``, else ``~/.cache/insight``."""
    chosen = os.environ.get("INSIGHT_CACHE_DIR")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "insight"


@dataclass(frozen=True)
class TextFiles:
    """The text of every split, as the user named it.

    Attributes:
        train: Files, folders, globs or ``corpus:NAME``; the others likewise, or ``None``.
        validation: ``None`` takes a part of the training text.
        test: Text for the final measurement.
        predict: Text for ``predict``.
        text_field: Field of ``.jsonl`` and column of ``.parquet`` files.
        validation_fraction: Share of the training text when ``validation`` is ``None``; 0 for none.
        seed: Chooses the documents of that share.
        canaries: Secrets to plant in the training text; ``None`` for none.
    """

    train: str | list[str]
    validation: str | list[str] | None
    test: str | list[str] | None
    predict: str | list[str] | None
    text_field: str
    validation_fraction: float
    seed: int
    canaries: CanaryInjection | None = None


class Preparation:
    """Finds or builds the tokenizer and the stores; everything is looked up only when it is asked for.

    Args:
        files: The text.
        tokenizer: How to get the tokenizer: a configuration, or one that is finished (of a checkpoint).
        cache_dir: Where tokenizers, stores and content hashes are kept.
    """

    def __init__(self, files: TextFiles, tokenizer: TokenizerConfig | BaseTokenizer, cache_dir: Path) -> None:
        self._files = files
        self._tokenizer = tokenizer
        self._cache_dir = cache_dir
        self._cache = StoreCache(cache_dir)
        self._contents: dict[str, list[str]] = {}
        self._sources: dict[str, list[Source]] = {}
        self._division_said = False

    def has(self, split: str) -> bool:
        """Whether there is text for this split."""
        if split == "validation" and self._files.validation is None:
            return self._files.validation_fraction > 0
        return getattr(self._files, split) is not None

    def sources(self, split: str) -> list[Source]:
        """The files of a split, each content once.

        Raises:
            DataError: A file is missing, empty or unsupported, or nothing matches, or there is no text.
        """
        if split not in self._sources:
            self._expand(split)
        return self._sources[split]

    @functools.cached_property
    def tokenizer(self) -> BaseTokenizer:
        """The tokenizer, trained on the training text if it learns from text.

        Raises:
            DataError: The training text cannot be read.
            TokenizerError: The text does not support the tokenizer.
        """
        if isinstance(self._tokenizer, BaseTokenizer):
            return self._tokenizer
        if not self._tokenizer.learns_from_text:
            return self._tokenizer.build(())
        sources = self.sources("train")
        content = {
            "sources": self._contents["train"],
            "encoding": self._encoding("train"),
            "tokenizer": self._tokenizer.to_dict(),
        }
        key = xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode("utf-8"))
        config, names = self._tokenizer, _names(sources)

        def build() -> BaseTokenizer:
            started = time.perf_counter()
            tokenizer = config.build(self._documents("train"))
            self._check_unchanged(sources, self._contents["train"])
            size, seconds = tokenizer.vocabulary_size, time.perf_counter() - started
            say(f"trained a tokenizer of {size} tokens on {names} in {seconds:.1f} s")
            return tokenizer

        return TokenizerCache(self._cache_dir).find_or_build(key, build, names)

    def store(self, split: str) -> TokenStore:
        """The tokens of a split.

        Raises:
            DataError: The text cannot be read.
            OutputError: The cache folder cannot be written to.
        """
        sources = self.sources(split)
        tokenizer = self.tokenizer
        origin = self._origin_split(split)
        planted = self._files.canaries if split == "train" else None
        encoding = self._encoding(split)
        if planted:
            encoding["canaries"] = json.dumps(planted.to_dict(), sort_keys=True)
        key = store_key(self._contents[origin], tokenizer.fingerprint(), encoding)
        title = _names(sources) + (f" ({split} part)" if self._is_divided(split) else "")

        def build(folder: Path) -> None:
            started = time.perf_counter()
            writer = StoreWriter(folder, tokenizer)
            try:
                encode_documents(self._documents(split), tokenizer, writer)
                if writer.num_unknown:
                    share = writer.num_unknown / writer.num_tokens
                    say(f"{title}: {share:.1%} of the tokens stand for text that the tokenizer does not know")
                if writer.num_tokens == 0:
                    raise DataError(f"{title}: holds no text", "give files with text")
                if planted:
                    encode_documents(planted.documents(), tokenizer, writer)
                self._check_unchanged(sources, self._contents[origin])
                note = self._division.describe() if self._is_divided(split) else ""
                manifest = writer.close({"files": [source.name for source in sources], "division": note})
            finally:
                writer.abandon()
            megabytes, seconds = manifest.num_bytes / 1e6, time.perf_counter() - started
            say(f"encoded {title}: {megabytes:.2f} MB, {manifest.num_tokens:,} tokens in {seconds:.1f} s")

        store = self._cache.find_or_build(key, build, title)
        if split == "validation" and self._is_divided(split) and not self._division_said:
            self._division_said = True
            say(f"no validation_files: validating on {store.manifest.origin['division']}")
        return store

    def _expand(self, split: str) -> None:
        if split == "validation" and self._files.validation is None:
            self._sources[split] = self.sources("train")
            return
        option = f"{split}_files"
        patterns = getattr(self._files, split)
        if patterns is None:
            raise DataError(f"{option} is not set", "name at least one file, folder, glob or corpus:NAME")
        expanded = expand_sources(patterns, option)
        unique: dict[str, Source] = {}
        for content, source in zip(self._content_of(expanded), expanded, strict=True):
            first = unique.setdefault(content, source)
            if first is not source:
                say(f"{option}: {source.name} has the same content as {first.name}; used once")
        self._sources[split], self._contents[split] = list(unique.values()), list(unique)
        if split not in ("train", "predict"):
            for content in set(self._contents.get("train", ())) & set(unique):
                say(f"{option}: {unique[content].name} is training text too, so its scores flatter")

    def _is_divided(self, split: str) -> bool:
        """Whether this split is one of two parts of the training files."""
        return (
            split in ("train", "validation")
            and self._files.validation is None
            and self._files.validation_fraction > 0
        )

    def _origin_split(self, split: str) -> str:
        return "train" if self._is_divided(split) else split

    def _encoding(self, split: str) -> dict[str, str | int | float]:
        encoding: dict[str, str | int | float] = {"text_field": self._files.text_field}
        if self._is_divided(split):
            encoding |= {"part": split, "fraction": self._files.validation_fraction, "seed": self._files.seed}
        return encoding

    def _documents(self, split: str) -> Iterator[str]:
        if not self._is_divided(split):
            return _documents_of(self.sources(split), self._files.text_field)
        return self._division.training() if split == "train" else self._division.validation()

    @functools.cached_property
    def _division(self) -> ValidationSplit:
        sources = self.sources("train")
        return ValidationSplit(
            lambda: _documents_of(sources, self._files.text_field),
            self._files.validation_fraction,
            self._files.seed,
            _names(sources),
        )

    def _content_of(self, sources: list[Source]) -> list[str]:
        """What decides the documents of each source: the bytes of its file and how they are read."""
        hashes = ContentHashes(self._cache_dir).of([source.path for source in sources])
        return [
            f"{content}.{source.format}.{source.compression}"
            for content, source in zip(hashes, sources, strict=True)
        ]

    def _check_unchanged(self, sources: list[Source], contents: list[str]) -> None:
        """Refuse to keep what was read from files that changed since their content was hashed."""
        for source, before, now in zip(sources, contents, self._content_of(sources), strict=True):
            if now != before:
                raise DataError(f"{source.name}: changed while it was read", "start again")


def _documents_of(sources: list[Source], text_field: str) -> Iterator[str]:
    for source in sources:
        yield from source.documents(text_field)


def _names(sources: list[Source]) -> str:
    names = ", ".join(source.name for source in sources[:3])
    return names if len(sources) <= 3 else f"{names} and {len(sources) - 3} more"
