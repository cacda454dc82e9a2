"""The translations of a run: scores, curves, buckets, the best and the worst sentences, alignments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from insight.reporting.charts import Bar, BarChart, Chart, Line
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
    text_of,
)
from insight.runtime.json_files import read_object, read_records
from insight.runtime.run_folder import RunFolder

TRANSLATION_METRICS = {
    "chrf": ("chrF++", "Shared runs of characters and words; 100 is the reference."),
    "bleu": ("BLEU", "Shared runs of one to four words; 100 is the reference."),
    "ter": ("TER", "Edits that turn 100 words into the reference; fewer are better."),
}
"""Name and meaning of each measure of translations."""
_CHARTED = ("chrf", "bleu")
_NUM_SENTENCES = 10
_MOST_ALIGNMENTS = 6
_MOST_WORDS = 60
_MOST_BUCKETS = 12
_SENTENCE_CHARACTERS = 2_000
_WORD_CHARACTERS = 24
_LEAST_SHOWN = 0.02


def build_translation(run: RunRecord) -> Section | None:
    """Show what ``translations/test.json`` and ``translations/test.jsonl`` hold, and the validations."""
    folder = RunFolder(run.folder).translations
    summary = read_object(folder / "test.json")
    sentences = [one for one in read_records(folder / "test.jsonl") if math.isfinite(number(one.get("chrf")))]
    charts: tuple[Chart | BarChart, ...] = (*_curves(run), *_bars(mapping_of(summary.get("buckets"))))
    scores = _scores(mapping_of(summary.get("scores")))
    if not (scores or sentences or charts):
        return None
    order = sorted(range(len(sentences)), key=lambda index: -number(sentences[index].get("chrf")))
    num_shown = min(_NUM_SENTENCES, math.ceil(len(order) / 2))
    content = {
        "sentence": _sentence(scores, len(sentences)),
        "scores": scores,
        "decoding": text_of(summary.get("decoding")),
        "buckets": [
            {"name": text_of(name, 100), "rows": rows}
            for name, entries in mapping_of(summary.get("buckets")).items()
            if (rows := _bucket_rows(entries))
        ],
        "groups": [
            {"name": name, "sentences": [_shown(sentences[index]) for index in chosen]}
            for name, chosen in (("best", order[:num_shown]), ("worst", order[num_shown:][::-1][:num_shown]))
            if chosen
        ],
        "alignments": _alignments(entries_of(summary.get("alignments")), sentences),
    }
    return Section("translation", "Translation", "translation.html.j2", content, charts)


def _sentence(scores: Sequence[Mapping[str, Any]], num_sentences: int) -> str:
    if not scores:
        return "The test text was not translated yet."
    first = scores[0]
    ends = f" (95% interval {first['low']} to {first['high']})" if first["low"] else ""
    measured = f"{first['name']} {first['value']}{ends}"
    return f"{num_sentences:,} sentences were translated that it has never seen: {measured}."


def _scores(scores: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = []
    for key, (name, meaning) in TRANSLATION_METRICS.items():
        score = mapping_of(scores.get(key))
        if math.isfinite(number(score.get("value"))):
            row = {"name": name, "meaning": meaning, "signature": text_of(score.get("signature"))}
            rows.append({**row, **_figures(score)})
    return rows


def _figures(score: Mapping[str, Any]) -> dict[str, str]:
    """The value of a score and both ends of its interval with a digit; empty where they are missing."""
    values = number(score.get("value")), *interval_of(score)
    shown = [f"{value:.1f}" if math.isfinite(value) else "" for value in values]
    return dict(zip(("value", "low", "high"), shown, strict=True))


def _curves(run: RunRecord) -> tuple[Chart, ...]:
    """chrF++ and BLEU of the validations."""
    lines = tuple(
        Line(TRANSLATION_METRICS[key][0], curve(run.metrics, f"validation/{key}"), color)
        for key, color in zip(_CHARTED, ("--line-1", "--line-2"), strict=True)
    )
    chart = Chart("chart-translation", "Over training", "of 100, validation text", lines, from_zero=True)
    return (chart,) if chart.lines else ()


def _bars(buckets: Mapping[str, Any]) -> tuple[BarChart, ...]:
    charts = []
    for index, (name, entries) in enumerate(list(buckets.items())[:2]):
        bars = [
            Bar(
                f"{name_of(bucket)} ({formed(bucket.get('num_sentences'), '{:,.0f}', '?')})",
                series,
                number(mapping_of(mapping_of(bucket.get("scores")).get(key)).get("value")),
            )
            for bucket in entries_of(entries)[:_MOST_BUCKETS]
            for series, key in enumerate(_CHARTED)
        ]
        series_names = tuple(TRANSLATION_METRICS[key][0] for key in _CHARTED)
        if bars:
            title, unit = f"By {text_of(name, 100)}", "of 100; sentences in brackets"
            charts.append(BarChart(f"chart-buckets-{index}", title, unit, series_names, tuple(bars)))
    return tuple(charts)


def _bucket_rows(entries: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": name_of(bucket),
            "num_sentences": bucket.get("num_sentences"),
            "scores": [_figures(mapping_of(mapping_of(bucket.get("scores")).get(key))) for key in _CHARTED],
        }
        for bucket in entries_of(entries)[:_MOST_BUCKETS]
    ]


def _shown(sentence: Mapping[str, Any]) -> dict[str, str]:
    texts = {
        key: text_of(sentence.get(key), _SENTENCE_CHARACTERS)
        for key in ("source", "reference", "translation")
    }
    return {**texts, "chrf": f"{number(sentence.get('chrf')):.1f}"}


def _alignments(
    alignments: Sequence[Mapping[str, Any]], sentences: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Pictures of the sentences whose file entries fit together."""
    found = []
    for alignment in alignments[:_MOST_ALIGNMENTS]:
        source, target = (
            [_short_word(word) for word in list_of(alignment.get(side))[:_MOST_WORDS]]
            for side in ("source", "target")
        )
        weights = [
            [max(0.0, number(weight)) for weight in list_of(row)[: len(source)]]
            for row in list_of(alignment.get("weights"))[: len(target)]
        ]
        if not target or [len(row) for row in weights] != [len(source)] * len(target):
            continue
        most = max((weight for row in weights for weight in row if math.isfinite(weight)), default=0.0) or 1.0
        rows = [
            (word, [f"{weight / most:.2f}" if weight >= _LEAST_SHOWN else "" for weight in row])
            for word, row in zip(target, weights, strict=True)
        ]
        place = alignment.get("sentence")
        is_known = isinstance(place, int) and 0 <= place < len(sentences)
        found.append(
            {
                "source": source,
                "rows": rows,
                "most": f"{most:.2f}",
                "sentence": _shown(sentences[int(place or 0)]) if is_known else None,
                "where": _place_in_network(alignment),
            }
        )
    return found


def _short_word(word: Any) -> str:
    text = text_of(word)
    return text if len(text) <= _WORD_CHARACTERS else f"{text[: _WORD_CHARACTERS - 1]}…"


def _place_in_network(alignment: Mapping[str, Any]) -> str:
    layer, head = number(alignment.get("layer")), number(alignment.get("head"))
    if not math.isfinite(layer):
        return ""
    heads = f"head {head + 1:.0f}" if math.isfinite(head) else "mean of all heads"
    return f"decoder layer {layer + 1:.0f}, {heads}"
