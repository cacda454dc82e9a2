"""How well a network predicts a text, and whether another one predicts it worse: bits per byte, paired."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from insight.data.sampling import IGNORED_TARGET
from insight.generation import evaluation_mode
from insight.models import Decoder
from insight.runtime.errors import CheckpointError, ConfigError, DataError
from insight.runtime.numbers import require_number
from insight.runtime.statistics import Interval, paired_ratio_bootstrap

# Scores held at once: 2^25 numbers are 128 MiB in float32.
_SCORES_AT_ONCE = 2**25


@dataclass(frozen=True, eq=False)
class Quality:
    """How well a network predicts a text, kept token by token so that it can be compared piece by piece.

    Attributes:
        token_nats: float64 ``(num_tokens,)``, negative log-likelihood of each token.
        token_bytes: int64 ``(num_tokens,)``, UTF-8 bytes that each token stands for; 0 for end of text.
        sequence_length: Tokens a window; the last window may be shorter.
    """

    token_nats: npt.NDArray[np.float64]
    token_bytes: npt.NDArray[np.int64]
    sequence_length: int

    @property
    def nats(self) -> npt.NDArray[np.float64]:
        """Negative log-likelihood of each window: float64 ``(num_windows,)``."""
        sums: npt.NDArray[np.float64] = np.add.reduceat(self.token_nats, self._starts)
        return sums

    @property
    def num_bytes(self) -> npt.NDArray[np.int64]:
        """Bytes of each window: int64 ``(num_windows,)``; together the length of the text."""
        sums: npt.NDArray[np.int64] = np.add.reduceat(self.token_bytes, self._starts)
        return sums

    @property
    def bits_per_byte(self) -> float:
        """Length of the text's code in bits, a byte of the text; comparable across tokenizers."""
        return float(self.token_nats.sum()) / math.log(2) / int(self.token_bytes.sum())

    @property
    def _starts(self) -> npt.NDArray[np.int64]:
        return np.arange(0, len(self.token_nats), self.sequence_length, dtype=np.int64)


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
    """Measure a network on a text as a run's validation does: windows that do not overlap, each token once.

    Every batch has the same shape (the last is filled up with targets that do not count), so that a compiled
    network is compiled once.

    Args:
        network: The network as it is executed: quantized and compiled if that is compared.
        tokens: Ids of the text in order, end-of-text ids included: ``store.tokens(0, store.num_tokens)``.
        bytes_per_token: Bytes that each id stands for: ``tokenizer.token_byte_lengths()``.
        sequence_length: Tokens a window.
        batch_size: Most windows a batch.
        end_of_text_id: The token that the first one of the text follows.

    Raises:
        ConfigError: A number is below 1 or a window is longer than the network's context.
        DataError: There is no text, or it was encoded by another tokenizer.
        CheckpointError: The network's predictions are not finite numbers.
    """
    _check(network, tokens, bytes_per_token, sequence_length, batch_size)
    lengths = bytes_per_token[np.asarray(tokens, dtype=np.int64)].astype(np.int64)
    if not lengths.any():
        raise DataError("the text has no bytes, only end-of-text tokens", "give a file with text")
    losses = np.empty(len(tokens), dtype=np.float64)
    num_windows = -(-len(tokens) // sequence_length)
    rows = -(-num_windows // -(-num_windows // batch_size))  # equal batches with the fewest filled-up rows
    device = network.embedding.weight.device
    with evaluation_mode(network):
        for start in range(0, len(tokens), rows * sequence_length):
            inputs, targets = _batch(tokens, start, rows, sequence_length, end_of_text_id)
            found = _losses(network, inputs.to(device), targets.to(device))
            stop = min(start + rows * sequence_length, len(tokens))
            losses[start:stop] = found.flatten()[: stop - start].double().cpu().numpy()
    finite = np.isfinite(losses)
    if not finite.all():
        raise CheckpointError(
            f"the network gives no finite probability to token {int(finite.argmin())} of the text",
            "its weights are damaged: use another checkpoint",
        )
    return Quality(losses, lengths, sequence_length)


def compare_quality(a: Quality, b: Quality, seed: int = 0) -> Interval:
    """How many bits per byte ``b`` needs more than ``a`` on the same text (negative: fewer).

    Paired bootstrap (Efron 1979; pairing as in Koehn 2004, *Statistical significance tests for machine
    translation evaluation*): both are resampled over the same pieces of the text, so that how hard a piece is
    cancels. The pieces are the windows; where the tokenizers differ, equally long stretches of bytes, over
    which a token's cost is spread evenly.

    Args:
        a: The reference.
        b: The quality that is compared with it.
        seed: Seed of the resampling.

    Raises:
        DataError: They were measured on texts of different length.
    """
    total, other = int(a.token_bytes.sum()), int(b.token_bytes.sum())
    if total != other:
        raise DataError(
            f"one network was measured on {total:,} bytes, the other on {other:,}",
            "measure both on the same text",
        )
    if a.sequence_length == b.sequence_length and np.array_equal(a.num_bytes, b.num_bytes):
        costs_a, costs_b, lengths = a.nats, b.nats, a.num_bytes
    else:
        edges = np.round(np.linspace(0, total, len(a.num_bytes) + 1))
        costs_a, costs_b, lengths = _costs(a, edges), _costs(b, edges), np.diff(edges).astype(np.int64)
    # Numerators in bits, so that the ratio is bits per byte.
    return paired_ratio_bootstrap(costs_a / math.log(2), costs_b / math.log(2), lengths, seed)


@dataclass(frozen=True)
class Verdict:
    """Whether a model is sure, not only likely, to lose no more than allowed.

    Attributes:
        passed: Whether the model may take the original's place.
        difference: Bits per byte that it needs more than the original, with a 95% interval.
        loss: ``difference`` as a share of the original's bits per byte.
        highest_loss: The upper end of the interval as such a share, which is what decides.
    """

    passed: bool
    difference: Interval
    loss: float
    highest_loss: float


def quality_gate(original: Quality, candidate: Quality, max_quality_loss: float, seed: int = 0) -> Verdict:
    """Compare a model with the original on the same text.

    Args:
        original: Quality of the model before.
        candidate: Quality of the model after, as it is executed.
        max_quality_loss: Share of the original's bits per byte that may be lost: 0.005 is half a percent.
        seed: Seed of the bootstrap behind the interval.

    Raises:
        ConfigError: The bound is negative or no number.
        DataError: They were measured on different text.
    """
    require_number("max_quality_loss", max_quality_loss, "0.005 for half a percent", at_least=0)
    difference = compare_quality(original, candidate, seed)
    reference = original.bits_per_byte
    highest = difference.high / reference
    return Verdict(highest <= max_quality_loss, difference, difference.value / reference, highest)


def _batch(
    tokens: npt.NDArray[Any], start: int, rows: int, length: int, end_of_text_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets ``(rows, length)`` from token ``start`` on; inputs are the targets, one later."""
    inputs = np.full(rows * length, end_of_text_id, dtype=np.int64)
    targets = np.full(rows * length, IGNORED_TARGET, dtype=np.int64)
    found = tokens[start : start + rows * length]
    targets[: len(found)] = found
    inputs[1 : len(found)] = found[:-1]
    if start:
        inputs[0] = tokens[start - 1]
    return torch.from_numpy(inputs).view(rows, length), torch.from_numpy(targets).view(rows, length)


def _losses(network: Decoder, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of each target in nats, 0 where it does not count."""
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
    if ends[1] == 0:  # leading tokens without bytes: nothing is before them, so they belong to the first byte
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
    context = network.config.max_sequence_length
    if sequence_length > context:
        raise ConfigError(
            f"the network's context holds {context} tokens",
            f"use {context} or less",
            option="sequence_length",
            value=sequence_length,
        )
    if len(tokens) == 0:
        raise DataError("there is no text to measure the network on", "give a file with text")
    if len(bytes_per_token) != network.vocabulary_size:
        raise DataError(
            f"the tokenizer has {len(bytes_per_token)} tokens, the network {network.vocabulary_size}",
            "use the tokenizer that the network was trained with",
        )
    smallest, largest = int(tokens.min()), int(tokens.max())
    if smallest < 0 or largest >= network.vocabulary_size:
        raise DataError(
            f"the text holds token id {largest if smallest >= 0 else smallest}, "
            f"the network knows 0 to {network.vocabulary_size - 1}",
            "encode it with the tokenizer that the network was trained with",
        )
