"""The tables of ``tokenize`` from its records."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.records import Record, Records
from benchmarks.results_page import table

# The compared contenders, in the words of the table.
_RATIOS = (
    ("Insight with `fast` / fastokens alone", "Insight with `fast`", "fastokens alone"),
    (
        "Insight without `fast` / encode_batch_fast alone",
        "Insight without `fast`",
        "tokenizers' encode_batch_fast alone",
    ),
    (
        "without `fast`, two workers / one",
        "Insight without `fast`, 2 workers",
        "Insight without `fast`, 1 worker",
    ),
    ("with `fast`, two workers / one", "Insight with `fast`, 2 workers", "Insight with `fast`, 1 worker"),
    (
        "with `fast`, two workers / this process alone",
        "Insight with `fast`, 2 workers",
        "Insight with `fast`",
    ),
    ("Insight without `fast` / nanoGPT's prepare", "Insight without `fast`", "nanoGPT's prepare (tiktoken)"),
    ("Insight without `fast` / datasets.map", "Insight without `fast`", "datasets.map with tokenizers"),
    ("Insight without `fast` / litgpt's TextFiles", "Insight without `fast`", "litgpt's TextFiles"),
)


def tables(records: Records, contenders: Sequence[str], texts: Sequence[str], warm: str) -> str:
    """Speed of all contenders, the ratios, and the time to open a store (the measurement ``warm``)."""
    parts = [_speeds(records, contenders, texts), _ratios(records, texts)]
    opened = records.select(contender=warm)
    if opened:
        seconds = statistics.median(record["seconds"] for record in opened)
        size = opened[-1]["store_bytes"]
        parts.append(
            f"A store of {size / 1e9:.2f} GB whose text is unchanged is found and opened in"
            f" {1000 * seconds:.0f} ms (median of {len(opened)}; a fresh process, imports not counted)."
        )
    loading = [each["loading_seconds"] for name in contenders for each in _loading(records, name)]
    if loading:
        parts.append(
            f"Loading the tokenizer, and proving the fast encoder against the exact one, takes"
            f" {statistics.median(loading):.2f} s once a process, not counted above."
        )
    parts.append(
        "MB of UTF-8 a second; medians over rounds. Insight and the pipelines from a file to what they leave"
        " on the disk, the encoders alone in memory. The slow ones are measured on the first part of the"
        " text, as documents (.jsonl; litgpt: .txt files). Tokens include one a document for its end."
    )
    return "\n\n".join(part for part in parts if part)


def _loading(records: Records, contender: str) -> list[Record]:
    return [
        each
        for each in records.select(contender=contender)
        if "with `fast`" in contender and "loading_seconds" in each
    ]


def _speed(found: Sequence[Record]) -> list[float]:
    return sorted(record["bytes"] / 1e6 / record["seconds"] for record in found)


def _median(records: Records, contender: str, text: str) -> float | None:
    found = records.select(contender=contender, text=text)
    return statistics.median(_speed(found)) if found else None


def _speeds(records: Records, contenders: Sequence[str], texts: Sequence[str]) -> str:
    rows = []
    for text in texts:
        for contender in contenders:
            found = records.select(contender=contender, text=text)
            if not found:
                continue
            speeds = _speed(found)
            tokens = found[-1]["tokens"]
            rows.append(
                [
                    f"{text}: {contender}",
                    f"{statistics.median(speeds):.1f}",
                    f"{speeds[0]:.1f}–{speeds[-1]:.1f}",
                    f"{found[-1]['bytes'] / 1e6:.0f}",
                    "–" if tokens is None else f"{tokens:,}",
                    f"{statistics.median(record['process_peak_bytes'] for record in found) / 2**20:,.0f}",
                    str(len(found)),
                ]
            )
    return table(("", "MB/s", "range", "MB", "tokens", "peak MiB", "rounds"), rows)


def _ratios(records: Records, texts: Sequence[str]) -> str:
    rows = []
    for title, first, second in _RATIOS:
        cells = []
        for text in texts:
            left, right = _median(records, first, text), _median(records, second, text)
            cells.append("–" if left is None or right is None else f"{left / right:.2f}")
        rows.append([title, *cells])
    return table(("", *texts), rows)
