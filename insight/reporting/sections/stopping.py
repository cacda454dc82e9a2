"""Why a run stopped early, or did not: ``early_stopping.json``, drawn beside the curve that was watched."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from insight.reporting.charts import Chart, Line
from insight.reporting.json_files import read_object
from insight.reporting.metrics import Curve
from insight.reporting.run_record import RunRecord
from insight.reporting.sections.compared_models import name_of, number
from insight.reporting.sections.section import Section
from insight.runtime.formats import safe_text
from insight.runtime.run_folder import RunFolder

_MAX_ANSWERS = 12
_MAX_LINES = 4
_TEXT_CHARACTERS = 1_000
_COLORS = ("--line-3", "--quiet", "--ink", "--quiet")
# The first validations are cut off at the top where they would flatten all that the answer is about.
_EARLY_SHARE = 0.25
_WORTH_A_CUT = 1.5


def build_stopping(run: RunRecord) -> Section | None:
    """What was watched, what each criterion said at the end, and a chart of what that rests on."""
    record = read_object(RunFolder(run.folder).early_stopping_path)
    answers = [answer for answer in _list(record.get("answers")) if isinstance(answer, Mapping)]
    validations = [point for point in _list(record.get("validations")) if isinstance(point, Mapping)]
    if not answers or not validations:
        return None
    answers = answers[:_MAX_ANSWERS]
    charts = tuple(
        _chart(index, record, answer, validations)
        for index, answer in enumerate(answers)
        if _list(answer.get("lines"))
    )
    return Section(
        identifier="stopping",
        title="Early stopping",
        template="stopping.html.j2",
        content={
            "sentence": _sentence(record, len(validations)),
            "rows": [
                {
                    "name": name_of(answer, "criterion"),
                    "stops": answer.get("stop") is True,
                    "evidence": safe_text(str(answer.get("evidence", "")), _TEXT_CHARACTERS),
                }
                for answer in answers
            ],
        },
        charts=charts,
    )


def _sentence(record: Mapping[str, Any], num_validations: int) -> str:
    """For example: "Stopped at step 1,200 of 4,000 (validation/bits_per_byte, 24 validations)."."""
    step, planned = number(record.get("step")), number(record.get("num_planned_steps"))
    place = f"step {step:,.0f}" if math.isfinite(step) else "an unknown step"
    if math.isfinite(planned):
        place += f" of {planned:,.0f}"
    asked = f"{name_of(record, 'monitor')}, {num_validations} validations"
    if record.get("stopped") is True:
        return f"Stopped at {place} ({asked})."
    return f"Did not stop: at {place} there was a reason to go on ({asked})."


def _chart(
    index: int, record: Mapping[str, Any], answer: Mapping[str, Any], validations: Sequence[Mapping[str, Any]]
) -> Chart:
    watched = _curve([point.get("step") for point in validations], [v.get("value") for v in validations])
    training = _curve(
        [point.get("step") for point in validations], [v.get("training_value") for v in validations]
    )
    evidence = [line for line in _list(answer.get("lines")) if isinstance(line, Mapping)][:_MAX_LINES]
    lines = [Line("validation", watched, "--line-2")]
    if any("training" in str(line.get("label")) for line in evidence):
        lines.append(Line("training", training, "--line-1"))
    measured = [line.curve for line in lines]
    for line, color in zip(evidence, _COLORS, strict=False):
        label = name_of(line, "label")
        is_mark = not _list(line.get("low"))
        lines.append(Line(label, _curve(line.get("steps"), line.get("values")), color, dashed=is_mark))
        for end in ("low", "high"):
            ends = _curve(line.get("steps"), line.get(end))
            lines.append(Line(f"{label}, {end} end", ends, color, faint=True))
    top = _top(measured, [line.curve for line in lines[len(measured) :]])
    if answer.get("stop") is True and record.get("stopped") is True:
        lines.append(_mark(number(record.get("step")), [line.curve for line in lines], top))
    stops = "says stop" if answer.get("stop") is True else "says go on"
    return Chart(
        f"chart-stopping-{index}",
        f"{name_of(answer, 'criterion')} {stops}",
        name_of(record, "monitor"),
        tuple(lines),
        tick_format="0.[0000]",
        top=top,
    )


def _mark(step: float, curves: Sequence[Curve], top: float | None) -> Line:
    """A vertical line where training stopped, as high as what is shown."""
    values = _finite(*(curve.values for curve in curves))
    if not math.isfinite(step) or not values:
        return Line("stopped", Curve((), (), ()), "--warning")
    ends = (min(values), max(values) if top is None else top)
    return Line("stopped", Curve((int(step),) * 2, (math.nan,) * 2, ends), "--warning", dashed=True)


def _top(measured: Sequence[Curve], evidence: Sequence[Curve]) -> float | None:
    """Where the vertical axis ends so that the first validations do not flatten the rest; ``None``: uncut."""
    later = [curve.values[math.ceil(_EARLY_SHARE * len(curve.values)) :] for curve in measured]
    shown = _finite(*later, *(curve.values for curve in evidence))
    everything = _finite(shown, *(curve.values for curve in measured))
    if not shown or max(everything) - min(shown) < _WORTH_A_CUT * (max(shown) - min(shown)):
        return None
    return max(shown) + 0.05 * (max(shown) - min(shown))


def _finite(*values: Sequence[float]) -> list[float]:
    return [value for some in values for value in some if math.isfinite(value)]


def _curve(steps: Any, values: Any) -> Curve:
    """Points of a JSON file; those without a place are left out."""
    pairs = [
        (round(number(step)), number(value))
        for step, value in zip(_list(steps), _list(values), strict=False)
        if math.isfinite(number(step)) and value is not None
    ]
    return Curve(
        tuple(step for step, _ in pairs), (math.nan,) * len(pairs), tuple(value for _, value in pairs)
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
