"""Quality and pruning of tokenizers: the pages of ``insight tokenizer``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from insight.reporting.charts import SERIES_COLORS, Bar, BarChart
from insight.reporting.run_files import RunRecord
from insight.reporting.scatter import Point, ScatterChart
from insight.reporting.sections.section import (
    Fact,
    Section,
    difference_of,
    entries_of,
    formed,
    mapping_of,
    name_of,
    number,
    short_name,
    shown,
)
from insight.runtime.json_files import read_object

_MAX_BARS = 16
_NAME_CHARACTERS = 40
# Key, label, format.
_MEASURES = (
    ("vocabulary_size", "Tokens in the vocabulary", "{:,.0f}"),
    ("bytes", "Bytes of text", "{:,.0f}"),
    ("words", "Words of text", "{:,.0f}"),
    ("tokens", "Tokens of text", "{:,.0f}"),
    ("bytes_per_token", "Bytes per token", "{:.3f}"),
    ("tokens_per_word", "Tokens per word", "{:.3f}"),
    ("coverage", "Bytes that the vocabulary can write", "{:.2%}"),
    ("fragment_share", "Tokens that are part of a character", "{:.2%}"),
)
_FILE_MEASURES = (
    ("bytes", "Bytes", "{:,.0f}"),
    ("tokens", "Tokens", "{:,.0f}"),
    ("bytes_per_token", "Bytes/token", "{:.3f}"),
    ("tokens_per_word", "Tokens/word", "{:.3f}"),
    ("coverage", "Coverage", "{:.2%}"),
    ("fragment_share", "Fragments", "{:.2%}"),
)
_MEANING = (
    "Fewer tokens make sequences shorter; tokens that never or hardly occur take rows of the embedding that "
    "a network cannot learn. Bytes, special tokens and the parts of larger tokens are in the vocabulary "
    "whether they occur or not."
)
_TRIED = (
    "Every size was tried by encoding the whole text. Text without a pruned token keeps its tokens; the "
    "others fall back to their parts."
)


def build_tokenizer_quality(run: RunRecord) -> Section | None:
    """Measures of one tokenizer or of two, over all text and for each file."""
    tokenizers = _tokenizers(run)
    if not tokenizers:
        return None
    names = [short_name(name_of(tokenizer), _NAME_CHARACTERS) for tokenizer in tokenizers]
    tables = [{"head": ["Measure", *names], "rows": _measure_rows(tokenizers), "names": 1}]
    files = [
        [
            short_name(name_of(file), _NAME_CHARACTERS),
            name,
            *(formed(file.get(key), form) for key, _, form in _FILE_MEASURES),
            _round_trip(file),
        ]
        for tokenizer, name in zip(tokenizers, names, strict=True)
        for file in entries_of(tokenizer.get("files"))
    ]
    if files:
        head = ["File", "Tokenizer", *(label for _, label, _ in _FILE_MEASURES), "Decoded again"]
        tables.append({"head": head, "rows": files, "names": 2})
    comparison = read_object(run.folder / "summary.json").get("comparison")
    sentence = _comparison_note(mapping_of(comparison), names) if len(names) == 2 else ""
    content = {"tables": tables, "notes": [_MEANING], "sentence": sentence}
    return Section("quality", "Quality", "tables.html.j2", content, _length_chart(tokenizers, names))


def _length_chart(tokenizers: list[Mapping[str, Any]], names: list[str]) -> tuple[BarChart, ...]:
    """Bytes per token of every file, one bar per tokenizer; of the whole text if it is only one file."""
    bars = []
    for series, tokenizer in enumerate(tokenizers[: len(SERIES_COLORS)]):
        files = entries_of(tokenizer.get("files"))[:_MAX_BARS]
        measured = [(short_name(name_of(file), 22), file) for file in files] or [("all text", tokenizer)]
        bars += [Bar(name, series, number(values.get("bytes_per_token"))) for name, values in measured]
    if not any(math.isfinite(bar.value) for bar in bars):
        return ()
    series_names = tuple(names[: len(SERIES_COLORS)])
    return (BarChart("chart-lengths", "Bytes per token", "more is better", series_names, tuple(bars)),)


def build_tokenizer_tokens(run: RunRecord) -> Section | None:
    """The longest tokens, those that never occur, and the rarest."""
    rows = []
    labels = {"longest_tokens": "the longest", "unused_tokens": "never occur", "rare_tokens": "hardly occur"}
    for tokenizer in _tokenizers(run):
        rows.append(Fact(name_of(tokenizer), ""))
        for key, label in labels.items():
            value = tokenizer.get(key)
            examples = value.get("examples") if isinstance(value, Mapping) else value
            if isinstance(examples, list):
                shown_tokens = (f"⟨{shown(token).replace(' ', '␣')}⟩" for token in examples)
                rows.append(Fact(label, " ".join(shown_tokens), depth=1))
    return Section("tokens", "Tokens", "facts.html.j2", {"facts": rows}) if rows else None


def build_pruning(run: RunRecord) -> Section | None:
    """Vocabulary sizes, and how many more tokens the text takes with each."""
    sizes = entries_of(read_object(run.folder / "summary.json").get("sizes"))
    if not sizes:
        return None
    rows, points = [], []
    for size in sizes:
        num_tokens = number(size.get("vocabulary_size"))
        name = f"{num_tokens:,.0f}" + (" (written)" if size.get("is_chosen") else "")
        measures = (("bytes_per_token", ".3f"), ("tokens", ",.0f"), ("loss", "+.2%"))
        rows.append([name, *(format(number(size.get(key)), form) for key, form in measures)])
        is_marked = bool(size.get("is_chosen"))
        points.append(Point(name, num_tokens, number(size.get("tokens_per_byte")), is_marked=is_marked))
    chart = ScatterChart(
        "chart-pruning",
        "Length of the text against size of the vocabulary",
        "tokens per byte",
        "tokens in the vocabulary (less is better)",
        tuple(points),
    )
    head = ["Tokens in the vocabulary", "Bytes per token", "Tokens of text", "More than before"]
    tables = [{"head": head, "rows": rows, "names": 0}]
    content = {"tables": tables, "notes": [_TRIED], "sentence": _pruning_sentence(sizes)}
    return Section("pruning", "Pruning", "tables.html.j2", content, (chart,))


def _pruning_sentence(sizes: list[Mapping[str, Any]]) -> str:
    """For example: "Of 2,048 tokens 1,683 were kept; the text takes 1.99% more of them."."""
    chosen = next((size for size in sizes if size.get("is_chosen")), None)
    most = max(number(size.get("vocabulary_size")) for size in sizes)
    if chosen is None or not math.isfinite(most):
        return ""
    kept, loss = number(chosen.get("vocabulary_size")), number(chosen.get("loss"))
    return f"Of {most:,.0f} tokens {kept:,.0f} were kept; the text takes {loss:.2%} more of them."


def _tokenizers(run: RunRecord) -> list[Mapping[str, Any]]:
    return entries_of(read_object(run.folder / "summary.json").get("tokenizers"))


def _measure_rows(tokenizers: list[Mapping[str, Any]]) -> list[list[str]]:
    rows = [
        [label, *(formed(tokenizer.get(key), form) for tokenizer in tokenizers)]
        for key, label, form in _MEASURES
    ]
    for key, label in (
        ("unused_tokens", "Tokens that never occur"),
        ("rare_tokens", "Tokens that hardly occur"),
    ):
        found = [mapping_of(tokenizer.get(key)) for tokenizer in tokenizers]
        cells = (
            f"{formed(one.get('count'), '{:,.0f}')} ({formed(one.get('share'), '{:.1%}')})" for one in found
        )
        rows.append([label, *cells])
    rows.append(["Texts decoded again", *map(_round_trip, tokenizers)])
    return rows


def _round_trip(values: Mapping[str, Any]) -> str:
    trip = mapping_of(values.get("round_trip"))
    return f"{formed(trip.get('lost'), '{:,.0f}')} of {formed(trip.get('checked'), '{:,.0f}')} changed"


def _comparison_note(comparison: Mapping[str, Any], names: list[str]) -> str:
    difference = difference_of(comparison.get("tokens_per_byte_difference"))
    if difference is None:
        return ""
    value, low, high = (1000 * end for end in difference)
    return (
        f"{names[1]} needs {number(comparison.get('token_share')) - 1:+.2%} tokens: {value:+.2f} per "
        f"1,000 bytes of text, 95% interval {low:+.2f} to {high:+.2f} (paired bootstrap over stretches of "
        "the text)."
    )
