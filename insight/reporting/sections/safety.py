"""The safety of a model: the results of safety runs in the folder of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from insight.reporting.charts import Chart, Line
from insight.reporting.run_files import RunRecord, curve
from insight.reporting.sections.section import (
    Section,
    entries_of,
    formed,
    interval_of,
    list_of,
    mapping_of,
    name_of,
    number,
    readable,
    shown,
    text_of,
)
from insight.runtime.json_files import read_object, read_records

_MAX_ITEMS = 24
_MAX_TEXTS = 8
_MAX_CONTINUATIONS = 8
_MAX_DETAILS = 12
_ANSWER_CHARACTERS = 600
_DETAIL_CHARACTERS = 300
_MAX_CHARTS = 8
_MAX_TARGETS = 6
_MAX_MEASURES = 30
_MAX_FIGURES = 30
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
    compared = read_object(run.folder / "safety" / "comparison.json").get("comparisons")
    rows = [{**row, "difference": mapping_of(row.get("difference"))} for row in entries_of(compared)]
    content = {
        "sentence": _sentence(targets[0]["measures"]),
        "targets": targets,
        "comparison": rows[:_MAX_MEASURES] if len(targets) > 1 else [],
    }
    return Section("safety", "Safety", "safety.html.j2", content, _charts(run, _measures(folders[0])))


def _result_folders(folder: Path) -> list[Path]:
    """``folder`` and its direct subfolders, if they hold results; unfinished folders are hidden."""
    below = (path for path in folder.iterdir() if path.name[:1] != ".") if folder.is_dir() else ()
    return [path for path in (folder, *sorted(below)) if _measures(path)][:_MAX_TARGETS]


def _measures(folder: Path) -> list[Mapping[str, Any]]:
    return entries_of(read_object(folder / "summary.json").get("measures"))[:_MAX_MEASURES]


def _target(folder: Path, run_folder: Path) -> dict[str, Any]:
    summary = read_object(folder / "summary.json")
    records = read_records(folder / "results.jsonl")
    return {
        "label": "original" if folder.name == "safety" else text_of(folder.name),
        "name": text_of(mapping_of(summary.get("target")).get("name", "")),
        "folder": folder.relative_to(run_folder).as_posix(),
        "suite": summary.get("suite"),
        "seed": summary.get("seed"),
        "measures": [
            _measure(entry, [record for record in records if record.get("measure") == entry.get("measure")])
            for entry in _measures(folder)
        ],
    }


def _measure(entry: Mapping[str, Any], records: list[dict[str, Any]]) -> dict[str, Any]:
    figures = entries_of(entry.get("figures"))
    ideal = number(figures[0].get("ideal")) if figures else math.nan
    return {
        "name": readable(text_of(entry.get("measure"))),
        "status": text_of(entry.get("status")),
        "reason": text_of(entry.get("reason")),
        "figures": [_figure(figure) for figure in figures[:_MAX_FIGURES]],
        "coverage": _coverage(entry.get("coverage")),
        "notes": [text_of(note) for note in list_of(entry.get("notes"))],
        "items": _items(records, ideal),
        "num_records": len(records),
    }


def _figure(figure: Mapping[str, Any]) -> dict[str, Any]:
    """The figure, and whether it is significantly above its ideal and its control.

    Every figure grows with the weakness, so one below the ideal (an exposure less than chance) is no finding.
    """
    control = mapping_of(figure.get("control"))
    (low, high), ideal = interval_of(figure), number(figure.get("ideal"))
    is_measured = all(map(math.isfinite, (low, high, ideal)))
    stands_out = is_measured and low > ideal and not low <= number(control.get("value"))  # NaN: no control
    return {**figure, "control": control, "stands_out": stands_out}


def _coverage(coverage: Any) -> dict[str, str] | None:
    """Number of items in the figures and why the others are not; ``None`` if nothing was asked."""
    counts = {name: int(count) for name, count in mapping_of(coverage).items() if isinstance(count, int)}
    total = sum(counts.values())
    missing = [f"{counts[name]:,} {name}" for name in _STATUSES if counts.get(name)]
    counted = f"{counts.get('ok', 0):,} of {total:,}"
    return {"counted": counted, "missing": ", ".join(missing)} if total else None


def _sentence(measures: list[dict[str, Any]]) -> str:
    """For example: "Of 5 measures, 4 were taken, 1 does not apply; 1 stands out: bias."."""
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


def _items(records: list[dict[str, Any]], ideal: float) -> list[dict[str, Any]]:
    """The items that say most about a figure: probes farthest from the ideal first, then controls.

    Items without a score come last. An ideal that is not known counts as 0.
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
    details, texts = mapping_of(record.get("details")), list_of(record.get("texts"))
    labels = list_of(details.get("probabilities"))
    labels = labels if len(labels) == len(texts) else []
    pairs = zip(list_of(record.get("continuations")), list_of(record.get("log_likelihoods")), strict=False)
    return {
        **{key: text_of(record.get(key), _DETAIL_CHARACTERS) for key in ("key", "role", "status", "message")},
        "score": record.get("score"),
        "prompt": _prompt(record),
        "texts": [
            (text_of(text, _ANSWER_CHARACTERS), f"{number(labels[index]):.2f}" if labels else "")
            for index, text in enumerate(texts[:_MAX_TEXTS])
        ],
        "num_more_texts": max(0, len(texts) - _MAX_TEXTS),
        "continuations": [
            (text_of(text, _ANSWER_CHARACTERS), formed(likelihood, "{:.2f}"))
            for text, likelihood in list(pairs)[:_MAX_CONTINUATIONS]
        ],
        "details": [
            (readable(text_of(name, 60)), text_of(shown(value), _DETAIL_CHARACTERS))
            for name, value in list(details.items())[:_MAX_DETAILS]
            if not (name == "probabilities" and labels)
        ],
    }


def _prompt(record: Mapping[str, Any]) -> str:
    """The prompt as it stands before the answer; a translation, with its beginning, has a line of its own."""
    prompt = text_of(record.get("prompt"), _ANSWER_CHARACTERS)
    return f"{prompt}\n{text_of(record['beginning'])}" if "beginning" in record else prompt


def _charts(run: RunRecord, measures: list[Mapping[str, Any]]) -> tuple[Chart, ...]:
    """A chart of the headline figure of each measure that was taken at least twice during training."""
    charts = []
    for index, measure in enumerate(measures):
        headline = (list_of(measure.get("figures")) or [None])[0]
        if not isinstance(headline, Mapping):
            continue
        name = f"safety/{measure.get('measure')}/{headline.get('name')}"
        if len(curve(run.metrics, name).steps) < 2:
            continue
        lines = (
            Line("measured", curve(run.metrics, name), "--line-1"),
            Line("lower end", curve(run.metrics, f"{name}/low"), "--line-1", faint=True),
            Line("upper end", curve(run.metrics, f"{name}/high"), "--line-1", faint=True),
            Line("control", curve(run.metrics, f"{name}/control"), "--line-2"),
        )
        title = readable(f"{name_of(measure, 'measure')}: {name_of(headline)}")
        unit = name_of(headline, "unit")
        charts.append(Chart(f"chart-safety-{index}", title, unit, lines))
    return tuple(charts[:_MAX_CHARTS])
