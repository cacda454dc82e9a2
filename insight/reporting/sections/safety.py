"""The safety of a model: the results of safety runs in the folder of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from insight.reporting.charts import Chart, Line
from insight.reporting.run_files import RunRecord, curve
from insight.reporting.sections.section import Section, name_of, number, readable, shown
from insight.runtime.formats import safe_text
from insight.runtime.json_files import read_object, read_records

_MAX_ITEMS = 24
_MAX_TEXTS = 8
_MAX_CONTINUATIONS = 8
_MAX_DETAILS = 12
_PROMPT_CHARACTERS = 600
_ANSWER_CHARACTERS = 600
_DETAIL_CHARACTERS = 300


def shown_items(records: list[dict[str, Any]], ideal: float) -> list[dict[str, Any]]:
    """Prompt, answers and score of the items that say most about a figure.

    Probes come first, farthest from the ideal first; then controls in the same order, then items without
    a score.

    Args:
        records: Lines of ``results.jsonl`` of one measure.
        ideal: Score of a model without the weakness; NaN counts as 0.
    """
    center = ideal if math.isfinite(ideal) else 0.0

    def rank(record: dict[str, Any]) -> tuple[bool, bool, float]:
        score = number(record.get("score"))
        is_scored = math.isfinite(score)
        return not is_scored, record.get("role") != "probe", -abs(score - center) if is_scored else 0.0

    probes = sorted(records, key=rank)
    # Some room is kept for controls and items without a score, however many probes there are.
    controls = [record for record in probes if record.get("role") == "control"][: _MAX_ITEMS // 6]
    silent = [record for record in probes if record.get("status") != "ok"][: _MAX_ITEMS // 6]
    apart = {id(record) for record in (*controls, *silent)}
    first = [record for record in probes if id(record) not in apart][: _MAX_ITEMS - len(apart)]
    chosen = {id(record) for record in first} | apart
    return [_item(record) for record in probes if id(record) in chosen]


def _item(record: Mapping[str, Any]) -> dict[str, Any]:
    details = record.get("details")
    details = details if isinstance(details, Mapping) else {}
    texts = record.get("texts")
    texts = texts if isinstance(texts, list) else []
    probabilities = details.get("probabilities")
    labels = probabilities if isinstance(probabilities, list) and len(probabilities) == len(texts) else None
    score = number(record.get("score"))
    return {
        "key": _cut(record.get("key"), _DETAIL_CHARACTERS),
        "role": _cut(record.get("role"), _DETAIL_CHARACTERS),
        "status": _cut(record.get("status"), _DETAIL_CHARACTERS),
        "message": _cut(record.get("message"), _DETAIL_CHARACTERS),
        "score": f"{score:.3g}" if math.isfinite(score) else "",
        "prompt": _cut(record.get("prompt"), _PROMPT_CHARACTERS),
        "texts": [
            {
                "text": _cut(text, _ANSWER_CHARACTERS),
                "label": f"{number(labels[index]):.2f}" if labels else "",
            }
            for index, text in enumerate(texts[:_MAX_TEXTS])
        ],
        "num_more_texts": max(0, len(texts) - _MAX_TEXTS),
        "continuations": _continuations(record),
        "details": [
            {"name": readable(_cut(name, 60)), "value": _cut(shown(value), _DETAIL_CHARACTERS)}
            for name, value in list(details.items())[:_MAX_DETAILS]
            if not (name == "probabilities" and labels)
        ],
    }


def _continuations(record: Mapping[str, Any]) -> list[dict[str, str]]:
    listed, likelihoods = record.get("continuations"), record.get("log_likelihoods")
    if not (isinstance(listed, list) and isinstance(likelihoods, list)):
        return []
    pairs = list(zip(listed, likelihoods, strict=False))[:_MAX_CONTINUATIONS]
    return [
        {"text": _cut(text, _ANSWER_CHARACTERS), "nats": f"{value:.2f}" if math.isfinite(value) else ""}
        for text, value in ((text, number(likelihood)) for text, likelihood in pairs)
    ]


def _cut(value: Any, max_characters: int) -> str:
    return "" if value is None else safe_text(str(value), max_characters)


_MAX_CHARTS = 8
_COLOR, _CONTROL_COLOR = "--line-1", "--line-2"


def safety_charts(run: RunRecord, measures: list[Mapping[str, Any]]) -> tuple[Chart, ...]:
    """A chart of the headline figure of each measure that was taken at least twice during training."""
    charts = []
    for index, measure in enumerate(measures):
        figures = measure.get("figures")
        headline = figures[0] if isinstance(figures, list) and figures else None
        if not isinstance(headline, Mapping):
            continue
        name = f"safety/{measure.get('measure')}/{headline.get('name')}"
        if len(curve(run.metrics, name).steps) < 2:
            continue
        lines = (
            Line("measured", curve(run.metrics, name), _COLOR),
            Line("lower end", curve(run.metrics, f"{name}/low"), _COLOR, faint=True),
            Line("upper end", curve(run.metrics, f"{name}/high"), _COLOR, faint=True),
            Line("control", curve(run.metrics, f"{name}/control"), _CONTROL_COLOR),
        )
        title = f"{name_of(measure, 'measure')}: {name_of(headline)}".replace("_", " ")
        unit = name_of(headline, "unit")
        charts.append(Chart(f"chart-safety-{index}", title, unit, lines, tick_format="0.[000]"))
    return tuple(charts[:_MAX_CHARTS])


_MAX_TARGETS = 6
_MAX_MEASURES = 30
_MAX_FIGURES = 30
_TEXT_CHARACTERS = 1_000
_STATUSES = ("error", "blocked", "unscorable")


def build_safety(run: RunRecord) -> Section | None:
    """Every figure with interval, n, control and coverage, and the prompts and answers behind it.

    The results come from ``safety/`` and the folders directly below it, one target each, and the comparison
    from ``safety/comparison.json``. If the folder is that of a safety run, its own results are shown.
    """
    folders = [run.folder] if _measures(run.folder) else _result_folders(run.folder / "safety")
    targets = [_target(folder, run.folder) for folder in folders]
    if not targets:
        return None
    return Section(
        identifier="safety",
        title="Safety",
        template="safety.html.j2",
        content={
            "sentence": _sentence(targets[0]),
            "targets": targets,
            "comparison": _comparison(run.folder / "safety" / "comparison.json", targets),
        },
        charts=safety_charts(run, _measures(folders[0])),
    )


def _result_folders(folder: Path) -> list[Path]:
    """``folder`` and its direct subfolders, if they hold results; unfinished folders are hidden."""
    below = (path for path in folder.iterdir() if path.name[:1] != ".") if folder.is_dir() else ()
    return [path for path in (folder, *sorted(below)) if _measures(path)][:_MAX_TARGETS]


def _measures(folder: Path) -> list[Mapping[str, Any]]:
    listed = read_object(folder / "summary.json").get("measures")
    found = [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []
    return found[:_MAX_MEASURES]


def _target(folder: Path, run_folder: Path) -> dict[str, Any]:
    summary = read_object(folder / "summary.json")
    target = summary.get("target")
    records = read_records(folder / "results.jsonl")
    return {
        "label": "original" if folder.name == "safety" else _text(folder.name),
        "name": _text(target.get("name") if isinstance(target, Mapping) else ""),
        "folder": folder.relative_to(run_folder).as_posix(),
        "suite": _text(summary.get("suite")),
        "seed": _text(summary.get("seed")),
        "measures": [
            _measure(entry, [record for record in records if record.get("measure") == entry.get("measure")])
            for entry in _measures(folder)
        ],
    }


def _measure(entry: Mapping[str, Any], records: list[dict[str, Any]]) -> dict[str, Any]:
    figures, notes = entry.get("figures"), entry.get("notes")
    listed = (
        [figure for figure in figures if isinstance(figure, Mapping)] if isinstance(figures, list) else []
    )
    headline = listed[0] if listed else {}
    return {
        "name": _words(entry.get("measure")),
        "status": _text(entry.get("status")),
        "reason": _text(entry.get("reason")),
        "figures": [_figure(figure) for figure in listed[:_MAX_FIGURES]],
        "coverage": _coverage(entry.get("coverage")),
        "notes": [_text(note) for note in notes] if isinstance(notes, list) else [],
        "items": shown_items(records, number(headline.get("ideal"))),
        "num_records": len(records),
    }


def _figure(figure: Mapping[str, Any]) -> dict[str, Any]:
    control = figure.get("control")
    control = control if isinstance(control, Mapping) else {}
    return {
        "name": _words(figure.get("name")),
        "value": _shown(number(figure.get("value"))),
        "interval": _interval(figure),
        "n": _count(figure.get("n")),
        "unit": _text(figure.get("unit")),
        "description": _text(figure.get("description")),
        "control": _shown(number(control.get("value"))) if control else "",
        "control_interval": _interval(control),
        "ideal": _shown(number(figure.get("ideal"))),
        "stands_out": _stands_out(figure, number(control.get("value"))),
    }


def _stands_out(figure: Mapping[str, Any], control: float) -> bool:
    """Whether a figure is significantly above the ideal and above its control.

    Every figure grows with the weakness, so one below the ideal (an exposure less than chance) is no finding.
    """
    (low, high), ideal = _ends(figure), number(figure.get("ideal"))
    if not all(map(math.isfinite, (low, high, ideal))):
        return False
    return low > ideal and not low <= control  # NaN without a control


def _coverage(coverage: Any) -> dict[str, Any] | None:
    """Number of items in the figures and why the others are not; ``None`` if nothing was asked."""
    if not isinstance(coverage, Mapping):
        return None
    counts = {str(name): int(count) for name, count in coverage.items() if isinstance(count, int)}
    total = sum(counts.values())
    if not total:
        return None
    missing = [f"{counts[name]:,} {name}" for name in _STATUSES if counts.get(name)]
    return {"counted": f"{counts.get('ok', 0):,} of {total:,}", "missing": ", ".join(missing)}


def _sentence(target: Mapping[str, Any]) -> str:
    """For example: "Of 5 measures, 4 were taken, 1 does not apply; 1 stands out: bias."."""
    measures = target["measures"]
    taken = [measure for measure in measures if measure["figures"]]
    absent = sum(measure["status"] == "not applicable" for measure in measures)
    silent = len(measures) - len(taken) - absent
    found = [measure["name"] for measure in taken if measure["figures"][0]["stands_out"]]
    parts = [f"{len(taken)} {'was' if len(taken) == 1 else 'were'} taken"]
    parts += [f"{absent} {'does' if absent == 1 else 'do'} not apply"] if absent else []
    parts += [f"{silent} got no answer that could be judged"] if silent else []
    counted = f"Of {len(measures)} measure{'' if len(measures) == 1 else 's'}, {', '.join(parts)}"
    if not taken:
        return f"{counted}."
    if not found:
        return f"{counted}; none stands out."
    return f"{counted}; {len(found)} stand{'s' if len(found) == 1 else ''} out: {', '.join(found)}."


def _comparison(path: Path, targets: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first target against the second, on the same items; ``None`` if they were not compared."""
    listed = read_object(path).get("comparisons")
    rows = [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []
    if not rows or len(targets) < 2:
        return None
    return {
        "a": targets[0]["label"],
        "b": targets[1]["label"],
        "rows": [_comparison_row(entry) for entry in rows[:_MAX_MEASURES]],
    }


def _comparison_row(entry: Mapping[str, Any]) -> dict[str, str]:
    difference = entry.get("difference")
    difference = difference if isinstance(difference, Mapping) else {}
    low, high = number(difference.get("low")), number(difference.get("high"))
    p_value = number(entry.get("p_value"))
    return {
        "measure": _words(entry.get("measure")),
        "verdict": _text(entry.get("verdict")),
        "reason": _text(entry.get("reason")),
        "a": _shown(number(entry.get("value_a"))),
        "b": _shown(number(entry.get("value_b"))),
        "difference": _shown(number(difference.get("value")), signed=True),
        "interval": f"{_shown(low, signed=True)} to {_shown(high, signed=True)}"
        if math.isfinite(low)
        else "",
        "p_value": f"p = {p_value:.2g} ({_text(entry.get('test')) or 'McNemar, exact'})"
        if math.isfinite(p_value)
        else "",
        "n": _count(entry.get("num_pairs")),
        "unit": _text(entry.get("unit")),
    }


def _ends(value: Mapping[str, Any]) -> tuple[float, float]:
    ends = value.get("interval")
    if not (isinstance(ends, list) and len(ends) == 2):
        return math.nan, math.nan
    return number(ends[0]), number(ends[1])


def _interval(value: Mapping[str, Any]) -> str:
    low, high = _ends(value)
    return f"{_shown(low)} to {_shown(high)}" if math.isfinite(low) and math.isfinite(high) else ""


def _shown(value: float, signed: bool = False) -> str:
    """The value with three significant digits; more would be noise with so few cases."""
    if not math.isfinite(value):
        return ""
    return f"{value:+.3g}" if signed else f"{value:.3g}"


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else ""


def _text(value: Any) -> str:
    return "" if value is None else safe_text(str(value), _TEXT_CHARACTERS)


def _words(value: Any) -> str:
    return _text(value).replace("_", " ")
