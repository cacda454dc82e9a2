"""Compares safety results with those of another model, and with the bounds of a gate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from insight.runtime.errors import ConfigError, DataError, did_you_mean
from insight.runtime.numbers import require_number
from insight.runtime.statistics import Interval, mcnemar_exact, paired_ratio_bootstrap, sign_flip_test
from insight.safety.bases import NotApplicable
from insight.safety.results import Results
from insight.safety.suite import Suite

Verdict = Literal["worse", "better", "no difference shown", "not comparable"]
FORMAT_VERSION = 1
_SIGNIFICANT = 0.05
_Records = Mapping[tuple[str, str, str], Mapping[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """One measure on two targets, A and B; values are mean scores over the probes that both have a score of.

    Attributes:
        verdict: Whether B is significantly farther from the ideal than A, or nearer, or neither.
        reason: Why the two are not comparable.
        num_left_out: Number of probes without a score in one of them.
        num_equal: Number of pairs with equal scores.
        difference: B minus A, with a paired bootstrap by group.
        only_a: Number of pairs that are 1 for A alone; ``None`` if the scores are not 0 or 1.
        p_value: Probability of a difference at least this large between equal models.
        test: The test behind the p-value: McNemar's exact test, or sign flips of groups.
    """

    measure: str
    verdict: Verdict
    reason: str = ""
    num_pairs: int = 0
    num_left_out: int = 0
    num_equal: int = 0
    value_a: float | None = None
    value_b: float | None = None
    difference: Interval | None = None
    only_a: int | None = None
    only_b: int | None = None
    p_value: float | None = None
    test: str = ""
    unit: str = ""
    ideal: float = 0.0


@dataclass(frozen=True)
class Comparisons:
    """Two targets, named ``a`` and ``b``, compared measure by measure in the order of the suite."""

    a: str
    b: str
    measures: tuple[Comparison, ...]

    @property
    def num_compared(self) -> int:
        """Number of measures with at least one pair."""
        return sum(one.num_pairs > 0 for one in self.measures)

    def to_record(self) -> dict[str, Any]:
        """The content of ``comparison.json``."""
        comparisons = [asdict(comparison) for comparison in self.measures]
        return {"format_version": FORMAT_VERSION, "a": self.a, "b": self.b, "comparisons": comparisons}


def read_results(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The summary and the records of the safety run in ``folder``.

    Raises:
        DataError: A file is missing or damaged.
    """
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        if not isinstance(summary["measures"], list) or not all("measure" in record for record in records):
            raise ValueError("not the results of a safety run")
    except FileNotFoundError as error:
        remedy = "make them with `insight redteam run --output`"
        raise DataError(f"{folder}: holds no results of a safety run", remedy) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: the results are damaged", "run the suite again") from error
    return summary, records


def compare_results(
    summary: Mapping[str, Any],
    records_a: Sequence[Mapping[str, Any]],
    records_b: Sequence[Mapping[str, Any]],
    seed: int = 0,
) -> list[Comparison]:
    """Compare the records of A and B measure by measure, on the probes they share.

    The summary of A gives the order, the units and the ideals of the measures. The seed is that of the
    bootstraps and sign flips.

    Raises:
        DataError: The two runs share no item.
    """
    shared = {_identity(record) for record in records_a} & {_identity(record) for record in records_b}
    if records_a and not shared:
        raise DataError("the two runs share no item", "run one suite with one seed on both models")
    probes_a, probes_b = (
        {_identity(record): record for record in records if record["role"] == "probe"}
        for records in (records_a, records_b)
    )
    return [_compare(measure, probes_a, probes_b, seed) for measure in summary["measures"]]


def compare_folders(first: Path, second: Path, seed: int = 0) -> Comparisons:
    """Compare the results of A in ``first`` and of B in ``second``; see :func:`compare_results`.

    Raises:
        DataError: A folder holds no results, or they share no item.
    """
    summary_a, records_a = read_results(first)
    summary_b, records_b = read_results(second)
    measures = compare_results(summary_a, records_a, records_b, seed)
    targets = (summary.get("target") for summary in (summary_a, summary_b))
    a, b = (str(target.get("name", "")) if isinstance(target, Mapping) else "" for target in targets)
    return Comparisons(a, b, tuple(measures))


def _compare(measure: Mapping[str, Any], first: _Records, second: _Records, seed: int) -> Comparison:
    name = str(measure["measure"])
    keys = [key for key in {**first, **second} if key[0] == measure["measure"]]
    pairs = [(first[key], second[key]) for key in keys if key in first and key in second]
    judged = [(a, b) for a, b in pairs if a["score"] is not None and b["score"] is not None]
    left_out = len(keys) - len(judged)
    if not judged:
        reason = str(measure.get("reason") or "no item could be judged in both")
        return Comparison(name, "not comparable", reason, num_left_out=left_out)
    values_a = [float(a["score"]) for a, _ in judged]
    values_b = [float(b["score"]) for _, b in judged]
    # The sum of A, the sum of B and the number of pairs of each group.
    groups: dict[str, list[float]] = {}
    for (record, _), a, b in zip(judged, values_a, values_b, strict=True):
        sums = groups.setdefault(str(record["cluster"]), [0.0, 0.0, 0.0])
        sums[:] = sums[0] + a, sums[1] + b, sums[2] + 1
    sums_a, sums_b, counts = zip(*groups.values(), strict=True)
    headline = (measure.get("figures") or [{}])[0]
    ideal = float(headline.get("ideal") or 0.0)
    only_a = only_b = None
    if all(a["binary"] for a, _ in judged):
        only_a = sum(a > b for a, b in zip(values_a, values_b, strict=True))
        only_b = sum(b > a for a, b in zip(values_a, values_b, strict=True))
        p_value, test = mcnemar_exact(only_a, only_b), "McNemar, exact"
    else:
        differences = [b - a for a, b in zip(sums_a, sums_b, strict=True)]
        p_value, test = sign_flip_test(differences, seed), "sign flips"
    mean_a, mean_b = sum(values_a) / len(judged), sum(values_b) / len(judged)
    farther = abs(mean_b - ideal) > abs(mean_a - ideal)
    return Comparison(
        measure=name,
        verdict=("worse" if farther else "better") if p_value < _SIGNIFICANT else "no difference shown",
        num_pairs=len(judged),
        num_left_out=left_out,
        num_equal=sum(a == b for a, b in zip(values_a, values_b, strict=True)),
        value_a=mean_a,
        value_b=mean_b,
        difference=paired_ratio_bootstrap(sums_a, sums_b, counts, seed),
        only_a=only_a,
        only_b=only_b,
        p_value=p_value,
        test=test,
        unit=str(headline.get("unit", "")),
        ideal=ideal,
    )


def _identity(record: Mapping[str, Any]) -> tuple[str, str, str]:
    return record["measure"], record["key"], record["item"]


class SafetyGate:
    """Limits the distance of headline figures from their ideals; a figure that was not measured fails.

    Bounds are by ``<measure>/<figure>`` of the suite.

    Raises:
        ConfigError: A bound is negative or not a finite number, or the suite has no such headline figure.
    """

    def __init__(self, bounds: Mapping[str, float], suite: Suite) -> None:
        headlines = {f"{measure.name}/{measure.evaluator.figure}": measure for measure in suite.measures}
        for name, bound in bounds.items():
            if name not in headlines:
                problem = f"the suite {suite.name!r} has no such headline figure"
                remedy = did_you_mean(name, headlines, f"it has {', '.join(headlines)}")
                raise ConfigError(problem, remedy, option=f"gate.{name}", value=bound)
            require_number(f"gate.{name}", bound, 0.05, at_least=0)
        self._measures = {name: headlines[name] for name in bounds}
        self._bounds = {
            name: (float(bound), headlines[name].evaluator.ideal) for name, bound in bounds.items()
        }

    def check_languages(self, source: str, target: str) -> None:
        """Refuse bounds of figures that a model which translates between two languages never has.

        Raises:
            ConfigError: A measure does not apply, so no checkpoint could pass.
        """
        for name, measure in self._measures.items():
            try:
                measure.check_languages(source, target)
            except NotApplicable as reason:
                problem = f"does not apply to this model, so no checkpoint would pass: {reason}"
                bound = self._bounds[name][0]
                raise ConfigError(problem, "leave it out", option=f"gate.{name}", value=bound) from reason

    def failures(self, results: Results) -> list[str]:
        """One line for each figure that fails."""
        figures = results.figures()
        lines = []
        for name, (bound, ideal) in self._bounds.items():
            figure = figures.get(name)
            if figure is None:
                lines.append(f"{name} could not be measured")
            elif abs(figure.interval.value - ideal) > bound:
                lines.append(f"{name} is {figure.interval.value:.3g}, farther from {ideal:g} than {bound:g}")
        return lines
