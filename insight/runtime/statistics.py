"""Intervals and tests, exact where they can be; what is drawn at random is repeated by a seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from insight.runtime.errors import ConfigError

NUM_RESAMPLES = 2000
"""Of a bootstrap: the ends of a 95% interval then move by a few hundredths of its width from seed to seed."""
NUM_FLIPS = 20_000
"""Of a sign-flip test that is too large to be exact: a p-value of 0.05 is then known to 0.003."""
_MOST_EXACT_FLIPS = 16
# Indices drawn at once; they are drawn from one stream, so the number changes no result.
_DRAWN_AT_ONCE = 1 << 21

Values = Sequence[float] | npt.NDArray[np.float64] | npt.NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A number and how far it can be trusted.

    Attributes:
        value: The estimate.
        low: Lower end of the confidence interval.
        high: Upper end.
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

    Honest where the usual interval is not: 0 of 20 gives [0, 0.161].

    Args:
        successes: Cases that count.
        n: Cases in all, at least 1.
        confidence: As of :class:`Interval`.

    Raises:
        ConfigError: There are no cases, or more successes than cases.
    """
    _require_cases(n)
    if not 0 <= successes <= n:
        raise ConfigError(f"successes={successes}: must be from 0 to n={n}", "count each case once")
    z, share = _z(confidence), successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At the ends of the range the formula is exact and its rounding is not.
    low = 0.0 if successes == 0 else max(0.0, middle - reach)
    high = 1.0 if successes == n else min(1.0, middle + reach)
    return Interval(share, low, high, n, confidence)


def mcnemar_exact(b: int, c: int) -> float:
    """Whether two models differ on the same yes-or-no cases (McNemar 1947, Psychometrika 12:153).

    Only the cases on which they disagree say anything; under equality each is a fair coin.

    Args:
        b: Cases where only the first model says yes.
        c: Cases where only the second one does.

    Returns:
        The two-sided p-value of the exact binomial test.

    Raises:
        ConfigError: A count is negative.
    """
    if min(b, c) < 0:
        raise ConfigError(f"b={b}, c={c}: counts cannot be negative", "count the disagreements")
    # Whole numbers until the last division, so that nothing is rounded; each binomial from the one before.
    n, ways, tail = b + c, 1, 1
    for i in range(min(b, c)):
        ways = ways * (n - i) // (i + 1)
        tail += ways
    p_value: float = 2 * tail / 2**n
    return min(1.0, p_value)


def sign_flip_test(differences: Values, seed: int) -> float:
    """Whether paired differences are centred on 0 (Fisher 1935, The Design of Experiments, section 21).

    If two models are equal, each difference could as well have had the other sign. Differences of 0 say
    nothing. Where all are +1 or -1 it is McNemar's test.

    Args:
        differences: One a pair (of independent pairs: add up what belongs together first).
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
        clusters: The cluster of each; their order does not matter beyond that of first appearance.
        seed: The same seed gives the same interval.
        confidence: As of :class:`Interval`.
        num_resamples: How often to draw.

    Raises:
        ConfigError: There are no values, or not one cluster for each.
    """
    _require_cases(len(values))
    if len(values) != len(clusters):
        raise ConfigError(
            f"{len(values)} values, {len(clusters)} clusters: one is needed for each value",
            "give every value a cluster",
        )
    numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    index = np.array([numbers[name] for name in clusters])
    sums = np.bincount(index, weights=np.asarray(values, dtype=np.float64))
    counts = np.bincount(index).astype(np.float64)

    def mean(drawn: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        result: npt.NDArray[np.float64] = sums[drawn].sum(-1) / counts[drawn].sum(-1)
        return result

    low, high = _percentiles(mean, len(numbers), seed, confidence, num_resamples)
    return Interval(float(sums.sum() / counts.sum()), low, high, len(values), confidence)


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
        numerators_b: Of the second model, on the same cases.
        denominators: One a case, common to both; not negative.
        seed: The same seed gives the same interval.
        confidence: As of :class:`Interval`.
        num_resamples: How often to draw.

    Raises:
        ConfigError: There are no cases, the lengths differ, or the denominators sum to 0.
    """
    first, second, divisors = (
        np.asarray(values, dtype=np.float64) for values in (numerators_a, numerators_b, denominators)
    )
    _require_cases(len(first))
    if not len(first) == len(second) == len(divisors):
        raise ConfigError(
            f"{len(first)}, {len(second)} and {len(divisors)} cases: both models need the same cases",
            "measure both on the same text",
        )
    if not divisors.sum() > 0:
        raise ConfigError("denominators sum to 0: there is nothing to divide by", "measure on text")

    def difference(drawn: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        below = divisors[drawn].sum(-1)
        result: npt.NDArray[np.float64] = second[drawn].sum(-1) / below - first[drawn].sum(-1) / below
        return result

    low, high = _percentiles(difference, len(first), seed, confidence, num_resamples)
    value = second.sum() / divisors.sum() - first.sum() / divisors.sum()
    return Interval(float(value), low, high, len(first), confidence)


def _percentiles(
    statistic: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]],
    num_cases: int,
    seed: int,
    confidence: float,
    num_resamples: int,
) -> tuple[float, float]:
    """The ends of the percentile interval of ``statistic`` over resamples ``(resamples, num_cases)``."""
    _z(confidence)
    if num_resamples < 1:
        raise ConfigError(f"num_resamples={num_resamples}: must be at least 1", f"use {NUM_RESAMPLES}")
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWN_AT_ONCE // num_cases)
    found = [
        statistic(generator.integers(0, num_cases, (min(at_once, num_resamples - done), num_cases)))
        for done in range(0, num_resamples, at_once)
    ]
    outside = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(found), [outside, 1 - outside]).tolist()
    return low, high


def _z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence={confidence}: must lie between 0 and 1", "use 0.95")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _require_cases(n: int) -> None:
    if n < 1:
        raise ConfigError(f"n={n}: nothing was measured", "there is no interval without cases")
