"""Turns responses into figures and writes them to ``results.jsonl`` and ``summary.json``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insight.runtime.files import atomic_write_text
from insight.runtime.json_files import to_line, write_object
from insight.runtime.statistics import Interval
from insight.safety.plan import Plan, PlannedItem
from insight.safety.records import STATUSES, Figure, MeasureSummary, Response, Score, ScoredItem, Status
from insight.safety.suite import Measure
from insight.safety.targets import Target, in_one_line

FORMAT_VERSION = 1
# Items with more continuations than this (a canary has thousands) are recorded without them.
_RECORDED_CONTINUATIONS = 16


@dataclass(frozen=True)
class Outcome:
    """The outcome of one item: a score if the status is ``ok``, otherwise a message that says why not."""

    planned: PlannedItem
    response: Response
    status: Status
    message: str
    score: Score | None


@dataclass(frozen=True)
class Results:
    """The findings of a suite: one outcome per planned item and one summary per measure, in order."""

    plan: Plan
    target_name: str
    target_identity: str
    outcomes: tuple[Outcome, ...]
    measures: tuple[MeasureSummary, ...]

    @property
    def num_measured(self) -> int:
        """Number of measures with a figure; 0 means that the run says nothing about the model."""
        return sum(bool(measure.figures) for measure in self.measures)

    def figures(self) -> dict[str, Figure]:
        """The figures by ``<measure>/<figure>``."""
        pairs = ((measure, figure) for measure in self.measures for figure in measure.figures)
        return {f"{measure.measure}/{figure.name}": figure for measure, figure in pairs}

    def to_record(self) -> dict[str, Any]:
        """The content of ``summary.json``, plain JSON values.

        ``metrics`` holds every figure as ``safety/<measure>/<figure>`` in the format of a run's summary;
        ``measures`` adds status, coverage, controls and notes.
        """
        return {
            "format_version": FORMAT_VERSION,
            "suite": self.plan.suite.name,
            "seed": self.plan.seed,
            "plan": self.plan.key,
            "target": {
                "name": self.target_name,
                "identity": self.target_identity,
                **({"languages": languages} if (languages := self.plan.languages) else {}),
            },
            "metrics": {
                f"safety/{name}": {**_interval(figure.interval), "unit": figure.unit}
                for name, figure in self.figures().items()
            },
            "measures": [
                {
                    "measure": measure.measure,
                    "status": measure.status,
                    "reason": measure.reason,
                    "coverage": measure.coverage,
                    "figures": [_figure(figure) for figure in measure.figures],
                    "notes": measure.notes,
                }
                for measure in self.measures
            ],
        }


def evaluate(plan: Plan, responses: Sequence[Response], target: Target) -> Results:
    """Score the responses and compute the figures; only the name and identity of the target are used."""
    measures = {measure.name: measure for measure in plan.suite.measures}
    pairs = zip(plan.items, responses, strict=True)
    outcomes = tuple(_judge(measures[planned.measure], planned, response) for planned, response in pairs)
    summaries = tuple(_summarize(measure, plan, outcomes) for measure in plan.suite.measures)
    return Results(plan, target.name, target.identity, outcomes, summaries)


def write_results(folder: Path, results: Results) -> None:
    """Write ``results.jsonl`` and ``summary.json``; equal results give equal bytes.

    Raises:
        OutputError: A file cannot be written.
    """
    binary = {measure.name: measure.evaluator.binary for measure in results.plan.suite.measures}
    translates = results.plan.languages is not None
    records = [_record(one, binary[one.planned.measure], translates) for one in results.outcomes]
    atomic_write_text(folder / "results.jsonl", "".join(map(to_line, records)))
    write_object(folder / "summary.json", results.to_record())


def _judge(measure: Measure, planned: PlannedItem, response: Response) -> Outcome:
    def unscorable(message: str) -> Outcome:
        return Outcome(planned, response, "unscorable", message, None)

    if response.status != "ok":
        return Outcome(planned, response, response.status, response.message, None)
    if any(math.isnan(value) for value in response.log_likelihoods):
        return unscorable("a likelihood is not a number")
    if response.is_blank and any(response.texts):
        return unscorable("the answer holds no character that can be read")
    try:
        score = measure.evaluator.score(planned.item, response)
    except Exception as error:  # the failure of one evaluator must not lose the figures of the others
        return unscorable(f"the evaluator failed ({in_one_line(error)})")
    if score is None:
        return unscorable("the evaluator cannot judge it")
    if not math.isfinite(score.value):
        return unscorable(f"the evaluator gave {score.value}, which is no number to count with")
    if measure.evaluator.binary and score.value not in (0, 1):
        return unscorable(f"the evaluator gave {score.value:g}, but its scores have to be 0 or 1")
    return Outcome(planned, response, "ok", "", score)


def _summarize(measure: Measure, plan: Plan, outcomes: Sequence[Outcome]) -> MeasureSummary:
    if measure.name in plan.not_applicable:
        return MeasureSummary(measure.name, "not applicable", plan.not_applicable[measure.name])
    own = [outcome for outcome in outcomes if outcome.planned.measure == measure.name]
    coverage: dict[str, int] = {status: sum(one.status == status for one in own) for status in STATUSES}
    scored = [ScoredItem(one.planned.item, one.response, one.score) for one in own if one.score is not None]
    if scored and all(entry.response.is_blank for entry in scored):
        return MeasureSummary(measure.name, "no data", "every answer is empty", coverage=coverage)
    if not any(entry.item.role == "probe" for entry in scored):
        first = next((f" ({outcome.message})" for outcome in own if outcome.message), "")
        reason = f"no answer could be judged{first}"
        return MeasureSummary(measure.name, "no data", reason, coverage=coverage)
    figures, notes = measure.evaluator.summarize(scored, plan.seed), measure.evaluator.notes()
    return MeasureSummary(measure.name, "measured", "", figures, coverage, notes)


def _record(outcome: Outcome, binary: bool, translates: bool) -> dict[str, Any]:
    item, response = outcome.planned.item, outcome.response
    answer: dict[str, Any] = {}
    if item.is_written:
        answer = {"beginning": item.beginning} if translates else {}
        answer["texts"] = response.texts
    elif len(item.continuations) <= _RECORDED_CONTINUATIONS:
        answer = {"continuations": item.continuations, "log_likelihoods": response.log_likelihoods}
    return {
        "measure": outcome.planned.measure,
        "key": item.key,
        "item": outcome.planned.content,
        "role": item.role,
        "cluster": item.cluster,
        "binary": binary,
        "status": outcome.status,
        "message": outcome.message,
        "prompt": item.prompt,
        **answer,
        "score": outcome.score.value if outcome.score else None,
        "details": outcome.score.details if outcome.score else {},
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "name": figure.name,
        **_interval(figure.interval),
        "unit": figure.unit,
        "description": figure.description,
        "control": _interval(figure.control) if figure.control else None,
        "ideal": figure.ideal,
    }


def _interval(interval: Interval) -> dict[str, Any]:
    return {"value": interval.value, "interval": [interval.low, interval.high], "n": interval.n}
