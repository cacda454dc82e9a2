"""BLEU and chrF++ on the held-out gospel after seconds of training: Insight, JoeyNMT, and MarianMT.

Insight runs ``insight fit --config configs/translation.yaml``; imports, tokenizer, encoding and validations
count, and it trains for a half and a third of the budget as well, with its decay planned for that. The peers
(JoeyNMT's own loop, MarianMT of transformers under its Trainer) get Insight's tokenizer and ids for free, the
same sizes of network, batches of as many tokens, label smoothing, and AdamW at the best of the learning rates
on a cosine that ends with the budget. Their translations at the same shares of the budget are not counted.
All translate greedily, and all are scored alike.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from benchmarks.deadline import Deadline
from benchmarks.machine import commit, describe_machine, machine_identity, machine_line, today
from benchmarks.own.translation_pairs import BenchmarkPairs
from benchmarks.processes import ROOT, find_python, module_command, run_process
from benchmarks.records import Record, Records, require_same_machine
from benchmarks.results_page import section, table, write_section
from insight.reporting import read_metrics

CONFIG = ROOT / "configs" / "translation.yaml"
OUTPUT = ROOT / "benchmarks" / "output" / "translation"
INSIGHT = "insight"
PEERS = {"marian": "benchmarks.peers.marian_translation", "joeynmt": "benchmarks.peers.joeynmt_translation"}
SHARES = (1 / 3, 1 / 2, 1.0)
_KEY = ("contender", "setting", "budget")


def main() -> None:
    """Run the missing measurements and print the table."""
    arguments = _arguments()
    output = OUTPUT if arguments.budget >= 60 else OUTPUT / "quick"
    machine = describe_machine()
    print(machine_line(machine), flush=True)
    require_same_machine(output, machine_identity(machine), arguments.fresh)
    records = Records(output / "records.jsonl", _KEY)
    contenders = arguments.only or [INSIGHT, *PEERS]
    for contender in contenders if arguments.fresh else ():
        records.forget(contender=contender)
    deadline = Deadline(arguments.deadline)
    for share in SHARES if INSIGHT in contenders else ():
        key = {"contender": INSIGHT, "setting": "fit", "budget": round(share * arguments.budget)}
        if not records.has(key) and not deadline.is_over():
            records.add({**key, **_run_insight(key["budget"], output)})
    pairs: BenchmarkPairs | None = None
    for rate in arguments.learning_rates:
        for peer in (name for name in contenders if name != INSIGHT):
            keys = [
                {"contender": peer, "setting": f"AdamW {rate:g}", "budget": round(share * arguments.budget)}
                for share in SHARES
            ]
            if all(records.has(key) for key in keys) or deadline.is_over():
                continue
            if pairs is None:
                pairs = BenchmarkPairs(CONFIG, output / "caches" / "peers")
                pairs.write(output / "pairs.npz")
            for record in _run_peer(keys, rate, pairs, arguments, output, machine["num_threads"]):
                records.add(record)
    body = _report(records)
    print(f"\n{body}")
    if arguments.write_results:
        command = "python -m benchmarks.translation_training --write-results"
        page = section(
            "Training a translation model", command, commit(), machine_line(machine), today(), body
        )
        write_section("translation_training", page)


def _run_insight(budget: int, output: Path) -> Record:
    """Train from empty caches and translate the test greedily."""
    name = f"translation-{budget}"
    cache = output / "caches" / name
    shutil.rmtree(cache, ignore_errors=True)
    options = {
        "config": CONFIG,
        "run.root": output / "runs",
        "run.name": name,
        "run.time_budget": budget,
        "data.cache_dir": cache,
        "model.translation.search.beam_size": 1,
    }
    command = module_command(sys.executable, "insight", "fit", *(f"--{k}={v}" for k, v in options.items()))
    outcome = run_process(command, output / "logs" / f"{name}.log", 3 * budget + 600)
    if outcome.exit_code != 0:
        raise SystemExit(f"insight: {outcome.problem()}")
    run = max((output / "runs" / name).iterdir(), key=lambda folder: int(folder.name))
    test = [record for record in read_metrics(run / "metrics.jsonl") if "test/chrf" in record][-1]
    found = {name: test[f"test/{name}"] for name in ("bleu", "chrf")}
    print(f"insight, {budget} s: {found}", flush=True)
    return {**found, "num_steps": test["step"], "peak_bytes": outcome.peak_bytes, "commit": commit()}


def _run_peer(
    keys: list[Record],
    rate: float,
    pairs: BenchmarkPairs,
    arguments: argparse.Namespace,
    output: Path,
    num_threads: int,
) -> list[Record]:
    """Train once; the records are those of the shares of the budget."""
    peer, setting = keys[0]["contender"], keys[0]["setting"]
    python = arguments.joeynmt_python if peer == "joeynmt" else arguments.peers_python
    command = module_command(
        find_python(python),
        PEERS[peer],
        *("--pairs", str(output / "pairs.npz"), "--network", json.dumps(pairs.sizes())),
        *("--batch-tokens", str(pairs.data.batch_tokens), "--budget", str(arguments.budget)),
        *("--points", *(str(share) for share in SHARES[:-1]), "--learning-rate", str(rate)),
        *("--precision", arguments.precision),
    )
    log = output / "logs" / f"{peer}-{rate:g}.log"
    outcome = run_process(command, log, 3 * arguments.budget + 900, {"OMP_NUM_THREADS": str(num_threads)})
    if outcome.result is None:
        print(f"{peer}, {setting}: {outcome.problem()}", flush=True)
        return []
    made = []
    for key, point in zip(keys, outcome.result["curve"], strict=True):
        scores = pairs.score(point["translations"])
        print(f"{peer}, {setting}, {point['seconds']:.0f} s: {scores}", flush=True)
        peak = outcome.result["peak_bytes"]
        made.append({**key, **scores, "num_steps": point["step"], "peak_bytes": peak, "commit": commit()})
    return made


def _report(records: Records) -> str:
    rows = [
        [
            f"{record['contender']}, {record['setting']}",
            str(record["budget"]),
            f"{record['num_steps']:,}",
            f"{record['bleu']:.1f}",
            f"{record['chrf']:.1f}",
            f"{record['peak_bytes'] / 2**30:.2f}",
        ]
        for record in sorted(
            records.select(), key=lambda one: tuple(str(one[name]).zfill(9) for name in _KEY)
        )
    ]
    return table(("", "seconds", "steps", "BLEU", "chrF++", "peak GiB"), rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers-python", type=Path, default=Path(".venv-bench/bin/python"))
    parser.add_argument("--joeynmt-python", type=Path, default=Path(".venv-joeynmt/bin/python"))
    parser.add_argument("--budget", type=float, default=390.0, help="seconds of wall time for each")
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[5e-4, 1e-3, 2e-3])
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16", help="of the peers")
    parser.add_argument("--only", nargs="+", choices=(INSIGHT, *PEERS), help="measure these alone")
    parser.add_argument("--deadline", type=float, default=120.0, help="minutes; nothing is begun after them")
    parser.add_argument("--fresh", action="store_true", help="forget earlier measurements")
    parser.add_argument("--write-results", action="store_true", help="put the table into RESULTS.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
