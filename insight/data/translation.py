"""The LightningDataModule of translation: pairs of sentences to token stores to batches of a token budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from insight.data.canaries import CanaryPairInjection
from insight.data.cleaning import PairFilters
from insight.data.loaders import MAX_LOADER_WORKERS, BatchLoader, SampleCursor, text_hash
from insight.data.pair_preparation import PairFiles, PairPreparation
from insight.data.pairs import BudgetBatches, EvaluationPairs, PairStores, TranslationBatch
from insight.data.sampling import TokenBudgetOrder
from insight.data.store import TokenStore, cache_limit, default_cache_dir
from insight.data.text_data_module import TextDataModule
from insight.data.tokenizers import BaseTokenizer, BPETokenizerConfig, TokenizerConfig
from insight.runtime.errors import CheckpointError, ConfigError, DataError
from insight.runtime.numbers import require_number

SPLITS = ("train", "validation", "test", "predict")
_SPLITS_OF_STAGE = {
    # A test set that cannot be read is found before the training, not after it.
    "fit": ("train", "validation", "test"),
    "validate": ("validation",),
    "test": ("test",),
    "predict": ("predict",),
}


class TranslationDataModule(TextDataModule):
    """Pairs of sentences for training, validating and testing a translation model.

    Tokenizers and token ids are made once and cached. The order of the training batches is a pure function of
    the seed; the position in it is one number of samples, kept in checkpoints.

    Args:
        train_files: Pairs to train on: ``.tsv``, ``.jsonl``, ``.parquet`` or ``.tmx`` files with both sides,
            or ``{source: FILES, target: FILES}`` of aligned files with a sentence in each line; each also
            ``.gz``, ``.bz2``, ``.xz`` or ``.zst``, a glob or a list; or ``corpus:NAME``.
        validation_files: Pairs to validate on; if not given, a part of the training pairs is set aside.
        test_files: Pairs for the final measurement.
        predict_files: Pairs for ``predict``.
        source_field: Column, field or language of the source sentences; with aligned files a name for people.
        target_field: Column, field or language of the target sentences.
        tokenizer: How sentences become token ids.
        vocabulary: ``joint`` trains one tokenizer on both sides, ``separate`` one for each.
        directions: ``forward`` translates source to target; ``both`` trains one model for both directions,
            with a tag in front of each source sentence that names the language to translate into.
        filters: Which training pairs are kept.
        max_source_length: Most tokens of a source sentence, its end-of-text id included.
        max_target_length: Most tokens of a target sentence, its end-of-text id included.
        too_long: ``skip`` leaves out training pairs with a longer side, ``truncate`` cuts it. Sentences to
            measure on are always cut.
        max_test_overlap: Validation and test pairs of which a larger share of word 4-grams occurs in the
            training text are left out, since their scores would flatter; ``null`` keeps all.
        validation_fraction: Fraction of the training pairs to set aside if there are no ``validation_files``,
            at most 500 pairs; 0 for none.
        batch_tokens: Most padded tokens of a training batch, source and target together, on each rank;
            ``auto`` for as many as fit into memory. Ranks share the sum of theirs by whole pairs, so one may
            have less than a pair more than its part.
        validation_batch_tokens: Most padded tokens of a batch when measuring; ``batch_tokens`` if not given.
        pool_size: Pairs that are sorted by length together; a larger pool means less padding.
        seed: Chooses the order of the training pairs, and the pairs that are set aside.
        canaries: Secrets to plant in the training pairs, to measure what is memorized; none if not given.
        num_workers: Processes that make batches ahead; batches are cheap, so 0 is fastest on most machines.
        invalid_text: The treatment of bytes that are no UTF-8: ``error``, ``replace`` or ``skip``.
        cache_gigabytes: Most gigabytes that cached token ids of all runs may take; no limit if not given.
        cache_dir: Where tokenizers and token ids are kept; ``$INSIGHT_CACHE_DIR`` or ``~/.cache/insight``
            if not given.

    Raises:
        ConfigError: A value cannot work.
    """

    size_option = "batch_tokens"

    def __init__(
        self,
        train_files: str | list[str] | dict[str, str | list[str]],
        validation_files: str | list[str] | dict[str, str | list[str]] | None = None,
        test_files: str | list[str] | dict[str, str | list[str]] | None = None,
        predict_files: str | list[str] | dict[str, str | list[str]] | None = None,
        source_field: str = "source",
        target_field: str = "target",
        tokenizer: TokenizerConfig = BPETokenizerConfig(),
        vocabulary: Literal["joint", "separate"] = "joint",
        directions: Literal["forward", "both"] = "forward",
        filters: PairFilters = PairFilters(),
        max_source_length: int = 128,
        max_target_length: int = 128,
        too_long: Literal["skip", "truncate"] = "skip",
        max_test_overlap: float | None = None,
        validation_fraction: float = 0.01,
        batch_tokens: int | Literal["auto"] = 4096,
        validation_batch_tokens: int | None = None,
        pool_size: int = 16384,
        seed: int = 0,
        canaries: CanaryPairInjection | None = None,
        num_workers: int = 0,
        invalid_text: str = "error",
        cache_gigabytes: float | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        self.chooses_batch_size = batch_tokens == "auto"
        longest = max_source_length + max_target_length
        tokens = longest if batch_tokens == "auto" else batch_tokens
        for name, value, least in (
            ("batch_tokens", tokens, longest),
            ("validation_batch_tokens", validation_batch_tokens, longest),
            ("pool_size", pool_size, 1),
        ):
            require_number(name, value, max(least, 4096), whole=True, optional=True, at_least=least)
        require_number("seed", seed, 0, whole=True, at_least=-(1 << 63), below=1 << 64)
        require_number("num_workers", num_workers, 2, whole=True, at_least=0, at_most=MAX_LOADER_WORKERS)
        files = PairFiles(
            train_files,
            validation_files,
            test_files,
            predict_files,
            source_field,
            target_field,
            vocabulary,
            directions,
            filters,
            max_source_length,
            max_target_length,
            too_long,
            max_test_overlap,
            invalid_text,
            validation_fraction,
            seed,
            canaries,
        )
        self.canaries = canaries
        folder = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
        self.preparation = PairPreparation(files, tokenizer, folder, cache_limit(cache_gigabytes))
        self.source_field, self.target_field, self.directions = source_field, target_field, directions
        self.max_source_length, self.max_target_length = max_source_length, max_target_length
        self.batch_tokens = tokens
        self._validation_batch_tokens = validation_batch_tokens
        self.pool_size = pool_size
        self.seed = seed
        self.num_workers = num_workers
        self._stores: dict[str, PairStores] = {}
        self._has_compared_languages = False
        self._order: TokenBudgetOrder | None = None

    def has(self, split: str) -> bool:
        """Whether the configuration names text for a split."""
        return self.preparation.has(split)

    def use_batch_size(self, size: int) -> None:
        self.batch_tokens, self.chooses_batch_size = size, False
        if "train" in self._stores:
            self._order = self._ordered()

    def size_of(self, num_rows: int) -> int:
        return num_rows * (self.max_source_length + self.max_target_length)

    @property
    def batch_shape(self) -> tuple[int, int]:
        return max(1, self.batch_tokens // self.size_of(1)), self.sequence_length

    @property
    def tokens_per_batch(self) -> int:
        return self.batch_tokens

    @property
    def validation_batch_tokens(self) -> int:
        """Most padded tokens of a batch when measuring."""
        return self._validation_batch_tokens or self.batch_tokens

    def use_tokenizer(self, tokenizer: BaseTokenizer, source_tokenizer: BaseTokenizer | None = None) -> None:
        """Use finished tokenizers, such as those of a checkpoint; see :class:`PairPreparation`."""
        self.preparation.use_tokenizer(tokenizer, source_tokenizer)

    @property
    def tokenizers(self) -> tuple[BaseTokenizer, BaseTokenizer]:
        """The tokenizers of the target and of the source, as :meth:`use_tokenizer` takes them."""
        return self.tokenizer, self.source_tokenizer

    @property
    def tokenizer(self) -> BaseTokenizer:
        """The tokenizer of the target."""
        return self.preparation.tokenizers[1]

    @property
    def source_tokenizer(self) -> BaseTokenizer:
        """The tokenizer of the source; that of the target where the vocabulary is joint."""
        return self.preparation.tokenizers[0]

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids of the target."""
        return self.tokenizer.vocabulary_size

    @property
    def source_vocabulary_size(self) -> int:
        """Number of token ids of the source."""
        return self.source_tokenizer.vocabulary_size

    # ------------------------------------------------------------------ stores

    def prepare_data(self) -> None:
        """Make tokenizers and token ids if the cache lacks them (one process a machine).

        Raises:
            DataError: Text cannot be read.
            TokenizerError: The text does not support the tokenizer.
            OutputError: The cache cannot be written to.
        """
        self._open(self.trainer.state.fn.value if self.trainer and self.trainer.state.fn else None)

    def setup(self, stage: str | None = None) -> None:
        """Open the token ids of what the stage needs (``None``: of everything); may be called again.

        Raises:
            DataError, TokenizerError, OutputError: As :meth:`prepare_data`.
        """
        self._open(stage)
        if "train" in self._stores:
            self._order = self._ordered()
            self._cursor.restore(self._identity())

    def _ordered(self) -> TokenBudgetOrder:
        lengths, max_tokens = self._stores["train"].lengths, self.batch_tokens * self._world_size
        return TokenBudgetOrder(lengths, max_tokens, self.seed, self.pool_size)

    def _open(self, stage: str | None) -> None:
        wanted = [split for split in (_SPLITS_OF_STAGE[stage] if stage else SPLITS) if self.has(split)]
        for split in wanted:
            self.preparation.sources(split)  # every missing file is found before any work
        if "train" in wanted and not self._has_compared_languages:
            self._has_compared_languages = True
            self.preparation.warn_if_swapped()
        for split in wanted:
            self._stores[split] = self.preparation.stores(split)

    # ------------------------------------------------------------------ what others ask for

    def store(self, split: str) -> TokenStore:
        """The target tokens of a split, such as a measure of the target's bits per byte needs."""
        return self.pair_stores(split).target

    def pair_stores(self, split: str) -> PairStores:
        """The tokens of both sides of a split.

        Raises:
            DataError: There is no text for it, or ``setup`` has not run for it.
        """
        if split not in self._stores:
            remedy = "call setup() first" if self.has(split) else "name a file with both sides"
            raise DataError("is not set up", remedy, option=f"{split}_files")
        return self._stores[split]

    def first_sentence(self, split: str) -> str:
        """The first source sentence of a split."""
        return next(iter(self.preparation.pairs(split)))[0]

    def summary(self) -> dict[str, Any]:
        """The data in plain JSON values, for reports."""
        splits = {
            split: {
                "files": [source.name for source in self.preparation.sources(split)],
                "division": stores.source.manifest.origin["division"],
                "documents": stores.target.num_documents,
                "bytes": stores.source.num_bytes + stores.target.num_bytes,
                "tokens": stores.source.num_tokens + stores.target.num_tokens,
            }
            for split, stores in self._stores.items()
        }
        more: dict[str, Any] = {"canaries": self.canaries.record()} if self.canaries else {}
        if self._order is not None:
            padding = round(self._order.padding(0), 4)
            more["samples"] = {"pairs": self._order.num_samples, "padding": padding}
        return {
            "tokenizer": {
                "kind": type(self.tokenizer).__name__,
                "vocabulary_size": self.vocabulary_size,
                "fingerprint": self.tokenizer.fingerprint(),
            },
            "source_tokenizer": {
                "vocabulary_size": self.source_vocabulary_size,
                "fingerprint": self.source_tokenizer.fingerprint(),
            },
            "batch_tokens": self.batch_tokens,
            "splits": splits,
            **more,
        }

    # ------------------------------------------------------------------ batches

    def train_dataloader(self) -> BatchLoader[TranslationBatch]:
        """One epoch of training batches, beginning at the cursor."""
        self.pair_stores("train")
        if self.chooses_batch_size:
            remedy = "use insight fit, or name one"
            raise ConfigError("nothing has chosen a number", remedy, option="batch_tokens", value="auto")
        order = self._order
        assert order is not None
        batches = BudgetBatches(self._stores["train"], order, self._rank, self._world_size)
        return BatchLoader(
            batches,
            batches.num_batches,
            lambda: order.index_after(self._cursor.num_consumed),
            self.num_workers,
        )

    def val_dataloader(self) -> BatchLoader[TranslationBatch] | list[BatchLoader[TranslationBatch]]:
        """The validation pairs, each once; ``[]`` where there are none."""
        return self._evaluation_loader("validation") if self.has("validation") else []

    def test_dataloader(self) -> BatchLoader[TranslationBatch]:
        """The test pairs, each once."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> BatchLoader[TranslationBatch]:
        """The pairs to predict, each once."""
        return self._evaluation_loader("predict")

    def evaluation_pairs(self, split: str) -> EvaluationPairs:
        """The batches of a split to measure on, and which pairs are in each."""
        return EvaluationPairs(
            self.pair_stores(split), self.validation_batch_tokens, self._rank, self._world_size
        )

    def _evaluation_loader(self, split: str) -> BatchLoader[TranslationBatch]:
        batches = self.evaluation_pairs(split)
        return BatchLoader(batches, batches.num_batches, num_workers=self.num_workers)

    @property
    def num_training_rows(self) -> int:
        return int(self.pair_stores("train").lengths.sum()) // self.size_of(1)

    @property
    def sequence_length(self) -> int:
        """Most tokens of one side of a pair."""
        return max(self.max_source_length, self.max_target_length)

    def state_dict(self) -> dict[str, Any]:
        """The cursor and what it counts in; the same on every rank."""
        return self._cursor.state_dict(self._identity()) if "train" in self._stores else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the cursor.

        Raises:
            CheckpointError: It counts in other data, another order or another batch.
        """
        self._cursor.load_state_dict(state_dict)
        if "train" in self._stores:
            self._cursor.restore(self._identity())

    def check_position(self, state_dict: dict[str, Any]) -> None:
        saved = SampleCursor()
        saved.load_state_dict(state_dict)
        # The number of processes is not known yet; check_processes judges the tokens of a batch.
        saved.restore(self._identity() | {"global_batch_tokens": state_dict.get("global_batch_tokens")})

    def check_processes(self, state_dict: dict[str, Any], num_readers: int, accumulation: int) -> None:
        saved, here = state_dict.get("global_batch_tokens"), self.batch_tokens * num_readers
        if not isinstance(saved, int) or saved == here:
            return
        if saved % num_readers:
            remedy = f"use a number of processes that divides {saved}"
        else:
            remedy = f"use --data.batch_tokens {saved // num_readers}"
        raise CheckpointError(
            f"its batches hold {saved} tokens, and data.batch_tokens={self.batch_tokens} times {num_readers} "
            f"processes is {here}",
            remedy,
        )

    def in_text_order(self, split: str, batches: Sequence[torch.Tensor]) -> torch.Tensor:
        pairs = self.evaluation_pairs(split)
        starts = pairs.stores.target.document_starts()
        ordered = torch.zeros(int(starts[-1]), dtype=batches[0].dtype)
        for index, values in enumerate(batches):
            for row, pair in enumerate(pairs.pairs(index).tolist()):
                begin, end = int(starts[pair]), int(starts[pair + 1])
                ordered[begin:end] = values[row, : end - begin].cpu()
        return ordered

    def _identity(self) -> dict[str, Any]:
        """All that decides which samples a cursor stands between."""
        stores = self._stores["train"]
        shards = [
            shard.tokens_hash for side in (stores.source, stores.target) for shard in side.manifest.shards
        ]
        return {
            "training_text": text_hash("".join(shards)),
            "tokenizer": self.tokenizer.fingerprint()[:16],
            "global_batch_tokens": self.batch_tokens * self._world_size,
            "pool_size": self.pool_size,
            "seed": self.seed,
        }

    @property
    def _rank(self) -> int:
        placed = self.trainer.distributed_sampler_kwargs if self.trainer else None
        return int(placed["rank"]) if placed else 0

    @property
    def _world_size(self) -> int:
        placed = self.trainer.distributed_sampler_kwargs if self.trainer else None
        return int(placed["num_replicas"]) if placed else 1
