"""Sentences a second: Insight, transformers' ``generate`` and CTranslate2 with the same weights.

``insight fit`` trains a network of the sizes of configs/translation.yaml in MarianMT's architecture, and all
get its weights. Every measurement is a process of its own that translates the same sentences of the held-out
gospel in the same batches; imports, loading and the first batch are not counted. Insight begins with the text
of the sentences, the others with their ids. The contenders take turns, in an order that is rotated from round
to round; the table holds medians over the rounds, and the share of sentences for which a program finds the
ids that Insight finds with the same rules. ``benchmarks.translation_training`` measures the training.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.begin import add_results_option, begin, benchmark_parser, in_turns, is_wanted
from benchmarks.deadline import Deadline
from benchmarks.machine import commit, machine_line, today
from benchmarks.own.translation_pairs import BenchmarkPairs
from benchmarks.processes import ROOT, find_python, module_command, run_process
from benchmarks.records import Record, Records
from benchmarks.results_page import section, table, write_section

CONFIG = ROOT / "configs" / "translation.yaml"
NETWORK = ROOT / "benchmarks" / "marian.yaml"
OUTPUT = ROOT / "benchmarks" / "output" / "translating"
CACHE = OUTPUT / "cache"
SETTINGS = ((1, 1), (1, 32), (5, 1), (5, 32))
"""Beam and batch."""
_LONGEST = 200
_LIMIT = 900.0


@dataclass(frozen=True)
class Contender:
    """A program, and the search of Insight that should find what it finds.

    Args:
        name: The name in the table.
        option: Its name for the measured process; of Insight the rules.
        like: The contender of Insight with the same rules.
        is_ours: Whether it is Insight.
    """

    name: str
    option: str
    like: str
    is_ours: bool = False


_AS_TRANSFORMERS, _AS_CTRANSLATE2 = "Insight, transformers' rules", "Insight, CTranslate2's rules"
TRANSFORMERS, FLOAT32 = "transformers", "CTranslate2 float32"
CONTENDERS = (
    Contender(_AS_TRANSFORMERS, "transformers", _AS_TRANSFORMERS, is_ours=True),
    Contender(TRANSFORMERS, "transformers", _AS_TRANSFORMERS),
    Contender(_AS_CTRANSLATE2, "ctranslate2", _AS_CTRANSLATE2, is_ours=True),
    Contender(FLOAT32, "float32", _AS_CTRANSLATE2),
    Contender("CTranslate2 int8", "int8", _AS_CTRANSLATE2),
    Contender("Insight, exact stop", "exact", _AS_TRANSFORMERS, is_ours=True),
)


def main() -> None:
    """Run the missing measurements and print the table."""
    arguments = _arguments()
    output = OUTPUT / "quick" if arguments.quick else OUTPUT
    machine, records = begin(output, ("contender", "beam", "batch", "round"), arguments.fresh)
    threads, deadline = machine["num_threads"], Deadline(arguments.deadline)
    run = _train(output, arguments, threads)
    chosen = [one for one in CONTENDERS if is_wanted(one.name, arguments.only)]
    for beam, batch in SETTINGS:
        for number, contender in in_turns(chosen, arguments.rounds):
            key = {"contender": contender.name, "beam": beam, "batch": batch, "round": number}
            if not records.has(key) and not deadline.is_over():
                record = _measure(contender, beam, batch, run, output, arguments, threads)
                if record:
                    records.add({**key, **record})
    body = _report(records)
    print(f"\n{body}")
    if arguments.write_results:
        command = "python -m benchmarks.translation --write-results"
        page = section(
            "Translating with the same weights", command, commit(), machine_line(machine), today(), body
        )
        write_section("translation", page)


def _train(output: Path, arguments: argparse.Namespace, threads: int) -> Path:
    """Train the network and write its weights for the others, unless they are there; returns the run."""
    run, model = output / "runs" / "marian" / "1", output / "marian.pt"
    if model.exists() and not arguments.fresh:
        return run
    shutil.rmtree(run.parent, ignore_errors=True)
    budget = 60 if arguments.quick else arguments.budget
    options = {
        "config": CONFIG,
        "run.root": output / "runs",
        "run.name": "marian",
        "run.time_budget": budget,
        "run.test": "false",
        "data.cache_dir": CACHE,
    }
    given = [f"--{name}={value}" for name, value in options.items()]
    given.insert(1, f"--config={NETWORK}")
    fit = module_command(sys.executable, "insight", "fit", *given)
    outcome = run_process(fit, output / "logs" / "training.log", 3 * budget + 900, _of(threads))
    if outcome.exit_code != 0:
        raise SystemExit(f"training: {outcome.problem()}")
    options = {"checkpoint": run, "output": model}
    write = module_command(
        sys.executable,
        "benchmarks.own.marian_weights",
        *(f"--{name}={value}" for name, value in options.items()),
    )
    outcome = run_process(write, output / "logs" / "weights.log", _LIMIT)
    if outcome.result is None:
        raise SystemExit(f"weights: {outcome.problem()}")
    BenchmarkPairs(CONFIG, CACHE).write(output / "pairs.npz")
    return run


def _measure(
    contender: Contender,
    beam: int,
    batch: int,
    run: Path,
    output: Path,
    arguments: argparse.Namespace,
    threads: int,
) -> Record | None:
    count = arguments.sentences if batch > 1 else max(1, arguments.sentences // 4)
    shared = {
        "model": run if contender.is_ours else output / "marian.pt",
        "pairs": output / "pairs.npz",
        "sentences": min(count, 2 * batch) if arguments.quick else count,
        "batch": batch,
        "beam": beam,
        "longest": 40 if arguments.quick else _LONGEST,
        "threads": threads,
    }
    if contender.is_ours:
        options = {**shared, "rule": contender.option, "config": CONFIG, "cache": CACHE}
        python, module = Path(sys.executable), "benchmarks.own.translate_speed"
    else:
        options = {**shared, "contender": contender.option}
        python, module = find_python(arguments.peers_python), "benchmarks.peers.translate_speed"
    command = module_command(python, module, *(f"--{name}={value}" for name, value in options.items()))
    log = output / "logs" / f"{contender.option}-{'own' if contender.is_ours else 'peer'}-{beam}-{batch}.log"
    outcome = run_process(command, log, _LIMIT, _of(threads))
    if outcome.result is None:
        print(f"{contender.name}: {outcome.problem()}", flush=True)
        return None
    rate = outcome.result["num_sentences"] / outcome.result["seconds"]
    print(f"{contender.name}, beam {beam}, batch {batch}: {rate:.1f} sentences/s", flush=True)
    return {**outcome.result, "commit": commit()}


def _of(threads: int) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(threads)}


def _report(records: Records) -> str:
    names = [f"{'greedy' if beam == 1 else f'beam {beam}'}, batch {batch}" for beam, batch in SETTINGS]
    rates = {one.name: [_rate(records, one, *setting) for setting in SETTINGS] for one in CONTENDERS}
    rows = []
    for one in CONTENDERS:
        equal = [_share_equal(records, one, *setting) for setting in SETTINGS]
        known = [share for share in equal if share is not None]
        same = f"{min(known):.1%}" if known and one.name != one.like else ""
        rows.append([one.name, *(_shown(rate) for rate in rates[one.name]), same])
    of = [
        [
            f"{ours} / {peer}",
            *(_shown(_ratio(*pair), "x") for pair in zip(rates[ours], rates[peer], strict=True)),
            "",
        ]
        for ours, peer in ((_AS_TRANSFORMERS, TRANSFORMERS), (_AS_CTRANSLATE2, FLOAT32))
    ]
    header = ("sentences/s", *names, "same texts as Insight, at least")
    return table(header, rows + of)


def _rate(records: Records, contender: Contender, beam: int, batch: int) -> float | None:
    found = records.select(contender=contender.name, beam=beam, batch=batch)
    return statistics.median(one["num_sentences"] / one["seconds"] for one in found) if found else None


def _share_equal(records: Records, contender: Contender, beam: int, batch: int) -> float | None:
    theirs = records.select(contender=contender.name, beam=beam, batch=batch)
    ours = records.select(contender=contender.like, beam=beam, batch=batch)
    if not (theirs and ours):
        return None
    pairs = list(zip(theirs[0]["translations"], ours[0]["translations"], strict=True))
    return sum(one == other for one, other in pairs) / len(pairs)


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours and theirs else None


def _shown(value: float | None, unit: str = "") -> str:
    if value is None:
        return "–"
    return f"{value:.2f} {unit}" if unit else f"{value:.1f}"


def _arguments() -> argparse.Namespace:
    parser = benchmark_parser(__doc__, only="parts of the contenders' names", quick="seconds", minutes=45.0)
    add_results_option(parser)
    parser.add_argument("--peers-python", type=Path, default=Path(".venv-bench/bin/python"))
    parser.add_argument("--budget", type=float, default=240.0, help="seconds of training")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sentences", type=int, default=256, help="of batches; a quarter of them one by one")
    return parser.parse_args()


if __name__ == "__main__":
    main()
