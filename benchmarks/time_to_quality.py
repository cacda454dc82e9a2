"""Bits per byte on unseen text against seconds: Insight's quickstart, litgpt and transformers' Trainer.

Insight runs ``insight fit --config configs/quickstart.yaml``; imports, tokenizer training, encoding and its
validations count. The peers get Insight's tokenizer and token ids for free, an equal network shape and batch,
and an equal budget of wall time (their imports and compiling count, their validations do not). They use AdamW
at the best of at least three learning rates on a cosine that ends with the budget, then the best rate again
on a warm-up–stable–decay schedule, in the precision and mode with the most tokens per budget in a short run.
All are measured on the whole of Persuasion, every byte once.

Insight also trains for a half and a third of the budget, with its decay planned for that: if it ends below
the peers, it reached their quality in that time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.deadline import Deadline
from benchmarks.machine import commit, describe_machine, machine_identity, machine_line, today
from benchmarks.own.decoder import shape_of
from benchmarks.own.text import write_quality_text
from benchmarks.peers.decoder_shape import DecoderShape
from benchmarks.processes import ROOT, Outcome, find_python, module_command, run_process
from benchmarks.quality_report import INSIGHT, KEY, best_of, rate_beyond, report
from benchmarks.records import Record, Records, require_same_machine
from benchmarks.results_page import section, write_section
from insight.reporting import read_metrics

OUTPUT = ROOT / "benchmarks" / "output" / "quality"
PICTURE = ROOT / "benchmarks" / "time_to_quality.png"
PEERS = {
    "litgpt": ("benchmarks.peers.litgpt_quality", "benchmarks.peers.litgpt_loop"),
    "transformers": ("benchmarks.peers.transformers_quality", "benchmarks.peers.transformers_loop"),
}
CANDIDATES = (("fp32", "eager"), ("fp32", "compiled"), ("bf16", "eager"), ("bf16", "compiled"))
_IMPORT_SECONDS = 5.0
_MOST_RATES_BEYOND = 2


@dataclass(frozen=True)
class Task:
    """The shared settings of all runs of the peers.

    Args:
        output: Folder of all files.
        python: The peers' interpreter.
        shape: Shape of the network.
        facts: Facts about the text from :func:`write_quality_text`.
        budget: Seconds of wall time.
        num_threads: CPU threads, as many as are fastest for Insight.
    """

    output: Path
    python: Path
    shape: DecoderShape
    facts: dict[str, Any]
    budget: float
    num_threads: int

    def identity(self) -> str:
        """Facts that must be equal for measurements to be comparable."""
        return json.dumps([vars(self.shape), self.facts, self.budget])


def main() -> None:
    """Run the missing measurements, print the table and draw the curves."""
    arguments = _arguments()
    output = OUTPUT if arguments.budget >= 60 else OUTPUT / "quick"
    machine = describe_machine()
    print(machine_line(machine), flush=True)
    require_same_machine(output, machine_identity(machine), arguments.fresh)
    records = Records(output / "records.jsonl", KEY)
    pilots = Records(output / "pilots.jsonl", ("contender", "precision", "mode"))
    contenders = [name for name in (INSIGHT, *PEERS) if not arguments.only or name in arguments.only]
    if arguments.fresh:
        for contender in contenders:
            records.forget(contender=contender)
            pilots.forget(contender=contender)
    deadline = Deadline(arguments.deadline)
    if INSIGHT in contenders:
        _measure_insight(records, output, arguments, deadline)
    peers = [name for name in contenders if name in PEERS]
    if peers:
        task = _task(records, output, arguments, machine["num_threads"])
        for peer in PEERS:
            _forget_other_tasks(peer, task, records, pilots)
        for peer in peers:
            _measure_peer(peer, task, records, pilots, arguments.learning_rates, deadline)
    body = report(records, tuple(PEERS), arguments.budget)
    print(f"\n{body}")
    _draw(records.path, PICTURE if arguments.write_results else output / PICTURE.name, arguments)
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
    parser.add_argument(
        "--shares", type=float, nargs="*", default=[1 / 2, 1 / 3], help="Insight's shorter budgets"
    )
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[1e-3, 2e-3, 4e-3])
    parser.add_argument("--only", nargs="+", choices=(INSIGHT, *PEERS), help="measure these alone")
    parser.add_argument("--deadline", type=float, default=90.0, help="minutes; nothing is begun after them")
    parser.add_argument("--fresh", action="store_true", help="forget earlier measurements")
    parser.add_argument("--write-results", action="store_true", help="put the table into RESULTS.md")
    return parser.parse_args()


def _measure_insight(
    records: Records, output: Path, arguments: argparse.Namespace, deadline: Deadline
) -> None:
    for budget in (None, *(round(share * arguments.budget) for share in arguments.shares)):
        key = {"contender": INSIGHT, "learning_rate": None, "schedule": None, "budget": budget}
        if not records.has(key) and not deadline.is_over():
            records.add({**key, **_run_insight(budget or arguments.budget, output), "commit": commit()})


def _run_insight(budget: float, output: Path) -> Record:
    """Train with the quickstart from empty caches: tokenizer training, encoding and compiling count."""
    name = f"quickstart-{budget:g}"
    cache = output / "caches" / name
    command = module_command(
        sys.executable,
        "insight",
        "fit",
        *("--config", str(ROOT / "configs" / "quickstart.yaml")),
        f"--run.root={output / 'runs'}",
        f"--run.name={name}",
        f"--run.time_budget={budget:g}",
        "--run.test=false",
        f"--data.cache_dir={cache}",
    )
    shutil.rmtree(cache, ignore_errors=True)
    outcome = _run(f"insight-{budget:g}", command, 3 * budget + 120, output)
    if outcome.exit_code != 0:
        raise SystemExit(f"insight: {outcome.problem()}")
    run = max((output / "runs" / name).iterdir(), key=lambda folder: int(folder.name))
    metrics_file = run / "metrics.jsonl"
    metrics = read_metrics(metrics_file)
    # The clock of the file starts inside the process; its last line was written when the file last changed.
    offset = metrics_file.stat().st_mtime - metrics[-1]["seconds"] - outcome.started
    curve = [
        {
            "seconds": record["seconds"] + offset,
            "step": record["step"],
            "bits_per_byte": record["validation/bits_per_byte"],
        }
        for record in metrics
        if "validation/bits_per_byte" in record
    ]
    for point in curve:
        print(f"insight: {point['seconds']:6.1f} s  {point['bits_per_byte']:.4f} bits per byte", flush=True)
    info = json.loads((run / "run.json").read_text(encoding="utf-8"))
    facts = write_quality_text(run, output)
    tokens = curve[-1]["step"] * facts["batch_size"] * facts["sequence_length"]
    return {
        "run": str(run),
        "curve": curve,
        "bits_per_byte": curve[-1]["bits_per_byte"],
        "rechecked": _recheck(run, facts, output),
        "num_steps": curve[-1]["step"],
        "tokens_per_second": tokens / curve[-1]["seconds"],
        "setting": f"{info['precision']}, MuonAdamW",
        "peak_bytes": outcome.peak_bytes,
        "wall_seconds": outcome.seconds,
    }


def _recheck(run: Path, facts: dict[str, Any], output: Path) -> float | None:
    command = module_command(
        sys.executable,
        "benchmarks.own.recheck",
        *("--checkpoint", str(run / "checkpoints" / "last.ckpt")),
        *("--validation-tokens", str(output / "validation.npy")),
        *("--validation-bytes", str(facts["validation_bytes"])),
    )
    outcome = _run("recheck", command, 120, output)
    if outcome.result is None:
        print(f"insight: not rechecked, {outcome.problem()}", flush=True)
        return None
    value: float = outcome.result["bits_per_byte"]
    print(f"insight: the peers' evaluator says {value:.4f}", flush=True)
    return value


def _task(records: Records, output: Path, arguments: argparse.Namespace, num_threads: int) -> Task:
    insight = records.select(contender=INSIGHT, budget=None)
    if not insight:
        raise SystemExit("the peers take tokenizer and network from Insight's run: measure insight first")
    run = Path(insight[0]["run"])
    facts = write_quality_text(run, output)
    network = json.loads((run / "run.json").read_text(encoding="utf-8"))["network"]
    shape = shape_of(network, facts["vocabulary_size"], facts["sequence_length"])
    return Task(output, find_python(arguments.peers_python), shape, facts, arguments.budget, num_threads)


def _forget_other_tasks(peer: str, task: Task, records: Records, pilots: Records) -> None:
    """Remove measurements of another network, text or budget, made before Insight's run was repeated."""
    for kept in (records, pilots):
        for other in {record.get("task") for record in kept.select(contender=peer)} - {task.identity()}:
            kept.forget(contender=peer, task=other)


def _measure_peer(
    peer: str, task: Task, records: Records, pilots: Records, rates: list[float], deadline: Deadline
) -> None:
    """Try three rates on a cosine, more if the best is at the edge, then warm-up–stable–decay."""
    if deadline.is_over():
        return
    setting = _best_setting(peer, task, pilots)
    for rate in rates:
        _run_peer(peer, rate, None, setting, task, records, deadline)
    for _ in range(_MOST_RATES_BEYOND):
        beyond = rate_beyond(records, peer)
        if beyond is None:
            break
        _run_peer(peer, beyond, None, setting, task, records, deadline)
    best = best_of(records, peer)
    if best is not None:
        _run_peer(peer, best["learning_rate"], "wsd", setting, task, records, deadline)


def _best_setting(peer: str, task: Task, pilots: Records) -> tuple[str, str]:
    """Precision and mode in which the peer trains most tokens in the budget, including compiling."""
    for precision, mode in CANDIDATES:
        key = {"contender": peer, "precision": precision, "mode": mode}
        if pilots.has(key):
            continue
        command = module_command(
            task.python,
            PEERS[peer][1],
            *("--tokens", str(task.output / "train.npy"), "--shape", task.shape.to_json()),
            *("--batch-size", str(task.facts["batch_size"]), "--precision", precision, "--mode", mode),
            *("--seconds", str(min(6.0, task.budget / 10))),
        )
        outcome = _run(
            f"pilot-{peer}-{precision}-{mode}",
            command,
            max(150.0, task.budget),
            task.output,
            task.num_threads,
        )
        tokens = 0.0
        if outcome.result is not None:
            left = max(0.0, task.budget - _IMPORT_SECONDS - outcome.result["first_step_seconds"])
            tokens = left * outcome.result["tokens_per_second"]
        pilots.add({**key, "tokens": tokens, "task": task.identity()})
        print(f"{peer}, {precision} {mode}: {tokens:,.0f} tokens in {task.budget:g} s", flush=True)
    best = max(pilots.select(contender=peer), key=lambda pilot: float(pilot["tokens"]))
    return best["precision"], best["mode"]


def _run_peer(
    peer: str,
    rate: float,
    schedule: str | None,
    setting: tuple[str, str],
    task: Task,
    records: Records,
    deadline: Deadline,
) -> None:
    key = {"contender": peer, "learning_rate": rate, "schedule": schedule, "budget": None}
    if records.has(key) or deadline.is_over():
        return
    precision, mode = setting
    schedule_name = schedule or "cosine"
    command = module_command(
        task.python,
        PEERS[peer][0],
        *("--shape", task.shape.to_json(), "--batch-size", str(task.facts["batch_size"])),
        *("--train-tokens", str(task.output / "train.npy")),
        *("--validation-tokens", str(task.output / "validation.npy")),
        *("--validation-bytes", str(task.facts["validation_bytes"])),
        *("--budget", str(task.budget), "--learning-rate", str(rate), "--schedule", schedule_name),
        *("--precision", precision, "--mode", mode),
    )
    outcome = _run(
        f"{peer}-{rate}-{schedule_name}", command, 3 * task.budget + 240, task.output, task.num_threads
    )
    label = f"{precision} {mode}, AdamW {rate:g}, {schedule_name}"
    if outcome.result is None:
        print(f"{peer}, {label}: {outcome.problem()}", flush=True)
        return
    about = {"setting": label, "task": task.identity(), "commit": commit()}
    records.add({**key, **about, **outcome.result})
    print(f"{peer}, {label}: {outcome.result['bits_per_byte']:.4f} bits per byte", flush=True)


def _draw(records: Path, picture: Path, arguments: argparse.Namespace) -> None:
    try:
        python = find_python(arguments.peers_python)
    except SystemExit as error:
        print(f"no picture: {error}")
        return
    command = module_command(
        python,
        "benchmarks.quality_report",
        *("--records", str(records), "--picture", str(picture), "--peers", *PEERS),
    )
    outcome = run_process(command, records.parent / "logs" / "picture.log", 120)
    print(f"picture: {picture}" if outcome.exit_code == 0 else f"no picture: {outcome.problem()}")


def _run(
    name: str, command: list[str], limit: float, output: Path, num_threads: int | None = None
) -> Outcome:
    """Run with an empty cache of compiled kernels, so that every run pays for compiling."""
    kernels = output / "inductor" / f"{name}-{time.time():.0f}"
    environment = {"TORCHINDUCTOR_CACHE_DIR": str(kernels)}
    if num_threads is not None:
        environment["OMP_NUM_THREADS"] = str(num_threads)
    outcome = run_process(command, output / "logs" / f"{name}.log", limit, environment)
    shutil.rmtree(kernels, ignore_errors=True)
    return outcome


if __name__ == "__main__":
    main()
