"""Intervals and tests, exact where they can be; what is drawn at random is repeated by a seed.

The formulas are scipy's. It is imported when something is computed, since that takes half a second.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insight.runtime.errors import ConfigError

NUM_RESAMPLES = 2000
"""Resamples of a bootstrap: the ends of a 95% interval then move by a few hundredths of its width."""
NUM_FLIPS = 20_000
"""Draws of a sign-flip test that is too large to be exact: a p-value of 0.05 is then known to 0.003."""
_MOST_EXACT_FLIPS = 16
# Indices drawn at once, which bounds the memory; they are drawn from one stream, so it changes no result.
_DRAWN_AT_ONCE = 1 << 20

Floats = npt.NDArray[np.float64]
Values = Sequence[float] | Floats | npt.NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A number and how far it can be trusted.

    Attributes:
        value: The estimate.
        low: Lower end of the confidence interval.
        high: Upper end of the confidence interval.
        n: How many things it was measured on.
        confidence: Share of intervals made like this that hold the true value.
    """

    value: float
    low: float
    high: float
    n: int
    confidence: float = 0.95


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """A share of independent cases (Wilson 1927, J. Am. Stat. Assoc. 22:209).

    It is honest where the usual interval is not: 0 of 20 gives [0, 0.161].

    Args:
        successes: Cases that count.
        n: All cases, at least 1.
        confidence: Share of such intervals that hold the true value.

    Raises:
        ConfigError: There are no cases, or more successes than cases.
    """
    from scipy.stats import binomtest

    _require(n, confidence)
    if not 0 <= successes <= n:
        raise ConfigError(
            f"must be from 0 to n={n}", "count each case once", option="successes", value=successes
        )
    ends = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Interval(successes / n, float(ends.low), float(ends.high), n, confidence)


def mcnemar_exact(b: int, c: int) -> float:
    """Whether two models differ on the same yes-or-no cases (McNemar 1947, Psychometrika 12:153).

    Only the cases on which they disagree say anything; if the models are equal, each of them is a fair coin.

    Args:
        b: Cases where only the first model says yes.
        c: Cases where only the second model says yes.

    Returns:
        The two-sided p-value of the exact binomial test.

    Raises:
        ConfigError: A count is negative.
    """
    from scipy.stats import binomtest

    for name, count in (("b", b), ("c", c)):
        if count < 0:
            raise ConfigError("must be 0 or more", "count the disagreements", option=name, value=count)
    return float(binomtest(b, b + c).pvalue) if b + c else 1.0


def sign_flip_test(differences: Values, seed: int) -> float:
    """Whether paired differences are centred on 0 (Fisher 1935, The Design of Experiments, section 21).

    If two models are equal, each difference could as well have had the other sign. Differences of 0 say
    nothing. Where all are +1 or -1 it is McNemar's test. The function is not scipy's ``permutation_test``,
    whose two-sided p-value doubles the smaller tail and so differs where signs are drawn.

    Args:
        differences: One a pair; the pairs are independent, so add up what belongs together first.
        seed: Draws signs where there are too many to try all.

    Returns:
        The two-sided p-value of the sum: exact up to 16 differences that are not 0, else from
        :data:`NUM_FLIPS` draws, the observed one counted too (Phipson and Smyth 2010), so never 0.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    if not len(values):
        return 1.0
    # Equal sums differ by rounding, depending on the order they are added in.
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
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """The mean of values that come in clusters, such as several samples of one prompt.

    Whole clusters are drawn with replacement (Cameron, Gelbach and Miller 2008, Rev. Econ. Stat. 90:414),
    percentile interval (Efron and Tibshirani 1993). With a cluster for each value it is the plain bootstrap.

    Args:
        values: One a case.
        clusters: The cluster of each value; only the order in which they first appear matters.
        seed: Seed of the resamples; equal seeds give equal intervals.
        confidence: Share of such intervals that hold the true value.
        num_resamples: Number of resamples.

    Raises:
        ConfigError: There are no values, or not one cluster for each.
    """
    if len(values) != len(clusters):
        raise ConfigError(
            f"{len(values)} values, {len(clusters)} clusters: one is needed for each value",
            "give every value a cluster",
        )
    _require(len(values), confidence)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    index = np.array([numbers[name] for name in clusters])
    sums = np.bincount(index, weights=np.asarray(values, dtype=np.float64))
    counts = np.bincount(index).astype(np.float64)

    def mean(total: Floats, count: Floats, axis: int = -1) -> Floats:
        result: Floats = total.sum(axis) / count.sum(axis)
        return result

    return _bootstrap(mean, (sums, counts), len(values), seed, confidence, num_resamples)


def paired_ratio_bootstrap(
    numerators_a: Values,
    numerators_b: Values,
    denominators: Values,
    seed: int,
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """The difference b - a of two ratios of sums, such as bits per byte of two models on the same windows.

    Cases are drawn with replacement, the same for both models, so what makes a case hard for both cancels
    (Efron and Tibshirani 1993; percentile interval).

    Args:
        numerators_a: One a case, of the first model.
        numerators_b: One a case, of the second model on the same cases.
        denominators: One a case, common to both models; not negative.
        seed: Seed of the resamples; equal seeds give equal intervals.
        confidence: Share of such intervals that hold the true value.
        num_resamples: Number of resamples.

    Raises:
        ConfigError: There are no cases, the lengths differ, or the denominators sum to 0.
    """
    first, second, divisors = (
        np.asarray(values, dtype=np.float64) for values in (numerators_a, numerators_b, denominators)
    )
    if not len(first) == len(second) == len(divisors):
        raise ConfigError(
            f"{len(first)}, {len(second)} and {len(divisors)} cases: both models need the same cases",
            "measure both on the same text",
        )
    _require(len(first), confidence)
    if not divisors.sum() > 0:
        raise ConfigError("denominators sum to 0: there is nothing to divide by", "measure on text")

    def difference(a: Floats, b: Floats, below: Floats, axis: int = -1) -> Floats:
        total = below.sum(axis)
        result: Floats = b.sum(axis) / total - a.sum(axis) / total
        return result

    return _bootstrap(difference, (first, second, divisors), len(first), seed, confidence, num_resamples)


def _bootstrap(
    statistic: Callable[..., Floats],
    columns: tuple[npt.NDArray[Any], ...],
    n: int,
    seed: int,
    confidence: float,
    num_resamples: int,
) -> Interval:
    """The statistic of whole columns and its percentile interval over resampled rows."""
    from scipy.stats import bootstrap

    if num_resamples < 1:
        raise ConfigError(
            "must be at least 1", f"use {NUM_RESAMPLES}", option="num_resamples", value=num_resamples
        )
    value, num_rows = float(statistic(*columns)), len(columns[0])
    if num_rows == 1:  # every resample is the one row, and scipy refuses to say so
        return Interval(value, value, value, n, confidence)
    ends = bootstrap(
        columns,
        statistic,
        n_resamples=num_resamples,
        batch=max(1, _DRAWN_AT_ONCE // num_rows),
        vectorized=True,
        paired=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(value, float(ends.low), float(ends.high), n, confidence)


def _require(n: int, confidence: float) -> None:
    if n < 1:
        raise ConfigError("nothing was measured", "there is no interval without cases", option="n", value=n)
    if not 0 < confidence < 1:
        raise ConfigError("must lie between 0 and 1", "use 0.95", option="confidence", value=confidence)
