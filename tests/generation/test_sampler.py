"""The sampler against brute force, and its settings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from insight.generation import GenerationSettings, filtered_log_probabilities, sample
from insight.runtime.errors import CheckpointError, ConfigError

NUMBERS = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "seed")
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
        ("stop", (1,)),
        ("overflow", "slip"),
        *((name, value) for name in NUMBERS for value in ("1", True, math.nan, math.inf, -math.inf, -1)),
        *((name, 1.5) for name in ("max_new_tokens", "top_k", "seed")),
    ],
)
def test_mistakes_are_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as mistake:
        GenerationSettings(**{name: value})  # type: ignore[arg-type]
    assert mistake.value.option == name
    assert mistake.value.remedy


def test_one_stop_string_is_no_list_of_letters() -> None:
    assert GenerationSettings(stop="end").stop == ("end",)  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [1e-5, 1e-40, 1e-300, 5e-324])
@pytest.mark.parametrize("filters", [{}, {"top_k": 3, "top_p": 0.9, "min_p": 0.1}])
def test_a_tiny_temperature_takes_the_likeliest_tokens(temperature: float, filters: dict[str, Any]) -> None:
    settings = GenerationSettings(temperature=temperature, **filters)
    scores = torch.tensor([[1.0, 5.0, 2.0, 5.0], [-2e38, -3e38, -1e38, -3e38]])
    drawn = {tuple(sample(scores, settings, torch.Generator().manual_seed(n)).tolist()) for n in range(20)}
    assert drawn == {(1, 2), (3, 2)}  # equal scores stay equally likely


def test_scores_that_are_not_finite_choose_nothing() -> None:
    for bad in (math.nan, math.inf):
        scores = SCORES.clone()
        scores[0, 1] = bad
        for temperature in (0.0, 1.0):
            with pytest.raises(CheckpointError, match="not finite"):
                sample(scores, GenerationSettings(temperature=temperature), torch.Generator())
    ruled_out = SCORES.clone()
    ruled_out[:, 0] = -math.inf
    assert (sample(ruled_out, GenerationSettings(), torch.Generator()) != 0).all()
