"""The data module of language modeling: text files in, batches of token windows out, one cursor over both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import xxhash

from insight.data.canaries import CanaryInjection
from insight.data.loaders import BatchLoader, EvaluationBatches, TrainingBatches
from insight.data.preparation import Preparation, TextFiles, default_cache_dir
from insight.data.sampling import EvaluationWindows, WindowOrder
from insight.data.store import TokenStore
from insight.data.tokenizers import BaseTokenizer, BPETokenizerConfig, TokenizerConfig
from insight.runtime.errors import CheckpointError, ConfigError, DataError

_SPLITS_OF_STAGE = {
    # A test set that cannot be read is found before the training, not after it.
    "fit": ("train", "validation", "test"),
    "validate": ("validation",),
    "test": ("test",),
    "predict": ("predict",),
}


class LanguageModelingDataModule(pl.LightningDataModule):
    """Text files for training, validating and testing a language model.

    The tokenizer and the token ids are made once and cached. The order of the training batches is a pure
    function of the seed; the position in it is one number of samples, kept in checkpoints.

    Args:
        train_files: Text to train on: files, folders, globs or ``corpus:NAME``; ``.txt``, ``.jsonl`` or
            ``.parquet``, each also ``.gz``, ``.xz`` or ``.zst``.
        validation_files: Text to validate on; without it a part of the training text is set aside.
        test_files: Text for the final measurement.
        predict_files: Text for ``predict``.
        tokenizer: How text becomes token ids.
        sequence_length: Tokens in a training or evaluation window.
        batch_size: Windows a training batch, on each process.
        validation_batch_size: Most windows an evaluation batch, on each process; ``batch_size`` if not given.
        validation_fraction: Share of the training text to set aside when there are no ``validation_files``;
            0 for none.
        text_field: Field of ``.jsonl`` and column of ``.parquet`` files that holds the text.
        seed: Chooses the order of the training windows and the documents set aside.
        canaries: Secrets to plant in the training text, so that it can be measured whether the network
            remembers them; none if not given.
        num_workers: Processes that make batches ahead; batches are cheap, so 0 is fastest on most machines.
        cache_dir: Where tokenizers and token ids are kept; ``$INSIGHT_CACHE_DIR`` or ``~/.cache/insight``
            if not given.

    Raises:
        ConfigError: A value cannot work.
    """

    def __init__(
        self,
        train_files: str | list[str],
        validation_files: str | list[str] | None = None,
        test_files: str | list[str] | None = None,
        predict_files: str | list[str] | None = None,
        tokenizer: TokenizerConfig = BPETokenizerConfig(),
        sequence_length: int = 256,
        batch_size: int = 16,
        validation_batch_size: int | None = None,
        validation_fraction: float = 0.05,
        text_field: str = "text",
        seed: int = 0,
        canaries: CanaryInjection | None = None,
        num_workers: int = 0,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("sequence_length", sequence_length, 1),
            ("batch_size", batch_size, 1),
            ("validation_batch_size", validation_batch_size, 1),
            ("num_workers", num_workers, 0),
        ):
            if value is not None and value < least:
                raise ConfigError(f"{name}={value}: must be at least {least}", f"use {least} or more")
        if not 0 <= validation_fraction < 1:
            raise ConfigError(
                f"validation_fraction={validation_fraction}: must be at least 0 and below 1", "use e.g. 0.05"
            )
        self.sequence_length = sequence_length
        self.batch_size = batch_size
        self.validation_batch_size = validation_batch_size or batch_size
        self.seed = seed
        self.num_workers = num_workers
        self._tokenizer: TokenizerConfig | BaseTokenizer = tokenizer
        self.canaries = canaries
        self._files = TextFiles(
            train_files,
            validation_files,
            test_files,
            predict_files,
            text_field,
            validation_fraction,
            seed,
            canaries,
        )
        self._cache_dir = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
        self._preparation: Preparation | None = None
        self._stores: dict[str, TokenStore] = {}
        self._num_samples_consumed = 0
        self._restored: dict[str, Any] | None = None

    def use_tokenizer(self, tokenizer: BaseTokenizer) -> None:
        """Use a finished tokenizer, that of a checkpoint, instead of the configured one.

        Raises:
            ConfigError: Text has been encoded already.
        """
        if self._preparation is not None:
            raise ConfigError("use_tokenizer after setup", "call it before prepare_data and setup")
        self._tokenizer = tokenizer

    def prepare_data(self) -> None:
        """Make the tokenizer and the token ids if the cache lacks them (one process a machine).

        Raises:
            DataError: Text cannot be read or is too short.
            TokenizerError: The text does not support the tokenizer.
            OutputError: The cache cannot be written to.
        """
        self._open(self.trainer.state.fn.value if self.trainer and self.trainer.state.fn else None)

    def setup(self, stage: str | None = None) -> None:
        """Open the token ids of what the stage needs (``None``: of everything); may be called again.

        Raises:
            DataError, TokenizerError, OutputError: As :meth:`prepare_data`.
        """
        for split, store in self._open(stage).items():
            self._stores[split] = store
        if "train" in self._stores:
            self._check_restored()

    def _open(self, stage: str | None) -> dict[str, TokenStore]:
        if self._preparation is None:
            self._preparation = Preparation(self._files, self._tokenizer, self._cache_dir)
        preparation = self._preparation
        needed = _SPLITS_OF_STAGE[stage] if stage else ("train", "validation", "test", "predict")
        wanted = [split for split in needed if preparation.has(split)]
        for split in wanted:
            preparation.sources(split)  # every missing file is found before any work
        return {
            split: self._stores[split] if split in self._stores else self._checked(preparation, split)
            for split in wanted
        }

    def _checked(self, preparation: Preparation, split: str) -> TokenStore:
        store = preparation.store(split)
        if split == "train":
            sources = preparation.sources(split)
            names = sources[0].name if len(sources) == 1 else f"{len(sources)} files"
            where = f"train_files ({names})"
            if store.num_tokens <= self.sequence_length:
                raise DataError(
                    f"{where}: {store.num_tokens} tokens, fewer than one sequence of "
                    f"{self.sequence_length} + 1",
                    f"give more text or use sequence_length={store.num_tokens - 1} or less",
                )
            windows = self._order(store).num_windows
            if windows < self._global_batch_size:
                most = windows // self._world_size
                raise DataError(
                    f"{where}: {windows} sequences of {self.sequence_length} tokens, fewer than one batch of "
                    f"{self._global_batch_size}",
                    f"give more text, or use batch_size={most} or a smaller sequence_length"
                    if most
                    else "give more text or use a smaller sequence_length",
                )
        return store

    @property
    def tokenizer(self) -> BaseTokenizer:
        """The tokenizer.

        Raises:
            DataError: Neither ``prepare_data`` nor ``setup`` has run.
        """
        return self._prepared.tokenizer

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids."""
        return self.tokenizer.vocabulary_size

    def store(self, split: str) -> TokenStore:
        """The tokens of ``"train"``, ``"validation"``, ``"test"`` or ``"predict"``.

        Raises:
            DataError: There is no text for it, or ``setup`` has not run for it.
        """
        if split not in self._stores:
            if self._preparation is not None and not self._preparation.has(split):
                raise DataError(
                    f"{split}_files is not set", "name at least one file, folder, glob or corpus:NAME"
                )
            raise DataError(f"the {split} data is not set up", "call setup() first")
        return self._stores[split]

    def summary(self) -> dict[str, Any]:
        """What the data is, in plain JSON values, for reports."""
        tokenizer = self.tokenizer
        preparation = self._prepared
        splits = {
            split: {
                "files": [source.name for source in preparation.sources(split)],
                "division": store.manifest.origin["division"],
                "documents": store.num_documents,
                "bytes": store.num_bytes,
                "tokens": store.num_tokens,
            }
            for split, store in self._stores.items()
        }
        planted = {"canaries": self.canaries.record()} if self.canaries else {}
        return {
            "tokenizer": {
                "kind": type(tokenizer).__name__,
                "vocabulary_size": tokenizer.vocabulary_size,
                "fingerprint": tokenizer.fingerprint(),
            },
            "sequence_length": self.sequence_length,
            "batch_size": self.batch_size,
            "splits": splits,
            **planted,
        }

    def train_dataloader(self) -> BatchLoader:
        """One epoch of training batches, beginning at the cursor.

        ``len()`` is always that of a whole epoch, also when it begins in the middle of one: where an epoch
        ends is counted by Lightning alone, and the batches simply go on into the next.
        """
        batches = TrainingBatches(
            self.store("train"),
            self._order(self.store("train")),
            self._global_batch_size,
            self._rank,
            self._world_size,
        )
        return BatchLoader(batches, batches.num_batches, self._first_batch, self.num_workers)

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """The validation text, every token a target once; ``[]`` when ``validation_fraction`` is 0."""
        if self._preparation is not None and not self._preparation.has("validation"):
            return []
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> BatchLoader:
        """The test text, every token a target once."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> BatchLoader:
        """The text to predict, every token a target once."""
        return self._evaluation_loader("predict")

    def advance(self, num_samples_global: int) -> None:
        """Count a training batch as done.

        Called at the end of ``training_step``: before any callback may save a checkpoint.

        Args:
            num_samples_global: Its samples on all ranks together.
        """
        if num_samples_global < 1:
            raise ConfigError(
                f"num_samples_global={num_samples_global}: a batch has samples", "pass the global batch size"
            )
        self._num_samples_consumed += num_samples_global

    def state_dict(self) -> dict[str, Any]:
        """The cursor and what it counts in; the same on every rank."""
        if "train" not in self._stores:
            return {}
        return {"num_samples_consumed": self._num_samples_consumed, **self._identity()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the cursor.

        Raises:
            CheckpointError: It counts in other data, another order or another batch.
        """
        self._restored = dict(state_dict)
        if "train" in self._stores:
            self._check_restored()

    def _check_restored(self) -> None:
        if not self._restored:
            return
        restored, self._restored = self._restored, None
        identity = self._identity()
        if restored.get("fingerprint") != identity["fingerprint"]:
            different = [
                name
                for name, value in identity.items()
                if restored.get(name) != value and name != "fingerprint"
            ]
            changes = ", ".join(
                f"{name}={identity[name]} (saved: {restored.get(name)})" for name in different
            )
            raise CheckpointError(
                f"the checkpoint's position is one in other training data: {changes or 'unknown format'}",
                "resume with the data settings of the run, or start from its weights with --init_from",
            )
        self._num_samples_consumed = int(restored["num_samples_consumed"])

    def _identity(self) -> dict[str, Any]:
        """What decides which samples a cursor stands between, and its hash."""
        manifest = self._stores["train"].manifest
        parts = {
            "training_text": _hash("".join(shard.tokens_hash for shard in manifest.shards)),
            "tokenizer": manifest.tokenizer_fingerprint[:16],
            "sequence_length": self.sequence_length,
            "global_batch_size": self._global_batch_size,
            "seed": self.seed,
        }
        return {**parts, "fingerprint": _hash(repr(parts))}

    @property
    def _prepared(self) -> Preparation:
        if self._preparation is None:
            raise DataError("the data is not prepared", "call prepare_data() or setup() first")
        return self._preparation

    def _first_batch(self) -> int:
        return self._num_samples_consumed // self._global_batch_size

    def _order(self, store: TokenStore) -> WindowOrder:
        return WindowOrder(store.num_tokens, self.sequence_length, self.seed)

    def _evaluation_loader(self, split: str) -> BatchLoader:
        windows = EvaluationWindows(self.store(split), self.sequence_length)
        batches = EvaluationBatches(windows, self.validation_batch_size, self._rank, self._world_size)
        return BatchLoader(batches, batches.num_batches, num_workers=self.num_workers)

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    @property
    def _global_batch_size(self) -> int:
        return self.batch_size * self._world_size


def _hash(text: str) -> str:
    return str(xxhash.xxh3_64_hexdigest(text.encode("utf-8")))
