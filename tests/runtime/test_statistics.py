"""Equal to scipy and statsmodels, and honest at the ends of the range."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from insight.runtime import statistics
from insight.runtime.errors import ConfigError
from insight.runtime.statistics import (
    cluster_bootstrap,
    mcnemar_exact,
    paired_ratio_bootstrap,
    sign_flip_test,
    wilson_interval,
)

COUNTS = [(0, 1), (1, 1), (0, 20), (3, 20), (20, 20), (0, 200), (61, 120), (5000, 10_000)]


@pytest.mark.parametrize(("successes", "n"), COUNTS)
def test_wilson_equals_scipy_and_statsmodels(successes: int, n: int) -> None:
    ours = wilson_interval(successes, n)
    theirs = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    low, high = proportion_confint(successes, n, 0.05, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=1e-12)
    assert (ours.value, ours.n, ours.confidence) == (successes / n, n, 0.95)


def test_wilson_by_the_book() -> None:
    assert wilson_interval(0, 20).low == 0.0
    assert wilson_interval(0, 20).high == pytest.approx(0.161, abs=5e-4)
    assert wilson_interval(0, 200).high == pytest.approx(0.019, abs=5e-4)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 5), (0, 6), (6, 0), (3, 3), (10, 25), (400, 470)])
def test_mcnemar_equals_scipy_and_statsmodels(b: int, c: int) -> None:
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(expected, rel=1e-9)
    theirs = mcnemar([[9, b], [c, 9]], exact=True).pvalue
    assert mcnemar_exact(b, c) == pytest.approx(theirs if b + c else 1.0, rel=1e-9)


def test_six_disagreements_are_the_fewest_that_convince() -> None:
    assert mcnemar_exact(0, 5) > 0.05 > mcnemar_exact(0, 6)
    assert mcnemar_exact(9000, 9400) == pytest.approx(stats.binomtest(9000, 18_400).pvalue, rel=1e-9)


def _mean_of_differences(values: np.ndarray, axis: int) -> np.ndarray:
    return values.mean(axis)


def test_sign_flips_equal_scipy_and_mcnemar() -> None:
    values = np.round(np.random.default_rng(8).normal(0.4, 1, 11), 1)
    values[3] = 0.0
    theirs = stats.permutation_test(
        (values,), _mean_of_differences, permutation_type="samples", n_resamples=10_000
    )
    assert sign_flip_test(values, 0) == pytest.approx(theirs.pvalue, rel=1e-12)
    for b, c in ((0, 0), (0, 4), (2, 9), (5, 5), (12, 4)):
        assert sign_flip_test([-1.0] * b + [1.0] * c + [0.0] * 7, 0) == pytest.approx(mcnemar_exact(b, c))


def test_many_sign_flips_come_near_the_exact_value(monkeypatch: pytest.MonkeyPatch) -> None:
    signs = [-1.0] * 15 + [1.0] * 30
    drawn = sign_flip_test(signs, 3)
    assert drawn == sign_flip_test(signs, 3) != sign_flip_test(signs, 4)
    assert drawn == pytest.approx(mcnemar_exact(15, 30), abs=0.005)
    monkeypatch.setattr(statistics, "_DRAWN_AT_ONCE", 1000)
    assert sign_flip_test(signs, 3) == drawn
    assert sign_flip_test([1.0] * 200, 0) == 1 / (statistics.NUM_FLIPS + 1)


def test_cluster_bootstrap_of_single_values_equals_scipy() -> None:
    values = np.random.default_rng(1).normal(size=57)
    ours = cluster_bootstrap(values, range(57), seed=4)
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=statistics.NUM_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(4),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-12)
    assert ours.value == pytest.approx(values.mean(), rel=1e-12)


def test_cluster_bootstrap_of_clusters_equals_scipy_on_their_sums() -> None:
    generator = np.random.default_rng(2)
    clusters = generator.integers(0, 12, 90)
    clusters[:12] = np.arange(12)
    values = generator.normal(size=90)
    sums = np.array([values[clusters == cluster].sum() for cluster in range(12)])
    counts = np.array([(clusters == cluster).sum() for cluster in range(12)])

    def ratio(over: np.ndarray, under: np.ndarray, axis: int) -> np.ndarray:
        return over.sum(axis) / under.sum(axis)

    ours = cluster_bootstrap(values, clusters.tolist(), seed=9)
    theirs = stats.bootstrap(
        (sums, counts),
        ratio,
        n_resamples=statistics.NUM_RESAMPLES,
        paired=True,
        method="percentile",
        rng=np.random.default_rng(9),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


def test_paired_ratio_bootstrap_equals_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    first, sizes = generator.gamma(9, 50, 301), generator.integers(200, 900, 301)
    second = first + generator.normal(1, 2, 301)

    def difference(a: np.ndarray, b: np.ndarray, n: np.ndarray, axis: int) -> np.ndarray:
        return b.sum(axis) / n.sum(axis) - a.sum(axis) / n.sum(axis)

    # Drawn in pieces, an odd number of cases each: still the one stream that scipy draws at once.
    monkeypatch.setattr(statistics, "_DRAWN_AT_ONCE", 7 * 301)
    ours = paired_ratio_bootstrap(first, second, sizes, seed=5)
    theirs = stats.bootstrap(
        (first, second, sizes),
        difference,
        n_resamples=statistics.NUM_RESAMPLES,
        paired=True,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)
    assert ours.low < ours.value < ours.high


def test_a_pairing_that_is_lost_widens_the_interval() -> None:
    generator = np.random.default_rng(6)
    first = generator.gamma(9, 50, 200)
    second = first + 1.0
    paired = paired_ratio_bootstrap(first, second, np.ones(200), seed=0)
    shuffled = paired_ratio_bootstrap(first, generator.permutation(second), np.ones(200), seed=0)
    assert paired.high - paired.low < 1e-9 < shuffled.high - shuffled.low


def test_the_seed_decides() -> None:
    values = np.random.default_rng(7).normal(size=30)
    clusters = [index // 2 for index in range(30)]
    assert cluster_bootstrap(values, clusters, 1) == cluster_bootstrap(values, clusters, 1)
    assert cluster_bootstrap(values, clusters, 1) != cluster_bootstrap(values, clusters, 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilson_interval(0, 0),
        lambda: wilson_interval(3, 2),
        lambda: mcnemar_exact(-1, 3),
        lambda: cluster_bootstrap([], [], 0),
        lambda: cluster_bootstrap([1.0], ["a", "b"], 0),
        lambda: paired_ratio_bootstrap([1.0], [1.0, 2.0], [1.0], 0),
        lambda: paired_ratio_bootstrap([1.0], [1.0], [0.0], 0),
        lambda: paired_ratio_bootstrap([1.0], [1.0], [math.nan], 0),
    ],
)
def test_nothing_is_computed_from_nothing(call: object) -> None:
    with pytest.raises(ConfigError):
        call()  # type: ignore[operator]
