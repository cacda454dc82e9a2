"""The table, text and picture of ``time_to_quality`` from its records.

Run as a program, it draws the picture: matplotlib is in the peers' environment only.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.records import Record, Records
from benchmarks.results_page import table

INSIGHT = "insight"
KEY = ("contender", "learning_rate", "schedule", "budget")
Curve = list[dict[str, float]]


def best_of(records: Records, contender: str) -> Record | None:
    """The contender's run with the lowest final bits per byte."""
    found = records.select(contender=contender)
    return min(found, key=lambda record: float(record["bits_per_byte"])) if found else None


def report(records: Records, peers: Sequence[str], budget: float) -> str:
    """The text for RESULTS.md."""
    rows = [
        [
            f"{record['contender']}: {record['setting']}",
            f"{record.get('budget') or budget:g}",
            f"{record['num_steps']:,}",
            f"{record['tokens_per_second']:,.0f}",
            f"{record['peak_bytes'] / 2**30:.2f}",
            f"{record['bits_per_byte']:.4f}",
        ]
        for contender in (INSIGHT, *peers)
        for record in records.select(contender=contender)
    ]
    parts = [table(("", "budget s", "steps", "tokens/s", "peak GiB", "bits per byte"), rows)]
    insight = next(iter(records.select(contender=INSIGHT, budget=None)), None)
    champions = [best for peer in peers if (best := best_of(records, peer)) is not None]
    if insight is not None and champions:
        champion = min(champions, key=lambda record: float(record["bits_per_byte"]))
        parts.append(_comparison(records, insight, champion, budget))
    if insight is not None:
        parts.append(_recheck(insight))
    parts += [warning for peer in peers if (warning := _edge_warning(records, peer))]
    parts.append("![bits per byte against seconds](time_to_quality.png)")
    return "\n\n".join(part for part in parts if part)


def seconds_to(curve: Curve, target: float) -> float | None:
    """When a falling curve first reaches ``target``, by linear interpolation; ``None`` if it never does.

    A convex curve lies below its chords, so the result is rather too late than too early.
    """
    before = None
    for point in curve:
        if point["bits_per_byte"] <= target:
            if before is None:
                return point["seconds"]
            share = (before["bits_per_byte"] - target) / (before["bits_per_byte"] - point["bits_per_byte"])
            return before["seconds"] + share * (point["seconds"] - before["seconds"])
        before = point
    return None


def draw(records: Records, peers: Sequence[str], path: Path) -> None:
    """The best curve of each contender, and Insight's with shorter budgets, as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    shorter = [record for record in records.select(contender=INSIGHT) if record.get("budget")]
    for record in shorter:
        style: dict[str, Any] = {"marker": "o", "linestyle": ":", "color": "C0", "alpha": 0.6}
        axes.plot(*_points(record["curve"]), label=f"insight given {record['budget']:g} s", **style)
    insight = next(iter(records.select(contender=INSIGHT, budget=None)), None)
    for index, shown in enumerate((insight, *(best_of(records, peer) for peer in peers))):
        if shown is not None:
            label = f"{shown['contender']} ({shown['setting']})"
            axes.plot(*_points(shown["curve"]), marker="o", color=f"C{index}", label=label)
    axes.set_xlabel("seconds since the process was launched")
    axes.set_ylabel("bits per byte on Persuasion")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _points(curve: Curve) -> tuple[list[float], list[float]]:
    return [point["seconds"] for point in curve], [point["bits_per_byte"] for point in curve]


def _comparison(records: Records, insight: Record, champion: Record, budget: float) -> str:
    target = float(champion["bits_per_byte"])
    reached = seconds_to(insight["curve"], target)
    when = f"after {reached:.0f} s ({reached / budget:.2f} of the budget)" if reached else "not in the budget"
    lines = [
        f"Insight reaches the best peer's final {target:.4f} ({champion['contender']}, {champion['setting']})"
        f" {when}, and ends {target - insight['bits_per_byte']:.3f} bits per byte lower."
    ]
    for record in records.select(contender=INSIGHT):
        if record.get("budget"):
            difference = target - record["bits_per_byte"]
            side = "below" if difference > 0 else "above"
            lines.append(
                f"Given {record['budget']:g} s, with its decay planned for them, it ends after"
                f" {record['curve'][-1]['seconds']:.0f} s at {record['bits_per_byte']:.4f},"
                f" {abs(difference):.3f} {side} the best peer."
            )
    points = ", ".join(f"{p['seconds']:.0f} s {p['bits_per_byte']:.3f}" for p in insight["curve"])
    lines.append(f"Insight's curve: {points}.")
    return " ".join(lines)


def _recheck(insight: Record) -> str:
    if insight.get("rechecked") is None:
        return ""
    return (
        f"Insight's last checkpoint, measured by the peers' evaluator in float32: {insight['rechecked']:.4f}"
        f" (Insight itself: {insight['bits_per_byte']:.4f})."
    )


def rate_beyond(records: Records, peer: str) -> float | None:
    """The learning rate to try next if the best so far is the lowest or highest one tried."""
    rates = sorted({float(record["learning_rate"]) for record in records.select(contender=peer)})
    best = best_of(records, peer)
    if best is None:
        return None
    if best["learning_rate"] == rates[0]:
        return rates[0] / 2
    return rates[-1] * 2 if best["learning_rate"] == rates[-1] else None


def _edge_warning(records: Records, peer: str) -> str:
    if rate_beyond(records, peer) is None:
        return ""
    return f"{peer} was best at the edge of the learning rates tried: a better one may lie beyond."


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--peers", nargs="+", required=True)
    arguments = parser.parse_args()
    draw(Records(arguments.records, KEY), arguments.peers, arguments.picture)


if __name__ == "__main__":
    main()
