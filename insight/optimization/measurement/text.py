"""The texts to calibrate on, to compare candidates on, and to compare any models on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from insight.data.preparation import Preparation, TextFiles
from insight.data.sources.files import expand_sources
from insight.data.sources.texts import Texts
from insight.data.store import TokenStore, default_cache_dir
from insight.data.tokenizers import BaseTokenizer
from insight.models import Decoder
from insight.optimization.measurement.quality import Quality, measure_quality
from insight.runtime.errors import ConfigError, DataError
from insight.runtime.numbers import require_number


@dataclass(frozen=True, eq=False)
class Calibration:
    """Windows of the train split: a range taken from validation text would leak into its measurement.

    Args:
        windows: Token ids ``(num_windows, sequence_length)``.
        tokenizer_fingerprint: Fingerprint of the tokenizer that made the ids.
    """

    windows: npt.NDArray[Any]
    tokenizer_fingerprint: str

    def __post_init__(self) -> None:
        if self.windows.ndim != 2 or not self.windows.size:
            raise ConfigError(
                f"calibration windows of shape {self.windows.shape}: must be (num_windows, sequence_length)",
                "use Calibration.from_store",
            )

    @classmethod
    def from_store(cls, store: TokenStore, sequence_length: int, num_windows: int = 64) -> Calibration:
        """Windows spread evenly over a store, that of the train split.

        Args:
            store: Training tokens.
            sequence_length: Tokens a window.
            num_windows: Most windows; fewer where the text is short.

        Raises:
            ConfigError: A number is below 1.
            DataError: The text is shorter than one window.
        """
        require_number("sequence_length", sequence_length, 64, whole=True, at_least=1)
        require_number("num_windows", num_windows, 64, whole=True, at_least=1)
        places = store.num_tokens // sequence_length
        if not places:
            raise DataError(
                f"{store.path}: {store.num_tokens} tokens, fewer than one window of {sequence_length}",
                "use a smaller sequence_length or more text",
            )
        chosen = np.unique(np.linspace(0, places - 1, min(num_windows, places)).astype(np.int64))
        windows = store.windows(chosen * sequence_length, sequence_length)
        return cls(windows, store.manifest.tokenizer_fingerprint)

    def require_tokenizer(self, fingerprint: str) -> None:
        """Refuse text of another tokenizer: the same ids would stand for other text.

        Raises:
            ConfigError: The fingerprints differ.
        """
        if fingerprint != self.tokenizer_fingerprint:
            raise ConfigError(
                f"the calibration text was encoded by another tokenizer ({self.tokenizer_fingerprint[:8]}, "
                f"the model has {fingerprint[:8]})",
                "encode it with the tokenizer of the model",
            )


@dataclass(frozen=True, eq=False)
class MeasuredText:
    """Validation text, cut into windows as a run's validation cuts it.

    Attributes:
        store: The tokens of the text.
        bytes_per_token: Bytes that each token of the tokenizer stands for.
        sequence_length: Tokens a window.
    """

    store: TokenStore
    bytes_per_token: npt.NDArray[np.int64]
    sequence_length: int

    @classmethod
    def of(cls, store: TokenStore, tokenizer: BaseTokenizer, sequence_length: int) -> MeasuredText:
        """The text of a store, encoded by ``tokenizer``."""
        return cls(store, tokenizer.token_byte_lengths(), sequence_length)

    @property
    def num_windows(self) -> int:
        """Windows of the whole text."""
        return -(-self.store.num_tokens // self.sequence_length)

    def tokens(self, num_windows: int) -> npt.NDArray[Any]:
        """Windows spread evenly over the text, one after the other; all of it if there are no more.

        Where two that were no neighbours meet, the first token is predicted from another place's last one.
        That is the same for every candidate, and one token in ``sequence_length``.
        """
        if num_windows >= self.num_windows:
            return self.store.tokens(0, self.store.num_tokens)
        whole = self.store.num_tokens // self.sequence_length
        starts = np.unique(np.linspace(0, whole - 1, num_windows).astype(np.int64)) * self.sequence_length
        return self.store.windows(starts, self.sequence_length).reshape(-1)

    def measure(self, network: Decoder, num_windows: int, batch_size: int) -> Quality:
        """The quality of ``network`` on :meth:`tokens`."""
        return measure_quality(
            network,
            self.tokens(num_windows),
            self.bytes_per_token,
            self.sequence_length,
            batch_size,
            end_of_text_id=self.store.end_of_text_id,
        )


# RUN/checkpoints/best.ckpt lies two folders below config.yaml; an artefact may lie as deep.
_LEVELS = 2


@dataclass(frozen=True)
class EvaluationText:
    """A text that any tokenizer can encode.

    Args:
        files: The files that it comes from.
        split: The part of ``files`` that it is: ``"test"`` or ``"validation"``.
        cache_dir: The folder that keeps its token ids.
        description: A description in words.
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
