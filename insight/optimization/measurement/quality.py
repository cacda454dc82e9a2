"""The quality of a network on a text in bits per byte, and paired comparisons of two networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
import yaml

from insight.data.preparation import Preparation, TextFiles
from insight.data.sampling import IGNORED_TARGET
from insight.data.sources.files import expand_sources
from insight.data.sources.formats import Texts
from insight.data.store import TokenStore, default_cache_dir
from insight.data.tokenizers import BaseTokenizer
from insight.generation import evaluation_mode
from insight.models import Decoder
from insight.runtime.errors import CheckpointError, ConfigError, DataError
from insight.runtime.numbers import require_number
from insight.runtime.statistics import Interval, paired_ratio_bootstrap

# The most logits held at once: 2^25 numbers are 128 MiB in float32.
_SCORES_AT_ONCE = 2**25


@dataclass(frozen=True, eq=False)
class Quality:
    """The quality of a network on a text, token by token, for paired comparisons.

    Attributes:
        token_nats: float64 ``(num_tokens,)``, negative log-likelihood of each token.
        token_bytes: int64 ``(num_tokens,)``, number of UTF-8 bytes of each token; 0 for end of text.
        sequence_length: Number of tokens per window; the last window may be shorter.
    """

    token_nats: npt.NDArray[np.float64]
    token_bytes: npt.NDArray[np.int64]
    sequence_length: int

    @property
    def nats(self) -> npt.NDArray[Any]:
        """Negative log-likelihood of each window: float64 ``(num_windows,)``."""
        return self._window_sums(self.token_nats)

    @property
    def num_bytes(self) -> npt.NDArray[Any]:
        """Number of bytes of each window: int64 ``(num_windows,)``."""
        return self._window_sums(self.token_bytes)

    @property
    def bits_per_byte(self) -> float:
        """Negative log-likelihood in bits per byte of the text; comparable across tokenizers."""
        return float(self.token_nats.sum()) / math.log(2) / int(self.token_bytes.sum())

    def _window_sums(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.add.reduceat(values, np.arange(0, len(values), self.sequence_length))


@torch.inference_mode()
def measure_quality(
    network: Decoder,
    tokens: npt.NDArray[Any],
    bytes_per_token: npt.NDArray[np.int64],
    sequence_length: int,
    batch_size: int = 32,
    *,
    end_of_text_id: int,
) -> Quality:
    """Measure a network on a text in windows that do not overlap, as a run's validation does.

    Every batch has the same shape (the last is padded with ignored targets), so that a compiled network is
    compiled once.

    Args:
        network: The network in the form that is measured: quantized and compiled if desired.
        tokens: Ids of the text in order, end-of-text ids included.
        bytes_per_token: Number of bytes of each id: ``tokenizer.token_byte_lengths()``.
        sequence_length: Number of tokens per window.
        batch_size: Greatest number of windows per batch.
        end_of_text_id: The token that precedes the first token of the text.

    Raises:
        ConfigError: A number is below 1 or a window is longer than the network's context.
        DataError: There is no text, or it was encoded by another tokenizer.
        CheckpointError: The network's predictions are not finite.
    """
    _check(network, tokens, bytes_per_token, sequence_length, batch_size)
    lengths = bytes_per_token[np.asarray(tokens, dtype=np.int64)].astype(np.int64)
    if not lengths.any():
        raise DataError("the text has no bytes, only end-of-text tokens", "give a file with text")
    losses = np.empty(len(tokens), dtype=np.float64)
    num_windows = -(-len(tokens) // sequence_length)
    rows = -(-num_windows // -(-num_windows // batch_size))  # equal batches with the fewest padding rows
    device = network.embedding.weight.device
    with evaluation_mode(network):
        for start in range(0, len(tokens), rows * sequence_length):
            inputs, targets = _batch(tokens, start, rows, sequence_length, end_of_text_id)
            found = _losses(network, inputs.to(device), targets.to(device))
            stop = min(start + rows * sequence_length, len(tokens))
            losses[start:stop] = found.flatten()[: stop - start].double().cpu().numpy()
    finite = np.isfinite(losses)
    if not finite.all():
        problem = f"the network gives no finite probability to token {int(finite.argmin())} of the text"
        raise CheckpointError(problem, "its weights are damaged: use another checkpoint")
    return Quality(losses, lengths, sequence_length)


def compare_quality(a: Quality, b: Quality, seed: int = 0) -> Interval:
    """The bits per byte of ``b`` minus those of the reference ``a`` on the same text.

    Paired bootstrap (Efron 1979; pairing as in Koehn 2004, *Statistical significance tests for machine
    translation evaluation*): both are resampled over the same pieces of the text, so that the difficulty of a
    piece cancels. The pieces are the windows or, if the tokenizers differ, equally long stretches of bytes,
    with a token's loss spread evenly over its bytes.

    Raises:
        DataError: The texts have different lengths.
    """
    total, other = int(a.token_bytes.sum()), int(b.token_bytes.sum())
    if total != other:
        problem = f"one network was measured on {total:,} bytes, the other on {other:,}"
        raise DataError(problem, "measure both on the same text")
    if a.sequence_length == b.sequence_length and np.array_equal(a.num_bytes, b.num_bytes):
        costs_a, costs_b, lengths = a.nats, b.nats, a.num_bytes
    else:
        edges = np.round(np.linspace(0, total, len(a.num_bytes) + 1))
        costs_a, costs_b, lengths = _costs(a, edges), _costs(b, edges), np.diff(edges).astype(np.int64)
    # Numerators in bits, so that the ratio is bits per byte.
    return paired_ratio_bootstrap(costs_a / math.log(2), costs_b / math.log(2), lengths, seed)


@dataclass(frozen=True)
class Verdict:
    """Whether a model may replace the original: its loss of bits per byte is surely within the bound.

    ``loss`` is the difference as a share of the original's bits per byte, and ``highest_loss``, which
    decides, the upper end of its 95% interval.
    """

    passed: bool
    difference: Interval
    loss: float
    highest_loss: float


def quality_gate(original: Quality, candidate: Quality, max_quality_loss: float, seed: int = 0) -> Verdict:
    """Compare a compressed model with the original on the same text.

    The allowed loss is a share of the original's bits per byte: 0.005 is half a percent.

    Raises:
        ConfigError: The bound is negative, infinite or NaN.
        DataError: The texts have different lengths.
    """
    require_number("max_quality_loss", max_quality_loss, "0.005 for half a percent", at_least=0)
    difference = compare_quality(original, candidate, seed)
    reference = original.bits_per_byte
    highest = difference.high / reference
    return Verdict(highest <= max_quality_loss, difference, difference.value / reference, highest)


def _batch(
    tokens: npt.NDArray[Any], start: int, rows: int, length: int, end_of_text_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets ``(rows, length)`` from token ``start`` on; inputs are targets shifted by one."""
    inputs = np.full(rows * length, end_of_text_id, dtype=np.int64)
    targets = np.full(rows * length, IGNORED_TARGET, dtype=np.int64)
    found = tokens[start : start + rows * length]
    targets[: len(found)] = found
    inputs[1 : len(found)] = found[:-1]
    if start:
        inputs[0] = tokens[start - 1]
    return torch.from_numpy(inputs).view(rows, length), torch.from_numpy(targets).view(rows, length)


def _losses(network: Decoder, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    hidden = network(inputs)
    at_once = max(1, _SCORES_AT_ONCE // (inputs.shape[1] * network.vocabulary_size))
    parts = []
    for first in range(0, len(inputs), at_once):
        scores = network.logits(hidden[first : first + at_once])
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).flatten(0, 1)
        wanted = targets[first : first + at_once].flatten()
        parts.append(F.cross_entropy(scores, wanted, reduction="none", ignore_index=IGNORED_TARGET))
    return torch.cat(parts)


def _costs(quality: Quality, edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Nats of the bytes between ``edges``; a token without bytes belongs to the byte before it."""
    ends = np.cumsum(quality.token_bytes)
    totals = np.cumsum(quality.token_nats)
    last = np.append(ends[1:] > ends[:-1], True)  # the last token that ends at this byte
    ends, totals = np.append(0, ends[last]), np.append(0.0, totals[last])
    if ends[1] == 0:  # leading tokens without bytes belong to the first byte
        ends, totals = np.delete(ends, 1), np.delete(totals, 1)
    costs: npt.NDArray[np.float64] = np.diff(np.interp(edges, ends, totals))
    return costs


def _check(
    network: Decoder,
    tokens: npt.NDArray[Any],
    bytes_per_token: npt.NDArray[np.int64],
    sequence_length: int,
    batch_size: int,
) -> None:
    require_number("sequence_length", sequence_length, 256, whole=True, at_least=1)
    require_number("batch_size", batch_size, 32, whole=True, at_least=1)
    context, vocabulary_size = network.config.max_sequence_length, network.vocabulary_size
    if sequence_length > context:
        problem, remedy = f"the network's context holds {context} tokens", f"use {context} or less"
        raise ConfigError(problem, remedy, option="sequence_length", value=sequence_length)
    if len(tokens) == 0:
        raise DataError("there is no text to measure the network on", "give a file with text")
    if len(bytes_per_token) != vocabulary_size:
        problem = f"the tokenizer has {len(bytes_per_token)} tokens, the network {vocabulary_size}"
        raise DataError(problem, "use the tokenizer that the network was trained with")
    smallest, largest = int(tokens.min()), int(tokens.max())
    if smallest < 0 or largest >= vocabulary_size:
        wrong = largest if smallest >= 0 else smallest
        problem = f"the text holds token id {wrong}, the network knows 0 to {vocabulary_size - 1}"
        raise DataError(problem, "encode it with the tokenizer that the network was trained with")


@dataclass(frozen=True, eq=False)
class Calibration:
    """Windows ``(num_windows, sequence_length)`` of training text for activation ranges.

    Validation text would bias the measurement. The fingerprint is that of the tokenizer that made the ids.
    """

    windows: npt.NDArray[Any]
    tokenizer_fingerprint: str

    def __post_init__(self) -> None:
        if self.windows.ndim != 2 or not self.windows.size:
            problem = f"of shape {self.windows.shape}: must be (num_windows, sequence_length)"
            raise ConfigError(f"calibration windows {problem}", "use Calibration.from_store")

    @classmethod
    def from_store(cls, store: TokenStore, sequence_length: int, num_windows: int = 64) -> Calibration:
        """At most that many windows, spread evenly over the store of the train split.

        Raises:
            ConfigError: A number is below 1.
            DataError: The text is shorter than one window.
        """
        require_number("sequence_length", sequence_length, 64, whole=True, at_least=1)
        require_number("num_windows", num_windows, 64, whole=True, at_least=1)
        places = store.num_tokens // sequence_length
        if not places:
            problem = f"{store.num_tokens} tokens, fewer than one window of {sequence_length}"
            raise DataError(f"{store.path}: {problem}", "use a smaller sequence_length or more text")
        chosen = np.unique(np.linspace(0, places - 1, min(num_windows, places)).astype(np.int64))
        windows = store.windows(chosen * sequence_length, sequence_length)
        return cls(windows, store.manifest.tokenizer_fingerprint)

    def require_tokenizer(self, fingerprint: str) -> None:
        """Refuse text that was encoded by another tokenizer.

        Raises:
            ConfigError: The fingerprints differ.
        """
        if fingerprint != self.tokenizer_fingerprint:
            two = f"({self.tokenizer_fingerprint[:8]}, the model has {fingerprint[:8]})"
            problem = f"the calibration text was encoded by another tokenizer {two}"
            raise ConfigError(problem, "encode it with the tokenizer of the model")


@dataclass(frozen=True, eq=False)
class MeasuredText:
    """Validation text in windows, as in a run's validation, with the number of bytes of each token id."""

    store: TokenStore
    bytes_per_token: npt.NDArray[np.int64]
    sequence_length: int

    @classmethod
    def of(cls, store: TokenStore, tokenizer: BaseTokenizer, sequence_length: int) -> MeasuredText:
        """The text of a store, encoded by ``tokenizer``."""
        return cls(store, tokenizer.token_byte_lengths(), sequence_length)

    @property
    def num_windows(self) -> int:
        """Number of windows of the whole text."""
        return -(-self.store.num_tokens // self.sequence_length)

    def tokens(self, num_windows: int) -> npt.NDArray[Any]:
        """The tokens of windows that are spread evenly over the text; the whole text if it has no more.

        The first token of a window is then predicted from the last token of another place, equally for
        every candidate.
        """
        if num_windows >= self.num_windows:
            return self.store.tokens(0, self.store.num_tokens)
        whole = self.store.num_tokens // self.sequence_length
        starts = np.unique(np.linspace(0, whole - 1, num_windows).astype(np.int64)) * self.sequence_length
        return self.store.windows(starts, self.sequence_length).reshape(-1)

    def measure(self, network: Decoder, num_windows: int, batch_size: int) -> Quality:
        """The quality of ``network`` on :meth:`tokens`."""
        tokens, end_id = self.tokens(num_windows), self.store.end_of_text_id
        lengths, length = self.bytes_per_token, self.sequence_length
        return measure_quality(network, tokens, lengths, length, batch_size, end_of_text_id=end_id)


# RUN/checkpoints/best.ckpt is this many levels below RUN, which contains config.yaml.
_LEVELS = 2


@dataclass(frozen=True)
class EvaluationText:
    """A text that any tokenizer can encode: the ``test`` or ``validation`` split of some files."""

    files: TextFiles
    split: str
    cache_dir: Path
    description: str

    @classmethod
    def of_files(cls, files: Sequence[str]) -> EvaluationText:
        """The text of files, folders, globs or ``corpus:NAME``.

        Raises:
            DataError: There is nothing to read.
        """
        expand_sources(files, "--text")  # early, and with the name of the option in errors
        text = TextFiles([], None, list(files), None, "text", 0.0, 0)
        return cls(text, "test", default_cache_dir(), "the text that was given")

    @classmethod
    def of_model(cls, path: Path) -> EvaluationText:
        """The test text of the run that contains a checkpoint or an artefact, or else its validation text.

        The test text is better, since checkpoints and methods are chosen by the validation text.

        Raises:
            DataError: The path is in no run, or the run has neither text.
        """
        place = path.absolute()
        configs = (folder / "config.yaml" for folder in (place, *place.parents)[: _LEVELS + 1])
        config = next(filter(Path.is_file, configs), None)
        data = _data_options(config) if config else None
        if config is None or data is None:
            problem = f"{path} lies in no run folder whose config.yaml names a text to measure on"
            raise DataError(problem, "give --text FILES")
        named = (data["train_files"], data.get("validation_files"), data.get("test_files"))
        field, fraction = data.get("text_field", "text"), data.get("validation_fraction", 0.0)
        seed, invalid_text = data.get("seed", 0), data.get("invalid_text", "error")
        files = TextFiles(*named, None, field, fraction, seed, invalid_text=invalid_text)
        folder = data.get("cache_dir")
        split = "validation" if files.test is None else "test"
        if split == "validation" and files.validation is None and not files.validation_fraction:
            raise DataError(f"{config}: names neither test_files nor validation_files", "give --text FILES")
        cache_dir = Path(folder).expanduser() if folder else default_cache_dir()
        return cls(files, split, cache_dir, f"the {split} text of {config}")

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names of the files of the text, as the user gave them; :class:`DataError` if one does not exist."""
        own = self.files.test if self.split == "test" else self.files.validation
        named = self.files.train if own is None else own
        if isinstance(named, Texts):
            return (named.name,)
        return tuple(source.name for source in expand_sources(named, f"{self.split}_files"))

    def encode(self, tokenizer: BaseTokenizer) -> TokenStore:
        """The text as token ids, from the cache if possible.

        Raises:
            InsightError: The text cannot be read, or the cache folder cannot be written to.
        """
        return Preparation(self.files, tokenizer, self.cache_dir).store(self.split)


def _data_options(config: Path) -> dict[str, Any] | None:
    """The ``data`` options of a run's configuration; ``None`` if they do not exist or name no text."""
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
        group: dict[str, Any] = values["data"]
        data: dict[str, Any] = group.get("init_args", group)
        return data if data.get("train_files") else None
    except (yaml.YAMLError, OSError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        return None
