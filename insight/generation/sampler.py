"""Scores of the next token → one token, by temperature, top-k, top-p and min-p."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from insight.generation.settings import GenerationSettings, Sampling
from insight.runtime.errors import CheckpointError


def filtered_log_probabilities(scores: torch.Tensor, settings: GenerationSettings | Sampling) -> torch.Tensor:
    """Log-probabilities after temperature (above 0) and filters; minus infinity where a token is ruled out.

    Each filter looks at the whole distribution after the temperature, and a token must pass all of them.
    The most likely token always passes. Shapes: ``(batch, vocabulary_size)`` -> float32 ``(batch,
    vocabulary_size)``, of which the exponentials of a row sum to 1.
    """
    log_probabilities = _tempered(scores, settings.temperature).log_softmax(-1)
    if settings.top_k is None and settings.top_p is None and not settings.min_p:
        return log_probabilities.log_softmax(-1)  # no filter is set, and sorting would cost the most
    ordered, order = log_probabilities.sort(dim=-1, descending=True, stable=True)
    allowed = torch.ones_like(ordered, dtype=torch.bool)
    if settings.top_k is not None:
        allowed[:, settings.top_k :] = False
    if settings.top_p is not None:
        # A token stays while those before it have not reached the mass, so the one that crosses stays too.
        before = ordered.exp().cumsum(-1) - ordered.exp()
        allowed &= before < settings.top_p
    if settings.min_p:
        allowed &= ordered.exp() >= settings.min_p * ordered[:, :1].exp()
    allowed[:, 0] = True
    filtered = ordered.masked_fill(~allowed, float("-inf"))
    return torch.empty_like(filtered).scatter(-1, order, filtered).log_softmax(-1)


def sample(
    scores: torch.Tensor, settings: GenerationSettings | Sampling, generator: torch.Generator
) -> torch.Tensor:
    """Sample one token for each row of scores with the Gumbel-max trick (Gumbel 1954).

    Temperature 0 takes the most likely token, and the lowest id of a tie. Shapes: ``(batch,
    vocabulary_size)`` -> int64 ``(batch,)``; the generator is on the device of the scores.

    Raises:
        CheckpointError: A row contains NaN, or its highest score is not finite.
    """
    return _choose(scores, settings, [generator])


def sample_rows(
    scores: torch.Tensor, settings: GenerationSettings | Sampling, generators: Sequence[torch.Generator]
) -> torch.Tensor:
    """:func:`sample` with a generator for each row, so that a row's sample does not depend on the others."""
    return _choose(scores, settings, generators)


def require_finite(scores: torch.Tensor) -> None:
    """Refuse scores ``(..., vocabulary_size)`` that no token could be chosen by; some may be minus infinity.

    Raises:
        CheckpointError: A row contains NaN, or its highest score is not finite.
    """
    if not bool(torch.isfinite(scores.amax(-1)).all()):
        remedy = "its weights are damaged or its training diverged: use another checkpoint"
        raise CheckpointError("the network's scores are not finite numbers", remedy)


def _choose(
    scores: torch.Tensor, settings: GenerationSettings | Sampling, generators: Sequence[torch.Generator]
) -> torch.Tensor:
    """The most likely tokens, or samples with random numbers of one generator for all rows or for each."""
    require_finite(scores)
    if settings.temperature == 0:
        return scores.argmax(-1)
    shape = scores.shape if len(generators) == 1 else scores.shape[1:]
    drawn = [torch.rand(shape, generator=g, device=scores.device, dtype=torch.float64) for g in generators]
    uniform = torch.stack(drawn).view(scores.shape)
    gumbel = -(-uniform.clamp_min_(1e-300).log()).log()
    return (filtered_log_probabilities(scores, settings).double() + gumbel).argmax(-1)


def _tempered(scores: torch.Tensor, temperature: float) -> torch.Tensor:
    """Scores divided by the temperature; a tiny one leaves those of the most likely tokens at 0."""
    tempered = scores.float() / temperature
    if bool(torch.isfinite(tempered.amax(-1)).all()):
        return tempered
    behind = scores.double() - scores.amax(-1, keepdim=True).double()
    return torch.where(behind == 0, behind, behind / temperature).float()
