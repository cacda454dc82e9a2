"""The best extensions of running hypotheses, equal ones in the order of beam and token."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_BLOCK = 64
"""Tokens of a block. Only the blocks with the largest maxima are sorted, which reads the scores once."""
_FEW_SCORES = 2**15
"""Scores that are sorted as a whole in less time than their maxima take to find."""
_NEVER = float("-inf")


class Extensions(NamedTuple):
    """Extensions of one sentence's running hypotheses, best first.

    Attributes:
        totals: Sums of log-probabilities.
        parents: The running hypotheses that they continue.
        tokens: Their new tokens.
    """

    totals: list[float]
    parents: list[int]
    tokens: list[int]


def best_extensions(scores: Tensor, totals: Tensor, count: int) -> list[Extensions]:
    """Find the largest sums of a running hypothesis's total and the score of its next token.

    Args:
        scores: Log-probabilities ``(sentences, beams, vocabulary_size)``; minus infinity is never found.
        totals: Sums so far, float64 ``(sentences, beams)``.
        count: Most extensions of a sentence.

    Returns:
        The extensions of each sentence. Of equal sums those of the lowest beam are taken, then those of the
        lowest token, in this order.
    """
    if count == scores.shape[1] == 1:  # greedy search: of equal scores the first is found
        best, tokens = scores.max(2)
        sums = (best + totals).tolist()
        return [
            Extensions(total, [0], token) if total[0] > _NEVER else Extensions([], [], [])
            for total, token in zip(sums, tokens.tolist(), strict=True)
        ]
    values, places, unsure = _candidates(scores, totals, count)
    size = scores.shape[2]
    rows = zip(values.tolist(), (places // size).tolist(), (places % size).tolist(), strict=True)
    found = [Extensions(*row) for row in rows]
    for row in unsure.nonzero().flatten().tolist():
        found[row] = _sorted_exactly(scores[row], totals[row], count)
    return found


def _candidates(scores: Tensor, totals: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return sums, places, and for which sentences ties or impossible extensions need a closer look."""
    num_sentences, num_beams, size = scores.shape
    num_blocks = size // _BLOCK if scores.numel() > _FEW_SCORES else 0
    blocked = num_blocks * _BLOCK
    # The tokens behind the last whole block are candidates anyway.
    tokens = torch.arange(blocked, size, device=scores.device)
    beams = torch.arange(num_beams, device=scores.device)
    places = (beams.unsqueeze(1) * size + tokens).flatten().expand(num_sentences, -1)
    sums = (scores[:, :, blocked:] + totals.unsqueeze(2)).flatten(1)
    unsure = None
    if num_blocks:
        blocks = scores[:, :, :blocked].view(num_sentences, num_beams, num_blocks, _BLOCK)
        maxima = (blocks.amax(3) + totals.unsqueeze(2)).flatten(1)
        _, taken, unsure = _largest(maxima, count)
        beam, block = taken // num_blocks, taken % num_blocks
        rows = torch.arange(num_sentences, device=scores.device).unsqueeze(1)
        inside = (blocks[rows, beam, block] + totals.gather(1, beam).unsqueeze(2)).flatten(1)
        first = beam * size + block * _BLOCK
        offsets = torch.arange(_BLOCK, device=scores.device)
        sums = torch.cat([inside, sums], dim=1)
        places = torch.cat([(first.unsqueeze(2) + offsets).flatten(1), places], dim=1)
    values, chosen, also_unsure = _largest(sums, count)
    return values, places.gather(1, chosen), also_unsure if unsure is None else unsure | also_unsure


def _largest(values: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest values of each row in order, their places, and whether that leaves doubt.

    ``topk`` orders equal values as it likes and chooses among those that equal the smallest one it takes.
    """
    found, places = values.topk(min(count + 1, values.shape[1]), dim=1)
    # Minus infinity lies in doubt too: it equals itself, or makes NaN of its difference.
    unsure = ~(found[:, :-1] > found[:, 1:]).all(1) | (found[:, -1] == _NEVER)
    return found[:, :count], places[:, :count], unsure


def _sorted_exactly(scores: Tensor, totals: Tensor, count: int) -> Extensions:
    """The slow way for one sentence: a stable sort of everything that is possible."""
    sums = (scores + totals.unsqueeze(1)).flatten()
    possible = (sums > _NEVER).nonzero().flatten()
    values, order = sums[possible].sort(descending=True, stable=True)
    places, size = possible[order[:count]], scores.shape[1]
    return Extensions(values[:count].tolist(), (places // size).tolist(), (places % size).tolist())
