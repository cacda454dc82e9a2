"""Waiting times of a new user: the demo from an empty cache, a second start, and ``insight --help``.

``insight demo`` is timed in full (tokenizer, encoding, training, validation, test, sample, report), once with
all instruction sets and once limited to AVX2. With a warm cache the time from the end of the imports to the
first training step counts. ``insight --help`` is compared with ``python -c "import torch"``, medians of
several runs.
"""

from __future__ import annotations

import argparse
import datetime
import shutil
import statistics
import sys
from pathlib import Path

from benchmarks.machine import commit, describe_machine, machine_line, today
from benchmarks.processes import ROOT, Outcome, module_command, run_process
from benchmarks.results_page import section, table, write_section

OUTPUT = ROOT / "benchmarks" / "output" / "demo"
# torch's kernels, oneDNN and MKL have separate switches.
_AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write-results", action="store_true", help="put the table into RESULTS.md")
    parser.add_argument("--repeats", type=int, default=7, help="of the short measurements")
    arguments = parser.parse_args()
    machine = machine_line(describe_machine())
    print(machine, flush=True)
    cache = OUTPUT / "caches" / datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    demo = _run("demo", module_command(sys.executable, "insight", "demo", *_options(cache)), 900)
    first_steps = [_seconds_to_first_step(cache, number) for number in range(3)]
    shutil.rmtree(cache)
    demo_avx2 = _run(
        "demo-avx2", module_command(sys.executable, "insight", "demo", *_options(cache)), 900, _AVX2
    )
    shutil.rmtree(cache)
    helps = [
        _run("help", module_command(sys.executable, "insight", "--help"), 60)
        for _ in range(arguments.repeats)
    ]
    torches = [_run("torch", [sys.executable, "-c", "import torch"], 60) for _ in range(arguments.repeats)]
    help_seconds, torch_seconds = (
        statistics.median(outcome.seconds for outcome in outcomes) for outcomes in (helps, torches)
    )
    body = table(
        ("", "measured"),
        [
            ["`insight demo`, empty cache, wall seconds", f"{demo.seconds:.0f}"],
            ["the same without AVX-512", f"{demo_avx2.seconds:.0f}"],
            ["peak memory of the first, GiB", f"{demo.peak_bytes / 2**30:.2f}"],
            [
                "second start: seconds from the end of the imports to the end of the first step",
                f"{statistics.median(first_steps):.2f}",
            ],
            ["`insight --help`, seconds", f"{help_seconds:.2f}"],
            ["`python -c 'import torch'`, seconds", f"{torch_seconds:.2f}"],
        ],
    )
    print(body)
    if arguments.write_results:
        command = "python -m benchmarks.demo --write-results"
        write_section("demo", section("The demo", command, commit(), machine, today(), body))


def _options(cache: Path) -> list[str]:
    return [f"--run.root={OUTPUT / 'runs'}", f"--data.cache_dir={cache}"]


def _seconds_to_first_step(cache: Path, number: int) -> float:
    """Time a run of one step with a warm cache, without the imports, which are timed in the process."""
    script = (
        "import time, sys\n"
        "import insight.api.configuration, insight.api.fit, insight.api.check.examine\n"
        "imported = time.perf_counter()\n"
        "from lightning.pytorch import Callback\n"
        "class First(Callback):\n"
        "    def on_train_batch_end(self, trainer, *_):\n"
        "        print('FIRST-STEP', time.perf_counter() - imported, flush=True)\n"
        "import insight.callbacks\n"
        "original = insight.api.fit._default_callbacks\n"
        "insight.api.fit._default_callbacks = lambda cli: [*original(cli), First()]\n"
        "from insight.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    options = [*_options(cache), "--run.time_budget=null", "--trainer.max_steps=1", "--run.test=false"]
    command = [sys.executable, "-c", script, "fit", "--config", "quickstart", *options]
    outcome = _run(f"warm-{number}", [*command, "--trainer.limit_val_batches=1"], 120)
    for line in outcome.log.read_text(encoding="utf-8").splitlines():
        if line.startswith("FIRST-STEP"):
            return float(line.split()[1])
    raise SystemExit(f"second start: {outcome.problem()}")


def _run(name: str, command: list[str], limit: float, environment: dict[str, str] | None = None) -> Outcome:
    outcome = run_process(command, OUTPUT / "logs" / f"{name}.log", limit, environment)
    if outcome.exit_code != 0:
        raise SystemExit(f"{name}: {outcome.problem()}")
    return outcome


if __name__ == "__main__":
    main()
