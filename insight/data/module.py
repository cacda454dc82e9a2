"""The data module of language modeling: from text files to batches of tokens, with one saved position."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from insight.data.canaries import CanaryInjection
from insight.data.encoding.executors import ExecutorConfig, LocalProcesses
from insight.data.loaders import (
    MAX_LOADER_WORKERS,
    BatchLoader,
    EvaluationBatches,
    LanguageModelBatch,
    SampleCursor,
    TrainingBatches,
    text_hash,
)
from insight.data.preparation import DocumentPlace, Named, Preparation, TextFiles
from insight.data.sampling import Corpus, EvaluationWindows, Samples, SamplingConfig, Windows
from insight.data.sampling.samples import MAX_SEQUENCE_LENGTH, require_corpus_names
from insight.data.store import TokenStore, cache_limit, default_cache_dir
from insight.data.store.reader import JoinedStore
from insight.data.text_data_module import TextDataModule
from insight.data.tokenizers import BaseTokenizer, BPETokenizerConfig, TokenizerConfig
from insight.runtime.errors import CheckpointError, ConfigError, DataError
from insight.runtime.messages import say
from insight.runtime.numbers import require_number

Files = str | list[str]
TrainFiles = Named | dict[str, Files]

MAX_BATCH_TOKENS = 1 << 24
"""Upper limit of the tokens in a batch on one process; the states of more would not fit into memory."""
_NUM_NUMBERS = 12  # shown at most
_WHAT_TO_NAME = "name at least one file, folder, glob or corpus:NAME"
_SPLITS_OF_STAGE = {
    # An unreadable test set is reported before training rather than after it.
    "fit": ("train", "validation", "test"),
    "validate": ("validation",),
    "test": ("test",),
    "predict": ("predict",),
    None: ("train", "validation", "test", "predict"),
}


def _joined(train_files: TrainFiles) -> Named:
    """The text of all corpora of ``train_files`` as one stream."""
    if not isinstance(train_files, Mapping):
        return train_files
    require_corpus_names("train_files", train_files)
    if not train_files:
        raise ConfigError("names no text", _WHAT_TO_NAME, option="train_files", value="{}")
    joined: list[str] = []
    for name, files in train_files.items():
        if not isinstance(files, (str, list)):
            problem, option = "is neither a file nor a list of files", f"train_files.{name}"
            remedy = "name files, folders, globs or corpus:NAME"
            raise ConfigError(problem, remedy, option=option, value=files)
        joined += [files] if isinstance(files, str) else files
    return joined


class LanguageModelingDataModule(TextDataModule):
    """Text files for training, validating and testing a language model.

    The tokenizer and the token ids are made once and cached. The order of the training batches is a pure
    function of the seed; checkpoints hold the position in it as a number of samples.

    Args:
        train_files: Text to train on: files, folders, globs or ``corpus:NAME``; ``.txt``, ``.jsonl``,
            ``.tsv`` or ``.parquet``, optionally ``.gz``, ``.bz2``, ``.xz`` or ``.zst``. A mapping names
            corpora, for ``sampling: Mixture``.
        validation_files: Text to validate on; if not given, a part of the training text is set aside.
        test_files: Text for the final evaluation.
        predict_files: Text for ``predict``.
        tokenizer: How text becomes token ids.
        sampling: How the training text becomes samples: windows of the stream, packed documents, a mixture of
            corpora, short sequences first.
        sequence_length: Tokens in a training sample or evaluation window.
        batch_size: Samples per training batch on each process; with ``auto``, ``insight fit`` finds how many
            fit into memory and stores the number in the run's configuration.
        validation_batch_size: Most windows per evaluation batch on each process; ``batch_size`` if not given.
        validation_fraction: Fraction of the training text to set aside if there are no ``validation_files``;
            0 for none.
        text_field: Field of ``.jsonl`` and column of ``.tsv`` and ``.parquet`` files that holds the text.
        invalid_text: How bytes that are not UTF-8 are handled: ``error`` stops and names the place,
            ``replace`` puts U+FFFD there, ``skip`` leaves them out.
        seed: Chooses the order of the training samples and the documents set aside.
        canaries: Secrets to plant in the training text, to measure what is memorized; none if not given.
        num_workers: Processes that make batches in advance; batches are cheap, so 0 is usually fastest.
        cache_gigabytes: Most gigabytes that the token ids of all runs may take; the least recently used are
            removed when new ones are made. ``$INSIGHT_CACHE_GIGABYTES`` if not given, else no limit.
        cache_dir: Folder of tokenizers and token ids; ``$INSIGHT_CACHE_DIR`` or ``~/.cache/insight`` if not
            given.
        executor: Where text is encoded: ``LocalProcesses`` (much text in several processes, little in this
            one), ``InProcess`` or ``DaskCluster``. The result is the same.

    Raises:
        ConfigError: A value cannot work.
    """

    size_option = "batch_size"

    def __init__(
        self,
        train_files: str | list[str] | dict[str, str | list[str]],
        validation_files: str | list[str] | None = None,
        test_files: str | list[str] | None = None,
        predict_files: str | list[str] | None = None,
        tokenizer: TokenizerConfig = BPETokenizerConfig(),
        sampling: SamplingConfig = Windows(),
        sequence_length: int = 256,
        batch_size: int | Literal["auto"] = 16,
        validation_batch_size: int | None = None,
        validation_fraction: float = 0.05,
        text_field: str = "text",
        invalid_text: str = "error",
        seed: int = 0,
        canaries: CanaryInjection | None = None,
        num_workers: int = 0,
        cache_gigabytes: float | None = None,
        cache_dir: str | None = None,
        executor: ExecutorConfig = LocalProcesses(),
    ) -> None:
        super().__init__()
        require_number("seed", seed, 0, whole=True, at_least=-(1 << 63), below=1 << 64)
        require_number("num_workers", num_workers, 2, whole=True, at_least=0, at_most=MAX_LOADER_WORKERS)
        most = MAX_SEQUENCE_LENGTH
        require_number("sequence_length", sequence_length, 256, whole=True, at_least=1, at_most=most)
        most = max(1, MAX_BATCH_TOKENS // sequence_length)
        sizes = {"batch_size": None if batch_size == "auto" else batch_size}
        sizes["validation_batch_size"] = validation_batch_size
        for name, size in sizes.items():
            require_number(name, size, min(16, most), whole=True, optional=True, at_least=1, at_most=most)
        self.sequence_length = sequence_length
        self.chooses_batch_size = batch_size == "auto"
        self.batch_size = 1 if batch_size == "auto" else batch_size
        self._validation_batch_size = validation_batch_size
        self.seed = seed
        self.num_workers = num_workers
        self._tokenizer: TokenizerConfig | BaseTokenizer = tokenizer
        self.canaries = canaries
        self.sampling = sampling
        texts = (_joined(train_files), validation_files, test_files, predict_files)
        self._files = TextFiles(*texts, text_field, validation_fraction, seed, canaries, invalid_text)
        self._files_of_corpora = dict(train_files) if isinstance(train_files, Mapping) else {}
        self._check_sampling()
        self._cache_dir = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
        self._max_cache_bytes = cache_limit(cache_gigabytes)
        self._executor = executor
        self._preparation: Preparation | None = None
        self._stores: dict[str, TokenStore] = {}
        self._corpora: list[Corpus] = []
        self._samples: Samples | None = None
        self._samples_per_step = self.batch_size
        self._has_said_counts = False

    def _check_sampling(self) -> None:
        """Refuse options that cannot work together, before any text is read."""
        self.sampling.check(list(self._files_of_corpora) or [""], self.sequence_length)
        if not self._files_of_corpora:
            return
        fraction = self._files.validation_fraction
        if self._files.validation is None and fraction:
            problem = "no part of corpora with names can be set aside"
            remedy = "name validation_files, or set validation_fraction to 0"
            raise ConfigError(problem, remedy, option="validation_fraction", value=fraction)
        if self.canaries is not None:
            problem = "canaries: they are planted in one stream, and train_files names corpora"
            raise ConfigError(problem, "list the files without names, or leave the canaries out")

    def use_tokenizer(self, tokenizer: BaseTokenizer) -> None:
        """Use a finished tokenizer, such as that of a checkpoint, unless text has been encoded already."""
        if self._preparation is not None:
            raise ConfigError("use_tokenizer was called after setup", "call it before prepare_data and setup")
        self._tokenizer = tokenizer

    @property
    def batch_shape(self) -> tuple[int, int]:
        return self.batch_size, self.sequence_length

    @property
    def tokens_per_batch(self) -> int:
        return self.batch_size * self.sequence_length

    def size_of(self, num_rows: int) -> int:
        return num_rows

    def use_batch_size(self, size: int) -> None:
        self.batch_size, self.chooses_batch_size = size, False
        if "train" in self._stores:
            self._samples_per_step = self._count_samples_per_step()

    @property
    def num_training_rows(self) -> int:
        return self._training_samples().num_samples

    @property
    def validation_batch_size(self) -> int:
        """Most windows per evaluation batch on each process."""
        return self._validation_batch_size or self.batch_size

    def prepare_data(self) -> None:
        """Make the tokenizer and the token ids if the cache lacks them (in one process per machine).

        Raises:
            DataError: Text cannot be read or is too short.
            TokenizerError: The text is unsuitable for training the tokenizer.
            OutputError: The cache cannot be written to.
        """
        self._open(self.trainer.state.fn.value if self.trainer and self.trainer.state.fn else None)

    def setup(self, stage: str | None = None) -> None:
        """Open the token ids of the splits that the stage needs; repeated calls are allowed.

        ``stage`` is ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``; ``None`` means all splits. Raises
        the errors of :meth:`prepare_data`.
        """
        self._stores |= self._open(stage)
        if stage == "fit" and self.trainer and not self._has_said_counts:
            self._has_said_counts = True
            counts = [f"{split} {store.num_documents:,}" for split, store in self._stores.items()]
            say(f"documents: {', '.join(counts)}")
        if "train" in self._stores:
            self._samples_per_step = self._count_samples_per_step()
            self._cursor.restore(self._identity(), self.global_batch_size)

    def _open(self, stage: str | None) -> dict[str, TokenStore]:
        if self._preparation is None:
            self._preparation = Preparation(
                self._files, self._tokenizer, self._cache_dir, self._max_cache_bytes, self._executor
            )
        preparation = self._preparation
        wanted = [split for split in _SPLITS_OF_STAGE[stage] if preparation.has(split)]
        for split in wanted:
            preparation.sources(split)  # Every missing file is found before any work.
        return {
            split: self._stores.get(split)
            or (self._training_store(preparation) if split == "train" else preparation.store(split))
            for split in wanted
        }

    def _training_store(self, preparation: Preparation) -> TokenStore:
        """Open the text to train on and make its samples; the corpora share the tokenizer of all text."""
        if self._samples is None:
            self._corpora = [
                Corpus(name, f"train_files.{name}", preparation.of_corpus(files).store("train"))
                for name, files in self._files_of_corpora.items()
            ]
            if not self._corpora:
                sources = preparation.sources("train")
                files = sources[0].name if len(sources) == 1 else f"{len(sources)} files"
                self._corpora = [Corpus("", f"train_files ({files})", preparation.store("train"))]
            self._samples = self.sampling.build(self._corpora, self.sequence_length, self.seed)
            for line in self._samples.notes():
                say(line)
        count, size = self._samples.num_samples, self.global_batch_size
        several = len(self._corpora) > 1
        if count < size:
            where = f"train_files ({len(self._corpora)} corpora)" if several else self._corpora[0].title
            problem = f"{count} sequences of {self.sequence_length} tokens, fewer than one batch of {size}"
            most = count // self._world_size
            remedy = f", or use batch_size={most} or" if most else " or use"
            raise DataError(f"{where}: {problem}", f"give more text{remedy} a smaller sequence_length")
        stores = [corpus.store for corpus in self._corpora]
        return JoinedStore(stores) if several else stores[0]

    @property
    def tokenizer(self) -> BaseTokenizer:
        """The tokenizer; a DataError if neither ``prepare_data`` nor ``setup`` has run."""
        return self._prepared.tokenizer

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids."""
        return self.tokenizer.vocabulary_size

    def store(self, split: str) -> TokenStore:
        """The tokens of ``"train"``, ``"validation"``, ``"test"`` or ``"predict"``.

        Raises:
            DataError: The split has no text, or ``setup`` has not run for it.
        """
        if split not in self._stores:
            if self._preparation is not None and not self._preparation.has(split):
                raise DataError("names no text", _WHAT_TO_NAME, option=f"{split}_files")
            raise DataError(f"the {split} data is not set up", "call setup() first")
        return self._stores[split]

    def document_places(self, split: str) -> Iterator[DocumentPlace]:
        """The file and the number of every record of a split, in order; empty records are marked."""
        return self._prepared.document_places(split)

    def summary(self) -> dict[str, Any]:
        """Facts about the data for reports, as plain JSON values."""
        tokenizer, preparation = self.tokenizer, self._prepared
        splits = {
            split: {
                "files": [source.name for source in preparation.sources(split)],
                "division": preparation.division(split, store),
                "documents": store.num_documents,
                "bytes": store.num_bytes,
                "tokens": store.num_tokens,
            }
            for split, store in self._stores.items()
        }
        more: dict[str, Any] = {"canaries": self.canaries.record()} if self.canaries else {}
        if self._samples is not None and self.sampling != Windows():
            more |= {"sampling": self.sampling.to_dict(), "samples": self._samples.facts()}
        return {
            "tokenizer": {
                "kind": type(tokenizer).__name__,
                "vocabulary_size": tokenizer.vocabulary_size,
                "fingerprint": tokenizer.fingerprint(),
            },
            "sequence_length": self.sequence_length,
            "batch_size": self.batch_size,
            "splits": splits,
            **more,
        }

    def train_dataloader(self) -> BatchLoader[LanguageModelBatch]:
        """One epoch of training batches, beginning at the saved position.

        ``len()`` is always that of a whole epoch, even if iteration begins inside one: only Lightning counts
        where an epoch ends, and the batches continue into the next.
        """
        samples = self._training_samples()
        if self.chooses_batch_size:
            remedy = "use insight fit, or name one"
            raise ConfigError("nothing has chosen a number", remedy, option="batch_size", value="auto")
        sizes = (self.global_batch_size, self._rank, self._world_size, self._samples_per_step)
        batches = TrainingBatches(samples, *sizes, self.sampling)
        return BatchLoader(batches, batches.num_batches, self._first_batch, self.num_workers)

    def _training_samples(self) -> Samples:
        self.store("train")  # Raises an error if there is none.
        assert self._samples is not None
        return self._samples

    def val_dataloader(self) -> BatchLoader[LanguageModelBatch] | list[BatchLoader[LanguageModelBatch]]:
        """The validation text with each token a target once; ``[]`` if ``validation_fraction`` is 0."""
        if self._preparation is not None and not self._preparation.has("validation"):
            return []
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> BatchLoader[LanguageModelBatch]:
        """The test text with each token a target once."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> BatchLoader[LanguageModelBatch]:
        """The text to predict with each token a target once."""
        return self._evaluation_loader("predict")

    @property
    def global_batch_size(self) -> int:
        """Samples per batch on all ranks together."""
        return self.batch_size * self._world_size

    def state_dict(self) -> dict[str, Any]:
        """The position and the identity of the data that it refers to, equal on every rank."""
        if "train" not in self._stores:
            return {}
        return self._cursor.state_dict(self._identity())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the position; a CheckpointError if it refers to other data, another order or batch."""
        self._cursor.load_state_dict(state_dict)
        if "train" in self._stores:
            self._cursor.restore(self._identity(), self.global_batch_size)

    def check_position(self, state_dict: dict[str, Any]) -> None:
        """Refuse the saved state of other data or another order, before training processes start."""
        saved = SampleCursor()
        saved.load_state_dict(state_dict)
        saved.restore(self._identity() | {"global_batch_size": state_dict.get("global_batch_size")})

    def check_processes(self, state_dict: dict[str, Any], num_readers: int, accumulation: int) -> None:
        saved, size = state_dict.get("global_batch_size"), self.batch_size
        here = size * accumulation * num_readers
        if not isinstance(saved, int) or saved in (here, size * num_readers):
            return
        if saved % num_readers:
            numbers = [str(number) for number in range(1, saved + 1) if saved % number == 0]
            raise CheckpointError(
                f"its steps of {saved} sequences cannot be shared by {num_readers} processes",
                f"use {', '.join(numbers[:_NUM_NUMBERS])} processes",
            )
        share = saved // num_readers
        raise CheckpointError(
            f"its steps take {saved} sequences, and data.batch_size={size} times accumulation "
            f"{accumulation} times {num_readers} processes is {here}",
            f"use --data.batch_size {share} and --trainer.accumulate_grad_batches 1, or another "
            f"product of {share}",
        )

    def in_text_order(self, split: str, batches: Sequence[torch.Tensor]) -> torch.Tensor:
        # Windows come in the order of the text, and only the last one is padded.
        return torch.cat([batch.flatten() for batch in batches])[: self.store(split).num_tokens]

    def _identity(self) -> dict[str, Any]:
        manifest = self._stores["train"].manifest
        identity: dict[str, Any] = {
            "training_text": text_hash("".join(shard.tokens_hash for shard in manifest.shards)),
            "tokenizer": manifest.tokenizer_fingerprint[:16],
            "sequence_length": self.sequence_length,
            "global_batch_size": self._samples_per_step,
            "seed": self.seed,
        }
        # Checkpoints from before sampling was an option have no entry for it.
        if self.sampling != Windows() or self._files_of_corpora:
            identity["sampling"] = json.dumps(self.sampling.to_dict())
        if self._files_of_corpora:
            sizes = (f"{corpus.name}: {corpus.store.num_tokens}" for corpus in self._corpora)
            identity["corpora"] = ", ".join(sizes)
        return identity

    @property
    def _prepared(self) -> Preparation:
        if self._preparation is None:
            raise DataError("the data is not prepared", "call prepare_data() or setup() first")
        return self._preparation

    def _first_batch(self) -> int:
        return self._cursor.num_consumed // self.global_batch_size

    def _evaluation_loader(self, split: str) -> BatchLoader[LanguageModelBatch]:
        windows = EvaluationWindows(self.store(split), self.sequence_length)
        batches = EvaluationBatches(windows, self.validation_batch_size, self._rank, self._world_size)
        return BatchLoader(batches, batches.num_batches, num_workers=self.num_workers)

    @property
    def _place(self) -> dict[str, int]:
        # Processes that share the matrices of one network (tensor parallelism) also share its samples.
        return (self.trainer.distributed_sampler_kwargs if self.trainer else None) or {}

    @property
    def _rank(self) -> int:
        return int(self._place.get("rank", 0))

    @property
    def _world_size(self) -> int:
        return int(self._place.get("num_replicas", 1))

    def _count_samples_per_step(self) -> int:
        """Samples per optimizer step on all ranks; one batch if the text has fewer or batches count."""
        accumulation = self.trainer.accumulate_grad_batches if self.trainer else 1
        step = self.global_batch_size * accumulation
        has_whole_steps = step <= self._training_samples().num_samples and not self.sampling.counts_batches
        return step if has_whole_steps else self.global_batch_size
