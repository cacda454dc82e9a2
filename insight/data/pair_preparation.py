"""From files of parallel text to token stores: filters, tokenizers and both sides of every split."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import xxhash

from insight.data.cleaning import (
    FilterCounts,
    LanguageProfile,
    PairFilters,
    drop_overlapping,
    filter_pairs,
    looks_swapped,
)
from insight.data.pairs import PairStores
from insight.data.sources.content_hashes import ContentHashes
from insight.data.sources.decoding import TextRepairs
from insight.data.sources.parallel import Pair, ParallelFiles, ParallelSource, expand_parallel
from insight.data.store import StoreCache, StoreWriter, store_key
from insight.data.tokenizers import BaseTokenizer, BPETokenizerConfig, EncodedBatch, TokenizerConfig
from insight.data.tokenizers.training import TokenizerCache
from insight.runtime.errors import ConfigError, DataError
from insight.runtime.messages import say

_PROFILED_PAIRS = 500


@dataclass(frozen=True)
class PairFiles:
    """The parallel text of every split, and which pairs and how much of them become token ids.

    The attributes are options of :class:`insight.data.TranslationDataModule`.
    """

    train: ParallelFiles | None
    validation: ParallelFiles | None = None
    test: ParallelFiles | None = None
    predict: ParallelFiles | None = None
    source_field: str = "source"
    target_field: str = "target"
    vocabulary: Literal["joint", "separate"] = "joint"
    directions: Literal["forward", "both"] = "forward"
    filters: PairFilters = PairFilters()
    max_source_length: int = 128
    max_target_length: int = 128
    too_long: Literal["skip", "truncate"] = "skip"
    max_test_overlap: float | None = None
    invalid_text: str = "error"


class PairPreparation:
    """Makes tokenizers and token stores of parallel text once, and caches them.

    Args:
        files: The text of the splits.
        tokenizer: How sentences become token ids.
        cache_dir: The folder in which tokenizers and token ids are kept.
        max_cache_bytes: Most bytes that the stores there may take; ``None`` for no limit.

    Raises:
        DataError: Text cannot be read, or there is no such split; raised by every method.
    """

    def __init__(
        self,
        files: PairFiles,
        tokenizer: TokenizerConfig,
        cache_dir: Path,
        max_cache_bytes: int | None = None,
    ) -> None:
        self.files = files
        if files.directions == "both":
            tokenizer = _with_tags(tokenizer, (files.source_field, files.target_field))
        self._tokenizer: TokenizerConfig | BaseTokenizer = tokenizer
        self._source_tokenizer: BaseTokenizer | None = None
        self._cache_dir = cache_dir
        self._cache = StoreCache(cache_dir, max_cache_bytes)
        self._sources: dict[str, list[ParallelSource]] = {}
        self._contents: dict[str, list[str]] = {}
        self._notes: dict[str, str] = {}

    def has(self, split: str) -> bool:
        """Whether the configuration names text for a split."""
        return getattr(self.files, split) is not None

    def sources(self, split: str) -> list[ParallelSource]:
        """The files of a split.

        Raises:
            DataError: A file is missing or unsupported, or no file is named.
        """
        if split not in self._sources:
            files = getattr(self.files, split)
            if files is None:
                raise DataError(
                    "is not set", "name a file with both sides", option=f"{split}_files", value=None
                )
            found = expand_parallel(files, self.files.source_field, self.files.target_field, f"{split}_files")
            hashes = iter(
                ContentHashes(self._cache_dir).of([path for source in found for path in source.paths])
            )
            self._contents[split] = [
                f"{'-'.join(next(hashes) for _ in source.paths)}.{source.format}.{'|'.join(source.fields)}"
                for source in found
            ]
            self._sources[split] = found
        return self._sources[split]

    def pairs(self, split: str) -> Iterator[Pair]:
        """The pairs of a split as they are encoded: filtered, and for training in both directions if asked.

        Raises:
            DataError: A file cannot be read, or no pair is left.
        """
        counts = FilterCounts()
        is_train = split == "train"
        filters = self.files.filters if is_train else PairFilters()
        read = self._read(split)
        kept = filter_pairs(read, filters, counts)
        if not is_train and split != "predict" and self.files.max_test_overlap is not None:
            held_out, num_dropped = drop_overlapping(
                list(kept), self._read("train"), self.files.max_test_overlap
            )
            counts.dropped["that recur in the training text"] += num_dropped
            kept = iter(held_out)
        number = 0
        for pair in kept:
            number += 1
            yield pair
        if not number:
            raise DataError(f"{split}_files: {counts.describe()}", "give text, or loosen the filters")
        self._notes[split] = counts.describe()

    def _read(self, split: str) -> Iterator[Pair]:
        repairs = TextRepairs()
        sources = self.sources(split)
        return itertools.chain.from_iterable(
            source.pairs(self.files.invalid_text, repairs) for source in sources
        )

    def use_tokenizer(self, tokenizer: BaseTokenizer, source_tokenizer: BaseTokenizer | None = None) -> None:
        """Use finished tokenizers, those of a checkpoint, instead of the configured one.

        Args:
            tokenizer: The tokenizer of the target, and of the source where it has none of its own.
            source_tokenizer: The tokenizer of the source where vocabularies are separate.
        """
        self._tokenizer, self._source_tokenizer = tokenizer, source_tokenizer or tokenizer

    @functools.cached_property
    def tokenizers(self) -> tuple[BaseTokenizer, BaseTokenizer]:
        config = self._tokenizer
        if isinstance(config, BaseTokenizer):
            assert self._source_tokenizer is not None
            return self._source_tokenizer, config
        if self.files.vocabulary == "joint":
            tokenizer = self._find_tokenizer(config, "both")
            return tokenizer, tokenizer
        return self._find_tokenizer(config, "source"), self._find_tokenizer(config, "target")

    def _find_tokenizer(self, config: TokenizerConfig, side: str) -> BaseTokenizer:
        if not config.learns_from_text:
            return config.build(())
        self.sources("train")
        content = {
            "sources": self._contents["train"],
            "filters": self.files.filters.to_dict(),
            "side": side,
            "tokenizer": config.to_dict(),
        }
        key = xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode("utf-8"))

        def texts() -> Iterator[str]:
            for pair in self.pairs("train"):
                yield from pair if side == "both" else (pair[0 if side == "source" else 1],)

        def build() -> BaseTokenizer:
            started = time.perf_counter()
            tokenizer = config.build(texts())
            seconds = time.perf_counter() - started
            size, title = tokenizer.vocabulary_size, self._title("train")
            say(f"trained a tokenizer of {size} tokens on {title} in {seconds:.1f} s")
            return tokenizer

        return TokenizerCache(self._cache_dir).find_or_build(key, build, self._title("train"))

    def tag_id(self, language: str) -> int:
        """The id of the tag that asks for a translation into a language; see :func:`tag_id`."""
        return tag_id(self.tokenizers[0], language)

    def stores(self, split: str) -> PairStores:
        self.sources(split)
        encoding: dict[str, str | int | float] = {
            "filters": json.dumps(self.files.filters.to_dict(), sort_keys=True) if split == "train" else "",
            "lengths": f"{self.files.max_source_length},{self.files.max_target_length}",
            "too_long": self.files.too_long if split == "train" else "truncate",
            "directions": self.files.directions,
        }
        if split != "train" and self.files.max_test_overlap is not None:
            encoding["overlap"] = f"{self.files.max_test_overlap}," + ",".join(self._contents_of("train"))
        tokenizers = self.tokenizers
        stores = []
        for side, tokenizer in zip(("source", "target"), tokenizers, strict=True):
            key = store_key(
                self._contents[split],
                tokenizer.fingerprint(),
                # Which pairs are skipped for their length depends on both tokenizers.
                {**encoding, "side": side, "tokenizers": "-".join(one.fingerprint() for one in tokenizers)},
            )
            build = functools.partial(self._encode, split, side)
            stores.append(self._cache.find_or_build(key, build, f"{self._title(split)} ({side})"))
        note = stores[0].manifest.origin["division"]
        if note:
            say(f"{split}: {note}")
        return PairStores(*stores)

    def _encode(self, split: str, side: str, folder: Path) -> None:
        """Write one side of a split."""
        number = 0 if side == "source" else 1
        tokenizer = self.tokenizers[number]
        byte_lengths = tokenizer.token_byte_lengths()
        writer = StoreWriter(folder, tokenizer)
        counts = _LengthCounts()
        try:
            for chunk in self._encoded(split, counts):
                ids = [pair[number] for pair in chunk]
                offsets = np.cumsum([0, *map(len, ids)])
                flat = np.concatenate(ids) if ids else np.empty(0, dtype=np.int64)
                writer.append(EncodedBatch(flat, offsets), int(byte_lengths[flat].sum()))
            files = [source.name for source in self.sources(split)]
            note = "; ".join(filter(None, (self._notes.get(split, ""), counts.describe())))
            writer.close({"files": files, "division": note})
        finally:
            writer.abandon()

    def _encoded(self, split: str, counts: _LengthCounts) -> Iterator[list[_IdPair]]:
        """The ids of the pairs within the length limits, in all directions, some thousand at a time."""
        skips = split == "train" and self.files.too_long == "skip"
        most = self.files.max_source_length - 1, self.files.max_target_length - 1
        for chunk in _chunks(self.pairs(split), _PAIRS_AT_ONCE):
            encoded: list[_IdPair] = []
            for is_backward in (False, True) if self.files.directions == "both" else (False,):
                texts = [[pair[side ^ is_backward] for pair in chunk] for side in (0, 1)]
                sides = [
                    _ids(tokenizer, side) for tokenizer, side in zip(self.tokenizers, texts, strict=True)
                ]
                tag = np.empty(0, dtype=np.int64)
                if self.files.directions == "both":
                    tag = np.array(
                        [self.tag_id(self.files.source_field if is_backward else self.files.target_field)]
                    )
                for source, target in zip(*sides, strict=True):
                    source = np.concatenate([tag, source])
                    too_long = len(source) > most[0], len(target) > most[1]
                    if any(too_long) and skips:
                        counts.num_skipped += 1
                        continue
                    counts.num_cut += sum(too_long)
                    encoded.append((source[: most[0]], target[: most[1]]))
            yield encoded

    def sentences(self, split: str) -> tuple[list[str], list[str]]:
        """Source sentences as the network reads them, and whole references, in the order of the stores."""
        pairs = list(self.pairs(split))
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    def _contents_of(self, split: str) -> list[str]:
        self.sources(split)
        return self._contents[split]

    def _title(self, split: str) -> str:
        names = [source.name for source in self.sources(split)]
        return names[0] if len(names) == 1 else f"{len(names)} files"

    def warn_if_swapped(self) -> None:
        """Say so where the languages of the validation pairs seem to be exchanged."""
        training = list(itertools.islice(self._read("train"), _PROFILED_PAIRS))
        source, target = (LanguageProfile(pair[side] for pair in training) for side in (0, 1))
        held_out = itertools.islice(self._read("validation"), _PROFILED_PAIRS)
        if self.files.source_field != self.files.target_field and looks_swapped(source, target, held_out):
            say(
                "warning: source and target of validation_files look exchanged; exchange source_field and "
                "target_field"
            )


_PAIRS_AT_ONCE = 4096
_IdPair = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


class _LengthCounts:
    """How many pairs were skipped and how many sentences were cut for their length."""

    def __init__(self) -> None:
        self.num_skipped = 0
        self.num_cut = 0

    def describe(self) -> str:
        parts = []
        if self.num_skipped:
            parts.append(f"{self.num_skipped:,} pairs longer than the limits are skipped")
        if self.num_cut:
            parts.append(f"{self.num_cut:,} sentences longer than the limits are cut")
        return "; ".join(parts)


def _chunks(pairs: Iterator[Pair], size: int) -> Iterator[list[Pair]]:
    while chunk := list(itertools.islice(pairs, size)):
        yield chunk


def _ids(tokenizer: BaseTokenizer, texts: list[str]) -> list[npt.NDArray[np.int64]]:
    batch = tokenizer.encode_batch(texts)
    return np.split(batch.ids, batch.offsets[1:-1])


def tag_id(source_tokenizer: BaseTokenizer, language: str) -> int:
    """The id of the tag that asks a model of both directions for a translation into a language.

    Raises:
        ConfigError: The model was not trained in both directions, or does not know the language.
    """
    tag, known = _tag(language), source_tokenizer.special_tokens
    if tag not in known:
        names = [name.removeprefix("<2").removesuffix(">") for name in known if name.startswith("<2")]
        remedy = f"use {' or '.join(names) or 'no option'}"
        raise ConfigError("the model has no such language", remedy, option="to", value=language)
    return known[tag]


def _tag(language: str) -> str:
    return f"<2{language}>"


def _with_tags(config: TokenizerConfig, languages: tuple[str, str]) -> TokenizerConfig:
    """The configuration with a special token for each language.

    Raises:
        ConfigError: The tokenizer takes no special tokens.
    """
    if not isinstance(config, BPETokenizerConfig):
        raise ConfigError(
            "has no special tokens to name a direction",
            "use BPETokenizerConfig",
            option="tokenizer",
            value=type(config).__name__,
        )
    present = tuple(token for token in map(_tag, languages) if token not in config.special_tokens)
    return dataclasses.replace(config, special_tokens=(*config.special_tokens, *present))
