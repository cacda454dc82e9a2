"""The sampler against brute force, and its settings."""

from __future__ import annotations

import math

import pytest
import torch

from insight.generation import GenerationSettings, filtered_log_probabilities, sample
from insight.runtime.errors import ConfigError

SCORES = torch.randn(4, 30, generator=torch.Generator().manual_seed(0)) * 2


def allowed_by_brute_force(row: list[float], settings: GenerationSettings) -> set[int]:
    """The definitions of top-k, top-p and min-p, token by token."""
    powers = [math.exp(score / settings.temperature) for score in row]
    probabilities = [power / sum(powers) for power in powers]
    order = sorted(range(len(row)), key=lambda token: -probabilities[token])
    allowed, mass = set(), 0.0
    for rank, token in enumerate(order):
        fits = settings.top_k is None or rank < settings.top_k
        fits &= settings.top_p is None or mass < settings.top_p
        fits &= settings.min_p is None or probabilities[token] >= settings.min_p * probabilities[order[0]]
        if fits or rank == 0:
            allowed.add(token)
        mass += probabilities[token]
    return allowed


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"top_k": 5},
        {"top_p": 0.7},
        {"min_p": 0.2},
        {"top_k": 8, "top_p": 0.9, "min_p": 0.05},
        {"top_k": 99},
    ],
)
def test_filters_equal_brute_force(temperature: float, filters: dict[str, float]) -> None:
    settings = GenerationSettings(temperature=temperature, **filters)  # type: ignore[arg-type]
    kept = filtered_log_probabilities(SCORES, settings)
    for row, scores in zip(kept, SCORES.tolist(), strict=True):
        assert set(row.isfinite().nonzero().flatten().tolist()) == allowed_by_brute_force(scores, settings)
    torch.testing.assert_close(kept.exp().sum(-1), torch.ones(4))


def test_draws_follow_the_distribution() -> None:
    settings = GenerationSettings(temperature=1.0, top_k=6)
    expected = filtered_log_probabilities(SCORES[:1], settings).exp()[0]
    generator = torch.Generator().manual_seed(1)
    draws = sample(SCORES[:1].expand(20_000, -1), settings, generator)
    found = torch.bincount(draws, minlength=30) / 20_000
    # Four standard deviations of the largest binomial share.
    assert (found - expected).abs().max() < 4 * math.sqrt(0.25 / 20_000)
    assert (found[expected == 0] == 0).all()


def test_zero_temperature_is_greedy() -> None:
    drawn = sample(SCORES, GenerationSettings(temperature=0.0), torch.Generator())
    assert torch.equal(drawn, SCORES.argmax(-1))


def test_seed_decides_and_global_state_is_untouched() -> None:
    settings = GenerationSettings()
    before = torch.get_rng_state()
    first, second = (sample(SCORES, settings, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("top_k", 0),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", 2.0),
        ("seed", -1),
        ("stop", ("",)),
        ("overflow", "slip"),
    ],
)
def test_mistakes_are_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name}="):
        GenerationSettings(**{name: value})  # type: ignore[arg-type]
