"""The text to train on: one stream of files, or corpora with names of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping

from insight.data.preparation import Named, Preparation, TextFiles
from insight.data.sampling import Corpus, Samples, SamplingConfig, Windows
from insight.data.store import TokenStore
from insight.data.store.joined import JoinedStore
from insight.runtime.errors import ConfigError, DataError

Files = str | list[str]
TrainFiles = Named | dict[str, Files]


class TrainingCorpora:
    """What ``train_files`` names, and the samples made of it.

    Args:
        train_files: Text, or files by the names of their corpora.

    Raises:
        ConfigError: A mapping or one of its names is empty, or a corpus has no files.
    """

    def __init__(self, train_files: TrainFiles) -> None:
        self.is_named = isinstance(train_files, Mapping)
        self._text = train_files
        self._corpora: dict[str, Files] = dict(train_files) if isinstance(train_files, Mapping) else {}
        if self.is_named and not self._corpora:
            raise ConfigError("train_files is empty", "name at least one file, folder, glob or corpus:NAME")
        for name, files in self._corpora.items():
            if not name.strip():
                raise ConfigError("train_files names a corpus ''", "give every corpus a name")
            if not isinstance(files, (str, list)):
                raise ConfigError(
                    f"train_files.{name} is a {type(files).__name__}, not files",
                    "name files, folders, globs or corpus:NAME",
                )

    @property
    def names(self) -> list[str]:
        """Names of the corpora; one empty name where they have none."""
        return list(self._corpora) or [""]

    @property
    def all_text(self) -> Named:
        """The text of all, as one stream."""
        if isinstance(self._text, dict):
            lists = ([files] if isinstance(files, str) else files for files in self._text.values())
            return [file for files in lists for file in files]
        return self._text

    def check(self, text: TextFiles, sampling: SamplingConfig, sequence_length: int) -> None:
        """Refuse what cannot work together, before any text is read.

        Raises:
            ConfigError: The sampling takes other corpora, or a split is asked for that would mix them.
        """
        sampling.check(self.names, sequence_length)
        if not self.is_named:
            return
        if text.validation is None and text.validation_fraction:
            raise ConfigError(
                f"validation_fraction={text.validation_fraction}: of corpora with names no part is set aside",
                "name validation_files, or set validation_fraction to 0",
            )
        if text.canaries is not None:
            raise ConfigError(
                "canaries: they are planted in one stream, and train_files names corpora",
                "list the files without names, or leave the canaries out",
            )

    def open(self, preparation: Preparation) -> list[Corpus]:
        """The stores, built if they are not in the cache.

        Args:
            preparation: Of the whole text; its tokenizer encodes all corpora.

        Raises:
            DataError: The text cannot be read.
        """
        if not self.is_named:
            sources = preparation.sources("train")
            files = sources[0].name if len(sources) == 1 else f"{len(sources)} files"
            return [Corpus("", f"train_files ({files})", preparation.store("train"))]
        return [
            Corpus(name, f"train_files.{name}", preparation.of_corpus(files).store("train"))
            for name, files in self._corpora.items()
        ]


def joined(corpora: list[Corpus]) -> TokenStore:
    """One store of all corpora."""
    stores = [corpus.store for corpus in corpora]
    return stores[0] if len(stores) == 1 else JoinedStore(stores)


def check_batch(
    samples: Samples, corpora: list[Corpus], sequence_length: int, batch_size: int, world_size: int
) -> None:
    """Refuse text that does not fill one batch.

    Raises:
        DataError: It does not.
    """
    if samples.num_samples >= batch_size * world_size:
        return
    where = corpora[0].title if len(corpora) == 1 else f"train_files ({len(corpora)} corpora)"
    most = samples.num_samples // world_size
    raise DataError(
        f"{where}: {samples.num_samples} sequences of {sequence_length} tokens, fewer than one batch of "
        f"{batch_size * world_size}",
        f"give more text, or use batch_size={most} or a smaller sequence_length"
        if most
        else "give more text or use a smaller sequence_length",
    )


def order_identity(corpora: list[Corpus], sampling: SamplingConfig) -> dict[str, str]:
    """What of the sampling decides which samples a position stands between, where it is not the default."""
    if sampling == Windows() and len(corpora) == 1 and not corpora[0].name:
        return {}  # as it was before there was a choice
    parts = {"sampling": json.dumps(sampling.to_dict())}
    if corpora[0].name:
        parts["corpora"] = ", ".join(f"{corpus.name}: {corpus.store.num_tokens}" for corpus in corpora)
    return parts
