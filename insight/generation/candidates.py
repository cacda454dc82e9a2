"""The best extensions of running hypotheses, equal ones in the order of beam and token."""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 64
"""Tokens of a block. Only the blocks with the largest maxima are sorted, which reads the scores once."""


def best_extensions(scores: Tensor, totals: Tensor, count: int) -> tuple[list[list[float]], list[list[int]]]:
    """Find the largest sums of a running hypothesis's total and the score of its next token.

    Args:
        scores: Log-probabilities ``(sentences, beams, vocabulary_size)``; minus infinity is never found.
        totals: Sums so far, float64 ``(sentences, beams)``.
        count: Most extensions of a sentence.

    Returns:
        For each sentence the sums, largest first, and where they are: ``beam * vocabulary_size + token``. Of
        equal sums the lowest places are taken, in their order.
    """
    values, places, tied = _candidates(scores, totals, count)
    rows, numbers = values.tolist(), places.tolist()
    for row in tied.nonzero().flatten().tolist():
        rows[row], numbers[row] = _sorted_exactly(scores[row], totals[row], count)
    sums, found = [], []
    for row, number in zip(rows, numbers, strict=True):
        order = sorted((-value, place) for value, place in zip(row, number, strict=True) if value > _NEVER)
        sums.append([-value for value, _ in order])
        found.append([place for _, place in order])
    return sums, found


_NEVER = float("-inf")


def _candidates(scores: Tensor, totals: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return sums, places, and for which sentences others that equal the smallest were left out."""
    num_sentences, num_beams, size = scores.shape
    num_blocks = size // _BLOCK
    blocked = num_blocks * _BLOCK
    # The tokens behind the last whole block are candidates anyway.
    tokens = torch.arange(blocked, size, device=scores.device)
    beams = torch.arange(num_beams, device=scores.device)
    places = (beams.unsqueeze(1) * size + tokens).flatten().expand(num_sentences, -1)
    sums = (scores[:, :, blocked:] + totals.unsqueeze(2)).flatten(1)
    tied = torch.zeros(num_sentences, dtype=torch.bool, device=scores.device)
    if num_blocks:
        blocks = scores[:, :, :blocked].view(num_sentences, num_beams, num_blocks, _BLOCK)
        maxima = (blocks.amax(3) + totals.unsqueeze(2)).flatten(1)
        taken, tied = _largest(maxima, min(count, maxima.shape[1]))
        beam, block = taken // num_blocks, taken % num_blocks
        rows = torch.arange(num_sentences, device=scores.device).unsqueeze(1)
        inside = (blocks[rows, beam, block] + totals.gather(1, beam).unsqueeze(2)).flatten(1)
        first = beam * size + block * _BLOCK
        offsets = torch.arange(_BLOCK, device=scores.device)
        sums = torch.cat([inside, sums], dim=1)
        places = torch.cat([(first.unsqueeze(2) + offsets).flatten(1), places], dim=1)
    chosen, also_tied = _largest(sums, min(count, sums.shape[1]))
    return sums.gather(1, chosen), places.gather(1, chosen), tied | also_tied


def _largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return where the largest values of each row are, and whether ``topk`` chose among equal ones."""
    found, where = values.topk(count, dim=1)
    smallest = found[:, -1:]
    return where, ((values >= smallest).sum(1) > count) & (smallest.squeeze(1) > _NEVER)


def _sorted_exactly(scores: Tensor, totals: Tensor, count: int) -> tuple[list[float], list[int]]:
    """The slow way for one sentence: a stable sort of everything."""
    sums = (scores + totals.unsqueeze(1)).flatten()
    values, order = sums.sort(descending=True, stable=True)
    return values[:count].tolist(), order[:count].tolist()
