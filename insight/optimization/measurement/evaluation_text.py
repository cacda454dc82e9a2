"""The text that models are compared on: the same for all, encoded by the tokenizer of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from insight.data.preparation import Preparation, TextFiles, default_cache_dir
from insight.data.sources.files import expand_sources
from insight.data.sources.texts import Texts
from insight.data.store import TokenStore
from insight.data.tokenizers import BaseTokenizer
from insight.runtime.errors import DataError

# RUN/checkpoints/best.ckpt lies two folders below config.yaml; an artefact may lie as deep.
_LEVELS = 2


@dataclass(frozen=True)
class EvaluationText:
    """A text that any tokenizer can encode.

    Args:
        files: Where it comes from.
        split: Which part of ``files`` it is: ``"test"`` or ``"validation"``.
        cache_dir: Where its token ids are kept.
        description: What it is, in words.
    """

    files: TextFiles
    split: str
    cache_dir: Path
    description: str

    @classmethod
    def of_files(cls, files: Sequence[str]) -> EvaluationText:
        """All text of some files, folders, globs or ``corpus:NAME``.

        Raises:
            DataError: There is nothing to read.
        """
        expand_sources(files, "--text")  # before any work, and under the name of the option
        text = TextFiles([], None, list(files), None, "text", 0.0, 0)
        return cls(text, "test", default_cache_dir(), "the text that was given")

    @classmethod
    def of_model(cls, path: Path) -> EvaluationText:
        """The test text of the run that a checkpoint or an artefact lies in; without one its validation text.

        The test text first: checkpoints are chosen by the validation text, and so are methods.

        Raises:
            DataError: It lies in no run, or the run names no such text.
        """
        config = _config_above(path)
        data = _data_options(config) if config else None
        if config is None or data is None:
            raise DataError(
                f"{path} lies in no run folder whose config.yaml names a text to measure on",
                "give --text FILES",
            )
        files = TextFiles(
            data["train_files"],
            data.get("validation_files"),
            data.get("test_files"),
            None,
            data.get("text_field", "text"),
            data.get("validation_fraction", 0.0),
            data.get("seed", 0),
            invalid_text=data.get("invalid_text", "error"),
        )
        folder = data.get("cache_dir")
        split = "validation" if files.test is None else "test"
        if split == "validation" and files.validation is None and not files.validation_fraction:
            raise DataError(f"{config}: names neither test_files nor validation_files", "give --text FILES")
        cache_dir = Path(folder).expanduser() if folder else default_cache_dir()
        return cls(files, split, cache_dir, f"the {split} text of {config}")

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names of the files that it comes from, as the user gave them.

        Raises:
            DataError: One does not exist.
        """
        own = self.files.test if self.split == "test" else self.files.validation
        named = self.files.train if own is None else own
        if isinstance(named, Texts):
            return (named.name,)
        return tuple(source.name for source in expand_sources(named, f"{self.split}_files"))

    def encode(self, tokenizer: BaseTokenizer) -> TokenStore:
        """The text as token ids, from the cache if they are there.

        Raises:
            DataError: The text cannot be read.
            OutputError: The cache folder cannot be written to.
        """
        return Preparation(self.files, tokenizer, self.cache_dir).store(self.split)


def _config_above(path: Path) -> Path | None:
    place = path.absolute()
    for folder in (place, *place.parents)[: _LEVELS + 1]:
        if (folder / "config.yaml").is_file():
            return folder / "config.yaml"
    return None


def _data_options(config: Path) -> dict[str, Any] | None:
    """The ``data`` group of a run's configuration; ``None`` if it has none that names text."""
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
        group: dict[str, Any] = values["data"]
        data: dict[str, Any] = group.get("init_args", group)
        return data if data.get("train_files") else None
    except (yaml.YAMLError, OSError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        return None
