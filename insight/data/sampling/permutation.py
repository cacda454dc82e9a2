"""Random orders and numbers as pure functions of seed, epoch and index, equal on every machine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
_ROUNDS = 8
_WORD = (1 << 64) - 1


def permute(indices: Int64, size: int, seed: int, epoch: int) -> Int64:
    """Images of ``indices`` (any shape) under the permutation of ``range(size)`` given by ``(seed, epoch)``.

    A balanced Feistel network (Luby & Rackoff 1988) permutes the smallest range of 4^k numbers that holds
    ``size``; images outside ``range(size)`` are permuted again until they fall inside (cycle walking, Black &
    Rogaway 2002, "Ciphers with arbitrary finite domains"), on average less than four times.
    """
    half_bits = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half_bits)) - 1)
    key = _mix_integer(_mix_integer(seed) ^ epoch)
    keys = [np.uint64(_mix_integer(key + number)) for number in range(_ROUNDS)]
    values = indices.astype(np.uint64).ravel()
    outside = np.arange(len(values))
    while len(outside):
        walked = values[outside]
        left, right = walked >> half_bits, walked & mask
        for round_key in keys:
            left, right = right, left ^ (_mix(right ^ round_key) & mask)
        walked = (left << half_bits) | right
        values[outside] = walked
        outside = outside[walked >= np.uint64(size)]
    return values.astype(np.int64).reshape(indices.shape)


def random_integer(bound: int, seed: int, epoch: int, purpose: int) -> int:
    """An integer in ``range(bound)`` from its arguments, uniform up to a bias of ``bound / 2**64``."""
    return _mix_integer(_mix_integer(_mix_integer(seed) ^ epoch) + purpose) % bound


def _mix(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea & Flood 2014): every input bit reaches every output bit."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _mix_integer(word: int) -> int:
    """SplitMix64's next output after state ``word``."""
    word = (word + 0x9E3779B97F4A7C15) & _WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)
