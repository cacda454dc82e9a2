"""The tables of ``train_throughput`` from its records."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.peers.decoder_shape import throughput_shape
from benchmarks.records import Record, Records
from benchmarks.results_page import table

Setting = tuple[str, str]
OVERHEAD = "overhead"


def tables(records: Records, contenders: Sequence[str], settings: Sequence[Setting]) -> str:
    """Speed of all contenders (Insight's first), Insight against the best peer, the Trainer's overhead."""
    rates = _matmul_rates(records, contenders)
    parts = [_speed_table(records, contenders, settings, rates), _comparison(records, contenders, settings)]
    measured = ", ".join(
        f"{rate / 1e9:,.0f} GFLOP/s {precision}" for precision, rate in sorted(rates.items())
    )
    parts.append(
        f"Medians over rounds of medians over steps. Matmul rate: {measured} (1024 × 1024, median of all"
        f" processes above); {throughput_shape().flops_per_token() / 1e6:.1f} MFLOP a token. Compile: first"
        " step less a usual one, nothing cached. Trainer overhead: `insight fit` and a bare loop taking"
        " turns, step by step, in one process."
    )
    return "\n\n".join(part for part in parts if part)


def _matmul_rates(records: Records, contenders: Sequence[str]) -> dict[str, float]:
    rates: dict[str, list[float]] = {}
    for contender in contenders:
        for record in records.select(contender=contender):
            rates.setdefault(record["precision"], []).append(record["matmul_flops"])
    return {precision: statistics.median(values) for precision, values in rates.items()}


def _found(records: Records, contender: str, setting: Setting) -> list[Record]:
    return records.select(contender=contender, precision=setting[0], mode=setting[1])


def _speed(records: Records, contender: str, setting: Setting) -> float | None:
    found = _found(records, contender, setting)
    return statistics.median(record["tokens_per_second"] for record in found) if found else None


def _speed_table(
    records: Records, contenders: Sequence[str], settings: Sequence[Setting], rates: dict[str, float]
) -> str:
    rows = []
    flops = throughput_shape().flops_per_token()
    for setting in settings:
        for contender in contenders:
            found = _found(records, contender, setting)
            if not found:
                continue
            speeds = sorted(record["tokens_per_second"] for record in found)
            speed = statistics.median(speeds)
            cold = min(found, key=lambda record: int(record["round"]))["compile_seconds"]
            rows.append(
                [
                    f"{' '.join(setting)}: {contender}",
                    f"{speed:,.0f}",
                    f"{speeds[0]:,.0f}–{speeds[-1]:,.0f}",
                    f"{speed * flops / rates[setting[0]]:.2f}",
                    f"{statistics.median(record['peak_bytes'] for record in found) / 2**30:.2f}",
                    f"{cold:.0f}" if setting[1] == "compiled" else "–",
                    str(len(found)),
                ]
            )
    header = ("", "tokens/s", "range", "share of matmul rate", "peak GiB", "compile s", "rounds")
    return table(header, rows)


def _comparison(records: Records, contenders: Sequence[str], settings: Sequence[Setting]) -> str:
    own = [name for name in contenders if name.startswith("Insight")]
    rows = []
    for setting in settings:
        peers = {
            name: speed
            for name in contenders
            if name not in own and (speed := _speed(records, name, setting)) is not None
        }
        overheads = [record["overhead"] for record in _found(records, OVERHEAD, setting)]
        best = max(peers, key=lambda name: peers[name]) if peers else None
        ratios = []
        for name in own:
            speed = _speed(records, name, setting)
            ratios.append(f"{speed / peers[best]:.2f}" if best is not None and speed is not None else "–")
        cost = f"{statistics.median(overheads):+.1%}" if overheads else "–"
        rows.append([" ".join(setting), f"{best} ({peers[best]:,.0f})" if best else "–", *ratios, cost])
    header = ["", "best peer (tokens/s)", *(f"{name} / best peer" for name in own), "Trainer overhead"]
    return table(header, rows)
