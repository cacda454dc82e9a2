"""The sentences, batches and clock of every program that is measured translating. Needs only numpy."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.peers.measured import peak_resident_bytes

_Sentence = TypeVar("_Sentence")
Translate = Callable[[list[list[int]]], list[list[int]]]


def measure(
    translate: Callable[[list[_Sentence]], list[list[int]]], batches: Sequence[list[_Sentence]]
) -> dict[str, Any]:
    """Translate every batch, the first one twice, of which the first time is not counted."""
    translate(batches[0])
    began, processor = time.perf_counter(), time.process_time()
    found = [ids for batch in batches for ids in translate(batch)]
    return {
        "seconds": time.perf_counter() - began,
        "processor_seconds": time.process_time() - processor,
        "num_sentences": len(found),
        "translations": found,
        "peak_bytes": peak_resident_bytes(),
    }


def chosen_batches(file: Path, count: int, batch_size: int) -> list[list[int]]:
    """The numbers of ``count`` test sentences, spread over the whole test, in batches of like length."""
    ends = np.load(file)["test_source_ends"]
    lengths = np.diff(ends, prepend=0)
    chosen = np.unique(np.linspace(0, len(ends) - 1, min(count, len(ends))).astype(int)).tolist()
    chosen.sort(key=lambda index: -lengths[index])
    return [chosen[first : first + batch_size] for first in range(0, len(chosen), batch_size)]


def sources(file: Path) -> list[list[int]]:
    """The ids of every test source, with their end."""
    arrays = np.load(file)
    return [ids.tolist() for ids in np.split(arrays["test_source"], arrays["test_source_ends"][:-1])]


def add_translating(parser: argparse.ArgumentParser) -> None:
    """Add the options that all contenders share."""
    parser.add_argument("--model", type=Path, required=True, help="the weights")
    parser.add_argument("--pairs", type=Path, required=True, help="ids written by numpy.savez")
    parser.add_argument("--sentences", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--beam", type=int, required=True)
    parser.add_argument("--longest", type=int, required=True, help="most tokens of a translation")
    parser.add_argument("--threads", type=int, required=True)
