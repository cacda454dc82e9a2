"""Confidence intervals and tests, exact where possible; a seed repeats random draws.

scipy provides the formulas. It is imported at first use, since that takes half a second.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insight.runtime.errors import ConfigError
from insight.runtime.numbers import require_number

NUM_RESAMPLES = 2000
"""Resamples of a bootstrap: with so many, the ends of a 95% interval vary by some hundredths of its width."""
NUM_FLIPS = 20_000
"""Draws of a sign-flip test too large to be exact: with so many, a p-value of 0.05 is accurate to 0.003."""
_MOST_EXACT_FLIPS = 16
# The indices drawn at once bound the memory. They come from one stream, so their number changes no result.
_DRAWN_AT_ONCE = 1 << 20

Floats = npt.NDArray[np.float64]
Values = Sequence[float] | Floats | npt.NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval from ``low`` to ``high``, measured on ``n`` cases."""

    value: float
    low: float
    high: float
    n: int
    confidence: float = 0.95


def wilson_interval(successes: int, n: int) -> Interval:
    """The interval of a share of independent cases (Wilson 1927, J. Am. Stat. Assoc. 22:209).

    It covers the true share where the usual interval does not: 0 of 20 gives [0, 0.161].
    """
    from scipy.stats import binomtest

    _require_cases(n)
    if not 0 <= successes <= n:
        problem = f"must be from 0 to n={n}"
        raise ConfigError(problem, "count each case once", option="successes", value=successes)
    ends = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return Interval(successes / n, float(ends.low), float(ends.high), n)


def mcnemar_exact(b: int, c: int) -> float:
    """Test whether two models differ on the same yes-or-no cases (McNemar 1947, Psychometrika 12:153).

    Only cases on which they disagree are informative; if the models are equal, each of them is a fair coin.

    Args:
        b: Number of cases in which only the first model says yes, at least 0.
        c: Number of cases in which only the second model says yes, at least 0.

    Returns:
        The two-sided p-value of the exact binomial test.
    """
    from scipy.stats import binomtest

    require_number("b", b, 1, whole=True, at_least=0)
    require_number("c", c, 1, whole=True, at_least=0)
    return float(binomtest(b, b + c).pvalue) if b + c else 1.0


def sign_flip_test(differences: Values, seed: int) -> float:
    """Test whether paired differences are centred on 0 (Fisher 1935, The Design of Experiments, section 21).

    If two models are equal, each difference could as well have the other sign. Differences of 0 are ignored.
    scipy's ``permutation_test`` doubles the smaller tail, which differs where signs are drawn.

    Args:
        differences: One number per independent pair; sum dependent ones first.
        seed: Seed of the random signs, which are used if there are too many to try all.

    Returns:
        The two-sided p-value of the sum: exact for up to 16 nonzero differences, else from :data:`NUM_FLIPS`
        draws and the observed one (Phipson and Smyth 2010), so it is never 0.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    if not len(values):
        return 1.0
    # Equal sums differ by rounding errors, which depend on the order of addition.
    observed = abs(values.sum()) - 1e-9 * np.abs(values).sum()
    if len(values) <= _MOST_EXACT_FLIPS:
        bits = np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1
        return float((np.abs((2 * bits - 1) @ values) >= observed).mean())
    generator = np.random.default_rng(seed)
    as_large = 1
    at_once = max(1, _DRAWN_AT_ONCE // len(values))
    for done in range(0, NUM_FLIPS, at_once):
        bits = generator.integers(0, 2, (min(at_once, NUM_FLIPS - done), len(values)))
        as_large += int((np.abs((2 * bits - 1) @ values) >= observed).sum())
    return as_large / (NUM_FLIPS + 1)


def cluster_bootstrap(
    values: Values,
    clusters: Sequence[Hashable],
    seed: int,
) -> Interval:
    """The mean of values that come in clusters, such as several samples of one prompt.

    Whole clusters are drawn with replacement (Cameron, Gelbach and Miller 2008, Rev. Econ. Stat. 90:414), and
    the interval is the percentile interval (Efron and Tibshirani 1993).

    Only the order in which clusters first appear matters. Equal seeds give equal intervals.
    """
    if len(values) != len(clusters):
        problem = f"{len(values)} values, {len(clusters)} clusters: one is needed for each value"
        raise ConfigError(problem, "give every value a cluster")
    _require_cases(len(values))
    numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    index = np.array([numbers[name] for name in clusters])
    sums = np.bincount(index, weights=np.asarray(values, dtype=np.float64))
    counts = np.bincount(index).astype(np.float64)

    def mean(total: Floats, count: Floats, axis: int = -1) -> Any:
        return total.sum(axis) / count.sum(axis)

    return _bootstrap(mean, (sums, counts), len(values), seed)


def paired_ratio_bootstrap(
    numerators_a: Values,
    numerators_b: Values,
    denominators: Values,
    seed: int,
) -> Interval:
    """The difference b - a of two ratios of sums, such as bits per byte of two models on the same windows.

    Each resample draws the same cases with replacement for both models, so a case that is hard for both
    cancels (Efron and Tibshirani 1993; percentile interval).

    All sequences have one value per case; those of ``denominators`` are not negative.
    """
    first, second, divisors = (
        np.asarray(values, dtype=np.float64) for values in (numerators_a, numerators_b, denominators)
    )
    if not len(first) == len(second) == len(divisors):
        problem = f"{len(first)}, {len(second)} and {len(divisors)} cases: both models need the same cases"
        raise ConfigError(problem, "measure both on the same text")
    _require_cases(len(first))
    if not divisors.sum() > 0:
        raise ConfigError("denominators sum to 0: there is nothing to divide by", "measure on text")

    def difference(a: Floats, b: Floats, below: Floats, axis: int = -1) -> Any:
        total = below.sum(axis)
        return b.sum(axis) / total - a.sum(axis) / total

    return _bootstrap(difference, (first, second, divisors), len(first), seed)


def _bootstrap(
    statistic: Callable[..., Any], columns: tuple[npt.NDArray[Any], ...], n: int, seed: int
) -> Interval:
    """The statistic of whole columns, with its percentile interval over resampled rows."""
    from scipy.stats import bootstrap

    value, num_rows = float(statistic(*columns)), len(columns[0])
    if num_rows == 1:  # every resample is the same row, which scipy refuses
        return Interval(value, value, value, n)
    ends = bootstrap(
        columns,
        statistic,
        n_resamples=NUM_RESAMPLES,
        batch=max(1, _DRAWN_AT_ONCE // num_rows),
        vectorized=True,
        paired=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(value, float(ends.low), float(ends.high), n)


def _require_cases(n: int) -> None:
    if n < 1:
        raise ConfigError("nothing was measured", "there is no interval without cases", option="n", value=n)
