"""Scores of the next token → one token, by temperature, top-k, top-p and min-p."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from insight.generation.settings import GenerationSettings


def filtered_log_probabilities(scores: torch.Tensor, settings: GenerationSettings) -> torch.Tensor:
    """Log-probabilities after temperature and filters; minus infinity where a token is ruled out.

    The filters look at the distribution after the temperature, each at the whole of it, and a token must
    pass all of them. The likeliest token always passes.

    Args:
        scores: ``(batch, vocabulary_size)``.
        settings: Its temperature must be above 0.

    Returns:
        float32 ``(batch, vocabulary_size)``; exponentials of a row sum to 1.
    """
    log_probabilities = (scores.float() / settings.temperature).log_softmax(-1)
    if settings.top_k is None and settings.top_p is None and not settings.min_p:
        return log_probabilities.log_softmax(-1)  # nothing to rule out: sorting would cost the most
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
    filtered = torch.full_like(ordered, float("-inf")).scatter(
        -1, order, ordered.masked_fill(~allowed, float("-inf"))
    )
    return filtered.log_softmax(-1)


def sample(scores: torch.Tensor, settings: GenerationSettings, generator: torch.Generator) -> torch.Tensor:
    """One token a row, drawn with the Gumbel-max trick (Gumbel 1954) from ``generator`` alone.

    Args:
        scores: ``(batch, vocabulary_size)``.
        settings: Temperature 0 takes the likeliest token, the lowest id where several tie.
        generator: On the device of ``scores``.

    Returns:
        int64 ``(batch,)``.
    """
    if settings.temperature == 0:
        return scores.argmax(-1)
    uniform = torch.rand(scores.shape, generator=generator, device=scores.device, dtype=torch.float64)
    return _gumbel_max(filtered_log_probabilities(scores, settings), uniform)


def sample_rows(
    scores: torch.Tensor, settings: GenerationSettings, generators: Sequence[torch.Generator]
) -> torch.Tensor:
    """:func:`sample` with a generator for each row: what a row draws does not depend on its neighbours.

    Args:
        scores: ``(batch, vocabulary_size)``.
        settings: As for :func:`sample`.
        generators: One a row, on the device of ``scores``.

    Returns:
        int64 ``(batch,)``.
    """
    if settings.temperature == 0:
        return scores.argmax(-1)
    uniform = [
        torch.rand(scores.shape[-1], generator=generator, device=scores.device, dtype=torch.float64)
        for generator in generators
    ]
    return _gumbel_max(filtered_log_probabilities(scores, settings), torch.stack(uniform))


def _gumbel_max(log_probabilities: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    gumbel = -(-uniform.clamp_min_(1e-300).log()).log()
    return (log_probabilities.double() + gumbel).argmax(-1)
