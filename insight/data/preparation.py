"""From the text that the user named to a tokenizer and one token store per split, built once and cached."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from insight.data.canaries import CanaryInjection
from insight.data.encoding.documents import encode_documents, encode_parts
from insight.data.encoding.executors import ExecutorConfig, LocalProcesses
from insight.data.encoding.tasks import EncodingProgress, encode_in_tasks, measure_documents
from insight.data.sources.content_hashes import ContentHashes
from insight.data.sources.decoding import Reading, TextRepairs
from insight.data.sources.files import expand_sources
from insight.data.sources.formats import Source, TextPart, Texts, TextSource, text_hash, training_texts
from insight.data.sources.ranges import RangedText
from insight.data.sources.token_files import read_token_batches
from insight.data.split import ValidationSplit
from insight.data.store import StoreCache, StoreWriter, TokenStore, store_key
from insight.data.store.format import json_hash
from insight.data.tokenizers import BaseTokenizer, EncodedBatch, TokenizerConfig
from insight.data.tokenizers.training import TokenizerCache
from insight.runtime.errors import DataError, TokenizerError, nearest
from insight.runtime.formats import format_share
from insight.runtime.messages import say
from insight.runtime.numbers import require_number

SPLITS = ("train", "validation", "test", "predict")
Named = str | list[str] | Texts


class DocumentPlace(NamedTuple):
    """The file of a record as the user named it, and its number there, from 1; empty ones are not stored."""

    file: str
    record: int
    is_empty: bool


@dataclass(frozen=True)
class TextFiles:
    """The text of every split, as the user named it.

    Attributes:
        train: Training text: files, folders, globs, ``corpus:NAME`` or :class:`Texts`.
        validation: Validation text; ``None`` takes a part of the training text.
        test: Text for the final evaluation, or ``None``.
        predict: Text for ``predict``, or ``None``.
        text_field: Field of ``.jsonl`` and column of ``.tsv`` and ``.parquet`` files that holds the text.
        validation_fraction: Fraction of the training text used if ``validation`` is ``None``; 0 for none.
        seed: Chooses the documents set aside.
        canaries: Secrets to plant in the training text; ``None`` for none.
        invalid_text: How bytes that are not UTF-8 are handled: ``error``, ``replace`` or ``skip``.

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
        require_number("validation_fraction", self.validation_fraction, 0.05, at_least=0, below=1)
        Reading(self.text_field, self.invalid_text)  # Checks both values.

    @property
    def reading(self) -> Reading:
        """How the bytes of the files become documents."""
        return Reading(self.text_field, self.invalid_text)


class Preparation:
    """Finds or builds the tokenizer and the stores; each is looked up only on request.

    Args:
        files: The text.
        tokenizer: A tokenizer configuration, or a finished tokenizer such as that of a checkpoint.
        cache_dir: Where tokenizers, stores and content hashes are kept.
        max_cache_bytes: Most bytes that the stores there may take; ``None`` for no limit.
        executor: Where text is encoded; the result is the same.

    Raises:
        DataError: Text cannot be read, or there is no such split; raised by every method.
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
        self._sources: dict[str, list[TextSource]] = {}
        self._ranged_texts: dict[str, RangedText | None] = {}
        self.executor = executor
        self._division_said = False

    def has(self, split: str) -> bool:
        """Whether this split has text."""
        _check_split(split)
        return self._is_divided(split) or getattr(self._files, split) is not None

    def sources(self, split: str) -> list[TextSource]:
        """The files of a split, without files of equal content."""
        _check_split(split)
        if split not in self._sources:
            self._expand(split)
        return self._sources[split]

    @functools.cached_property
    def tokenizer(self) -> BaseTokenizer:
        """The tokenizer, trained on the training text if its kind learns from text.

        A ``TokenizerError`` says that the text is unsuitable for training it.
        """
        if isinstance(self._tokenizer, BaseTokenizer):
            return self._tokenizer
        if not self._tokenizer.learns_from_text:
            return self._tokenizer.build(())
        sources = self.sources("train")
        config, names, contents = self._tokenizer, _names_of(sources), self._contents["train"]
        for source in sources:
            if source.holds_tokens:
                problem = f"train_files: {source.name} holds token ids, from which no tokenizer can learn"
                remedy = "set tokenizer to PretrainedTokenizerConfig with the one that made them"
                raise DataError(problem, remedy)

        def build() -> BaseTokenizer:
            started = time.perf_counter()
            try:
                tokenizer = config.build(training_texts(self._parts("train", TextRepairs())))
            except TokenizerError as error:
                raise error.below("data.tokenizer") from error
            self._check_unchanged(sources, contents)
            size, seconds = tokenizer.vocabulary_size, time.perf_counter() - started
            say(f"trained a tokenizer of {size} tokens on {names} in {seconds:.1f} s")
            return tokenizer

        encoding = self._encoding("train")
        key = json_hash({"sources": contents, "encoding": encoding, "tokenizer": config.to_dict()})
        return TokenizerCache(self._cache_dir).find_or_build(key, build, names)

    def store(self, split: str) -> TokenStore:
        """The tokens of a split; an ``OutputError`` says that the cache folder cannot be written to."""
        sources = self.sources(split)
        tokenizer = self.tokenizer
        contents = self._contents[self._origin_split(split)]
        planted = self._files.canaries if split == "train" else None
        encoding = self._encoding(split)
        if planted:
            encoding["canaries"] = json.dumps(planted.to_dict(), sort_keys=True)
        key = store_key(contents, tokenizer.fingerprint(), encoding)
        title = _names_of(sources) + (f" ({split} part)" if self._is_divided(split) else "")

        def build(folder: Path) -> None:
            started = time.perf_counter()
            repairs = TextRepairs()
            writer = StoreWriter(folder, tokenizer)
            try:
                self._encode(split, writer, repairs, folder)
                if writer.num_unknown:
                    share = format_share(writer.num_unknown / writer.num_tokens)
                    say(f"{title}: {share} of the tokens stand for text that the tokenizer does not know")
                if writer.num_tokens == 0:
                    raise DataError(f"{title}: holds no text", "give files with text")
                if planted:
                    encode_documents(planted.documents(), writer)
                self._check_unchanged(sources, contents)
                note = self._division.describe() if self._is_divided(split) else ""
                origin: dict[str, Any] = {"files": [source.name for source in sources], "division": note}
                if repairs.num_places:
                    origin["repaired_places"] = repairs.num_places
                manifest = writer.close(origin)
            finally:
                writer.abandon()
            seconds, count = time.perf_counter() - started, manifest.num_documents
            size = f"{manifest.num_bytes / 1e6:.2f} MB, {count:,} document{'' if count == 1 else 's'}"
            say(f"encoded {title}: {size}, {manifest.num_tokens:,} tokens in {seconds:.1f} s")
            if repaired := repairs.describe(self._files.invalid_text):
                say(repaired)

        store = self._cache.find_or_build(key, build, title)
        if split == "validation" and self._is_divided(split) and not self._division_said:
            self._division_said = True
            say(f"no validation_files: validating on {self.division(split, store)}")
        return store

    def division(self, split: str, store: TokenStore) -> str:
        """Describe which part of the training text a split is; ``""`` if it is all of its files."""
        # The manifests of both parts describe the part that was set aside.
        set_aside = str(store.manifest.origin.get("division", ""))
        return f"all but {set_aside}" if split == "train" and set_aside else set_aside

    def document_places(self, split: str) -> Iterator[DocumentPlace]:
        """The file and the number of every record of a split, in order, empty records included.

        Reads the text once more. The records that are not empty are the documents of :meth:`store`, unless
        the split is a part of other text.
        """
        for source in self.sources(split):
            if isinstance(source, Source) and source.holds_tokens:
                record = 0  # The reader skips empty documents of such files.
                end = self.tokenizer.end_of_text_id
                for batch in read_token_batches(source, self.tokenizer.vocabulary_size, end):
                    for _ in range(len(batch.offsets) - 1 - batch.continues):
                        record += 1
                        yield DocumentPlace(source.name, record, is_empty=False)
                continue
            record, is_empty = 1, True
            for part in source.records(self._files.reading, TextRepairs()):
                is_empty = is_empty and not part.text
                if part.is_last:
                    yield DocumentPlace(source.name, record, is_empty)
                    record, is_empty = record + 1, True

    def of_corpus(self, files: Named) -> Preparation:
        """A preparation of other training text without other splits, with the same tokenizer and cache."""
        others: dict[str, Any] = dict.fromkeys(("validation", "test", "predict", "canaries"))
        text = dataclasses.replace(self._files, train=files, validation_fraction=0.0, **others)
        corpus = Preparation(text, self.tokenizer, self._cache_dir, executor=self.executor)
        corpus._cache = self._cache
        return corpus

    def _expand(self, split: str) -> None:
        if split == "validation" and self._files.validation is None:
            self._sources[split] = self.sources("train")
            return
        option = f"{split}_files"
        named = getattr(self._files, split)
        if named is None:
            remedy = "name at least one file, folder, glob or corpus:NAME"
            raise DataError("names no text", remedy, option=option)
        expanded: list[TextSource] = [named] if isinstance(named, Texts) else [*expand_sources(named, option)]
        unique: dict[str, TextSource] = {}
        for content, source in zip(self._content_of(expanded), expanded, strict=True):
            first = unique.setdefault(content, source)
            if first is not source:
                say(f"{option}: {source.name} has the same content as {first.name}; used once")
        self._sources[split], self._contents[split] = list(unique.values()), list(unique)
        if split not in ("train", "predict"):
            for content in set(self._contents.get("train", ())) & set(unique):
                say(f"{option}: {unique[content].name} is training text too, so its scores flatter")

    def _encode(self, split: str, writer: StoreWriter, repairs: TextRepairs, folder: Path) -> None:
        """Encode the text of a split into ``writer``; tasks may leave their results in ``folder``."""
        sources, ranged = self.sources(split), self._ranged(self._origin_split(split))
        if any(source.holds_tokens for source in sources):
            self._copy_tokens(split, writer, repairs)
            return
        title = _names_of(sources)
        num_workers = self._useful_workers(ranged) if ranged else 0
        if ranged is None or not num_workers:
            encode_parts(EncodingProgress(title).watch(self._parts(split, repairs)), writer)
            return
        hashes = zip(sources, self._contents[self._origin_split(split)], strict=True)
        contents = {source.path: content for source, content in hashes if isinstance(source, Source)}
        division = None
        # Workers start while this process still looks at the text.
        with self.executor.build(num_workers) as running:
            if self._is_divided(split):
                if self._division.measured is None:
                    self._division.measured = measure_documents(running, ranged)
                division = self._division.division
            is_validation = split == "validation"
            encode_in_tasks(
                running, ranged, contents, writer, folder, title, repairs, division, is_validation
            )

    def _copy_tokens(self, split: str, writer: StoreWriter, repairs: TextRepairs) -> None:
        if self._is_divided(split):
            problem = f"{split}_files: no part can be set aside of files that hold token ids"
            raise DataError(problem, "name validation_files, or set validation_fraction to 0")
        tokenizer = writer.tokenizer
        lengths = tokenizer.token_byte_lengths()
        for source in self.sources(split):
            if isinstance(source, Source) and source.holds_tokens:
                batches = read_token_batches(source, tokenizer.vocabulary_size, tokenizer.end_of_text_id)
                for ids, offsets, continues in batches:
                    writer.append(EncodedBatch(ids, offsets), int(lengths[ids].sum()), continues=continues)
            else:
                encode_parts(source.parts(self._files.reading, repairs), writer)

    def _useful_workers(self, text: RangedText) -> int:
        """Number of workers that the text justifies; 0 if it cannot be divided."""
        can_be_cut = self.tokenizer.boundaries is not None
        num_pieces = sum(can_be_cut or not each.begins_inside for each in text.ranges)
        num_bytes = sum(each.text_bytes for each in text.ranges)
        return min(num_pieces, self.executor.workers_for(num_bytes) if num_pieces > 1 else 0)

    def _parts(self, split: str, repairs: TextRepairs) -> Iterator[TextPart]:
        if self._is_divided(split):
            return self._division.parts(split == "validation", repairs)
        return self._all_parts(split, repairs)

    def _all_parts(self, split: str, repairs: TextRepairs) -> Iterator[TextPart]:
        for source in self.sources(split):
            yield from source.parts(self._files.reading, repairs)

    def _is_divided(self, split: str) -> bool:
        takes_part = self._files.validation is None and self._files.validation_fraction > 0
        return takes_part and split in ("train", "validation")

    def _origin_split(self, split: str) -> str:
        return "train" if self._is_divided(split) else split

    def _encoding(self, split: str) -> dict[str, str | int | float]:
        encoding: dict[str, str | int | float] = {"text_field": self._files.text_field}
        if self._files.invalid_text != "error":  # If nothing is repaired, it does not affect the store.
            encoding["invalid_text"] = self._files.invalid_text
        if self._is_divided(split):
            encoding |= {"part": split, "fraction": self._files.validation_fraction, "seed": self._files.seed}
        return encoding

    @functools.cached_property
    def _division(self) -> ValidationSplit:
        text, names = self._ranged("train"), _names_of(self.sources("train"))
        parts = text.parts if text else functools.partial(self._all_parts, "train")
        return ValidationSplit(parts, self._files.validation_fraction, self._files.seed, names)

    def _ranged(self, split: str) -> RangedText | None:
        """The text as ranges of bytes; ``None`` if some of it is not in text files."""
        if split not in self._ranged_texts:
            sources = self.sources(split)
            files = [source for source in sources if isinstance(source, Source) and not source.holds_tokens]
            text = RangedText(files, self._files.reading) if len(files) == len(sources) else None
            self._ranged_texts[split] = text
        return self._ranged_texts[split]

    def _content_of(self, sources: list[TextSource]) -> list[str]:
        files = [source for source in sources if isinstance(source, Source)]
        hashes = iter(ContentHashes(self._cache_dir).of([source.path for source in files]))
        return [
            f"{next(hashes)}.{source.format}.{source.compression}"
            if isinstance(source, Source)
            else f"{text_hash(source, self._files.reading)}.texts"
            for source in sources
        ]

    def _check_unchanged(self, sources: list[TextSource], contents: list[str]) -> None:
        for source, before, now in zip(sources, contents, self._content_of(sources), strict=True):
            if now != before:
                raise DataError(f"{source.name}: changed while it was read", "start again")


def _names_of(sources: Sequence[TextSource]) -> str:
    names = ", ".join(source.name for source in sources[:3])
    return names if len(sources) <= 3 else f"{names} and {len(sources) - 3} more"


def _check_split(split: str) -> None:
    if split not in SPLITS:
        match = nearest(str(split), SPLITS)
        remedy = f"did you mean {match!r}?" if match else f"use one of {', '.join(SPLITS)}"
        raise DataError("is no split", remedy, option="split", value=repr(split))
