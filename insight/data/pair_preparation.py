"""From files of parallel text to token stores: filters, tokenizers and both sides of every split."""

from __future__ import annotations

import dataclasses
import functools
import heapq
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

from insight.data.canaries import CanaryPairInjection
from insight.data.cleaning import (
    FilterCounts,
    LanguageProfile,
    PairFilters,
    filter_pairs,
    looks_swapped,
    overlaps,
)
from insight.data.encoding.tasks import EncodingProgress
from insight.data.pairs import PairStores
from insight.data.sources.content_hashes import ContentHashes
from insight.data.sources.decoding import TextRepairs
from insight.data.sources.parallel import (
    SIDES,
    Pair,
    ParallelFiles,
    ParallelSource,
    SourceReading,
    TargetReading,
    expand_parallel,
)
from insight.data.store import StoreCache, StoreWriter, store_key
from insight.data.store.format import json_hash
from insight.data.tokenizers import (
    BaseTokenizer,
    BPETokenizerConfig,
    ByteTokenizer,
    EncodedBatch,
    TokenizerConfig,
)
from insight.data.tokenizers.training import TokenizerCache
from insight.runtime.errors import ConfigError, DataError, TokenizerError
from insight.runtime.formats import format_share
from insight.runtime.messages import say
from insight.runtime.numbers import require_number

MOST_SET_ASIDE = 500
"""Most pairs that are set aside for validation if there are no validation files."""
_RECURRING = "that recur nearly word for word in the training text"
_PROFILED_PAIRS = 500
_PAIRS_AT_ONCE = 4096
_Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PairFiles:
    """The parallel text of every split, and which pairs and how much of them become token ids.

    The attributes are options of :class:`insight.data.TranslationDataModule`.

    Raises:
        ConfigError: A value cannot work.
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
    validation_fraction: float = 0.0
    seed: int = 0
    canaries: CanaryPairInjection | None = None

    def __post_init__(self) -> None:
        SourceReading(self.source_field, self.invalid_text)  # Both check their values.
        TargetReading(self.target_field, self.invalid_text)
        if self.source_field == self.target_field:
            remedy = "name two columns, fields or languages"
            problem = "is source_field too, and a sentence is no translation of itself"
            raise ConfigError(problem, remedy, option="target_field", value=self.target_field)
        for side in SIDES:
            option = f"max_{side}_length"
            require_number(option, getattr(self, option), 128, whole=True, at_least=2, at_most=1 << 20)
        limit = self.max_test_overlap
        require_number("max_test_overlap", limit, 0.5, optional=True, at_least=0, at_most=1)
        require_number("validation_fraction", self.validation_fraction, 0.01, at_least=0, below=1)
        if self.directions == "both" and self.vocabulary != "joint":
            problem = "one model for both directions needs one vocabulary"
            raise ConfigError(problem, "use joint", option="vocabulary", value=self.vocabulary)


class PairPreparation:
    """Makes tokenizers and token stores of parallel text once, and caches them.

    Args:
        files: The text of the splits.
        tokenizer: How sentences become token ids.
        cache_dir: The folder in which tokenizers and token ids are kept.
        max_cache_bytes: Most bytes that the stores there may take; ``None`` for no limit.

    Raises:
        ConfigError: The tokenizer cannot have the tags of two directions.
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
        self._stores: dict[str, PairStores] = {}

    # ------------------------------------------------------------------ files

    def has(self, split: str) -> bool:
        """Whether there is text for a split."""
        return self._is_divided(split) or getattr(self.files, split) is not None

    def sources(self, split: str) -> list[ParallelSource]:
        """The files of a split, without files of equal content.

        Raises:
            DataError: A file is missing or unsupported, or no file is named.
        """
        if split not in self._sources:
            self._expand(split)
        return self._sources[split]

    def warn_if_swapped(self) -> None:
        """Warn about files in which the two languages seem to be exchanged, by the first pairs of each."""
        first, *others = self.sources("train")
        profiles = [LanguageProfile(pair[side] for pair in self._beginning(first)) for side in (0, 1)]
        for split in ("validation", "test", "predict"):
            if self.has(split) and not self._is_divided(split):
                others += self.sources(split)
        for source in others:
            if looks_swapped(profiles[0], profiles[1], self._beginning(source)):
                remedy = "exchange source_field and target_field, or the two files"
                say(f"warning: the languages of {source.name} seem exchanged, beside {first.name}: {remedy}")

    def _expand(self, split: str) -> None:
        option = f"{split}_files"
        if self._is_divided(split) and split == "validation":
            self._sources[split], self._contents[split] = self.sources("train"), self._contents["train"]
            return
        named = getattr(self.files, split)
        if named is None:
            raise DataError(
                "names no text", "name a file with both sides, or two aligned files", option=option
            )
        found = expand_parallel(named, self.files.source_field, self.files.target_field, option)
        unique: dict[str, ParallelSource] = {}
        for content, source in zip(self._contents_of(found), found, strict=True):
            earlier = unique.setdefault(content, source)
            if earlier is not source:
                say(f"{option}: {source.name} has the same content as {earlier.name}; used once")
        self._sources[split], self._contents[split] = list(unique.values()), list(unique)
        if split in ("validation", "test"):
            for content in set(self._contents.get("train", ())) & set(unique):
                say(f"{option}: {unique[content].name} is training text too, so its scores flatter")

    def _contents_of(self, sources: list[ParallelSource]) -> list[str]:
        """A text of all that decides the pairs of each source: its bytes, and how they are read."""
        hashes = iter(ContentHashes(self._cache_dir).of([path for each in sources for path in each.paths]))
        return [
            json.dumps([*(next(hashes) for _ in each.paths), each.format, *each.fields]) for each in sources
        ]

    def _check_unchanged(self, split: str) -> None:
        contents = self._contents_of(self.sources(split))
        for source, before, now in zip(self.sources(split), self._contents[split], contents, strict=True):
            if now != before:
                raise DataError(f"{source.name}: changed while it was read", "start again")

    def _title(self, split: str) -> str:
        names = [source.name for source in self.sources(split)]
        return names[0] if len(names) == 1 else f"{len(names)} files"

    # ------------------------------------------------------------------ which pairs

    def pairs(self, split: str) -> Iterator[Pair]:
        """The pairs of a split that become token ids, before those too long to train on are left out."""
        if split == "train":
            return self._kept(split, FilterCounts())
        return iter(zip(*self.sentences(split), strict=True))

    def sentences(self, split: str) -> tuple[list[str], list[str]]:
        """Whole source sentences and references of a split to measure on, in the order of its stores."""
        text = self.stores(split).text
        if text is None:
            raise DataError(f"{split}: its sentences are not kept", "ask for another split")
        data = text.tokens(0, text.num_tokens).astype(np.uint8).tobytes()
        starts = text.document_starts().tolist()  # the end-of-text id before a start is no byte of a sentence
        found = [data[start : end - 1].decode("utf-8") for start, end in itertools.pairwise(starts)]
        return found[::2], found[1::2]

    def _kept(self, split: str, counts: FilterCounts, repairs: TextRepairs | None = None) -> Iterator[Pair]:
        """The pairs of a split, filtered and without those of another split; ``counts`` says how many."""
        pairs = self._part(split, counts, repairs)
        if split not in ("validation", "test") or self.files.max_test_overlap is None:
            yield from pairs
            return
        held_out = list(pairs)
        training = self._kept("train", FilterCounts())
        for pair, overlap in zip(held_out, overlaps(held_out, training), strict=True):
            if overlap > self.files.max_test_overlap:
                counts.dropped[_RECURRING] += 1
            else:
                yield pair

    def _part(self, split: str, counts: FilterCounts, repairs: TextRepairs | None) -> Iterator[Pair]:
        """The pairs of a split that pass the filters, without those that are set aside or trained on."""
        if not self._is_divided(split):
            filters = self.files.filters if split == "train" else PairFilters()
            yield from filter_pairs(self._read(split, repairs), filters, counts)
            return
        is_train = split == "train"
        of_all = counts if is_train else FilterCounts()
        for pair in filter_pairs(self._read(split, repairs), self.files.filters, of_all):
            is_set_aside = self._rank_of(pair) <= self._last_rank
            if is_set_aside is not is_train:
                counts.num_read += not is_train
                yield pair
            elif is_train:
                counts.dropped["set aside for validation"] += 1

    def _read(self, split: str, repairs: TextRepairs | None = None) -> Iterator[Pair]:
        sources = self.sources(split)
        return itertools.chain.from_iterable(
            source.pairs(self.files.invalid_text, repairs) for source in sources
        )

    def _beginning(self, source: ParallelSource) -> list[Pair]:
        return list(itertools.islice(source.pairs(self.files.invalid_text), _PROFILED_PAIRS))

    def _is_divided(self, split: str) -> bool:
        takes_part = self.files.validation is None and self.files.validation_fraction > 0
        return takes_part and self.files.train is not None and split in ("train", "validation")

    def _rank_of(self, pair: Pair) -> int:
        """A number that only depends on the pair and the seed: equal pairs fall into the same part."""
        return xxhash.xxh3_64_intdigest("\0".join(pair).encode("utf-8"), self.files.seed & ((1 << 64) - 1))

    @functools.cached_property
    def _last_rank(self) -> int:
        """The largest :meth:`_rank_of` a pair that is set aside for validation."""
        counts = FilterCounts()
        pairs = filter_pairs(self._read("train"), self.files.filters, counts)
        lowest = heapq.nsmallest(MOST_SET_ASIDE, map(self._rank_of, pairs))
        if counts.num_kept < 2:
            problem = f"train_files: {counts.describe()}, too few to set some aside for validation"
            raise DataError(problem, "name validation_files, or set validation_fraction to 0")
        wanted = max(1, round(counts.num_kept * self.files.validation_fraction))
        return lowest[min(wanted, len(lowest)) - 1]

    def _selection(self, split: str) -> dict[str, str | int | float]:
        """All that decides which pairs of its files a split has."""
        is_divided = self._is_divided(split)
        selection: dict[str, str | int | float] = {"invalid_text": self.files.invalid_text}
        if split == "train" or is_divided:
            selection["filters"] = json.dumps(self.files.filters.to_dict(), sort_keys=True)
        if is_divided:
            selection |= {"part": split, "fraction": self.files.validation_fraction, "seed": self.files.seed}
        if split in ("validation", "test") and self.files.max_test_overlap is not None:
            self.sources("train")
            training = {"contents": self._contents["train"], **self._selection("train")}
            selection |= {"overlap": self.files.max_test_overlap, "training": json_hash(training)}
        return selection

    # ------------------------------------------------------------------ tokenizers

    def use_tokenizer(self, tokenizer: BaseTokenizer, source_tokenizer: BaseTokenizer | None = None) -> None:
        """Use finished tokenizers, those of a checkpoint, instead of the configured one.

        Args:
            tokenizer: The tokenizer of the target, and of the source where it has none of its own.
            source_tokenizer: The tokenizer of the source where vocabularies are separate.

        Raises:
            ConfigError: Text has been encoded already.
        """
        if "tokenizers" in self.__dict__:
            raise ConfigError("use_tokenizer was called after setup", "call it before prepare_data and setup")
        self._tokenizer, self._source_tokenizer = tokenizer, source_tokenizer or tokenizer

    @functools.cached_property
    def tokenizers(self) -> tuple[BaseTokenizer, BaseTokenizer]:
        """The tokenizers of source and target, one and the same for a joint vocabulary.

        Raises:
            TokenizerError: The training text is unsuitable for training them.
        """
        config = self._tokenizer
        if isinstance(config, BaseTokenizer):
            return self._source_tokenizer or config, config
        if self.files.vocabulary == "joint":
            tokenizer = self._find_tokenizer(config, SIDES)
            return tokenizer, tokenizer
        return self._find_tokenizer(config, ("source",)), self._find_tokenizer(config, ("target",))

    def _find_tokenizer(self, config: TokenizerConfig, sides: tuple[str, ...]) -> BaseTokenizer:
        if not config.learns_from_text:
            return config.build(())
        self.sources("train")
        content = {
            "sources": self._contents["train"],
            "selection": self._selection("train"),
            "sides": sides,
            "tokenizer": config.to_dict(),
        }
        name = self._title("train") if sides == SIDES else f"the {sides[0]} side of {self._title('train')}"

        def build() -> BaseTokenizer:
            started = time.perf_counter()
            numbers = [SIDES.index(side) for side in sides]
            counts = FilterCounts()
            texts = (pair[number] for pair in self._kept("train", counts) for number in numbers)
            try:
                tokenizer = config.build(texts)
            except TokenizerError as error:
                self._require_pairs("train", counts)
                raise error.below("data.tokenizer") from error
            self._check_unchanged("train")
            size, seconds = tokenizer.vocabulary_size, time.perf_counter() - started
            say(f"trained a tokenizer of {size} tokens on {name} in {seconds:.1f} s")
            return tokenizer

        return TokenizerCache(self._cache_dir).find_or_build(json_hash(content), build, name)

    def tag_id(self, language: str) -> int:
        """The id of the tag that asks for a translation into a language; see :func:`tag_id`."""
        return tag_id(self.tokenizers[0], language)

    # ------------------------------------------------------------------ token stores

    def stores(self, split: str) -> PairStores:
        """Both sides of a split, and of all but the training pairs the whole sentences, under one key.

        Raises:
            DataError: No pair is left.
            OutputError: The cache folder cannot be written to.
        """
        if split not in self._stores:
            self.sources(split)
            files, is_train = self.files, split == "train"
            key = store_key(
                self._contents[split],
                "-".join(tokenizer.fingerprint() for tokenizer in self.tokenizers),
                {
                    **self._selection(split),
                    "lengths": f"{files.max_source_length},{files.max_target_length}",
                    "too_long": files.too_long if is_train else "truncate",
                    "directions": files.directions if is_train else "forward",
                    "is_tagged": files.directions == "both",
                    **self._planting(split),
                },
            )
            keys = [f"{key}-{part}" for part in (*SIDES, *(() if is_train else ("text",)))]
            build = functools.partial(self._build, split)
            stores = self._cache.find_or_build_together(keys, build, self._title(split))
            self._stores[split] = PairStores(*stores)
            say(f"{split}: {stores[0].manifest.origin['division']}")
        return self._stores[split]

    def _planting(self, split: str) -> dict[str, str]:
        """The part of the key of a store that names what is planted in it."""
        planted = self.files.canaries if split == "train" else None
        return {} if planted is None else {"canaries": json.dumps(planted.to_dict(), sort_keys=True)}

    def _planted(self, split: str) -> list[Pair]:
        """The canaries of a split, which no filter and no limit of length may take away.

        Raises:
            ConfigError: They are too long.
        """
        canaries = self.files.canaries
        if canaries is None or split != "train":
            return []
        pairs, counts = canaries.pairs(), FilterCounts()
        self._encoded(split, pairs, counts)
        if counts.dropped or counts.num_cut:
            problem = "is longer than max_source_length or max_target_length"
            remedy = "shorten format and source_format, or raise the limits"
            raise ConfigError(problem, remedy, option="canaries", value=" → ".join(pairs[0]))
        return pairs

    def _build(self, split: str, *folders: Path) -> None:
        """Write both sides of a split, and the sentences as bytes if there is a third folder."""
        started, title = time.perf_counter(), self._title(split)
        counts, repairs, progress = FilterCounts(), TextRepairs(), EncodingProgress(title)
        writers = [
            StoreWriter(folder, tokenizer)
            for folder, tokenizer in zip(folders, (*self.tokenizers, ByteTokenizer()), strict=False)
        ]
        byte_lengths = [tokenizer.token_byte_lengths() for tokenizer in self.tokenizers]
        try:
            pairs = itertools.chain(self._kept(split, counts, repairs), self._planted(split))
            while chunk := list(itertools.islice(pairs, _PAIRS_AT_ONCE)):
                sides = self._encoded(split, chunk, counts)
                for writer, documents, lengths in zip(writers, sides, byte_lengths, strict=False):
                    offsets = np.cumsum([0, *map(len, documents)])
                    ids = np.concatenate([np.empty(0, dtype=np.int64), *documents])
                    writer.append(EncodedBatch(ids, offsets), int(lengths[ids].sum()))
                for writer in writers[len(SIDES) :]:
                    sentences = ByteTokenizer().encode_batch([side for pair in chunk for side in pair])
                    writer.append(sentences, len(sentences.ids))
                progress.advance(sum(len(source) + len(target) for source, target in chunk))
            note = self._require_pairs(split, counts)
            for checked in self._contents:
                self._check_unchanged(checked)
            for writer in writers:
                writer.close({"files": [source.name for source in self.sources(split)], "division": note})
        finally:
            for writer in writers:
                writer.abandon()
        num_tokens = sum(writer.num_tokens for writer in writers[:2])
        seconds = time.perf_counter() - started
        say(f"encoded {title}: {counts.num_kept:,} pairs, {num_tokens:,} tokens in {seconds:.1f} s")
        for side, writer in zip(SIDES, writers, strict=False):
            if writer.num_unknown:
                share = format_share(writer.num_unknown / writer.num_tokens)
                say(f"{title}: {share} of the {side} tokens stand for text that the tokenizer does not know")
        if repaired := repairs.describe(self.files.invalid_text):
            say(repaired)

    def _encoded(self, split: str, chunk: list[Pair], counts: FilterCounts) -> tuple[list[_Ids], list[_Ids]]:
        """The ids of both sides of pairs, in both directions if asked, within the limits of length."""
        is_train, is_tagged = split == "train", self.files.directions == "both"
        goes_both_ways, skips = is_train and is_tagged, is_train and self.files.too_long == "skip"
        # The end-of-text id counts too, and the tag is a token of the source.
        limits = self.files.max_source_length - 1 - is_tagged, self.files.max_target_length - 1
        tags = [np.empty(0, dtype=np.int64)] * 2
        if is_tagged:
            languages = self.files.target_field, self.files.source_field
            tags = [np.array([self.tag_id(language)]) for language in languages]
        sides: tuple[list[_Ids], list[_Ids]] = ([], [])
        texts = [[pair[side] for pair in chunk] for side in (0, 1)]
        encoded = (_ids(tokenizer, text) for tokenizer, text in zip(self.tokenizers, texts, strict=True))
        for pair in zip(*encoded, strict=True):
            ways = [pair, pair[::-1]] if goes_both_ways else [pair]
            is_long = any(len(ids) > limit for way in ways for ids, limit in zip(way, limits, strict=True))
            if is_long and skips:
                counts.dropped["longer than max_source_length or max_target_length"] += 1
                continue
            counts.num_cut += is_long
            for tag, (source, target) in zip(tags, ways, strict=False):
                sides[0].append(np.concatenate([tag, source[: limits[0]]]))
                sides[1].append(target[: limits[1]])
        return sides

    def _require_pairs(self, split: str, counts: FilterCounts) -> str:
        """Say what became of the pairs of a split; a ``DataError`` if none is left."""
        note = counts.describe() if counts.num_read else "there are no pairs"
        option = f"{split}_files"
        if split != "train" and self._is_divided(split):
            share = format_share(self.files.validation_fraction)
            rule = f"{share} of the training pairs, at most {MOST_SET_ASIDE},"
            note, option = f"no validation_files, so {rule} are set aside: {note}", "train_files"
        if not counts.num_kept:
            remedy = "give other text, or loosen filters and limits"
            if _RECURRING in counts.dropped:
                remedy = "give other text, or set max_test_overlap to null to measure on these pairs too"
            raise DataError(f"{option}: {note}", remedy)
        return note


def _ids(tokenizer: BaseTokenizer, texts: list[str]) -> list[_Ids]:
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
            "use BPETokenizerConfig, or directions: forward",
            option="tokenizer",
            value=type(config).__name__,
        )
    present = tuple(token for token in map(_tag, languages) if token not in config.special_tokens)
    return dataclasses.replace(config, special_tokens=(*config.special_tokens, *present))
