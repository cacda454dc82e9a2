"""Bits per byte on unseen text against seconds: Insight's quickstart, litgpt and transformers' Trainer.

Insight is ``insight fit --config configs/quickstart.yaml`` as a user types it: imports, tokenizer
training, encoding and its validations count. The peers get Insight's tokenizer and token ids for free, the
same network shape, batch and budget of wall time (their imports count, their validations do not), AdamW at
the best of three learning rates on a cosine that ends with the budget, and whichever precision and mode a
short run showed to train most tokens in the budget. All are measured on the whole of Persuasion, every byte
once.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import commit, describe_machine, machine_line, today
from benchmarks.own.decoder import shape_of
from benchmarks.own.text import write_quality_text
from benchmarks.peers.decoder_shape import DecoderShape
from benchmarks.processes import ROOT, find_python, module_command, run_process
from benchmarks.records import Records
from benchmarks.results_page import section, table, write_section
from insight.reporting import read_metrics

OUTPUT = ROOT / "benchmarks" / "output" / "quality"
PICTURE = ROOT / "benchmarks" / "time_to_quality.png"
PEERS = {
    "litgpt": ("benchmarks.peers.litgpt_quality", "benchmarks.peers.litgpt_loop"),
    "transformers": ("benchmarks.peers.transformers_quality", "benchmarks.peers.transformers_loop"),
}
CANDIDATES = (("fp32", "eager"), ("bf16", "eager"), ("bf16", "compiled"))


def main() -> None:
    """Measure what is missing, print the table, draw the curves."""
    arguments = _arguments()
    peers_python = find_python(arguments.peers_python)
    records = Records(OUTPUT / "records.jsonl", ("contender", "learning_rate"))
    pilots = Records(OUTPUT / "pilots.jsonl", ("contender", "precision", "mode"))
    if arguments.fresh:
        records.forget()
        pilots.forget()
    machine = describe_machine()
    print(machine_line(machine), flush=True)
    if not records.has({"contender": "insight", "learning_rate": None}):
        records.add(_run_insight(arguments.budget))
    insight = records.select(contender="insight")[0]
    run_folder = Path(insight["run"])
    facts = write_quality_text(run_folder, OUTPUT)
    network = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))["network"]
    shape = shape_of(network, facts["vocabulary_size"], facts["sequence_length"])
    for peer in PEERS:
        precision, mode = _best_setting(peer, shape, facts, peers_python, pilots, arguments.budget)
        for rate in arguments.learning_rates:
            if not records.has({"contender": peer, "learning_rate": rate}):
                _run_peer(peer, rate, precision, mode, shape, facts, peers_python, records, arguments.budget)
    body = _report(records, arguments.budget)
    print(body)
    _draw(records)
    if arguments.write_results:
        command = "python -m benchmarks.time_to_quality --write-results"
        page = section("Time to quality", command, commit(), machine_line(machine), today(), body)
        write_section("time_to_quality", page)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers-python", type=Path, default=Path(".venv-bench/bin/python"))
    parser.add_argument("--budget", type=float, default=150.0, help="seconds of wall time for each")
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[2e-3, 5e-3, 1e-2])
    parser.add_argument("--fresh", action="store_true", help="forget earlier measurements")
    parser.add_argument("--write-results", action="store_true", help="put the table into RESULTS.md")
    return parser.parse_args()


def _run_insight(budget: float) -> dict[str, Any]:
    """Train with the quickstart, tokenizer and encoding included (an empty cache)."""
    cache = OUTPUT / "caches" / datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    command = module_command(
        sys.executable,
        "insight",
        "fit",
        "--config",
        str(ROOT / "configs" / "quickstart.yaml"),
        f"--run.root={OUTPUT / 'runs'}",
        f"--run.time_budget={budget:g}",
        "--run.test=false",
        f"--data.cache_dir={cache}",
    )
    outcome = run_process(command, OUTPUT / "logs" / "insight.log", 3 * budget + 120)
    if outcome.exit_code != 0:
        raise SystemExit(f"insight: {outcome.problem()}")
    runs = (OUTPUT / "runs" / "quickstart").iterdir()
    run = max(runs, key=lambda folder: int(folder.name))
    metrics = read_metrics(run / "metrics.jsonl")
    # The records count from the start of training; the process was launched before that.
    info = json.loads((run / "run.json").read_text(encoding="utf-8"))
    begun = datetime.datetime.fromisoformat(info["started"]).timestamp() - outcome.started
    curve = [
        {
            "seconds": record["seconds"] + begun,
            "step": record["step"],
            "bits_per_byte": record["validation/bits_per_byte"],
        }
        for record in metrics
        if "validation/bits_per_byte" in record
    ]
    rates = [r["throughput/tokens_per_second"] for r in metrics if "throughput/tokens_per_second" in r]
    for point in curve:
        print(f"insight: {point['seconds']:6.1f} s  {point['bits_per_byte']:.4f} bits per byte", flush=True)
    return {
        "contender": "insight",
        "learning_rate": None,
        "run": str(run),
        "curve": curve,
        "bits_per_byte": curve[-1]["bits_per_byte"],
        "num_steps": curve[-1]["step"],
        "tokens_per_second": rates[-1],
        "setting": f"{info['precision']}, Muon",
        "peak_bytes": outcome.peak_bytes,
    }


def _best_setting(
    peer: str, shape: DecoderShape, facts: dict[str, Any], python: Path, pilots: Records, budget: float
) -> tuple[str, str]:
    """Precision and mode with which the peer trains most tokens in the budget, compiling included."""
    for precision, mode in CANDIDATES:
        key = {"contender": peer, "precision": precision, "mode": mode}
        if pilots.has(key):
            continue
        command = module_command(
            python,
            PEERS[peer][1],
            *("--tokens", str(OUTPUT / "train.npy"), "--shape", shape.to_json()),
            *("--batch-size", str(facts["batch_size"]), "--precision", precision, "--mode", mode),
            *("--seconds", "6"),
        )
        outcome = run_process(command, OUTPUT / "logs" / f"pilot-{peer}-{precision}-{mode}.log", 150)
        tokens = 0.0
        if outcome.result is not None:
            left = budget - 5 - outcome.result["first_step_seconds"]
            tokens = left * outcome.result["tokens_per_second"]
        pilots.add({**key, "tokens": tokens})
        print(f"{peer}, {precision} {mode}: {tokens:,.0f} tokens in {budget:g} s", flush=True)
    best = max(pilots.select(contender=peer), key=lambda pilot: float(pilot["tokens"]))
    return best["precision"], best["mode"]


def _run_peer(
    peer: str,
    rate: float,
    precision: str,
    mode: str,
    shape: DecoderShape,
    facts: dict[str, Any],
    python: Path,
    records: Records,
    budget: float,
) -> None:
    command = module_command(
        python,
        PEERS[peer][0],
        *("--shape", shape.to_json(), "--batch-size", str(facts["batch_size"])),
        *("--train-tokens", str(OUTPUT / "train.npy")),
        *("--validation-tokens", str(OUTPUT / "validation.npy")),
        *("--validation-bytes", str(facts["validation_bytes"])),
        *("--budget", str(budget), "--learning-rate", str(rate)),
        *("--precision", precision, "--mode", mode),
    )
    outcome = run_process(command, OUTPUT / "logs" / f"{peer}-{rate}.log", 3 * budget + 120)
    if outcome.result is None:
        print(f"{peer}, learning rate {rate}: {outcome.problem()}", flush=True)
        return
    setting = f"{precision} {mode}, AdamW {rate:g}"
    records.add({"contender": peer, "learning_rate": rate, "setting": setting, **outcome.result})
    print(f"{peer}, learning rate {rate}: {outcome.result['bits_per_byte']:.4f} bits per byte", flush=True)


def _best(records: Records, peer: str) -> dict[str, Any] | None:
    found = records.select(contender=peer)
    return min(found, key=lambda record: float(record["bits_per_byte"])) if found else None


def _report(records: Records, budget: float) -> str:
    rows = []
    for contender in ("insight", *PEERS):
        for record in records.select(contender=contender):
            rows.append(
                [
                    f"{contender}: {record['setting']}",
                    f"{record['num_steps']:,}",
                    f"{record['tokens_per_second']:,.0f}",
                    f"{record['peak_bytes'] / 2**30:.2f}",
                    f"{record['bits_per_byte']:.4f}",
                ]
            )
    text = table(("", "steps", "tokens/s", "peak GiB", f"bits per byte after {budget:g} s"), rows)
    peers = [best for peer in PEERS if (best := _best(records, peer))]
    if not peers:
        return text
    best = min(peers, key=lambda record: float(record["bits_per_byte"]))
    insight = records.select(contender="insight")[0]
    target = float(best["bits_per_byte"])
    reached = _seconds_to(insight["curve"], target)
    difference = target - insight["bits_per_byte"]
    when = f"{reached:.0f} s ({reached / budget:.2f} of the budget)" if reached else "not in the budget"
    return (
        f"{text}\n\nInsight reaches the best peer's final {target:.4f} "
        f"({best['contender']}, {best['setting']}) after {when}, and ends {difference:.3f} "
        "bits per byte lower. Insight's curve: "
        + ", ".join(f"{p['seconds']:.0f} s {p['bits_per_byte']:.3f}" for p in insight["curve"])
        + ".\n\n![bits per byte against seconds](time_to_quality.png)"
    )


def _seconds_to(curve: list[dict[str, float]], target: float) -> float | None:
    """When the curve first reaches ``target``, by straight lines between its points."""
    before = None
    for point in curve:
        if point["bits_per_byte"] <= target:
            if before is None:
                return point["seconds"]
            share = (before["bits_per_byte"] - target) / (before["bits_per_byte"] - point["bits_per_byte"])
            return before["seconds"] + share * (point["seconds"] - before["seconds"])
        before = point
    return None


def _draw(records: Records) -> None:
    try:
        import matplotlib
    except ImportError:
        print("no picture: matplotlib is not installed", flush=True)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for contender in ("insight", *PEERS):
        best = _best(records, contender)
        if best is None:
            continue
        curve = best["curve"]
        axes.plot(
            [point["seconds"] for point in curve],
            [point["bits_per_byte"] for point in curve],
            marker="o",
            label=f"{contender} ({best['setting']})",
        )
    axes.set_xlabel("seconds since the process was launched")
    axes.set_ylabel("bits per byte on Persuasion")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
