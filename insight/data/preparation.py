"""From the text that the user named to a tokenizer and one token store a split, built once, found again."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from insight.data.canaries import CanaryInjection
from insight.data.encoding.document_sizes import measure_documents
from insight.data.encoding.documents import encode_documents, encode_parts
from insight.data.encoding.executors import ExecutorConfig, LocalProcesses
from insight.data.encoding.tasks import Division, EncodingProgress, encode_in_tasks, text_bytes
from insight.data.sources.content_hashes import ContentHashes
from insight.data.sources.decoding import Reading, TextRepairs
from insight.data.sources.files import Source, expand_sources
from insight.data.sources.formats import TextPart, training_texts
from insight.data.sources.ranges import RangedText
from insight.data.sources.texts import Texts
from insight.data.sources.token_files import read_token_batches
from insight.data.split import ValidationSplit
from insight.data.store import StoreCache, StoreWriter, TokenStore, store_key
from insight.data.tokenizers import BaseTokenizer, EncodedBatch, TokenizerConfig
from insight.data.tokenizers.training import TokenizerCache
from insight.runtime.errors import ConfigError, DataError, nearest
from insight.runtime.messages import say

AnySource = Source | Texts


@dataclass(frozen=True)
class SplitText:
    """One split.

    Attributes:
        split: Its name.
        sources: What the user named, each content once.
        contents: A hash of each of them.
        reading: How bytes become documents.
        ranged: The same text in ranges of bytes; ``None`` where some of it is no file of text.
        division: Divides the documents into a training and a validation part; ``None`` to take all.
    """

    split: str
    sources: Sequence[AnySource]
    contents: Sequence[str]
    reading: Reading
    ranged: RangedText | None
    division: ValidationSplit | None

    def parts(self, repairs: TextRepairs) -> Iterator[TextPart]:
        """The documents, in parts; ``repairs`` counts what was repaired.

        Raises:
            DataError: The text cannot be read.
        """
        if self.division is None:
            return parts_of(self.sources, self.reading, repairs)
        is_training = self.split == "train"
        return self.division.training(repairs) if is_training else self.division.validation(repairs)

    def write(
        self,
        tokenizer: BaseTokenizer,
        writer: StoreWriter,
        repairs: TextRepairs,
        folder: Path,
        executor: ExecutorConfig,
    ) -> None:
        """Encode it and append it to ``writer``.

        Args:
            tokenizer: Makes the ids.
            writer: Gets them.
            repairs: Counts what was repaired.
            folder: Where tasks may leave their results meanwhile.
            executor: Where text is encoded, if there is enough of it; how decides no byte of the result.

        Raises:
            DataError: The text cannot be read.
        """
        if any(map(holds_tokens, self.sources)):
            self._copy_tokens(tokenizer, writer, repairs)
            return
        title = names_of(self.sources)
        num_workers = _useful_workers(self.ranged, tokenizer, executor) if self.ranged else 0
        if self.ranged is None or not num_workers:
            encode_parts(EncodingProgress(title).watch(self.parts(repairs)), tokenizer, writer)
            return
        contents = {
            source.path: content
            for source, content in zip(self.sources, self.contents, strict=True)
            if isinstance(source, Source)
        }
        divided = None
        # Workers start while this process still looks at the text.
        with executor.build(num_workers) as running:
            if self.division is not None:
                if not self.division.is_measured:
                    self.division.take_sizes(measure_documents(running, self.ranged))
                divided = Division(self.division.division, is_validation=self.split != "train")
            encode_in_tasks(
                running, self.ranged, contents, tokenizer, writer, folder, title, repairs, divided
            )

    def _copy_tokens(self, tokenizer: BaseTokenizer, writer: StoreWriter, repairs: TextRepairs) -> None:
        if self.division is not None:
            raise DataError(
                f"{self.split}_files: no part can be set aside of files that hold token ids",
                "name validation_files, or set validation_fraction to 0",
            )
        lengths = tokenizer.token_byte_lengths()
        for source in self.sources:
            if isinstance(source, Source) and source.holds_tokens:
                batches = read_token_batches(
                    source.path,
                    source.name,
                    source.format,
                    tokenizer.vocabulary_size,
                    tokenizer.end_of_text_id,
                )
                for ids, offsets, continues in batches:
                    num_bytes = int(lengths[ids].sum())
                    writer.append(EncodedBatch(ids, offsets), num_bytes, continues=continues)
            else:
                encode_parts(source.parts(self.reading, repairs), tokenizer, writer)


def _useful_workers(text: RangedText, tokenizer: BaseTokenizer, executor: ExecutorConfig) -> int:
    """As many as the executor thinks the text is worth; none where it is all in one piece anyway."""
    can_be_cut = tokenizer.boundaries is not None
    num_pieces = sum(can_be_cut or not each.begins_inside for each in text.ranges)
    return min(num_pieces, executor.workers_for(text_bytes(text.ranges))) if num_pieces > 1 else 0


def ranged_text(sources: Sequence[AnySource], reading: Reading) -> RangedText | None:
    """The sources in ranges of bytes; ``None`` where some of it is no file of text."""
    files = [source for source in sources if isinstance(source, Source) and not source.holds_tokens]
    return RangedText(files, reading) if len(files) == len(sources) else None


def parts_of(sources: Sequence[AnySource], reading: Reading, repairs: TextRepairs) -> Iterator[TextPart]:
    """The documents of all sources, in parts.

    Raises:
        DataError: One of them cannot be read.
    """
    for source in sources:
        yield from source.parts(reading, repairs)


def holds_tokens(source: AnySource) -> bool:
    """Whether it is a file of token ids."""
    return isinstance(source, Source) and source.holds_tokens


def names_of(sources: Sequence[AnySource]) -> str:
    """The sources in a message: the first three, and how many more."""
    names = ", ".join(source.name for source in sources[:3])
    return names if len(sources) <= 3 else f"{names} and {len(sources) - 3} more"


SPLITS = ("train", "validation", "test", "predict")
Named = str | list[str] | Texts


@dataclass(frozen=True)
class TextFiles:
    """The text of every split, as the user named it.

    Attributes:
        train: Files, folders, globs or ``corpus:NAME``, or :class:`Texts`; the others likewise, or ``None``.
        validation: ``None`` takes a part of the training text.
        test: Text for the final measurement.
        predict: Text for ``predict``.
        text_field: Field of ``.jsonl`` and column of ``.tsv`` and ``.parquet`` files.
        validation_fraction: Share of the training text when ``validation`` is ``None``; 0 for none.
        seed: Chooses the documents of that share.
        canaries: Secrets to plant in the training text; ``None`` for none.
        invalid_text: What is done with bytes that are no text: ``error``, ``replace`` or ``skip``.

    Raises:
        ConfigError: A value cannot work.
    """

    train: Named
    validation: Named | None
    test: Named | None
    predict: Named | None
    text_field: str
    validation_fraction: float
    seed: int
    canaries: CanaryInjection | None = None
    invalid_text: str = "error"

    def __post_init__(self) -> None:
        if not 0 <= self.validation_fraction < 1:
            raise ConfigError(
                f"validation_fraction={self.validation_fraction}: must be at least 0 and below 1",
                "use e.g. 0.05",
            )
        Reading(self.text_field, self.invalid_text)  # checks both

    @property
    def reading(self) -> Reading:
        """How the bytes of the files become documents."""
        return Reading(self.text_field, self.invalid_text)


class Preparation:
    """Finds or builds the tokenizer and the stores; everything is looked up only when it is asked for.

    Args:
        files: The text.
        tokenizer: How to get the tokenizer: a configuration, or one that is finished (of a checkpoint).
        cache_dir: Where tokenizers, stores and content hashes are kept.
        max_cache_bytes: How much the stores there may take; ``None`` for no limit.
        executor: Where text is encoded; how decides no byte of the result.
    """

    def __init__(
        self,
        files: TextFiles,
        tokenizer: TokenizerConfig | BaseTokenizer,
        cache_dir: Path,
        max_cache_bytes: int | None = None,
        executor: ExecutorConfig = LocalProcesses(),
    ) -> None:
        self._files = files
        self._tokenizer = tokenizer
        self._cache_dir = cache_dir
        self._cache = StoreCache(cache_dir, max_cache_bytes)
        self._contents: dict[str, list[str]] = {}
        self._sources: dict[str, list[AnySource]] = {}
        self._ranged_texts: dict[str, RangedText | None] = {}
        self.executor = executor
        self._division_said = False

    def has(self, split: str) -> bool:
        """Whether there is text for this split.

        Raises:
            DataError: There is no such split.
        """
        _check_split(split)
        if split == "validation" and self._files.validation is None:
            return self._files.validation_fraction > 0
        return getattr(self._files, split) is not None

    def sources(self, split: str) -> list[AnySource]:
        """The files of a split, each content once.

        Raises:
            DataError: A file is missing, empty or unsupported, or nothing matches, or there is no text.
        """
        _check_split(split)
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
        config, names = self._tokenizer, names_of(sources)
        for source in sources:
            if holds_tokens(source):
                raise DataError(
                    f"train_files: {source.name} holds token ids, from which no tokenizer can learn",
                    "set tokenizer to PretrainedTokenizerConfig with the one that made them",
                )

        def build() -> BaseTokenizer:
            started = time.perf_counter()
            tokenizer = config.build(training_texts(self._text("train").parts(TextRepairs())))
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
        title = names_of(sources) + (f" ({split} part)" if self._is_divided(split) else "")

        def build(folder: Path) -> None:
            started = time.perf_counter()
            repairs = TextRepairs()
            writer = StoreWriter(folder, tokenizer)
            try:
                self._text(split).write(tokenizer, writer, repairs, folder, self.executor)
                if writer.num_unknown:
                    share = writer.num_unknown / writer.num_tokens
                    say(f"{title}: {share:.1%} of the tokens stand for text that the tokenizer does not know")
                if writer.num_tokens == 0:
                    raise DataError(f"{title}: holds no text", "give files with text")
                if planted:
                    encode_documents(planted.documents(), tokenizer, writer)
                self._check_unchanged(sources, self._contents[origin])
                manifest = writer.close(self._origin(split, sources, repairs))
            finally:
                writer.abandon()
            megabytes, seconds = manifest.num_bytes / 1e6, time.perf_counter() - started
            say(f"encoded {title}: {megabytes:.2f} MB, {manifest.num_tokens:,} tokens in {seconds:.1f} s")
            if repaired := repairs.describe(self._files.invalid_text):
                say(repaired)

        store = self._cache.find_or_build(key, build, title)
        if split == "validation" and self._is_divided(split) and not self._division_said:
            self._division_said = True
            say(f"no validation_files: validating on {store.manifest.origin['division']}")
        return store

    def of_corpus(self, files: Named) -> Preparation:
        """The same for other training text and nothing else, with the tokenizer of this one."""
        text = dataclasses.replace(
            self._files,
            train=files,
            validation=None,
            test=None,
            predict=None,
            validation_fraction=0.0,
            canaries=None,
        )
        corpus = Preparation(text, self.tokenizer, self._cache_dir, executor=self.executor)
        corpus._cache = self._cache
        return corpus

    def _origin(self, split: str, sources: list[AnySource], repairs: TextRepairs) -> dict[str, Any]:
        """What the manifest says about where the tokens come from."""
        note = self._division.describe() if self._is_divided(split) else ""
        origin: dict[str, Any] = {"files": [source.name for source in sources], "division": note}
        if repairs.num_places:
            origin["repaired_places"] = repairs.num_places
        return origin

    def _expand(self, split: str) -> None:
        if split == "validation" and self._files.validation is None:
            self._sources[split] = self.sources("train")
            return
        option = f"{split}_files"
        named = getattr(self._files, split)
        if named is None:
            raise DataError(f"{option} is not set", "name at least one file, folder, glob or corpus:NAME")
        expanded: list[AnySource] = [named] if isinstance(named, Texts) else [*expand_sources(named, option)]
        unique: dict[str, AnySource] = {}
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
        if self._files.invalid_text != "error":  # which never decides the content of a store that exists
            encoding["invalid_text"] = self._files.invalid_text
        if self._is_divided(split):
            encoding |= {"part": split, "fraction": self._files.validation_fraction, "seed": self._files.seed}
        return encoding

    def _text(self, split: str) -> SplitText:
        origin = self._origin_split(split)
        division = self._division if self._is_divided(split) else None
        sources, contents = self.sources(origin), self._contents[origin]
        return SplitText(split, sources, contents, self._files.reading, self._ranged(origin), division)

    @functools.cached_property
    def _division(self) -> ValidationSplit:
        sources, text = self.sources("train"), self._ranged("train")
        return ValidationSplit(
            text.parts if text else lambda repairs: parts_of(sources, self._files.reading, repairs),
            self._files.validation_fraction,
            self._files.seed,
            names_of(sources),
        )

    def _ranged(self, split: str) -> RangedText | None:
        if split not in self._ranged_texts:
            self._ranged_texts[split] = ranged_text(self.sources(split), self._files.reading)
        return self._ranged_texts[split]

    def _content_of(self, sources: list[AnySource]) -> list[str]:
        """What decides the documents of each source: the bytes of its file and how they are read."""
        files = [source for source in sources if isinstance(source, Source)]
        hashes = iter(ContentHashes(self._cache_dir).of([source.path for source in files]))
        return [
            f"{next(hashes)}.{source.format}.{source.compression}"
            if isinstance(source, Source)
            else f"{source.content_hash(self._files.reading)}.texts"
            for source in sources
        ]

    def _check_unchanged(self, sources: list[AnySource], contents: list[str]) -> None:
        """Refuse to keep what was read from files that changed since their content was hashed."""
        for source, before, now in zip(sources, contents, self._content_of(sources), strict=True):
            if now != before:
                raise DataError(f"{source.name}: changed while it was read", "start again")


def _check_split(split: str) -> None:
    if split not in SPLITS:
        match = nearest(str(split), SPLITS)
        remedy = f"did you mean {match!r}?" if match else f"use one of {', '.join(SPLITS)}"
        raise DataError(f"split={split!r} is unknown", remedy)
