"""Text to token ids: Insight from a file to a published store, its encoders alone, and three other pipelines.

All use one BPE of 32,000 tokens (GPT-2's rule, uint16), on prose and on code, on one core unless stated.
Every measurement is a separate process; imports and loading the tokenizer are not counted (except in workers,
which load it themselves). Contenders take turns in a rotated order; tables hold medians over the rounds. An
interrupted benchmark continues with the missing measurements; use --fresh to start over after a change of the
code.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.begin import add_results_option, begin, benchmark_parser, is_wanted
from benchmarks.deadline import Deadline
from benchmarks.machine import commit, machine_line, today
from benchmarks.own.tokenize_text import TEXTS, write_texts
from benchmarks.processes import ROOT, find_python, module_command, run_process
from benchmarks.records import Record, Records
from benchmarks.results_page import section, write_section
from benchmarks.tokenize_tables import tables

OUTPUT = ROOT / "benchmarks" / "output" / "tokenize"
WARM = "warm cache"
_OWN, _ALONE = "benchmarks.own.encode_file", "benchmarks.own.encoder_alone"
_WITHOUT_FAST = ("--without-fast", "--cores", "2")


@dataclass(frozen=True)
class Contender:
    """One way to encode a text.

    Attributes:
        name: Name in the tables.
        module: Module to run.
        form: Form of the text: ``txt`` (all of it), ``part.txt`` (a part for workers without ``fast``), or
            ``jsonl`` or ``folder`` (the slice for slow contenders).
        options: Options of the module.
    """

    name: str
    module: str
    form: str
    options: tuple[str, ...] = ()

    @property
    def is_peer(self) -> bool:
        """Whether it runs in the peers' environment."""
        return self.module.startswith("benchmarks.peers")


CONTENDERS = (
    Contender("Insight with `fast`", _OWN, "txt"),
    Contender("fastokens alone", _ALONE, "txt", ("--library", "fastokens")),
    Contender("Insight with `fast`, 1 worker", _OWN, "txt", ("--cores", "2", "--workers", "1")),
    Contender("Insight with `fast`, 2 workers", _OWN, "txt", ("--cores", "2", "--workers", "2")),
    Contender("Insight without `fast`", _OWN, "jsonl", ("--without-fast",)),
    Contender("Insight without `fast`, 1 worker", _OWN, "part.txt", (*_WITHOUT_FAST, "--workers", "1")),
    Contender("Insight without `fast`, 2 workers", _OWN, "part.txt", (*_WITHOUT_FAST, "--workers", "2")),
    Contender("tokenizers' encode_batch_fast alone", _ALONE, "jsonl", ("--library", "tokenizers")),
    Contender("datasets.map with tokenizers", "benchmarks.peers.datasets_map", "jsonl"),
    Contender("nanoGPT's prepare (tiktoken)", "benchmarks.peers.nanogpt_prepare", "jsonl"),
    Contender("litgpt's TextFiles", "benchmarks.peers.litgpt_textfiles", "folder"),
)


def main() -> None:
    """Run the missing measurements and print the tables."""
    arguments = _arguments()
    output = OUTPUT / "quick" if arguments.quick else OUTPUT
    machine, records = begin(output, ("contender", "text", "round"), arguments.fresh)
    sizes = (arguments.megabytes, arguments.slice_megabytes, arguments.part_megabytes)
    write_texts(output / "text", *(int(size * 1e6) for size in sizes))
    deadline = Deadline(arguments.deadline)
    keys = [key for key in _keys(arguments) if not records.has(key)]
    for index, key in enumerate(keys):
        if deadline.is_over():
            break
        print(f"[{index + 1}/{len(keys)}] {key['contender']}, {key['text']}: ", end="", flush=True)
        _measure(records, key, output, arguments)
    body = tables(records, [contender.name for contender in CONTENDERS], TEXTS, WARM)
    print(f"\n{body}")
    if arguments.write_results:
        command = "python -m benchmarks.tokenize --write-results"
        page = section("Text to token ids", command, commit(), machine_line(machine), today(), body)
        write_section("tokenize", page)


def _arguments() -> argparse.Namespace:
    parser = benchmark_parser(
        __doc__, only="contenders, e.g. insight litgpt warm", quick="one round, little text", minutes=15.0
    )
    parser.add_argument("--peers-python", type=Path, default=Path(".venv-bench/bin/python"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=float, default=768.0, help="of each text")
    parser.add_argument("--slice-megabytes", type=float, default=8.0, help="of it, for the slow contenders")
    parser.add_argument("--part-megabytes", type=float, default=128.0, help="of it, for workers without fast")
    parser.add_argument("--warm-megabytes", type=float, default=512.0, help="of text, a token a byte")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds that one process may take")
    add_results_option(parser)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.megabytes, arguments.slice_megabytes = 1, 12.0, 4.0
        arguments.warm_megabytes, arguments.part_megabytes = 16.0, 8.0
    return arguments


def _keys(arguments: argparse.Namespace) -> Iterator[Record]:
    """All measurements, round by round."""
    for number in range(arguments.rounds):
        turn = number % len(CONTENDERS)
        for text in TEXTS:
            for contender in (*CONTENDERS[turn:], *CONTENDERS[:turn]):
                if is_wanted(contender.name, arguments.only):
                    yield {"contender": contender.name, "text": text, "round": number}
        if is_wanted(WARM, arguments.only):
            yield {"contender": WARM, "text": "prose", "round": number}


def _measure(records: Records, key: Record, output: Path, arguments: argparse.Namespace) -> None:
    name = "-".join(str(value) for value in key.values())
    name = "".join(letter if letter.isalnum() else "_" for letter in name)
    scratch = output / "scratch" / name
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    command = (
        _warm_command(output, arguments)
        if key["contender"] == WARM
        else _command(key, output / "text", scratch, arguments)
    )
    outcome = run_process(command, output / "logs" / f"{name}.log", arguments.limit)
    shutil.rmtree(scratch, ignore_errors=True)
    if outcome.result is None:
        print(outcome.problem(), flush=True)
        return
    result = outcome.result
    records.add({**key, **result, "process_peak_bytes": outcome.peak_bytes, "commit": commit()})
    if key["contender"] == WARM:
        print(f"{1000 * result['seconds']:.0f} ms, {result['store_bytes'] / 1e9:.2f} GB", flush=True)
    else:
        print(f"{result['bytes'] / 1e6 / result['seconds']:.1f} MB/s", flush=True)


def _command(key: Record, texts: Path, scratch: Path, arguments: argparse.Namespace) -> list[str]:
    contender = next(each for each in CONTENDERS if each.name == key["contender"])
    text = texts / (key["text"] if contender.form == "folder" else f"{key['text']}.{contender.form}")
    options = ["--text", str(text), "--tokenizer", str(texts / "tokenizer"), *contender.options]
    if contender.is_peer:
        return module_command(
            find_python(arguments.peers_python), contender.module, *options, "--output", str(scratch)
        )
    if contender.module == _OWN:
        options += ["--cache", str(scratch)]
    return module_command(sys.executable, contender.module, *options)


def _warm_command(output: Path, arguments: argparse.Namespace) -> list[str]:
    """The command that opens a store, which is made first: a token per byte, twice the size of its text."""
    folder = output / "warm"
    text = folder / "text.txt"
    command = module_command(
        sys.executable, _OWN, "--text", str(text), "--cache", str(folder / "cache"), "--keep"
    )
    if not text.exists():
        folder.mkdir(parents=True, exist_ok=True)
        data = (output / "text" / "prose.txt").read_bytes()
        with open(folder / "unfinished", "wb") as file:
            while file.tell() < arguments.warm_megabytes * 1e6:
                file.write(data)
        (folder / "unfinished").rename(text)
        time.sleep(3)  # a file that was just written may change without a new time stamp
        run_process(command, output / "logs" / "warm.log", arguments.limit)
    return command


if __name__ == "__main__":
    main()
